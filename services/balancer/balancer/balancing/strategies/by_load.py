"""Strategies whose score depends on the endpoint alone: kept in a heap, so that a choice looks at the top only."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from mypy_extensions import mypyc_attr

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.request import RequestInfo
from balancer.balancing.rng import Random
from balancer.balancing.strategies.heap import Entry, Heap, take_least
from balancer.balancing.strategies.strategy import Strategy, turn

_ANY_REQUEST: Final = RequestInfo()


def first(heap: Heap[Endpoint], excluded: Collection[Endpoint]) -> Endpoint | None:
    """The topmost endpoint that is not in `excluded`: looks at no more than those, and their children."""
    entries = heap.entries
    if not entries:
        return None
    top = entries[0]
    if not excluded or top.item not in excluded:
        return top.item
    edge = [top]
    while edge:
        entry = take_least(edge)
        if entry.item not in excluded:
            return entry.item
        heap.add_children(entry, edge)
    return None


def _key(strategy: Strategy, endpoint: Endpoint) -> float:
    key = strategy.score(endpoint, _ANY_REQUEST, 0.0)
    if key != key:
        raise ValueError(f"the score of {endpoint.address} is not a number")
    return key


@mypyc_attr(allow_interpreted_subclasses=True)
class ByLoad(Strategy):
    """Takes the lowest score; ties go by `turn`: the one chosen longest ago, or with the youngest request.

    A subclass writes `score`, which must depend on the endpoint's load, latency samples, weight or order alone, not on
    the request or the time: it is computed when the endpoint changes, not when one is chosen. A choice among n
    endpoints costs the logarithm of n.
    """

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._entries: dict[Endpoint, Entry[Endpoint]] = {}
        self._heap: Heap[Endpoint] = Heap()

    def added(self, endpoint: Endpoint) -> None:
        """`endpoint` has become eligible."""
        entry = Entry(endpoint)
        entry.key = _key(self, endpoint)
        entry.tie = turn(endpoint)
        self._entries[endpoint] = entry
        self._heap.push(entry)

    def removed(self, endpoint: Endpoint) -> None:
        """`endpoint` is no longer eligible."""
        self._heap.remove(self._entries.pop(endpoint))

    def changed(self, endpoint: Endpoint) -> None:
        """The load, latency, weight or order of an eligible endpoint has changed."""
        entry = self._entries[endpoint]
        key = _key(self, endpoint)
        tie = turn(endpoint)
        if key != entry.key or tie != entry.tie:
            entry.key = key
            entry.tie = tie
            self._heap.moved(entry)

    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        """The endpoint with the lowest score that is not in `excluded`."""
        return first(self._heap, excluded)

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        """How loaded `endpoint` is: lower wins. Changes nothing; `request` and `now` say nothing."""
        raise NotImplementedError(f"{type(self).__name__} has no score")
