"""What a strategy is."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from mypy_extensions import mypyc_attr

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.request import RequestInfo
from balancer.balancing.rng import Random

_FIRST: Final = -(1 << 59)
"""Less than any time in microseconds."""


def turn(endpoint: Endpoint) -> int:
    """Which of two equals comes first: the smaller number.

    Endpoints where no request waits for its response rotate: the one chosen longest ago comes first. Among the others
    that is the endpoint whose request has run longest. Where response times are even, it ends first, and busy endpoints
    rotate too. Else that one may run longest still, and it is the one whose oldest waiting request was sent last.
    """
    oldest = endpoint.oldest
    if oldest is None:
        return _FIRST + endpoint.chosen_at if endpoint.chosen_at else 2 * _FIRST + endpoint.order
    if endpoint.variability.even:
        return endpoint.chosen_at
    return -int((oldest.sent_at or 0.0) * 1e6)


def load_of(endpoint: Endpoint) -> float:
    """Requests in flight, those that other replicas are believed to have there and one more, by unit of weight."""
    load = endpoint.in_flight + 1.0
    if endpoint.load_elsewhere > 0.0:
        load += endpoint.elsewhere.load(endpoint.in_flight)
    return load / endpoint.weight


@mypyc_attr(allow_interpreted_subclasses=True)
class Strategy:
    """Decides which of the eligible endpoints takes a request. It does not filter: the pool says which are eligible.

    Most strategies stand on `ByScore` or `ByLoad`. One that has an index of its own and does not care for load sets
    the class attribute `watches_load = False`: `changed` is then called for a new weight only, not for each request.

    A class and no Protocol, which would be a trait once compiled: Python's own classes cannot inherit from that.
    """

    def __init__(self, random: Random) -> None:
        self.random = random

    def added(self, endpoint: Endpoint) -> None:
        """`endpoint` has become eligible."""

    def removed(self, endpoint: Endpoint) -> None:
        """`endpoint` is no longer eligible."""

    def changed(self, endpoint: Endpoint) -> None:
        """The load, latency, weight or order of an eligible endpoint has changed."""

    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        """The endpoint with the lowest score that is not in `excluded` (the one or two this request has tried)."""
        raise NotImplementedError(f"{type(self).__name__} has no choose")

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        """The plain definition: lower wins. Changes nothing."""
        raise NotImplementedError(f"{type(self).__name__} has no score")


# They take any object: a user's strategy may have the methods without deriving from `Strategy`, which compiled code
# would refuse as an argument.


def hears_changes(strategy: object) -> bool:
    """Whether the strategy has a `changed` of its own, worth calling."""
    return getattr(type(strategy), "changed", None) is not Strategy.changed


def hears_load(strategy: object) -> bool:
    """Whether the pool calls `changed` for each request that begins or ends, not only for weights."""
    return hears_changes(strategy) and bool(getattr(strategy, "watches_load", True))


def follows_work(strategy: Strategy) -> bool:
    """Whether it uses the expected cost of a request, so that the pool learns it."""
    return bool(getattr(strategy, "watches_cost", False))
