"""Least-connections: whichever way its heap came to stand, the choice is the one that a scan finds."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from tests.balancer.balancing.world import REQUEST, Fleet, others_have

from balancer.balancing.endpoint import Endpoint, EndpointSpec
from balancer.balancing.errors import NoEndpoint
from balancer.balancing.outcome import Kind, Outcome
from balancer.balancing.pool import Lease, Policy, Pool
from balancer.balancing.strategies import load

OK = Outcome.answered(200)
EVEN = (1.0,)


class Traffic:
    """A fleet in use, every choice of which is compared with a scan."""

    def __init__(self, size: int, weights: tuple[float, ...], seed: int, **policy: Any) -> None:
        self.random = Random(seed)
        self.pool = Pool(load("least-connections", self.random), "least-connections", Policy(**policy), self.random)
        self.specs = [EndpointSpec(f"e{i}", 80, self.random.choice(weights)) for i in range(size)]
        self.pool.replace(self.specs, 0.0)
        self.open: list[Lease] = []
        self.now = 1.0

    def begin(self, tried: int = 0) -> None:
        eligible = [endpoint for endpoint in self.pool.endpoints if endpoint.eligible]
        excluded = self.random.sample(eligible, min(tried, len(eligible)))
        expected = min((_place(endpoint) for endpoint in eligible if endpoint not in excluded), default=None)
        try:
            before = {endpoint: _place(endpoint) for endpoint in eligible}
            lease = self.pool.lease(REQUEST, self.now, excluded)
        except NoEndpoint:
            assert expected is None
            return
        assert lease.endpoint not in excluded
        assert before[lease.endpoint] == expected
        self.open.append(lease)

    def end(self, which: int) -> None:
        self.now += 0.001
        self.open.pop(which).close(OK, self.now)

    def settle_at(self, level: int, requests: int, tried: int = 0) -> None:
        """So many requests, with `level` open at a time; which of them ends is drawn."""
        for _ in range(requests):
            self.begin(tried if self.random.random() < 0.1 else 0)
            while len(self.open) > level:
                self.end(self.random.randrange(len(self.open)))


def _place(endpoint: Endpoint) -> tuple[float, int]:
    return (endpoint.in_flight + 1) / endpoint.weight, endpoint.chosen_at


@pytest.mark.parametrize("weights", [EVEN, (1.0, 2.0), (1.0, 1.0, 1.0, 5.0), tuple(i / 7 for i in range(1, 20))])
@pytest.mark.parametrize("size", [1, 2, 10, 60])
def test_as_the_load_rises_and_falls(size: int, weights: tuple[float, ...]) -> None:
    traffic = Traffic(size, weights, seed=size)
    for level in (0, 3, size // 2, size - 1, size, 3 * size, 7 * size + 3, size, 1, 5 * size, 0):
        traffic.settle_at(max(level, 0), requests=4 * size + 20, tried=2)


def test_requests_that_take_for_ever_are_passed_over() -> None:
    traffic = Traffic(40, EVEN, seed=1)
    traffic.settle_at(25, requests=100)
    for _ in range(400):
        traffic.begin()
        traffic.end(-1)
    while traffic.open:
        traffic.end(0)
        traffic.begin()
        traffic.end(-1)


def test_with_a_limit_at_which_endpoints_come_and_go() -> None:
    traffic = Traffic(30, EVEN, seed=2, endpoint_max_requests=2)
    for level in (5, 30, 59, 60, 10):
        traffic.settle_at(level, requests=200, tried=2)


def test_as_endpoints_join_leave_and_change_weight() -> None:
    traffic = Traffic(30, EVEN, seed=3)
    for _ in range(60):
        traffic.settle_at(40, requests=15)
        specs = traffic.random.sample(traffic.specs, 25)
        changed = traffic.random.randrange(25)
        specs[changed] = EndpointSpec(specs[changed].host, 80, traffic.random.choice((1.0, 3.0)))
        traffic.pool.replace(specs, traffic.now)


def test_a_line_begun_under_load_is_in_order() -> None:
    traffic = Traffic(20, EVEN, seed=4)
    for level in (50, 15, 90):
        traffic.settle_at(level, requests=100)
        traffic.pool.use(load("least-connections", traffic.random), "again", traffic.now)


def test_of_busy_endpoints_the_one_with_the_youngest_request_comes_first() -> None:
    """Its request is the most likely to end soon where costs have a heavy tail."""
    fleet = Fleet("least-connections", names="a b c")
    for _ in range(3):
        fleet.lease().sent(fleet.now)
        fleet.now += 1.0
    assert fleet.lease().endpoint.spec.host == "c"


def test_where_response_times_are_even_the_one_chosen_longest_ago_comes_first() -> None:
    """Its request ends first."""
    fleet = Fleet("least-connections", names="a b c")
    answer(fleet, [1.0] * 120)
    for _ in range(3):
        fleet.lease().sent(fleet.now)
        fleet.now += 0.1
    first = [fleet.lease().endpoint.spec.host for _ in range(3)]
    assert sorted(first) == ["a", "b", "c"]
    assert [fleet.lease().endpoint.spec.host for _ in range(3)] == first


@pytest.mark.parametrize("kind", ["answers", "hangs"])
def test_a_few_that_take_long_make_response_times_uneven(kind: str) -> None:
    fleet = Fleet("least-connections", names="a b c")
    answer(fleet, [1.0] * 120)
    if kind == "answers":
        answer(fleet, [1.0] * 20 + [30.0] * 2)
    else:
        for _ in range(2):
            hung = fleet.lease()
            hung.sent(fleet.now)
            fleet.now += 30.0
            hung.close(Outcome.failed(Kind.TIMED_OUT), fleet.now)
    for _ in range(3):
        newest = fleet.lease()
        newest.sent(fleet.now)
        fleet.now += 0.1
    assert fleet.lease().endpoint is newest.endpoint


def answer(fleet: Fleet, times: list[float]) -> None:
    """One request after the other, each answered after such a time (s)."""
    for seconds in times:
        lease = fleet.lease()
        lease.sent(fleet.now)
        fleet.now += seconds
        lease.first_byte(fleet.now)
        lease.close(OK, fleet.now)


def test_what_other_replicas_have_there_counts() -> None:
    fleet = Fleet("least-connections", names="a b")
    others_have(fleet["a"], 1.5)
    fleet.pool.changed(fleet["a"])
    assert [fleet.lease().endpoint.spec.host for _ in range(3)] == ["b", "b", "a"]
