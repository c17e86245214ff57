"""What the benchmark makes of what it reads: reports of the load generators, /proc, ratios, bars, the page."""

from __future__ import annotations

import os
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from random import Random
from unittest.mock import Mock

import pytest
from benchmarks import fleets, ideal, load, openloop, panels, plot, processes, report, unequal_report
from benchmarks.endpoints import SIZES
from benchmarks.fleets import FLEETS, MEAN, WORKERS, Script, capacity
from benchmarks.results import Report, Result
from benchmarks.results import load as load_report
from benchmarks.run import QUICK, chosen, plan
from benchmarks.workloads import BROWSER_HEAD, WORKLOADS, Bar

WRK = """Running 2s test @ http://127.0.0.1:9201/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.15ms    2.02ms  30.45ms   86.12%
    Req/Sec    21.01k     2.32k   25.11k    70.00%
  41990 requests in 2.00s, 6.49MB read
  Socket errors: connect 1, read 2, write 3, timeout 4
  Non-2xx or 3xx responses: 5
Requests/sec:  20993.34
Transfer/sec:      3.24MB
"""


def result(better: str = "higher", bar: Bar | None = None, **samples: list[float]) -> Result:
    return Result("tiny", "Tiny GET", "requests", better, samples, "make bench ONLY=tiny", bar)  # type: ignore[arg-type]


def test_wrks_report_is_read_with_its_errors_but_not_its_timeouts() -> None:
    assert load.parse_wrk(WRK) == load.Closed(requests=41990, seconds=2.0, errors=11)


def test_a_load_generator_that_reports_nothing_is_a_failure() -> None:
    with pytest.raises(load.LoadError, match="unable to connect"):
        load.parse_wrk("unable to connect to 127.0.0.1:1 Connection refused")


def test_a_request_that_failed_fast_counts_as_a_slow_one() -> None:
    seen = load.summed([(200, 0.001)] * 98 + [(500, 0.0001), (0, 0.0002)], failed_as=5.0)
    assert (seen.requests, seen.failures) == (100, 2)
    assert seen.quantiles[0.5] == 0.001
    assert seen.quantiles[0.99] == 5.0


@pytest.mark.parametrize("count", [1, 2, 99, 100, 1000, 1001])
def test_a_quantile_is_the_least_value_that_so_large_a_share_does_not_exceed(count: int) -> None:
    values = list(map(float, range(count)))
    for share, found in load.quantiles(values).items():
        assert sum(value <= found for value in values) >= share * count
        assert sum(value < found for value in values) < share * count


def test_the_parent_of_a_process_is_found_whatever_its_name() -> None:
    assert processes.parent_of("12 (a (b) c) S 7 12 12 0") == 7


def compute(seconds: float) -> None:
    """Use so much CPU time."""
    used = time.process_time()
    while time.process_time() - used < seconds:
        pass


def test_cpu_time_is_that_which_a_process_has_used() -> None:
    before = processes.cpu_seconds([os.getpid()])
    compute(0.1)
    assert 0.08 < processes.cpu_seconds([os.getpid()]) - before < 1.0
    assert os.getpid() in processes.family(os.getppid())


def test_the_machine_is_as_busy_as_those_who_compute_on_it() -> None:
    before = processes.busy_seconds()
    compute(0.1)
    assert processes.busy_seconds() - before >= 0.08


def test_the_ratio_is_that_to_the_hardest_rival_round_by_round() -> None:
    # The second round was disturbed for all, and says the same.
    asked = result(bar=Bar(1.0, ("nginx", "haproxy")), lb=[90, 9, 101], nginx=[80, 8, 90], haproxy=[100, 10, 100])
    assert asked.ratios() == pytest.approx([0.9, 0.9, 1.01])
    assert asked.ratio() == pytest.approx(0.9)
    assert asked.met() is False


def test_where_rounds_are_not_in_pairs_medians_are_compared() -> None:
    assert result(bar=Bar(1.0, ("nginx",)), lb=[90, 100, 500], nginx=[125, 125]).ratio() == pytest.approx(0.8)


def test_the_bar_is_held_against_the_rival_with_the_least_latency() -> None:
    asked = result("lower", Bar(1.0, ("nginx", "haproxy")), lb=[40, 42], nginx=[50, 50], haproxy=[40, 40])
    assert asked.ratio() == pytest.approx(1.025)


@pytest.mark.parametrize(("limit", "met"), [(1.3, True), (1.2, True), (1.1, False)])
def test_where_less_is_better_the_bar_is_a_ceiling(limit: float, met: bool) -> None:
    assert result("lower", Bar(limit, ("haproxy",)), lb=[120], haproxy=[100], nginx=[1]).met() is met


def test_a_bar_without_rivals_is_an_amount() -> None:
    assert result("lower", Bar(8.0), lb=[7.9]).met() is True
    assert result("lower", Bar(8.0), lb=[8.1]).met() is False


def test_a_bar_whose_rivals_are_absent_is_neither_met_nor_missed() -> None:
    assert result(bar=Bar(1.0, ("nginx",)), lb=[1.0]).met() is None


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    written = Report({"cores": "2"}, {"envoy": "skipped: absent"}, {"tiny": result(bar=Bar(1.0, ("nginx",)), lb=[1.5])})
    written.save(tmp_path / "r.json")
    assert load_report(tmp_path / "r.json") == written


def test_a_measurement_is_asked_for_by_name_or_pattern() -> None:
    names = list(plan())
    assert chosen(names, ["fleet-*-50"]) == [
        name for name in names if name.startswith("fleet-") and name.endswith("50")
    ]
    assert chosen(names, []) == names
    assert chosen(names, QUICK) == [name for name in names if name in QUICK]
    with pytest.raises(ValueError, match="no measurement is called tinny"):
        chosen(names, ["tinny"])


def test_the_browsers_head_is_as_long_as_a_browsers() -> None:
    head = "GET / HTTP/1.1\r\nHost: 127.0.0.1:12345\r\n" + "".join(f"{line}\r\n" for line in BROWSER_HEAD) + "\r\n"
    assert 650 <= len(head) <= 850


def test_every_body_that_is_asked_for_is_served() -> None:
    for work in WORKLOADS:
        assert work.path.rpartition("/")[2] in {"", "upload", *SIZES}
        assert work.size in {0, *SIZES.values()}


def test_capacity_leaves_out_endpoints_that_do_not_serve() -> None:
    one = WORKERS / MEAN
    assert capacity(FLEETS["one-hung"]) == capacity(FLEETS["one-failing"]) == pytest.approx(3 * one)
    assert capacity(FLEETS["one-slow"]) == pytest.approx(3.1 * one)
    assert capacity(FLEETS["one-joining"]) == pytest.approx(3 * one)
    assert capacity(FLEETS["noisy"]) == pytest.approx(4 * one / 1.1)


def test_the_same_seed_asks_the_same() -> None:
    asked = list(openloop.at_random(1000, 2.0, ("/a", "/b"), 1))
    assert asked == list(openloop.at_random(1000, 2.0, ("/a", "/b"), 1))
    assert asked != list(openloop.at_random(1000, 2.0, ("/a", "/b"), 2))
    assert len(asked) == pytest.approx(2000, rel=0.1)
    assert all(0 < due < 2.0 for due, _ in asked)
    work = [float(request.partition(b"X-Work: ")[2]) for _, request in asked]
    assert sum(work) / len(work) == pytest.approx(1.0, rel=0.1)


def test_even_requests_are_as_many_as_the_rate_says() -> None:
    asked = list(openloop.evenly(16_600, 0.5))
    assert len(asked) == 8300
    assert [due for due, _ in asked] == sorted(due for due, _ in asked)


@pytest.mark.parametrize(
    ("script", "answers"), [(Script(hangs=True), b""), (Script(fails=True), b"HTTP/1.1 500 Answer\r\n")]
)
async def test_an_endpoint_misbehaves_from_the_first_work_but_not_before(script: Script, answers: bytes) -> None:
    written: list[bytes] = []
    transport = Mock(write=written.append, is_closing=lambda: False)
    connection = fleets.Connection(fleets.Endpoint(script, fleets.Time(), Random(1)))
    connection.connection_made(transport)
    connection.data_received(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert written.pop().startswith(b"HTTP/1.1 200")
    connection.data_received(b"GET / HTTP/1.1\r\nhost: localhost\r\nx-work: 0.5\r\n\r\n")
    assert b"".join(written).startswith(answers)
    assert bool(written) is bool(answers)


def test_the_ideal_is_bounded_by_the_work_alone_and_worse_with_more_load() -> None:
    at_half, at_most = (ideal.p99("one-hung", share * capacity(FLEETS["one-hung"]), 5.0, 1) for share in (0.5, 0.95))
    assert MEAN * 4 < at_half < at_most


def test_a_panel_shows_each_fleet() -> None:
    fleets_shown = {"one & two": {"lb": {0.5: 40.0, 0.7: 50.0}, "ideal": {0.5: 30.0}}, "equal": {"lb": {0.5: 1000.0}}}
    root = ET.fromstring(panels.panels("T", fleets_shown))
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"one & two", "equal", "lb", "ideal", "50%", "70%"} <= set(texts)


def test_a_fleets_table_has_each_strategy_with_its_failures() -> None:
    details = {"lb/a": {"mean": 8.0, "p50": 6.0, "failures": 2.0, "requests": 1000.0}}
    seen = {
        share: Result(f"fleet-one-slow-{share}", "", "ms", "lower", {"lb/a": [40.0 + share]}, "", details=details)
        for share in (50, 70)
    }
    table = unequal_report.tables(list(seen.values()))
    assert "one slow" in table
    assert "| lb/a | 90 | 110 | 8 | 6 | 4 of 2,000 |" in table


def test_a_chart_is_an_svg_with_longer_bars_for_more() -> None:
    root = ET.fromstring(plot.bars("T <1>", {"a & b": {"lb": 2.0, "nginx": 1.0}}, mark=1.0))
    widths = [float(bar.get("width", "0")) for bar in root.iter("{http://www.w3.org/2000/svg}rect")][-2:]
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.01)


def test_only_what_stands_between_markers_is_written_again() -> None:
    page = "before\n<!-- memory -->\nold\n<!-- /memory -->\nafter\n"
    assert report.filled(page, {"memory": "new"}) == "before\n<!-- memory -->\nnew\n<!-- /memory -->\nafter\n"


def test_the_page_says_what_was_measured() -> None:
    measured = load_report(report.JSON)
    page = report.PAGE.read_text()
    assert report.filled(page, report.parts(measured)) == page, "run: python -m benchmarks.report"
    for name, drawn in report.pictures(measured).items():
        assert (report.PAGE.parent / "performance" / name).read_text() == drawn
