"""Least-work where endpoints come and go: what it knows of the others stays right, and it keeps none that is gone."""

from __future__ import annotations

import pytest
from tests.balancer.balancing.world import REQUEST, Fleet

from balancer.balancing.outcome import Outcome
from balancer.balancing.pool import Lease
from balancer.balancing.strategies.least_work import LeastWork

OK = Outcome.answered(200)


def sent(fleet: Fleet, name: str) -> Lease:
    """A request that `name` has, and has not answered."""
    lease = fleet.pool.lease_at(fleet[name], REQUEST, fleet.now)
    assert lease is not None
    lease.sent(fleet.now)
    return lease


def answer(fleet: Fleet, lease: Lease, took: float) -> None:
    fleet.now += took
    lease.first_byte(fleet.now)
    lease.close(OK, fleet.now)


def test_requests_that_end_after_their_endpoint_has_left_change_no_others_pace() -> None:
    fleet = Fleet("least-work", "a b")
    for name in "ab" * 20:
        answer(fleet, sent(fleet, name), 0.01)
    for number in range(20):  # A rolling update: the last requests of each that leaves take the longest.
        old = f"old-{number}"
        fleet.add(old)
        leases = [sent(fleet, old) for _ in range(10)]
        fleet.remove(old)
        for lease in leases:
            answer(fleet, lease, 0.1)
        for name in "ab" * 20:
            answer(fleet, sent(fleet, name), 0.01)
    assert [fleet[name].work.pace.factor for name in "ab"] == pytest.approx([1.0, 1.0], rel=0.1)
    fleet.add("new")
    assert fleet["new"].work.pace.factor == pytest.approx(1.0, rel=0.1)


def test_endpoints_that_come_and_go_while_nothing_is_chosen_are_not_kept() -> None:
    fleet = Fleet("least-work", "a b")
    for _ in range(500):
        fleet.add("c")
        fleet.remove("c")
    strategy = fleet.pool._strategy
    assert isinstance(strategy, LeastWork)
    assert len(strategy._moved) < 100
    assert sorted(fleet.chosen(2)) == ["a", "b"]
