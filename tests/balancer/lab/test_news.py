"""What simulated replicas report to each other: as with real ones, what lasts is no work that waits."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from random import Random

import pytest

from balancer.balancing.request import RequestInfo
from balancer.cli.lab import Beliefs
from balancer.lab.clock import Clock
from balancer.lab.fleet import Script, Server
from balancer.lab.news import News
from balancer.lab.record import Record
from balancer.lab.replica import Replica, Rules
from balancer.lab.traffic import Ask

EVERY = 0.01
"""Seconds between two reports."""
LEARNED = 20.0
"""Seconds of traffic after which a replica knows what each kind of request is."""
ITEM, POLL, EVENTS = (RequestInfo(method="GET", path=path) for path in ("/items", "/poll", "/events"))


def chosen_beside(lasting: Ask, strategy: str, believed: bool) -> list[int]:
    """Of ten requests of a replica, how many go to each endpoint while another has 20 that last at the first.

    `believed`: by the rules of real replicas; else each word as it is.
    """
    clock = Clock()
    record = Record(2, 60.0)
    servers = [Server(Script(workers=1), clock, Random(number)) for number in range(2)]
    one, other = replicas = [Replica(strategy, Rules(), servers, clock, Random(number)) for number in range(2)]
    for number in range(int(20 * LEARNED)):
        at = number / 20
        for replica in replicas:
            clock.at(at, partial(replica.start, Ask(at, ITEM, 0.005), record))
            if number % 5 == 0:
                clock.at(at, partial(replica.start, replace(lasting, at=at), record))

    def occupy() -> None:
        first, second = one.pool.endpoints
        one.pool.drain(second, True, clock.now)
        for _ in range(20):
            one.start(replace(lasting, at=clock.now), record)
        assert first.in_flight == 20

    def choose() -> None:
        for _ in range(10):
            other.start(Ask(clock.now, ITEM, 0.005), record)
        clock.stop()

    News(EVERY, hear=Beliefs(EVERY).hear if believed else None).begin(replicas, clock)
    clock.at(LEARNED + 5.0, occupy)
    clock.at(LEARNED + 5.1, choose)
    clock.run()
    return [endpoint.in_flight for endpoint in other.pool.endpoints]


@pytest.mark.parametrize("believed", [True, False])
@pytest.mark.parametrize("lasting", [Ask(0.0, POLL, 0.0, idle=3.0), Ask(0.0, EVENTS, 0.001, stream=3.0)])
def test_what_lasts_at_one_replica_is_no_work_that_waits_for_another(lasting: Ask, believed: bool) -> None:
    assert min(chosen_beside(lasting, "least-work", believed)) >= 2
    assert chosen_beside(lasting, "least-connections", believed) == [0, 10]
