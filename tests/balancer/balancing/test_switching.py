"""A switch of the strategy under load: nothing that is in flight is forgotten, and nobody is."""

from __future__ import annotations

from collections import Counter
from itertools import product
from random import Random

import pytest
from tests.balancer.balancing.world import Fleet, Whole

from balancer.balancing import outcome
from balancer.balancing.errors import NoEndpoint
from balancer.balancing.outcome import Outcome
from balancer.balancing.pool import Lease
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies import STRATEGIES, load

NAMES = (*STRATEGIES, f"{Whole.__module__}:Whole")
OUTCOMES = (Outcome.answered(200), Outcome.answered(404), outcome.CLIENT_LEFT, outcome.UNUSED, outcome.TIMED_OUT)


class Traffic:
    """Random requests at a fleet, and the truth about those in flight."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.fleet = fleet
        self.random = Random(seed)
        self.leases: list[Lease] = []

    def use(self, name: str) -> None:
        self.fleet.pool.use(load(name, self.random), name, self.fleet.now)
        self.check()

    def go_on(self, steps: int) -> None:
        """Let requests begin, be sent, be answered and end; weights and endpoints change; time passes."""
        fleet, random = self.fleet, self.random
        for _ in range(steps):
            fleet.now += 0.003
            what = random.random()
            if what < 0.45 or not self.leases:
                info = RequestInfo(f"192.0.2.{random.randrange(200)}", "GET", f"/{random.randrange(5)}")
                tried = [fleet[random.choice(list(fleet.specs))]] if what < 0.05 else []
                try:
                    self.leases.append(fleet.pool.lease(info, fleet.now, tried))
                except NoEndpoint:  # All are at their limit.
                    continue
            elif what < 0.6:
                random.choice(self.leases).sent(fleet.now)
            elif what < 0.75:
                random.choice(self.leases).first_byte(fleet.now)
            elif what < 0.97:
                self.end(self.leases[random.randrange(len(self.leases))], random.choice(OUTCOMES))
            elif what < 0.985:
                fleet.add("c", weight=random.choice([0.5, 1.0, 3.0]))
            else:
                fleet.wait(0.2)
        self.check()

    def end(self, lease: Lease, how: Outcome) -> None:
        self.leases.remove(lease)
        lease.close(how, self.fleet.now)

    def check(self) -> None:
        truth = Counter(lease.endpoint.spec.host for lease in self.leases)
        for endpoint in self.fleet.pool.endpoints:
            assert endpoint.in_flight == truth[endpoint.spec.host]
            waiting = [lease for lease in self.leases if lease.endpoint is endpoint and lease in endpoint.waiting]
            assert len(waiting) == len(endpoint.waiting)
            assert endpoint.work.waiting + endpoint.work.unsent <= endpoint.in_flight


@pytest.mark.parametrize("limit", [None, 3], ids=["no limit", "a limit"])
@pytest.mark.parametrize(("first", "second"), list(product(NAMES, NAMES)), ids=lambda name: name.split(":")[-1])
def test_counts_are_true_and_everybody_is_chosen_again_after_switching(
    first: str, second: str, limit: int | None
) -> None:
    fleet = Fleet(first, "a b c d", eject_after=0, endpoint_max_requests=limit)
    traffic = Traffic(fleet, seed=len(first) * 100 + len(second))
    for name in (first, second, first, second):
        traffic.use(name)
        traffic.go_on(40)
    for lease in list(traffic.leases):
        traffic.end(lease, Outcome.answered(200))
    traffic.check()
    for endpoint in fleet.pool.endpoints:
        assert (endpoint.in_flight, endpoint.oldest) == (0, None)
        assert (endpoint.work.waiting, endpoint.work.unsent, endpoint.work.oldest) == (0, 0, None)
        assert endpoint.work.unsent_cost == pytest.approx(0.0, abs=1e-9)
    # Ten at a time: the least busy are not the same all the time, and what was slow or failed has been forgiven.
    fleet.wait(60.0)
    chosen: Counter[str] = Counter()
    for number in range(60):
        info = RequestInfo(f"192.0.2.{number}", "GET", f"/{number}")
        traffic.leases.append(fleet.pool.lease(info, fleet.now))
        chosen[traffic.leases[-1].endpoint.spec.host] += 1
        traffic.leases[-1].sent(fleet.now)
        fleet.now += 0.005
        if len(traffic.leases) == 10:
            traffic.end(traffic.leases[0], Outcome.answered(200))
    assert set(chosen) == ({"a", "b", "c", "d"} if second != "n-to-one" or limit else {"a"})


def test_requests_from_before_a_switch_to_least_work_count_as_work() -> None:
    fleet = Fleet("least-work", "a b", eject_after=0)
    for _ in range(200):  # It learns that both work on one request at a time, of 100 ms.
        first, second, third, fourth = (fleet.lease() for _ in range(4))
        for lease in (first, second, third, fourth):
            lease.sent(fleet.now)
        for lease in (first, second, third, fourth):
            fleet.now += 0.05
            lease.first_byte(fleet.now)
            lease.close(Outcome.answered(200), fleet.now)
    assert [endpoint.work.concurrency.servers for endpoint in fleet.pool.endpoints] == [1, 1]
    fleet.pool.use(load("n-to-one", Random(1)), "n-to-one", fleet.now)
    before = [fleet.lease() for _ in range(5)]
    for lease in before:
        assert lease.endpoint is fleet["a"]
        lease.sent(fleet.now)
    fleet.pool.use(load("least-work", Random(1)), "least-work", fleet.now)
    for _ in range(3):
        lease = fleet.lease()
        lease.sent(fleet.now)
        assert lease.endpoint is fleet["b"], "a has five requests to work on"
    for lease in before:
        fleet.now += 0.05
        lease.first_byte(fleet.now)
        lease.close(Outcome.answered(200), fleet.now)
    assert fleet["a"].work.waiting == 0
    assert fleet.lease().endpoint is fleet["a"]
