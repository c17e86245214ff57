"""A user's strategy that raises, or chooses wrongly, costs no request."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection
from random import Random

import pytest
from tests.balancer.balancing.world import Fleet

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.pool import Policy, Pool
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies import ByScore, load


class Raises(ByScore):
    """Fails in the hook that `broken` names."""

    broken = "choose"

    def added(self, endpoint: Endpoint) -> None:
        self.fail("added")
        super().added(endpoint)

    def removed(self, endpoint: Endpoint) -> None:
        self.fail("removed")
        super().removed(endpoint)

    def changed(self, endpoint: Endpoint) -> None:
        self.fail("changed")

    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        self.fail("choose")
        if self.broken == "none":
            return None
        if self.broken == "stranger":
            return Endpoint(next(iter(self._endpoints)).spec)
        return super().choose(request, excluded, now)

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        self.fail("score")
        return 0.0

    def fail(self, hook: str) -> None:
        if hook == self.broken:
            raise KeyError(hook)


def fleet_with(broken: str, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setattr(Raises, "broken", broken)
    name = f"{sys.modules[__name__].__name__}:Raises"
    fleet = Fleet(names="")
    fleet.pool = Pool(load(name, Random(1)), name, Policy(), Random(1))
    fleet.pool.subscribe(fleet)
    fleet.add("a", "b", "c")
    return fleet


@pytest.mark.parametrize("broken", ["added", "removed", "changed", "choose", "score", "none", "stranger"])
def test_the_default_chooses_instead_and_the_failure_is_reported(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = fleet_with(broken, monkeypatch)
    assert sum(Counter(fleet.chosen(30)).values()) == 30
    fleet.remove("c")
    assert set(fleet.chosen(30)) <= {"a", "b"}
    fleet.pool.explain(RequestInfo(), fleet.now)
    fleet.wait(0.2)
    assert fleet.events.count(("pool", "strategy_failed")) == 1
    fleet.chosen(30)
    fleet.wait(5)
    assert fleet.events.count(("pool", "strategy_failed")) == 1, "reported again only after a while"


def test_a_strategy_that_behaves_chooses_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = fleet_with("nothing", monkeypatch)
    assert set(fleet.chosen(30)) == {"a", "b", "c"}
    fleet.wait(0.2)
    assert ("pool", "strategy_failed") not in fleet.events
