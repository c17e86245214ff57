"""What a simulated endpoint says of its load, as a real one does: an ORCA report, which balancing reads.

The averages are the Pi service's (services/pi/pi/load.py).
"""

from __future__ import annotations

import math
from typing import Final

TIME_CONSTANT: Final = 2.0
"""Seconds in which what was falls to 1/e in the averages."""


class Load:
    """Requests a second, failures among them, and how much of the workers' time they take."""

    __slots__ = ("_at", "_errors", "_rate", "_under_way", "_utilization", "_workers")

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._at = 0.0
        self._under_way = 0
        self._utilization = 0.0
        self._rate = 0.0
        self._errors = 0.0

    def began(self, now: float) -> None:
        """A request has come."""
        self._pass(now)
        self._under_way += 1

    def ended(self, now: float, failed: bool = False) -> None:
        """It has its answer."""
        self._pass(now)
        self._under_way -= 1
        self._rate += 1.0 / TIME_CONSTANT
        self._errors += failed / TIME_CONSTANT

    def report(self, now: float) -> bytes:
        """The header's value. Above 1 more requests are under way than workers there are."""
        self._pass(now)
        said = f"TEXT application_utilization={self._utilization:.3f},rps_fractional={self._rate:.3f}"
        return f"{said},eps={self._errors:.3f}".encode()

    def _pass(self, now: float) -> None:
        kept = math.exp((self._at - now) / TIME_CONSTANT)
        self._at = now
        busy = self._under_way / self._workers
        self._utilization = busy + (self._utilization - busy) * kept
        self._rate *= kept
        self._errors *= kept
