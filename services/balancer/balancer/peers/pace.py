"""When a replica reports: soon after something changes, as often as its CPU time allows, and otherwise never."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

SOONEST: Final = 0.001
"""Seconds from a change to its report at the least: what changes within them is reported together."""
LATEST: Final = 0.1
"""And at the most."""
SHARE: Final = 0.0075
"""Largest share of the CPU time that sending reports may take: to hear the others takes three times as much again."""
PART: Final = 0.05
"""Of the time that a request takes: reporting its beginning sooner after the last report is not worth a message."""
SMOOTHING: Final = 0.2
"""Weight of one measured report in the average of what they cost."""
MEASURED: Final = 8
"""One report in so many is measured: to read the clock of CPU time is a system call."""


class Pace:
    """Calls `turn` after a change: never twice within the pause, and not at all while nothing changes."""

    def __init__(self, turn: Callable[[], None]) -> None:
        self._turn = turn
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0.0
        """When the next report may go out (s, the loop's time)."""
        self._cost = 0.0
        self._spent = 0.0
        self._count = 0
        self.pause = SOONEST
        """Seconds between two reports, at the least."""

    def arm(self) -> None:
        """Something has changed."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time() + SOONEST, self._next), self._end)

    def cancel(self) -> None:
        """No turn is due any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def heard(self) -> None:
        """Another's report has come, and this process is awake: report now rather than wake again for what is due soon.

        So the replicas fall into step, and each wakes once or twice for all reports rather than for each.
        """
        timer = self._timer
        if timer is not None and asyncio.get_running_loop().time() >= self._next - self.pause / 2:
            timer.cancel()
            self._end()

    def spend(self, begun: float) -> None:
        """A part of the last report took the CPU time since `begun`, where that is measured."""
        if begun:
            self._spent += time.thread_time() - begun

    def begin(self) -> float:
        """The CPU time at which a part of the report begins (s); 0 where it is not measured."""
        return time.thread_time() if self._count % MEASURED == 0 else 0.0

    def reported(self, duration: float, heard: bool) -> None:
        """A report goes out; a request takes `duration` seconds on average. `heard`: somebody hears it."""
        self._count += 1
        if self._spent:
            self._cost += SMOOTHING * (self._spent - self._cost)
            self._spent = 0.0
        self.pause = min(max(SOONEST, PART * duration, self._cost / SHARE), LATEST)
        self._next = asyncio.get_running_loop().time() + (self.pause if heard else LATEST)

    def _end(self) -> None:
        self._timer = None
        self._turn()
