"""Least-connections: whoever has the least to do."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from balancer.balancing.chance import Random
from balancer.balancing.endpoint import Endpoint
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies.heap import Entry, Heap
from balancer.balancing.strategies.strategy import Strategy

_PASSED: Final = 8
"""A choice passes over as many of the line's first that have one request more; if there are more, they leave it."""


class _Place:
    """Where an eligible endpoint stands: in the line, or in the heap."""

    __slots__ = ("after", "before", "chosen_at", "endpoint", "entry", "in_flight", "in_line")

    def __init__(self, endpoint: Endpoint) -> None:
        self.in_line = False
        self.in_flight = 0
        self.chosen_at = 0
        """Both as they were when it was placed there."""
        self.before: _Place | None = None
        self.after: _Place | None = None
        self.endpoint = endpoint
        self.entry = Entry(self)
        """What stands for it in the heap."""


class LeastConnections(Strategy):
    """The fewest requests in flight for its weight, counted from the moment of selection.

    Under a steady load nearly all endpoints have n or n + 1 in flight, and whoever is chosen was chosen last of all. So
    those of one weight stand in a line, in the order of their choices: the first of them that has n is the next, and
    goes to the end; when a request ends, its endpoint stays where it is. When all have n + 1, that is the new n. Where
    the line is in order, all this costs the same at any size.

    A heap orders whoever does not fit in: other weights, other loads, those whom the line has long overtaken. Being
    chosen is the way back into the line. What is taken is the better of the line's best and the heap's top.
    """

    def __init__(self, random: Random) -> None:
        self._places: dict[Endpoint, _Place] = {}
        self._heap: Heap[_Place] = Heap()
        self._first: _Place | None = None
        self._last: _Place | None = None
        self._size = 0
        """How many stand in the line."""
        self._weight = 0.0
        """Weight of all in the line."""
        self._load = 0
        """Each in the line has so many in flight, or one more."""
        self._ready = 0
        """How many have so many."""

    def added(self, endpoint: Endpoint) -> None:
        """`endpoint` has become eligible."""
        place = _Place(endpoint)
        self._places[endpoint] = place
        self._enter(place)

    def removed(self, endpoint: Endpoint) -> None:
        """`endpoint` is eligible no more."""
        self._leave(self._places.pop(endpoint))

    def changed(self, endpoint: Endpoint) -> None:
        """The load, weight or last choice of an eligible endpoint has changed."""
        place = self._places[endpoint]
        in_flight = endpoint.in_flight
        chosen = endpoint.chosen_at != place.chosen_at
        if place.in_line:
            if not chosen and endpoint.weight == self._weight:
                if in_flight == place.in_flight:
                    return
                if in_flight == self._load:
                    place.in_flight = in_flight
                    self._ready += 1
                    return
            if self._ready == 0 and in_flight > self._load + 1:  # All have n + 1, and here somebody has one more.
                self._load += 1
                self._ready = self._size
        elif not chosen:
            key = self._key(endpoint)
            if key != place.entry.key:
                place.in_flight = in_flight
                place.entry.key = key
                self._heap.moved(place.entry)
            return
        elif len(self._heap.entries) > 2 * self._size:
            self._dissolve()
        self._leave(place)
        self._enter(place)

    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        """The endpoint with the lowest score that is not in `excluded`."""
        if excluded:
            return self._choose_another(request, excluded, now)
        first = self._first_ready() if self._ready else self._first
        entries = self._heap.entries
        if first is None:
            return entries[0].item.endpoint if entries else None
        if entries:
            key = self._key(first.endpoint)
            top = entries[0]
            if top.key < key or (top.key == key and top.tie < first.chosen_at):
                return top.item.endpoint
        return first.endpoint

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        """Requests in flight, this one included, for each unit of weight."""
        return (endpoint.in_flight + 1) / endpoint.weight

    def _choose_another(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        tried = {endpoint for endpoint in excluded if endpoint in self._places}
        for endpoint in tried:
            self.removed(endpoint)
        chosen = self.choose(request, (), now)
        for endpoint in tried:
            self.added(endpoint)
        return chosen

    def _first_ready(self) -> _Place | None:
        """The first in the line that has n in flight; there is one."""
        place = self._first
        passed = 0
        while place is not None and place.in_flight != self._load:
            place = place.after
            passed += 1
        if passed > _PASSED:  # Their requests take long: do not pass them again and again.
            while self._first is not None and self._first is not place:
                slow = self._first
                self._leave(slow)
                self._push(slow)
        return place

    def _enter(self, place: _Place) -> None:
        """Put one who stands nowhere at the end of the line, if that is its place, or else into the heap."""
        endpoint = place.endpoint
        in_flight = endpoint.in_flight
        place.in_flight = in_flight
        place.chosen_at = endpoint.chosen_at
        last = self._last
        if last is None:
            self._weight = endpoint.weight
            self._load = max(in_flight - 1, 0)
            self._first = place
        elif (
            endpoint.weight == self._weight
            and self._load <= in_flight <= self._load + 1
            and last.chosen_at <= endpoint.chosen_at
        ):
            last.after = place
            place.before = last
        else:
            self._push(place)
            return
        self._last = place
        self._size += 1
        place.in_line = True
        if in_flight == self._load:
            self._ready += 1

    def _leave(self, place: _Place) -> None:
        """Leave the line or the heap."""
        if not place.in_line:
            self._heap.remove(place.entry)
            return
        before = place.before
        after = place.after
        if before is None:
            self._first = after
        else:
            before.after = after
            place.before = None
        if after is None:
            self._last = before
        else:
            after.before = before
            place.after = None
        self._size -= 1
        place.in_line = False
        if place.in_flight == self._load:
            self._ready -= 1

    def _dissolve(self) -> None:
        """Most do not fit into the line, since the load has fallen, or weights differ: let it begin anew."""
        while self._first is not None:
            place = self._first
            self._leave(place)
            self._push(place)

    def _push(self, place: _Place) -> None:
        place.entry.key = self._key(place.endpoint)
        place.entry.tie = place.chosen_at
        self._heap.push(place.entry)

    def _key(self, endpoint: Endpoint) -> float:
        return (endpoint.in_flight + 1) / endpoint.weight
