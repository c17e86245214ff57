"""Weights from load reports: what an endpoint serves for the utilisation that it costs there."""

from __future__ import annotations

import pytest

from balancer.balancing.endpoint import Endpoint, EndpointSpec
from balancer.balancing.load_report import FIELD
from balancer.balancing.load_weights import LoadWeights


class World:
    """Endpoints a, b, c, and what each reports once a second."""

    def __init__(self, blackout: float = 3.0, expiry: float = 20.0) -> None:
        self.now = 0.0
        self.weighed: list[str] = []
        self.weights = LoadWeights(blackout, expiry)
        self.ends = {name: Endpoint(EndpointSpec(name, 80)) for name in "abc"}

    def pass_seconds(self, seconds: int, **said: str) -> None:
        for _ in range(seconds):
            for name, report in said.items():
                self.weights.heard(self.ends[name], FIELD, b"TEXT " + report.encode(), self.now)
            self.now += 1.0
            self.weighed += [endpoint.spec.host for endpoint in self.weights.tick(self.now)]

    def factors(self) -> list[float]:
        return [round(self.ends[name].load_factor, 1) for name in "abc"]


def test_who_serves_twice_as_much_for_the_same_weighs_twice() -> None:
    world = World()
    world.pass_seconds(6, a="cpu_utilization=0.5,rps_fractional=200", b="cpu_utilization=0.5,rps_fractional=100")
    assert world.ends["a"].load_factor / world.ends["b"].load_factor == pytest.approx(2, rel=0.06)
    assert world.ends["c"].load_factor == 1.0, "who does not say counts as the mean"
    assert world.ends["a"].utilization == 0.5


def test_nothing_counts_before_the_blackout_is_over_or_with_one_alone() -> None:
    world = World(blackout=5)
    world.pass_seconds(4, a="cpu_utilization=0.5,rps_fractional=200", b="cpu_utilization=0.9,rps_fractional=100")
    assert world.factors() == [1.0, 1.0, 1.0]
    alone = World()
    alone.pass_seconds(10, a="cpu_utilization=0.5,rps_fractional=200")
    assert alone.factors() == [1.0, 1.0, 1.0]


def test_reports_expire_and_begin_with_a_blackout_again() -> None:
    world = World(blackout=3, expiry=5)
    said = {"a": "cpu_utilization=0.2,rps_fractional=200", "b": "cpu_utilization=0.8,rps_fractional=200"}
    world.pass_seconds(6, **said)
    assert world.ends["a"].load_factor > 1.5
    world.pass_seconds(7)
    assert world.factors() == [1.0, 1.0, 1.0]
    world.pass_seconds(2, **said)
    assert world.factors() == [1.0, 1.0, 1.0]
    world.pass_seconds(4, **said)
    assert world.ends["a"].load_factor > 1.5


def test_failures_count_as_utilisation() -> None:
    world = World()
    world.pass_seconds(
        6, a="cpu_utilization=0.25,rps_fractional=100,eps=75", b="cpu_utilization=0.5,rps_fractional=100"
    )
    assert world.ends["a"].load_factor / world.ends["b"].load_factor == pytest.approx(0.5, rel=0.06)


def test_without_a_rate_our_own_stands_for_it() -> None:
    world = World()
    for _ in range(8):
        world.ends["a"].stats.answered_2xx += 300
        world.ends["b"].stats.answered_2xx += 100
        world.pass_seconds(1, a="cpu_utilization=0.5", b="cpu_utilization=0.5")
    assert world.ends["a"].load_factor / world.ends["b"].load_factor == pytest.approx(3, rel=0.06)


def test_an_endpoint_that_left_weighs_as_before() -> None:
    world = World()
    world.pass_seconds(6, a="cpu_utilization=0.5,rps_fractional=200", b="cpu_utilization=0.5,rps_fractional=100")
    world.weights.left(world.ends["a"])
    assert world.ends["a"].load_factor == 1.0


def test_steady_reports_move_no_weight() -> None:
    world = World()
    said = {"a": "cpu_utilization=0.5,rps_fractional=200", "b": "cpu_utilization=0.5,rps_fractional=100"}
    world.pass_seconds(8, **said)
    world.weighed.clear()
    world.pass_seconds(20, **said)
    assert world.weighed == []


@pytest.mark.parametrize(
    "absurd",
    [
        "cpu_utilization=0.5,rps_fractional=1e308",
        "cpu_utilization=0.5,rps_fractional=1e12",
        "cpu_utilization=0.01,rps_fractional=1e12,eps=1e12",
        "cpu_utilization=1e12,rps_fractional=1e-300,eps=1e12",
    ],
)
def test_a_report_of_absurd_numbers_leaves_weights_within_their_bounds(absurd: str) -> None:
    world = World()
    world.pass_seconds(6, a=absurd, b="cpu_utilization=0.5,rps_fractional=100", c="cpu_utilization=0.5")
    assert all(0.09 <= factor <= 10.5 for factor in world.factors())
