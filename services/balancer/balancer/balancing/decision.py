"""One choice, explained, and the log of the last ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from balancer.balancing.history import History


@dataclass(frozen=True, slots=True)
class Candidate:
    """One endpoint as a choice saw it."""

    address: str
    score: float | None
    """The strategy's score, lower wins; None for an endpoint that was out."""
    ineligible_reason: str | None
    """Why it was no candidate; None if it was one."""
    in_flight: int
    latency: float | None
    """The average in force (s), None when never measured."""
    weight: float
    wait: float | None = None
    """Seconds until it was expected to begin with the request; None where the strategy follows no work."""
    pace: float | None = None
    """Its time for a request, as a multiple of a typical endpoint's; None likewise."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Why a request went where it went."""

    at: float
    """When (s, the pool's clock)."""
    strategy: str
    client: str
    method: str
    path: str
    chosen: str | None
    """The winner's address, None when there was none."""
    by: str
    """By what it won, in words: `lowest score 0.012`, `the only candidate`, `tie, chosen longest ago`, …"""
    candidates: tuple[Candidate, ...]
    """At most 16: the winner, the best others, then those that were out."""
    others: dict[str, str]
    """What each other strategy would have chosen, by its score: name to address."""
    cluster: str = "default"
    """Whose endpoints were to choose from."""
    cost: float | None = None
    """Seconds of work that was expected; None while nothing is known, or where the strategy follows no work."""


class DecisionLog:
    """The last thousand decisions recorded, at most 100 a second."""

    __slots__ = ("_next_at", "_recorded")

    def __init__(self) -> None:
        self._recorded = History(1000)
        self._next_at = float("-inf")

    def due(self, now: float) -> bool:
        """Whether the next decision is to be recorded."""
        return now >= self._next_at

    def add(self, decision: Decision, pause: float = 0.01) -> None:
        """Record `decision`; the next is due `pause` seconds after it, and never sooner than a hundredth."""
        self._recorded.append(_plain(decision))
        self._next_at = decision.at + max(pause, 0.01)

    def __len__(self) -> int:
        return len(self._recorded)

    def __iter__(self) -> Iterator[Decision]:
        """The decisions recorded, newest first."""
        return map(_decision, reversed(self._recorded))


def _plain(decision: Decision) -> tuple[Any, ...]:
    candidates = [
        (
            each.address,
            each.score,
            each.ineligible_reason,
            each.in_flight,
            each.latency,
            each.weight,
            each.wait,
            each.pace,
        )
        for each in decision.candidates
    ]
    return (
        decision.at,
        decision.strategy,
        decision.client,
        decision.method,
        decision.path,
        decision.chosen,
        decision.by,
        candidates,
        decision.others,
        decision.cluster,
        decision.cost,
    )


def _decision(plain: tuple[Any, ...]) -> Decision:
    at, strategy, client, method, path, chosen, by, candidates, others, cluster, cost = plain
    shown = tuple([Candidate(*each) for each in candidates])
    return Decision(at, strategy, client, method, path, chosen, by, shown, others, cluster, cost)
