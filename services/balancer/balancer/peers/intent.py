"""What operators have asked of the whole fleet: for the strategy, and for each endpoint, the last wish counts.

So two who ask for different things at once both get them, and replicas agree in whatever order they hear of it (an
"LWW-element map" among the conflict-free replicated data types: Shapiro et al., 2011).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

MOST: Final = 5000
"""Wishes that are kept, the latest: 450 kB of a report. All replicas forget the same ones, as a limit by age would not
have it; until so many others have come, the wish to take an endpoint back outlives any older one to drain it."""


class Wish(NamedTuple):
    """What was asked of one endpoint. Of two the larger counts: the later one, and of two at once the one to drain."""

    at: float
    """Unix time (s), or a moment after all that was known, where a clock is behind that."""
    drained: bool
    uid: str = ""
    """The pod's; empty: it is no pod, or is taken back. Another pod that gets its address is not meant."""


@dataclass(frozen=True)
class Intent:
    """All that is in force, and what has been taken back."""

    switched: float = 0.0
    """Unix time (s) at which the strategy was switched; 0: never."""
    strategy: str = ""
    """Name of the strategy; empty: nobody has switched it."""
    wishes: Mapping[str, Wish] = field(default_factory=dict)
    """By the address of the endpoint."""

    @property
    def at(self) -> float:
        """Unix time (s) of the latest wish; 0: there was none."""
        return max([self.switched, *[wish.at for wish in self.wishes.values()]])

    @property
    def addresses(self) -> frozenset[str]:
        """Those of the endpoints that are to be drained."""
        return frozenset([address for address, wish in self.wishes.items() if wish.drained])

    def merged(self, other: Intent) -> Intent:
        """What counts of both: the same whichever is merged with which, in which order and how often."""
        switched, strategy = max((self.switched, self.strategy), (other.switched, other.strategy))
        wishes = dict(self.wishes)
        for address, wish in other.wishes.items():
            if address not in wishes or wish > wishes[address]:
                wishes[address] = wish
        return Intent(switched, strategy, _latest(wishes))


def _latest(wishes: dict[str, Wish]) -> dict[str, Wish]:
    if len(wishes) <= MOST:
        return wishes
    by_age = sorted([(wish, address) for address, wish in wishes.items()])
    return {address: wish for wish, address in by_age[-MOST:]}


def as_json(intent: Intent) -> dict[str, object]:
    """As it is sent. An older replica reads `at`, `strategy` and `drained` alone."""
    drained = sorted([(address, wish) for address, wish in intent.wishes.items() if wish.drained])
    return {
        "at": intent.at,
        "strategy": intent.strategy,
        "switched": intent.switched,
        "drained": [f"{address} {wish.uid}" if wish.uid else address for address, wish in drained],
        "since": [wish.at for _, wish in drained],
        "taken_back": {address: wish.at for address, wish in intent.wishes.items() if not wish.drained},
    }


def read(value: object) -> Intent:
    """What `as_json` gave. An older replica has one time for all, and says nothing of what is taken back. Raises
    ValueError.
    """
    if not isinstance(value, dict) or not is_number(value.get("at")) or not isinstance(value.get("strategy"), str):
        raise ValueError("intent has no time or no strategy")
    at, strategy = value["at"], value["strategy"]
    switched: Any = value.get("switched", at if strategy else 0.0)
    drained, taken_back = value.get("drained", []), value.get("taken_back", {})
    if not isinstance(drained, list) or not all(isinstance(each, str) for each in drained):
        raise ValueError("drained is no list of names")
    since = value.get("since", [at] * len(drained))
    if not isinstance(since, list) or len(since) != len(drained) or not isinstance(taken_back, dict):
        raise ValueError("intent does not say since when")
    if not all(is_number(each) for each in [switched, *since, *taken_back.values()]):
        raise ValueError("intent has what is no time")
    wishes = {address: Wish(float(time), False) for address, time in taken_back.items()}
    for name, time in zip(drained, since, strict=True):
        address, _, uid = name.partition(" ")
        wish = Wish(float(time), True, uid)
        wishes[address] = max(wish, wishes.get(address, wish))
    return Intent(float(switched), strategy, _latest(wishes))


def is_number(value: object) -> bool:
    """Whether it is a number that a report may have: of seconds, or of anything."""
    return type(value) in (int, float) and 0 <= value < 1e12  # type: ignore[operator]
