"""One choice, explained, and the log of the last ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass


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


class DecisionLog:
    """The last thousand decisions recorded, at most 100 a second."""

    __slots__ = ("_next_at", "_recorded")

    def __init__(self) -> None:
        self._recorded: deque[Decision] = deque(maxlen=1000)
        self._next_at = float("-inf")

    def due(self, now: float) -> bool:
        """Whether the next decision is to be recorded."""
        return now >= self._next_at

    def add(self, decision: Decision, pause: float = 0.01) -> None:
        """Record `decision`; the next is due `pause` seconds after it, and never sooner than a hundredth."""
        self._recorded.append(decision)
        self._next_at = decision.at + max(pause, 0.01)

    def __len__(self) -> int:
        return len(self._recorded)

    def __iter__(self) -> Iterator[Decision]:
        """The decisions recorded, newest first."""
        return reversed(self._recorded)
