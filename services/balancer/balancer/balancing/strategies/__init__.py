"""The strategies, one a file, and the registry that gives each its name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.request import RequestInfo


class Strategy(Protocol):
    """Decides which of the eligible endpoints takes a request. It does not filter: the pool tells who is."""

    def added(self, endpoint: Endpoint) -> None:
        """`endpoint` has become eligible."""

    def removed(self, endpoint: Endpoint) -> None:
        """`endpoint` is eligible no more."""

    def changed(self, endpoint: Endpoint) -> None:
        """The load, latency or weight of an eligible endpoint has changed."""

    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        """The endpoint with the lowest score that is not in `excluded` (the one or two this request has tried)."""

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        """The plain definition: lower wins. Changes nothing."""
