"""When a failed attempt may be made again, and how many of all requests may be retries."""

from __future__ import annotations

import enum
from collections.abc import Collection
from math import exp
from typing import Final

from balancer.balancing.outcome import Kind

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that may be repeated: RFC 9110, section 9.2.2."""

FADES: Final = 2.0
"""What requests have earned falls to 1/e in this time (s)."""


class Retry(enum.Enum):
    """Whether, and how, an attempt may be followed by another."""

    NO = "no"
    FRESH = "fresh"
    """Again on a fresh connection to the same endpoint; charged to neither endpoint nor budget."""
    ELSEWHERE = "elsewhere"
    """At another endpoint if there is one; charged to the budget."""


def may_retry(
    kind: Kind, status: int, idempotent: bool, reused_connection: bool, retry_statuses: Collection[int]
) -> Retry:
    """What may follow an attempt that ended so, before any byte of a response has gone to the client.

    `status` counts where `kind` is ANSWERED. `reused_connection`: it had served before, and closed with nothing come
    back, which says that the endpoint had closed it as idle.
    """
    if kind in (Kind.REFUSED, Kind.CONNECT_TIMEOUT, Kind.CERTIFICATE, Kind.HANDSHAKE, Kind.LOCAL):
        return Retry.ELSEWHERE  # Nothing was sent: safe for any method.
    if not idempotent:
        return Retry.NO
    if kind in (Kind.RESET, Kind.UNUSED) and reused_connection:
        return Retry.FRESH
    if kind in (Kind.RESET, Kind.TIMED_OUT) or (kind is Kind.ANSWERED and status in retry_statuses):
        return Retry.ELSEWHERE
    return Retry.NO


class RetryBudget:
    """Retries as a share of recent requests, and some a second on top, so that an outage is not multiplied.

    A bucket of tokens: each request earns `share` of one, and what requests earned fades with `FADES`; time earns
    `per_second`, of which one second's worth is kept; a retry takes one.
    Source: Finagle's RetryBudget, with a shorter memory: at most what two seconds earned can be spent at once.
    """

    __slots__ = ("_at", "_by_requests", "_by_time", "_per_second", "_share")

    def __init__(self, share: float, per_second: float = 10.0) -> None:
        self._share = share
        self._per_second = per_second
        self._by_requests = 0.0
        self._by_time = per_second
        self._at: float | None = None

    def earn(self, now: float) -> None:
        """A request has begun."""
        if self._at is None or now - self._at > 0.1:  # Fading in steps is as good, and saves an exp for each request.
            self._advance(now)
        self._by_requests += self._share

    def take(self, now: float) -> bool:
        """Whether a retry may be made now; it is counted if so."""
        self._advance(now)
        if self._by_requests + self._by_time < 1.0 - 1e-9:  # A hundred times 0.01 is 1, whatever the sum says.
            return False
        paid = min(1.0, self._by_requests)
        self._by_requests -= paid
        self._by_time -= 1.0 - paid
        return True

    def left(self, now: float) -> float:
        """Retries that may be made now."""
        self._advance(now)
        return self._by_requests + self._by_time

    def _advance(self, now: float) -> None:
        if self._at is not None and now > self._at:
            passed = now - self._at
            self._by_requests *= exp(-passed / FADES)
            self._by_time = min(self._per_second, self._by_time + passed * self._per_second)
        self._at = now
