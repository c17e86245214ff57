"""One choice, explained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """One endpoint as a choice saw it."""

    address: str
    score: float | None
    """The strategy's score, lower wins; None for an endpoint that was out."""
    why_not: str | None
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
    """By what it won, in words: `lowest score 0.012`, `the only candidate`, `tie, chosen longest ago`."""
    candidates: tuple[Candidate, ...]
    """At most 16: the winner, the best others, then those that were out."""
    others: dict[str, str]
    """What each other strategy would have chosen, by its score: name to address."""


class DecisionLog:
    """The last thousand decisions recorded, at most 100 a second."""
