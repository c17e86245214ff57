"""What every strategy promises, by the same property kit that users have for theirs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from random import Random

import pytest

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.kit import Promises, check_strategy
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies import STRATEGIES, ByLoad, ByScore, load
from balancer.balancing.strategies.guarded import Guarded

PROMISES = {
    # Between classes of different weight the class served longest ago wins a tie; within one, see test_round_robin.
    "round-robin": Promises(ties_in_turn=False),
    "random-of-two": Promises(lowest_score=False, ties_in_turn=False),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_chooses_the_lowest_score_among_those_it_may(name: str) -> None:
    check_strategy(STRATEGIES[name], PROMISES.get(name, Promises()), examples=60)


class Nearest(ByScore):
    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        return float(hash((endpoint.address, request.client)) % 3)


class Lightest(ByLoad):
    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        return endpoint.in_flight - endpoint.weight


@pytest.mark.parametrize("strategy", [Nearest, Lightest])
def test_a_strategy_of_the_users_own_is_one_score(strategy: type[ByScore]) -> None:
    check_strategy(strategy, examples=60)


class Worst(Nearest):
    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        candidates = [e for e in self._endpoints if e not in excluded]
        return max(candidates, key=lambda e: self.score(e, request, now), default=None)


class Careless(Nearest):
    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        return super().choose(request, (), now)


class Lazy(Nearest):
    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        return super().choose(request, excluded, now) if len(self._endpoints) < 3 else None


class Fidgety(Nearest):
    asked = 0

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        self.asked += 1
        return self.asked


class Stubborn(Lightest):
    def changed(self, endpoint: Endpoint) -> None:
        """Never learns."""


class Stale(ByLoad):
    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        return -endpoint.age(now)


class Partial(Nearest):
    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        return 0.0

    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        return next((endpoint for endpoint in self._endpoints if endpoint not in excluded), None)


@pytest.mark.parametrize(
    ("strategy", "complaint"),
    [
        (Worst, "though"),
        (Careless, "which is not eligible"),
        (Lazy, "chose none"),
        (Fidgety, "score changed something"),
        (Stubborn, "though"),
        (Stale, "though"),
        (Partial, "comes first"),
    ],
)
def test_the_kit_finds_a_broken_promise_and_tells_how(strategy: type[ByScore], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint) as raised:
        check_strategy(strategy, examples=500)
    assert "after this history:\n  join" in str(raised.value)


def test_the_registry_makes_each_by_its_name() -> None:
    for name, made in STRATEGIES.items():
        assert type(load(name, Random(1))) is made


def test_a_strategy_of_the_users_own_is_loaded_by_module_and_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "our_strategies.py").write_text(
        "from balancer.balancing.strategies import ByScore\n"
        "class First(ByScore):\n"
        "    def score(self, endpoint, request, now):\n"
        "        return endpoint.order\n"
        "class Nothing:\n"
        "    pass\n"
        "class Picky(First):\n"
        "    def __init__(self, random, taste):\n"
        "        pass\n"
    )
    loaded = load("our_strategies:First", Random(1))
    assert isinstance(loaded, Guarded)
    assert type(loaded.own).__name__ == "First"
    with pytest.raises(ValueError, match="our_strategies has no Second"):
        load("our_strategies:Second", Random(1))
    with pytest.raises(ValueError, match="it has no added, removed, changed, choose, score"):
        load("our_strategies:Nothing", Random(1))
    with pytest.raises(ValueError, match=r"Picky\(random\) failed: TypeError.*'taste'"):
        load("our_strategies:Picky", Random(1))


@pytest.mark.parametrize("name", ["fastest", "", "no_such_module:Class", ":Class", "module:"])
def test_an_unknown_strategy_is_refused_with_what_is_allowed(name: str) -> None:
    with pytest.raises(ValueError, match="no_such_module" if name.startswith("no_such") else "least-response-time"):
        load(name, Random(1))
