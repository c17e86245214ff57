"""Under light load equal endpoints share the requests, whatever was learned of them in a busier time."""

from __future__ import annotations

from collections import Counter
from random import Random

from tests.balancer.balancing.world import REQUEST, Fleet

from balancer.balancing.outcome import Outcome

OK = Outcome.answered(200)


def busy(fleet: Fleet, seconds: dict[str, float]) -> None:
    """A hundred times all four have one request each, of so many seconds on average."""
    random = Random(3)
    for _ in range(100):
        leases = [fleet.pool.lease(REQUEST, fleet.now) for _ in seconds]
        ends = []
        for lease in leases:
            lease.sent(fleet.now)
            ends.append((random.expovariate(1.0 / seconds[lease.endpoint.spec.host]), lease))
        began = fleet.now
        for after, lease in sorted(ends, key=lambda end: end[0]):
            fleet.now = began + after
            lease.first_byte(fleet.now)
            lease.close(OK, fleet.now)


def one_by_one(fleet: Fleet, requests: int) -> Counter[str]:
    """Requests of 2 ms at every endpoint, ten a second, one after the other."""
    chosen: Counter[str] = Counter()
    for _ in range(requests):
        lease = fleet.pool.lease(REQUEST, fleet.now)
        lease.sent(fleet.now)
        fleet.now += 0.002
        lease.first_byte(fleet.now)
        lease.close(OK, fleet.now)
        fleet.now += 0.1
        chosen[lease.endpoint.spec.host] += 1
    return chosen


def test_an_endpoint_that_was_slower_for_a_time_gets_its_turns_again() -> None:
    fleet = Fleet("least-work", names="a b c d")
    busy(fleet, {"a": 0.05, "b": 0.05, "c": 0.05, "d": 0.0125})
    one_by_one(fleet, 800)  # 80 s
    assert min(one_by_one(fleet, 400)[name] for name in "abcd") >= 80
