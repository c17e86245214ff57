"""The latency of an endpoint, as one number that rises at once and falls slowly."""

from __future__ import annotations

from math import exp, log
from typing import Final

from mypy_extensions import mypyc_attr

TIME_CONSTANT: Final = 5.0
"""The average falls to 1/e in this time (s)."""

PENALTY: Final = 5.0
"""What a failure counts as (s), or the average if that is more."""

_SMALLEST: Final = 1e-6
"""Shortest sample (s): an average of zero would have no logarithm, and would never be left."""


@mypyc_attr(acyclic=True)
class PeakEwma:
    """Latency of one endpoint, in seconds, that rises at once and falls slowly.

    A sample above the average replaces it; one below pulls it down with time constant `TIME_CONSTANT`. Unused, the
    average decays towards zero with the same constant, so that an endpoint left for its slowness is tried again.
    Source: Finagle's "peak EWMA" load metric; failures as penalties after Linkerd's load biaser.
    """

    __slots__ = ("level", "measured", "measured_at", "value")

    def __init__(self) -> None:
        self.measured = False
        self.value = 0.0
        """The average (s) at `measured_at`; meaningless until measured."""
        self.measured_at = 0.0
        """When the last sample was taken (s)."""
        self.level = 0.0
        """log(value) + measured_at / TIME_CONSTANT: averages compare as their levels do, at any time."""

    def average(self, now: float) -> float | None:
        """The average (s) in force at `now`, None when nothing was ever measured; before the last sample, as then."""
        if not self.measured:
            return None
        return self.value * exp(min(self.measured_at - now, 0.0) / TIME_CONSTANT)

    def sample(self, seconds: float, now: float) -> None:
        """Take one measured time (s) into the average."""
        if seconds < _SMALLEST:
            seconds = _SMALLEST
        if self.measured:
            kept = exp((self.measured_at - now) / TIME_CONSTANT)
            decayed = self.value * kept
            if seconds < decayed:
                seconds = decayed + seconds * (1.0 - kept)
        self._set(seconds, now)

    def penalise(self, now: float) -> None:
        """Count a failure: as `PENALTY`, or as the average if that is more."""
        average = self.average(now)
        self._set(PENALTY if average is None or average < PENALTY else average, now)

    def restore(self, value: float, measured_at: float, measured: bool) -> None:
        """Put back what was there before a sample that turned out to say nothing."""
        self.measured = measured
        if measured:
            self._set(value, measured_at)

    def _set(self, value: float, now: float) -> None:
        self.measured = True
        self.value = value
        self.measured_at = now
        self.level = log(value) + now / TIME_CONSTANT
