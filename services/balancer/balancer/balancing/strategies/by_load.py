"""Strategies whose score depends on the endpoint alone: kept in a heap, so that a choice looks at the top only."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, TypeVar

from mypy_extensions import mypyc_attr

from balancer.balancing.chance import Random
from balancer.balancing.endpoint import Endpoint
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies.heap import Entry, Heap
from balancer.balancing.strategies.strategy import Strategy

_ANY_REQUEST: Final = RequestInfo()


class Seat(Entry):
    """An endpoint in a heap."""

    __slots__ = ("endpoint",)

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self.endpoint = endpoint


S = TypeVar("S", bound=Seat)


def first(heap: Heap[S], excluded: Collection[Endpoint]) -> S | None:
    """The topmost seat whose endpoint is not in `excluded`: looks at no more than those, and their children."""
    seats = heap.entries
    if not seats:
        return None
    if not excluded or seats[0].endpoint not in excluded:
        return seats[0]
    edge = [seats[0]]
    while edge:
        seat = take_least(edge)
        if seat.endpoint not in excluded:
            return seat
        heap.add_children(seat, edge)
    return None


def take_least(edge: list[S]) -> S:
    """Remove and return the least of a few seats."""
    least = 0
    for i in range(1, len(edge)):
        seat = edge[i]
        best = edge[least]
        if seat.key < best.key or (seat.key == best.key and seat.tie < best.tie):
            least = i
    taken = edge[least]
    last = edge.pop()
    if last is not taken:
        edge[least] = last
    return taken


@mypyc_attr(allow_interpreted_subclasses=True)
class ByLoad(Strategy):
    """Takes the lowest score; ties go to the endpoint chosen longest ago.

    A subclass writes `score`, which must depend on the endpoint's load, latency samples, weight or order alone, not on
    the request or the time: it is computed when the endpoint changes, not when one is chosen. A choice among n
    endpoints costs the logarithm of n.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self._seats: dict[Endpoint, Seat] = {}
        self._heap: Heap[Seat] = Heap()

    def added(self, endpoint: Endpoint) -> None:
        """`endpoint` has become eligible."""
        seat = Seat(endpoint)
        seat.key = self.score(endpoint, _ANY_REQUEST, 0.0)
        seat.tie = endpoint.chosen_at
        self._seats[endpoint] = seat
        self._heap.push(seat)

    def removed(self, endpoint: Endpoint) -> None:
        """`endpoint` is eligible no more."""
        self._heap.remove(self._seats.pop(endpoint))

    def changed(self, endpoint: Endpoint) -> None:
        """The load, latency, weight or order of an eligible endpoint has changed."""
        seat = self._seats[endpoint]
        key = self.score(endpoint, _ANY_REQUEST, 0.0)
        if key != seat.key or endpoint.chosen_at != seat.tie:
            seat.key = key
            seat.tie = endpoint.chosen_at
            self._heap.moved(seat)

    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        """The endpoint with the lowest score that is not in `excluded`."""
        seat = first(self._heap, excluded)
        return None if seat is None else seat.endpoint

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        """How loaded `endpoint` is: lower wins. Changes nothing; `request` and `now` say nothing."""
        raise NotImplementedError(f"{type(self).__name__} has no score")
