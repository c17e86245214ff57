"""The lab: the same seed gives the same run, queueing theory is met, and faults do what they do on the wire."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from balancer.balancing.load_report import FIELD, parse
from balancer.balancing.policy import Policy
from balancer.cli import main
from balancer.lab import plot
from balancer.lab.experiment import Newcomer, Setting, run
from balancer.lab.fleet import Script, named
from balancer.lab.load import Load
from balancer.lab.news import News
from balancer.lab.record import Summary
from balancer.lab.replica import Rules
from balancer.lab.study import Study, study
from balancer.lab.traffic import Kind, Traffic
from balancer.settings import Settings

ONE = (Script(workers=1),)


def test_one_worker_meets_queueing_theory() -> None:
    """M/M/1 at load 0.5: a request takes 1 / (1 - load) times its work on average."""
    setting = Setting(ONE, Traffic(mean=0.01), load=0.5, requests=20_000)
    mean = sum(run(setting, "round-robin", seed).mean for seed in (1, 2)) / 2
    assert mean == pytest.approx(0.02, rel=0.08)


def test_the_same_seed_gives_the_same_run() -> None:
    setting = Setting(tuple(named("noisy", 3, 2)), requests=1000)
    assert run(setting, "random-of-two", 7) == run(setting, "random-of-two", 7)
    assert run(setting, "random-of-two", 7) != run(setting, "random-of-two", 8)


def test_no_request_is_lost_whatever_is_wrong() -> None:
    fleet = (
        Script(workers=1, fails=0.3),
        Script(workers=1, hangs=True),
        Script(workers=2, queue=1),
        Script(workers=1, joins_after=0.5),
        Script(workers=2, slower=3.0, pause_every=0.5, pause=0.1),
    )
    rules = Rules(Policy(slow_start=1.0), response_timeout=0.5)
    for arrivals in ("poisson", "bursts", "closed"):
        setting = Setting(fleet, Traffic(arrivals=arrivals, users=12), load=0.8, requests=600, rules=rules)
        for strategy in ("round-robin", "least-connections", "least-response-time", "n-to-one"):
            assert run(setting, strategy, 3).requests == 600


def test_a_hung_endpoint_is_ejected_and_its_requests_are_tried_elsewhere() -> None:
    setting = Setting(tuple(named("one-hung", 4, 4)), requests=5000, rules=Rules(response_timeout=1.0))
    found = run(setting, "least-response-time", 1)
    assert found.failures == 0
    assert found.shares[3] == 0.0
    assert found.p99 < 0.2


def test_kinds_may_be_long_polls_streams_and_uploads() -> None:
    kinds = (
        Kind("/poll", 0.1, 0.0001, idle=0.5),
        Kind("/events", 0.1, 0.001, stream=2.0),
        Kind("/upload", 0.1, 0.001, "fixed", "POST", upload=1.0),
        Kind("/items", 0.7, 0.005),
    )
    setting = Setting(tuple(named("equal", 4, 2)), Traffic("kinds", kinds=kinds), load=0.5, requests=1000)
    found = run(setting, "least-connections", 1)
    assert found.requests == 1000
    assert 0.5 < found.p99 < 1.2


def test_endpoints_report_their_load_in_the_words_that_balancing_reads() -> None:
    fleet = (Script(workers=2, reports=True), Script(workers=2, slower=4.0, reports=True))
    traffic = Traffic(mean=0.2)

    def share(reports: bool) -> float:
        policy = Policy(endpoint_load=reports, endpoint_load_blackout=1.0)
        setting = Setting(fleet, traffic, load=0.6, requests=1500, rules=Rules(policy, response_timeout=600.0))
        return run(setting, "round-robin", 1).shares[1]

    assert share(False) == pytest.approx(0.5, abs=0.01)
    assert share(True) < 0.3, "the slow one gets about a fifth, once it has reported"


def test_what_an_endpoint_reports_is_its_rate_and_how_busy_it_is() -> None:
    load = Load(workers=2)
    for number in range(1000):  # One worker of two is always busy, and every tenth request fails.
        load.began(number * 0.1)
        load.ended(number * 0.1 + 0.1, failed=number % 10 == 0)
    report = parse(FIELD, load.report(100.0))
    assert report is not None
    assert report.utilization == pytest.approx(0.5, abs=0.01)
    assert report.rate == pytest.approx(10.0, rel=0.05)
    assert report.errors == pytest.approx(1.0, abs=0.5)


def test_recorded_traffic_has_no_load_reports(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "--load-reports", "some.log"]) == 2
    assert "an access log holds no load reports" in capsys.readouterr().err


def test_blind_replicas_are_worse_than_replicas_that_see_each_other() -> None:
    def p99(replicas: int, news: News) -> float:
        setting = Setting(tuple(named("equal", 8, 1)), load=0.7, requests=4000, replicas=replicas, news=news)
        return run(setting, "least-connections", 1).p99

    blind = p99(4, News())
    assert p99(1, News()) < 0.9 * blind
    assert p99(4, News(every=0.001)) < 0.95 * blind


@pytest.mark.parametrize("arrivals", ["poisson", "closed"])
def test_a_replica_that_starts_late_is_all_that_is_measured(arrivals: str) -> None:
    setting = Setting(tuple(named("equal", 4, 1)), Traffic(arrivals=arrivals, users=8), requests=600, replicas=3)
    assert run(replace(setting, newcomer=Newcomer(measured=50)), "least-work", 1).requests == 50
    # Of 300 that come in the second half it gets a third.
    few = run(replace(setting, newcomer=Newcomer(measured=1000)), "least-work", 1)
    assert 60 < few.requests < 140
    assert few.failures == 0
    assert run(replace(setting, requests=1, newcomer=Newcomer()), "least-work", 1).requests <= 1


def test_a_newcomer_that_was_given_what_others_know_leaves_the_slow_endpoint_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--fleet", "one-slow", "--requests", "1200", "--seeds", "1", "--strategy", "least-work", "--json"]
    shares = []
    for given in ([], ["--hand-over"]):
        assert main(["lab", *flags, "--replicas", "2", "--newcomer", "100", *given]) == 0
        found = json.loads(capsys.readouterr().out)["strategies"]["least-work"]
        assert found["requests"] == 100
        shares.append(found["shares"][-1])
    assert shares[0] > 0.03
    assert shares[1] == 0.0


def test_a_study_says_what_to_use_and_how_sure_that_is() -> None:
    setting = Setting(tuple(named("one-slow", 4, 4)), requests=2000)
    found = study(setting, ["round-robin", "least-response-time"], [1, 2, 3])
    told = found.recommendation()
    assert told.startswith("Use least-response-time: its p99 is 0.")
    assert "3 seeds" in told
    assert "<svg" in plot.svg(found.summaries(), "a <title>")


def test_strategies_that_are_alike_are_told_to_be() -> None:
    setting = Setting(ONE, requests=500)
    told = study(setting, ["least-response-time", "round-robin"], [1, 2]).recommendation()
    assert told.startswith("Use round-robin")
    assert "no difference from least-response-time" in told


def test_a_long_name_has_its_place_in_the_picture() -> None:
    run_of = Summary(1000, 0.1, 0.1, 0.1, 0.1, 1.0, 0, (1.0,))
    name = "our_company.balancing.strategies:LeastSurprise"
    picture = plot.svg({name: run_of}, "")
    place = re.search(rf'<text x="(\d+)"[^>]*>{name}<', picture)
    assert place is not None
    assert int(place[1]) > 6 * len(name), "it ends there"


def test_a_large_difference_of_few_runs_is_not_taken_for_none() -> None:
    def run_of(p99: float) -> Summary:
        return Summary(1000, p99, p99, p99, p99, 1.0, 0, (1.0,))

    told = Study(
        {"round-robin": [run_of(0.3), run_of(0.1)], "least-work": [run_of(0.05), run_of(0.08)]}
    ).recommendation()
    assert told.startswith("Use least-work: its p99 is 0.37 times that of round-robin, the next, which may be chance")
    assert "more --seeds would show it" in told


def test_the_reason_for_a_strategy_is_that_it_is_better() -> None:
    def run_of(p99: float) -> Summary:
        return Summary(1000, p99, p99, p99, p99, 1.0, 0, (1.0,))

    p99s = {"random-of-two": [0.100, 0.100], "least-work": [0.103, 0.103], "round-robin": [0.112, 0.100]}
    told = Study({name: [run_of(p99) for p99 in each] for name, each in p99s.items()}).recommendation()
    assert told.startswith("Use round-robin (2 seeds")
    assert "no difference from random-of-two" in told


def test_a_load_beyond_what_endpoints_can_do_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["lab", "--requests", "300", "--seeds", "1", "--load"]
    assert main([*flags, "1.5"]) == 0
    assert "Load 1.5 is more than the endpoints can do" in capsys.readouterr().out
    assert main([*flags, "1.5", "--arrivals", "closed"]) == 0
    assert main([*flags, "1"]) == 0
    assert "more than the endpoints can do" not in capsys.readouterr().out


def test_one_that_lets_short_requests_wait_is_not_called_alike() -> None:
    def run_of(slowdown: float) -> Summary:
        return Summary(1000, 0.1, 0.1, 0.1, 0.1, slowdown, 0, (1.0,))

    runs = {"round-robin": [13.0, 14.0], "least-connections": [1.0, 1.1], "least-work": [1.0, 1.0]}
    told = Study({name: [run_of(slowdown) for slowdown in each] for name, each in runs.items()}).recommendation()
    assert told.startswith("Use least-connections: its p99 is about that of round-robin, but its slowdown 0.08 (")
    assert "no difference from least-work that would matter" in told


def test_the_command_prints_a_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["lab", "--requests", "300", "--seeds", "2", "--endpoint", "2*workers=1", "--endpoint", "slower=4"]
    assert main([*flags, "--strategies", "round-robin,least-connections"]) == 0
    out = capsys.readouterr().out
    assert "p99.9 ms" in out
    assert "Use " in out
    assert main([*flags, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["strategies"]["round-robin"]["requests"] == 600
    assert len(found["strategies"]["round-robin"]["shares"]) == 3


def test_the_share_of_each_endpoint_is_printed_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    described = ["--endpoint", "weight=3", "--endpoint", "2*weight=1", "--endpoint", "weight=5"]
    assert main(["lab", *described, "--strategies", "round-robin", "--requests", "1000", "--seeds", "2"]) == 0
    assert "  30% 10% 10% 50%\n" in capsys.readouterr().out


def test_what_a_strategy_of_ones_own_raises_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clumsy.py").write_text(
        "from balancer.balancing.strategies import ByLoad\n"
        "class Clumsy(ByLoad):\n"
        "    def score(self, endpoint, request, now):\n"
        "        raise RuntimeError('no score')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    assert main(["lab", "--requests", "2000", "--seeds", "1", "--strategies", "clumsy:Clumsy,round-robin"]) == 0
    out = capsys.readouterr().out
    assert "clumsy:Clumsy failed: Clumsy." in out
    assert "RuntimeError: no score" in out
    assert "clumsy.py:4" in out
    assert int(out.split(" times, round-robin")[0].split()[-1].replace(",", "")) > 2000, "of the whole run"
    assert "round-robin failed" not in out


@pytest.mark.parametrize(
    "flags",
    [
        ["--strategies", "no-such"],
        ["--endpoint", "speed=3"],
        ["--endpoint", "slower=much"],
        ["--endpoint", "slower=-1"],
        ["--endpoint", "workers=0"],
        ["--endpoint", "weight=nan"],
        ["--endpoint", "fails=50"],
        ["--endpoint", "hangs"],
        ["--endpoint", "reports=maybe"],
        ["--endpoint", "pause_every=1e-9,pause=0.1"],
        ["--mean", "1e8"],
        ["--load", "1e-300"],
        ["--svg", "."],
        ["--strategy", "no-such"],
        ["--replay", "no-such-file"],
        ["--svg", "no/such/folder.svg"],
        ["--newcomer", "100"],
        ["--replicas", "2", "--hand-over"],
        ["--news-every", "0.02"],
        ["--replicas", "2", "--naive"],
        ["--replicas", "2", "--news-late", "0.1"],
        ["--users", "8"],
        ["--burst", "5", "--arrivals", "closed"],
    ],
)
def test_what_cannot_be_simulated_is_told(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", *flags]) == 2
    assert capsys.readouterr().err.startswith("lab: ")


def test_keys_are_those_of_the_balancer(capsys: pytest.CaptureFixture[str]) -> None:
    def found(strategy: str, *flags: str) -> dict[str, Any]:
        assert main(["lab", "--json", "--requests", "3000", "--seeds", "1", "--strategies", strategy, *flags]) == 0
        figures: dict[str, Any] = json.loads(capsys.readouterr().out)["strategies"][strategy]
        return figures

    alone = ("--costs", "fixed", "--load", "0.02")
    assert max(found("consistent-hash", *alone)["shares"]) < 0.6
    assert max(found("consistent-hash", *alone, "--hash-key", "path")["shares"]) > 0.7, "all have one path"
    heavy = ("--costs", "heavy", "--workers", "1", "--mean", "0.03", "--load", "0.8")
    blind = found("least-work", *heavy, "--cost-key", "path:(/)")
    assert found("least-work", *heavy)["p99"] < 0.9 * blind["p99"], "the path shows what a request costs"


@pytest.mark.parametrize(
    ("key", "told"), [("header:X-Cost", "has no headers"), ("path:((", "not a regular expression")]
)
def test_a_key_that_no_log_can_have_is_refused(key: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["lab", "--cost-key", key])
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--seeds", "--mean", "--replicas", "--news-every", "--eject-after"])
def test_a_flag_that_is_no_number_is_called_so(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["lab", flag, "many"])
    assert f"argument {flag}: 'many' is no " in capsys.readouterr().err


def test_a_picture_that_cannot_be_written_costs_no_figures(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--requests", "300", "--seeds", "1", "--strategy", "round-robin"]
    assert main(["lab", *few, "--svg", "/dev/full"]) == 2
    told = capsys.readouterr()
    assert told.out.startswith("strategy")
    assert told.err.startswith("lab: --svg ")


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_users_go_on_where_endpoints_fail_at_once(share: float) -> None:
    fleet = (Script(fails=share), Script(fails=share))
    rules = Rules(Policy(eject_after=0), retries=0)
    setting = Setting(fleet, Traffic(arrivals="closed", users=8), requests=3000, rules=rules)
    summary = run(setting, "round-robin", 1)
    assert summary.requests == 3000
    assert summary.failures == pytest.approx(3000 * share, rel=0.1)


def test_a_failure_is_sent_again_where_the_balancer_would(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--endpoint", "2*", "--endpoint", "fails=0.3", "--eject-after", "0", "--strategy", "round-robin"]
    failed = []
    for given in ([], ["--retry-statuses", "500,503"], ["--retry-statuses", "none"]):
        assert main(["lab", *flags, "--requests", "1000", "--seeds", "1", "--json", *given]) == 0
        failed.append(json.loads(capsys.readouterr().out)["strategies"]["round-robin"]["failures"])
    assert failed[0] == failed[2] == pytest.approx(100, rel=0.3)
    assert failed[1] == 0
    with pytest.raises(SystemExit):
        main(["lab", "--retry-statuses", "200"])


def test_the_lab_retries_and_queues_by_the_balancers_own_defaults() -> None:
    rules, settings = Rules(), Settings.model_validate({"backends": "10.0.0.1:80"})
    assert rules.retries == settings.retries
    assert rules.retry_budget == settings.retry_budget
    assert rules.retry_statuses == settings.retry_statuses
    assert rules.queue_timeout == settings.queue_timeout
