"""A user's strategy that raises, or chooses wrongly, costs no request."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection
from random import Random

import pytest
from tests.balancer.balancing.world import Fleet, Whole

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.kit import Promises, check_strategy
from balancer.balancing.pool import Policy, Pool
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies import ByLoad, ByScore, Strategy, load


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


class OnlyTheMethods:
    """Derives from nothing of ours."""

    def __init__(self, random: Random) -> None:
        self.endpoints: list[Endpoint] = []

    def added(self, endpoint: Endpoint) -> None:
        self.endpoints.append(endpoint)

    def removed(self, endpoint: Endpoint) -> None:
        self.endpoints.remove(endpoint)

    def changed(self, endpoint: Endpoint) -> None:
        pass

    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        return min(self.endpoints, key=lambda endpoint: endpoint.in_flight)

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        return float(endpoint.in_flight)


class NotANumber(ByScore):
    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        return float("nan")


class NoNumberInTheHeap(ByLoad):
    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        return float("nan")


def fleet_of(strategy: type) -> Fleet:
    name = f"{sys.modules[__name__].__name__}:{strategy.__name__}"
    fleet = Fleet(names="")
    fleet.pool = Pool(load(name, Random(1)), name, Policy(), Random(1))
    fleet.pool.subscribe(fleet)
    fleet.add("a", "b", "c")
    return fleet


def fleet_with(broken: str, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setattr(Raises, "broken", broken)
    return fleet_of(Raises)


@pytest.mark.parametrize("broken", ["added", "removed", "changed", "choose", "score", "none", "stranger"])
def test_round_robin_chooses_instead_and_the_failure_is_reported(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize("strategy", [Whole, OnlyTheMethods])
def test_a_strategy_written_whole_chooses_compiled_too(strategy: type) -> None:
    fleet = fleet_of(strategy)
    leases = [fleet.lease() for _ in range(6)]
    assert Counter(lease.endpoint.spec.host for lease in leases) == {"a": 2, "b": 2, "c": 2}
    fleet.wait(0.2)
    assert ("pool", "strategy_failed") not in fleet.events


def test_the_kit_plays_with_a_strategy_written_whole() -> None:
    check_strategy(lambda _: Whole(Random(1)), Promises(ties_in_turn=False), examples=20)


@pytest.mark.parametrize("strategy", [NotANumber, NoNumberInTheHeap])
def test_a_score_that_is_no_number_leaves_the_choice_to_round_robin(strategy: type) -> None:
    fleet = fleet_of(strategy)
    assert Counter(fleet.chosen(30)) == {"a": 10, "b": 10, "c": 10}
    fleet.wait(0.2)
    assert ("pool", "strategy_failed") in fleet.events


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("choose", "KeyError: 'choose'"),
        ("none", "it chose none"),
        ("stranger", "it chose <Endpoint a:80>, which may not"),
    ],
)
def test_the_recorded_decision_says_that_round_robin_chose_and_why(
    broken: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = fleet_with(broken, monkeypatch)
    decision = fleet.pool.lease(RequestInfo(), fleet.now, explain=True).decision
    assert decision is not None
    assert decision.by.startswith("round-robin chose instead: Raises.choose: ")
    assert words in decision.by


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Raises2", "has no Raises2"),
        ("fleet_of", "fleet_of is no class"),
        ("Fleet", "it has no added, removed, changed, choose, score: derive it from ByScore, ByLoad or Strategy"),
        ("Unwritten", "Unwritten has to write choose and score"),
        ("Unmade", r"Unmade\(random\) failed: KeyError: 'no' \(.*test_guarded.py:\d+\)"),
    ],
)
def test_what_is_no_strategy_is_refused_with_the_remedy(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load(f"{__name__}:{name}", Random(1))


class Unwritten(Strategy):
    pass


class Unmade(Whole):
    def __init__(self, random: Random) -> None:
        raise KeyError("no")
