"""Simulated time: events in the order in which they are due."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush


class Clock:
    """The time (s) and what is to happen; what is due at the same time happens as scheduled."""

    __slots__ = ("_asked", "_events", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._asked = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, moment: float, call: Callable[[], None]) -> None:
        """Call at `moment`, or now when that is past."""
        self._asked += 1
        heappush(self._events, (max(moment, self.now), self._asked, call))

    def run(self, going: Callable[[], bool]) -> None:
        """Let events happen for as long as there are any and `going` says so."""
        events = self._events
        while events and going():
            self.now, _, call = heappop(events)
            call()
