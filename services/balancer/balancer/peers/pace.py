"""When a replica reports: soon after something changes, as often as its CPU time allows, and otherwise never."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

SOONEST: Final = 0.001
"""Seconds between two reports at the least: what changes within them is reported together."""
LATEST: Final = 0.1
"""And at the most, where something changes."""
SHARE: Final = 0.025
"""Largest share of the CPU time that reports may take: this replica's, and as many of each other one."""
AROUND: Final = 1.5
"""What reports take of the CPU, over what is measured here and a wake of the event loop, which takes about as long as
to hear one: the kernel takes the rest. So they take about `SHARE` (`benchmarks.replicas --cpu`)."""
PART: Final = 0.05
"""Of the time that a request takes: reporting its beginning sooner after the last report is not worth a message."""
SMOOTHING: Final = 0.2
"""Weight of one measured piece of work in the average of what it takes."""
MEASURED: Final = 8
"""One piece of work in so many is measured: to read the clock of CPU time is a system call."""


class Cost:
    """CPU time that a piece of work takes, on average (s)."""

    __slots__ = ("_count", "average")

    def __init__(self) -> None:
        self.average = 0.0
        self._count = 0

    def begin(self) -> float:
        """The CPU time at which a piece of work begins (s); 0 where it is not measured."""
        self._count += 1
        return time.thread_time() if self._count % MEASURED == 0 else 0.0

    def end(self, begun: float) -> None:
        """That piece has ended."""
        if begun:
            took = time.thread_time() - begun
            self.average += (SMOOTHING if self._count > MEASURED else 1.0) * (took - self.average)


class Pace:
    """Calls `turn` after a change: never twice within the pause, and not at all while nothing changes."""

    def __init__(self, turn: Callable[[], None]) -> None:
        self._turn = turn
        self._due: asyncio.Handle | None = None
        self._next = 0.0
        """When the next report may go out (s, the loop's time)."""
        self.sending = Cost()
        """Of a report to all others."""
        self.hearing = Cost()
        """Of a report of one other."""
        self.pause = SOONEST
        """Seconds between two reports, at the least."""

    @property
    def is_due(self) -> bool:
        """Whether something is to be reported."""
        return self._due is not None

    def arm(self) -> None:
        """Something has changed: it is reported with all else that the event loop does now, if that may be."""
        if self._due is None:
            loop = asyncio.get_running_loop()
            self._due = loop.call_soon(self._end) if loop.time() >= self._next else loop.call_at(self._next, self._end)

    def cancel(self) -> None:
        """No turn is due any more."""
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def heard(self) -> None:
        """Another's report has come, and this process is awake: report now rather than wake again for what is due soon.

        So the replicas fall into step, and each wakes once or twice for all reports rather than for each.
        """
        if self._due is not None and asyncio.get_running_loop().time() >= self._next - self.pause / 2:
            self._due.cancel()
            self._end()

    def reported(self, duration: float, others: int) -> None:
        """A report goes out to so many others, who report as often; a request takes `duration` seconds on average."""
        cost = AROUND * (self.sending.average + (others + 1) * self.hearing.average)
        self.pause = min(max(SOONEST, PART * duration, cost / SHARE), LATEST)
        self._next = asyncio.get_running_loop().time() + (self.pause if others else LATEST)

    def _end(self) -> None:
        self._due = None
        self._turn()
