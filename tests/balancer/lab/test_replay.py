"""Recorded traffic: what a log says of costs, workers and speeds is found again, and a bad or short log is reported."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from balancer.cli import main
from balancer.lab import replay
from balancer.lab.experiment import Setting
from balancer.lab.record import Summary
from balancer.lab.replay import Recording
from balancer.lab.study import study


def log(requests: int, workers: int, paces: Iterable[float] = (1.0, 1.0), seed: int = 1) -> list[str]:
    """Access log lines of endpoints that take requests by turns, first come, first served."""
    random = Random(seed)
    free = [[0.0] * workers for _ in paces]
    now = 0.0
    lines = []
    for number in range(requests):
        now += random.expovariate(100.0 * workers)
        which = number % len(free)
        cost = random.expovariate(1 / 0.01) * list(paces)[which]
        line = free[which]
        line.sort()
        line[0] = max(now, line[0]) + cost
        took = line[0] - now
        lines.append(_line(now, took, f"10.0.0.{which}:80"))
    return lines


def _line(began: float, took: float, endpoint: str | None, status: int = 200) -> str:
    ended = datetime.fromtimestamp(1_700_000_000 + began + took, UTC).isoformat(timespec="milliseconds")
    entry = {
        "time": ended.replace("+00:00", "Z"),
        "request_id": "1",
        "client": "192.0.2.1",
        "method": "GET",
        "path": "/",
        "status": status,
        "first_byte": round(took, 6) if endpoint else None,
        "total": round(took, 6),
        "endpoint": endpoint,
        "reason": None,
        "strategy": "round-robin",
        "cluster": "default",
    }
    return json.dumps(entry)


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_and_costs_are_found_again(workers: int) -> None:
    found = replay.read(log(4000, workers))
    assert {script.workers for script in found.fleet} == {workers}
    assert sum(ask.cost for ask in found.asks) / 4000 == pytest.approx(0.01, rel=0.2)
    assert found.rate == pytest.approx(100.0 * workers, rel=0.1)


def test_requests_that_an_endpoint_read_in_another_order_than_they_were_sent_show_no_worker_more() -> None:
    lines = []
    for number in range(1000):
        # Two at once on two connections, of which one pair in fifty is read the other way round.
        one, two = (0.02, 0.01) if number % 50 == 49 else (0.01, 0.02)
        lines += [_line(number * 0.03, one, "10.0.0.1:80"), _line(number * 0.03 + 0.0005, two, "10.0.0.1:80")]
    assert replay.read(lines).fleet[0].workers == 1


def test_a_slow_endpoint_is_found() -> None:
    found = replay.read(log(4000, 4, (1.0, 1.0, 1.0, 3.0)))
    paces = [script.slower for script in found.fleet]
    assert paces[3] / paces[0] == pytest.approx(3.0, rel=0.3)


def test_bad_lines_and_requests_without_an_answer_are_counted() -> None:
    lines = log(1500, 1)
    other = ["no json", '{"event": "endpoint ejected"}', "{", '["x"]', _line(1.0, 0.1, None, 503), ""]
    found = replay.read([*(f"pod/lb-1 {line}" for line in lines), *other])
    assert (found.good, found.bad, found.other, found.unanswered) == (1500, 1, 3, 1)
    assert "3 lines of other logs, 1 bad line\n" in found.summary()


def test_a_short_log_is_told_so() -> None:
    with pytest.raises(ValueError, match="usable requests"):
        replay.read(log(50, 1))
    found: Recording = replay.read(log(300, 1))
    assert found.warnings


def test_the_command_replays_several_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = log(1200, 2)
    (tmp_path / "a.log").write_text("\n".join(lines[:600]))
    (tmp_path / "b.log").write_text("\n".join(lines[600:]))
    names = [str(tmp_path / "a.log"), str(tmp_path / "b.log")]
    flags = ["lab", "--seeds", "2", "--strategies", "round-robin,least-connections"]
    assert main([*flags, "--replay", *names]) == 0
    out = capsys.readouterr().out
    assert "1,200 requests" in out
    assert "Use " in out


def test_what_a_log_says_is_compared_with_what_the_lab_makes_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.log").write_text("\n".join(log(3000, 4)))
    flags = ["lab", "--seeds", "1", "--strategies", "round-robin", "--replay", str(tmp_path / "a.log")]
    assert main(flags) == 0
    told = capsys.readouterr().out
    assert "times the recorded one" in told
    assert "rely on the order" not in told


@pytest.mark.parametrize(
    "flag",
    [("--load", "0.9"), ("--fleet", "one-slow"), ("--endpoint", "slower=2"), ("--costs", "fixed"), ("--workers", "1")],
)
def test_what_a_recording_brings_is_not_described_too(
    flag: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.log").write_text("\n".join(log(300, 1)))
    assert main(["lab", str(tmp_path / "a.log"), *flag]) == 2
    assert capsys.readouterr().err.startswith(f"lab: {flag[0]} describes what a recording brings itself")


@pytest.mark.parametrize(("p99", "waits"), [(0.05, True), (0.005, False)])
def test_why_a_replay_is_slower_than_its_recording_is_told(p99: float, waits: bool) -> None:
    told = Recording(strategy="round-robin", p99=0.01).compared(Summary(1000, p99, p99, p99, p99, 1.0, 0, (1.0,)))
    assert "rely on the order" in told
    assert ("clients that wait for their answers send less" in told) == waits


def test_seeds_play_a_recording_as_it_might_have_come_as_well() -> None:
    found = replay.read(log(2000, 1))
    setting = Setting(found.fleet, replayed=found.asks)
    first, number = setting.asks(1)
    assert tuple(first) == found.asks
    assert number == 2000
    ratio = study(setting, ["round-robin", "least-connections"], [1, 2, 3]).ratio("least-connections", "round-robin")
    assert ratio.low < ratio.middle < ratio.high


def test_no_request_is_less_work_than_the_quickest_of_its_kind() -> None:
    """Endpoints that share a machine answer in an order that no queue explains: still each request was work."""
    lines = [_line(number // 2, 0.02, "10.0.0.1:80") for number in range(600)]
    assert min(ask.cost for ask in replay.read(lines).asks) == pytest.approx(0.02, rel=0.01)


def test_only_one_service_of_several_is_replayed() -> None:
    def of(cluster: str, requests: int) -> list[str]:
        return [json.dumps({**json.loads(line), "cluster": cluster}) for line in log(requests, 1)]

    lines = of("shop", 300) + of("pi", 1200)
    assert replay.read(lines).good == 1200
    assert "--cluster chooses another: shop" in replay.read(lines).summary()
    assert replay.read(lines, "shop").good == 300
    with pytest.raises(ValueError, match="no cluster 'shops': it has pi, shop"):
        replay.read(lines, "shops")


FLAGS = ("lab", "--seeds", "1", "--strategies", "round-robin")


def test_logs_may_be_named_plainly_and_gzipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(log(600, 2)).encode()
    (tmp_path / "a.log").write_bytes(text)
    (tmp_path / "b.log.1").write_bytes(gzip.compress(text))
    assert main([*FLAGS, str(tmp_path / "a.log"), str(tmp_path / "b.log.1")]) == 0
    assert "1,200 requests" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "is a directory: name its files"),
        (lambda path: None, "no such file"),
        (lambda path: path.write_text(""), "the log is empty"),
        (lambda path: path.write_bytes(gzip.compress(os.urandom(4000))[:2000]), "ended before the end-of-stream"),
        (lambda path: path.write_text('127.0.0.1 - "GET / HTTP/1.1" 200\n' * 300), "no line is of lb's access log"),
        (lambda path: path.write_text("\n".join([_line(1, 0.1, None, 503)] * 300)), "no request that an endpoint"),
        (lambda path: path.write_text("\n".join(log(1, 1))), "1 usable requests"),
        (lambda path: path.write_text('{"a":' * 50_000), "no line is of lb's access log"),
    ],
)
def test_a_log_that_says_nothing_is_told_with_the_reason(
    make: Callable[[Path], object], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "a.log")
    assert main([*FLAGS, str(tmp_path / "a.log")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lab: ")
    assert words in error


def test_of_a_long_log_the_newest_requests_are_replayed() -> None:
    lines = log(3000, 2)
    found = replay.read(iter(lines[1500:] + lines[:1500]), most=1000)
    assert found.good == 1000
    assert found.asks[-1].at - found.asks[0].at == pytest.approx(1000 / 200, rel=0.2), "neighbours in time"
    assert "Replayed are the newest 1,000 of 3,000 requests; --requests takes more." in found.summary()


def test_a_grpc_call_that_failed_is_a_failure_and_what_the_client_is_charged_for_none() -> None:
    def failures(**fields: object) -> float:
        return replay.read([json.dumps({**json.loads(line), **fields}) for line in log(300, 1)]).fleet[0].fails

    assert failures(grpc_status="UNAVAILABLE") == 1.0
    assert failures(grpc_status="NOT_FOUND") == 0.0
    assert failures(status=502) == 1.0
    assert failures(status=501) == 0.0


def test_a_response_that_lasts_holds_its_endpoint_but_no_worker_of_it() -> None:
    lines = []
    for number in range(400):
        entry = json.loads(_line(number / 100, 2.01, "10.0.0.1:80"))
        lines.append(json.dumps({**entry, "first_byte": 0.01, "attempts": 1}))
    found = replay.read(lines)
    assert found.asks[0].stream == pytest.approx(2.0)
    assert found.asks[0].cost == pytest.approx(0.01, rel=0.01)
    assert found.p99 == pytest.approx(0.01, rel=0.01)
    assert found.fleet[0].workers == 1


def test_a_reader_that_leaves_ends_the_lab_without_a_word() -> None:
    command = [sys.executable, "-m", "balancer", *FLAGS, "--requests", "300"]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_bar_is_for_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stderr, flags, shown in (
        (io.StringIO(), [], False),
        (Terminal(), ["--json"], False),
        (Terminal(), [], True),
    ):
        monkeypatch.setattr("sys.stderr", stderr)
        assert main([*FLAGS, "--requests", "2000", *flags]) == 0
        assert ("█" in stderr.getvalue()) == shown


def test_what_a_log_cannot_tell_of_strategies_is_said() -> None:
    assert "Only one endpoint answered" in replay.read(log(300, 1, (1.0,))).summary()
    failed = [json.dumps({**json.loads(line), "status": 502}) for line in log(300, 1)]
    assert "Every request failed" in replay.read(failed).summary()


def test_logs_of_two_days_are_replayed_without_the_night() -> None:
    first, second = log(400, 1), [line.replace("2023-11-14", "2023-11-19") for line in log(400, 1, seed=2)]
    found = replay.read([*second, *first])
    assert found.asks[-1].at < 60
    assert found.rate > 10
    assert any("shortened" in warning for warning in found.warnings)
    whole = replay.read(log(400, 1))
    assert not any("shortened" in warning for warning in whole.warnings)
    assert [ask.at for ask in found.asks[:400]] == [ask.at for ask in whole.asks]
