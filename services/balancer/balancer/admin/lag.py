"""How late the event loop runs: the one figure that shows that a single-threaded program is overloaded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from balancer.counters import Histogram

INTERVAL = 0.1
"""Seconds between two measurements."""


class LoopLag:
    """Asks the event loop to run it every INTERVAL, and counts how late it does."""

    def __init__(self, histogram: Histogram, clock: Callable[[], float]) -> None:
        self._histogram = histogram
        self._clock = clock
        self._due = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Measure from now on."""
        self._due = self._clock() + INTERVAL
        self._handle = asyncio.get_running_loop().call_later(INTERVAL, self._run)

    def stop(self) -> None:
        """Measure no more."""
        if self._handle is not None:
            self._handle.cancel()

    def _run(self) -> None:
        self._histogram.observe(max(0.0, self._clock() - self._due))
        self.start()
