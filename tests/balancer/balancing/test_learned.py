"""What was learned of endpoints and requests is told in words and seconds that a person can check."""

from __future__ import annotations

import pytest
from tests.balancer.balancing.world import Fleet

from balancer.balancing.cost import RequestKinds
from balancer.balancing.learned import endpoint_work, kinds, title
from balancer.balancing.outcome import Outcome
from balancer.balancing.request import RequestInfo

OK = Outcome.answered(200)


def name_of(method: str, path: str, *headers: tuple[bytes, bytes]) -> str:
    known = RequestKinds()
    kind = known.of(RequestInfo("192.0.2.1", method, path, headers))
    return next(name for name, each in known.by_traffic() if each is kind)


@pytest.mark.parametrize(
    ("method", "path", "headers", "expected"),
    [
        ("GET", "/items", (), "GET /items"),
        ("GET", "/pi/1500", (), "GET /pi/{1024..2047}"),
        ("GET", "/pi/1/0", (), "GET /pi/1/0"),
        ("GET", "/users/4fd1c9ab77e0/mail", (), "GET /users/{id}/mail"),
        ("POST", "/items", ((b"Content-Length", b"900"),), "POST /items, body of 512..1023 bytes"),
        ("POST", "/items", (), "POST /items, body of unknown length"),
        ("", "", (), "connection"),
        ("?", "", (), "(begun before costs were learned)"),
        ("#99999999999999", "/items", (), "#99999999999999 /items"),
        ("#12", "/items", (), "#12 /items"),
        ("-", "/items", (), "- /items"),
        ("GET", "/pi/" + "9" * 39, (), f"GET /pi/{{{2**129}..{2**130 - 1}}}"),
    ],
)
def test_a_kind_has_a_name_that_people_can_read(
    method: str, path: str, headers: tuple[tuple[bytes, bytes], ...], expected: str
) -> None:
    assert title(name_of(method, path, *headers)) == expected


def test_a_name_that_another_replica_invented_costs_no_memory() -> None:
    assert title("GET /#99999999999999/x #99999999999999") == "GET /#99999999999999/x #99999999999999"


def carry(fleet: Fleet, path: str, seconds: float, times: int = 1) -> None:
    for _ in range(times):
        lease = fleet.pool.lease(RequestInfo("192.0.2.1", "GET", path), fleet.now)
        lease.sent(fleet.now)
        fleet.now += seconds
        lease.first_byte(fleet.now)
        lease.close(OK, fleet.now)


def test_kinds_are_listed_by_their_traffic_and_with_what_one_costs() -> None:
    fleet = Fleet("least-work", names="a")
    carry(fleet, "/report", 0.3, times=5)
    carry(fleet, "/pi/1500", 0.02, times=10)
    first, second = kinds(fleet.pool.costs)
    assert (first.title, first.samples, second.title, second.samples) == ("GET /pi/{1024..2047}", 10, "GET /report", 5)
    assert first.expected == pytest.approx(0.02)
    assert second.expected == pytest.approx(0.3)
    assert second.deviation == pytest.approx(0, abs=1e-6)
    assert not second.waits


def test_a_cost_key_names_the_kinds_itself() -> None:
    fleet = Fleet("least-work", names="a", cost_key="path:^/shop/([^/]*)")
    carry(fleet, "/shop/#7/1", 0.01)
    carry(fleet, "/other", 0.01)
    assert {kind.title for kind in kinds(fleet.pool.costs)} == {"#7", "(none)"}


def test_what_is_in_flight_counts_in_seconds_and_makes_the_next_wait() -> None:
    fleet = Fleet("least-work", names="a")
    report = RequestInfo("192.0.2.1", "GET", "/report")
    for _ in range(30):  # Two at a time, answered in their order: one worker.
        first, second = (fleet.pool.lease(report, fleet.now) for _ in range(2))
        for lease in (first, second):
            lease.sent(fleet.now)
        for lease in (first, second):
            fleet.now += 0.3
            lease.first_byte(fleet.now)
            lease.close(OK, fleet.now)
    for _ in range(3):
        fleet.pool.lease(report, fleet.now).sent(fleet.now)
    work = endpoint_work(fleet["a"], fleet.now)
    assert work is not None
    assert work.workers == 1
    assert work.pace == pytest.approx(1.0)
    assert work.expected == pytest.approx(0.9, rel=0.05)
    assert work.wait == pytest.approx(0.9, rel=0.05)


def test_workers_are_not_known_before_they_have_shown() -> None:
    fleet = Fleet("least-work", names="a")
    carry(fleet, "/items", 0.01)
    work = endpoint_work(fleet["a"], fleet.now)
    assert work is not None
    assert work.workers is None
    assert work.wait == 0
