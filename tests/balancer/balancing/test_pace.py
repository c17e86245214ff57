"""How fast an endpoint is believed to be, and what that may lead to."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from tests.balancer.balancing.test_least_work import OK, get
from tests.balancer.balancing.world import Fleet, others_have

from balancer.balancing.request import RequestInfo
from balancer.cli.lab import Beliefs
from balancer.lab.experiment import Setting, run
from balancer.lab.fleet import named
from balancer.lab.news import News
from balancer.lab.record import geometric_mean
from balancer.lab.traffic import Kind as Sent
from balancer.lab.traffic import Traffic

CHEAP, DEAR = get("/cheap"), get("/dear")


def ask(fleet: Fleet, name: str, request: RequestInfo, seconds: float) -> None:
    """One request at one endpoint, and its answer."""
    lease = fleet.lease(*(other for other in fleet.specs if other != name), request=request)
    lease.sent(fleet.now)
    fleet.now += seconds
    lease.first_byte(fleet.now)
    lease.close(OK, fleet.now)


@pytest.mark.parametrize("costs", [{CHEAP: 0.02}, {CHEAP: 0.01, DEAR: 0.2}], ids=["alike", "distinct"])
def test_one_that_seems_fast_does_not_get_all_before_it_is_known_how_many_it_works_on(
    costs: dict[RequestInfo, float],
) -> None:
    """Each of four replicas sends too few at once to show that: one by one got 44 of 50 requests, all that waited."""
    fleet = Fleet("least-work", names="a b")
    for _ in range(60):
        for request, seconds in costs.items():
            ask(fleet, "a", request, seconds)
            ask(fleet, "b", request, seconds / 8)
    assert fleet["b"].work.pace.factor < 0.2 * fleet["a"].work.pace.factor
    assert not fleet["a"].work.costs.bounded
    for _ in range(40):
        fleet.lease(request=list(costs)[-1]).sent(fleet.now)
    assert 3 <= fleet["a"].in_flight <= 10


def test_an_expensive_request_does_not_wait_behind_others_for_an_endpoint_a_little_faster() -> None:
    """Those before it counted as average ones: at a fast endpoint 22 expensive ones waited, beside idle endpoints."""
    fleet = Fleet("least-work", names="a b")
    for _ in range(60):
        for _ in range(30):
            ask(fleet, "a", CHEAP, 0.003)
            ask(fleet, "b", CHEAP, 0.002)
        ask(fleet, "a", DEAR, 0.6)
        ask(fleet, "b", DEAR, 0.4)
    assert fleet["b"].work.pace.factor < 0.8 * fleet["a"].work.pace.factor
    assert not fleet["a"].work.costs.bounded
    for _ in range(10):
        fleet.lease(request=DEAR).sent(fleet.now)
    assert fleet["b"].in_flight <= 6


def test_an_endpoint_that_is_used_little_is_believed_to_be_as_fast_as_the_others() -> None:
    """The mean of logarithms is below the logarithm of the mean: what was used much looked 1.8 times as fast."""
    fleet = Fleet("least-work", names="a b c")
    random = Random(1)
    for _ in range(400):
        for name in "ab":
            ask(fleet, name, CHEAP, random.expovariate(50.0))
    assert fleet["c"].work.pace.samples == 0
    for name in "ab":
        assert fleet[name].work.pace.factor / fleet["c"].work.pace.factor == pytest.approx(1.0, abs=0.25)


def known_to_work_on(fleet: Fleet, workers: int) -> None:
    """Let the endpoints have shown that they work on so many at once, and no more."""
    costs = fleet["a"].work.costs
    costs.bound(workers, workers)
    while not costs.bounded:
        costs.bound(1, workers + 1)
    for name in fleet.specs:
        ask(fleet, name, CHEAP, 0.02)


def test_those_that_others_use_do_not_look_slow() -> None:
    """Requests of other replicas wait there before ours: half of one is left, where all cost the same."""
    fleet = Fleet("least-work", names="a b")
    known_to_work_on(fleet, 1)
    others_have(fleet["b"], 1.0)
    for _ in range(60):
        ask(fleet, "a", CHEAP, 0.02)
        ask(fleet, "b", CHEAP, 0.03)
    assert fleet["b"].work.pace.factor == pytest.approx(fleet["a"].work.pace.factor, rel=0.1)


def test_the_work_that_other_replicas_tell_is_taken_off() -> None:
    fleet = Fleet("least-work", names="a b")
    known_to_work_on(fleet, 1)
    others_have(fleet["b"], 1.0, 0.08)
    for _ in range(60):
        ask(fleet, "a", CHEAP, 0.02)
        ask(fleet, "b", CHEAP, 0.1)
    assert fleet["b"].work.pace.factor == pytest.approx(fleet["a"].work.pace.factor, rel=0.1)


def test_a_slow_endpoint_does_not_look_less_slow_for_being_used_by_nobody_else() -> None:
    """At the others ours wait behind those of other replicas: one ten times as slow was taken for 1.5 times as slow."""
    fleet = Fleet("least-work", names="a b c d")
    known_to_work_on(fleet, 1)
    for name in "abc":
        others_have(fleet[name], 3.0)
    random = Random(1)
    for _ in range(600):
        for name in "abc":
            ask(fleet, name, CHEAP, sum(random.expovariate(50.0) for _ in range(4)))
        ask(fleet, "d", CHEAP, random.expovariate(5.0))
    fast = geometric_mean([fleet[name].work.pace.factor for name in "abc"])
    assert fleet["d"].work.pace.factor > 3.0 * fast


def test_a_time_that_is_for_several_requests_says_more_of_a_pace() -> None:
    """It varies less: where others' requests wait too, a slow endpoint is known for such after fewer requests."""
    doubts = []
    for others in (0.0, 3.0):
        fleet = Fleet("least-work", names="a b")
        known_to_work_on(fleet, 1)
        others_have(fleet["b"], others, 0.02 * others)
        for _ in range(10):
            ask(fleet, "a", CHEAP, 0.02)
            ask(fleet, "b", CHEAP, 0.02 * (1.0 + others))
        doubts.append(fleet["b"].work.pace.doubt)
    assert doubts[1] < 0.7 * doubts[0]


@pytest.mark.parametrize("workers", [4, 0])
def test_where_others_are_no_wait_nothing_is_taken_off(workers: int) -> None:
    """Endpoints of four workers, or of nobody knows how many: they begin at once, and one of them is slow."""
    fleet = Fleet("least-work", names="a b")
    if workers:
        known_to_work_on(fleet, workers)
    others_have(fleet["b"], 2.0)
    for _ in range(60):
        ask(fleet, "a", CHEAP, 0.02)
        ask(fleet, "b", CHEAP, 0.04)
    assert fleet["b"].work.pace.factor > 1.7 * fleet["a"].work.pace.factor


def test_what_took_less_than_the_wait_for_others_did_not_wait() -> None:
    """A quarter of a request, by which other replicas' parts are left to them, made 1 ms out to be 0.24 us."""
    fleet = Fleet("least-work", names="a b")
    known_to_work_on(fleet, 1)
    for name in "ab":
        others_have(fleet[name], 0.25)
    for _ in range(200):
        for name in "ab":
            for _ in range(4):
                ask(fleet, name, CHEAP, 0.001)
            ask(fleet, name, DEAR, 0.2)
    costs = fleet["a"].work.costs
    assert costs.kinds.of(CHEAP).expected == pytest.approx(0.001, rel=0.3)
    assert costs.kinds.of(DEAR).expected == pytest.approx(0.2, rel=0.5)
    assert fleet["b"].work.pace.factor == pytest.approx(fleet["a"].work.pace.factor, rel=0.2)


def test_a_kind_whose_time_is_chance_says_little_of_an_endpoint() -> None:
    """Cheap requests that wait, unseen, for expensive ones of other replicas, made equal endpoints look unequal."""
    fleet = Fleet("least-work", names="a b")
    random = Random(1)
    for _ in range(60):
        for name, unlucky in (("a", 0.4), ("b", 0.2)):
            ask(fleet, name, CHEAP, 0.001 if random.random() > unlucky else 0.25)
            ask(fleet, name, DEAR, 0.5)
    assert fleet["a"].work.pace.factor == pytest.approx(fleet["b"].work.pace.factor, rel=0.35)


def test_replicas_that_know_nothing_of_each_other_do_no_worse_than_by_number() -> None:
    """The lab: 16 endpoints of one worker, four replicas. p99 was 1.9 times least-connections'."""
    setting = Setting(tuple(named("equal", 16, 1)), Traffic(mean=0.02), 0.7, 3000, replicas=4)
    p99 = {
        strategy: geometric_mean([run(setting, strategy, seed).p99 for seed in (1, 2)])
        for strategy in ("least-work", "least-connections")
    }
    assert p99["least-work"] < 1.1 * p99["least-connections"]


def test_rare_expensive_requests_are_served_by_replicas_as_well_as_by_the_number_of_requests() -> None:
    """Paces were off by chance, and all went where one seemed low: p99 up to 1.6 times least-connections'."""
    kinds = (Sent("/page", 0.97, 0.005), Sent("/report", 0.03, 0.5))
    setting = Setting(tuple(named("equal", 16, 1)), Traffic("kinds", kinds=kinds), 0.6, 5000, replicas=2)
    setting = replace(setting, news=News(0.01, hear=Beliefs(0.01).hear))
    work, connections = (run(setting, name, 3).p99 for name in ("least-work", "least-connections"))
    assert work < 1.05 * connections
