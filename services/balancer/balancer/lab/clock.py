"""Simulated time: events in the order in which they are due."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush


class Clock:
    """The time (s) and what is to happen; what is due at the same time happens as scheduled."""

    __slots__ = ("_events", "_number", "_stopped", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._number = 0
        self._stopped = False
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, moment: float, call: Callable[[], None]) -> None:
        """Call at `moment`, or now when that is past."""
        self._number += 1
        heappush(self._events, (max(self.now, moment), self._number, call))

    def run(self) -> None:
        """Let events happen until there are none, or `stop` is called."""
        events = self._events
        while events and not self._stopped:
            self.now, _, call = heappop(events)
            call()

    def stop(self) -> None:
        """Let nothing more happen."""
        self._stopped = True
