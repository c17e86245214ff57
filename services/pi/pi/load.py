"""How loaded the service is, as it tells load balancers with each response: an ORCA report.

Source: the header `endpoint-load-metrics` in its TEXT form, fields of xds.data.orca.v3.OrcaLoadReport.
"""

from __future__ import annotations

import math

FIELD = "endpoint-load-metrics"
TIME_CONSTANT = 2.0
"""Seconds in which what was falls to 1/e in the averages."""


class Load:
    """Requests a second, failures among them, and how much of the workers' time they take, as moving averages."""

    def __init__(self, workers: int, now: float) -> None:
        self._workers = workers
        self._at = now
        self._under_way = 0
        self._utilization = 0.0
        self._rate = 0.0
        self._errors = 0.0

    def began(self, now: float) -> None:
        """A worker is asked."""
        self._pass(now)
        self._under_way += 1

    def ended(self, now: float, *, failed: bool) -> None:
        """It has answered, or nobody waits any more."""
        self._pass(now)
        self._under_way -= 1
        self._rate += 1 / TIME_CONSTANT
        self._errors += failed / TIME_CONSTANT

    def report(self, now: float) -> str:
        """The header's value. Above 1 more requests are under way than workers there are."""
        self._pass(now)
        said = f"TEXT application_utilization={self._utilization:.3f},rps_fractional={self._rate:.3f}"
        return f"{said},eps={self._errors:.3f}" if self._errors >= 0.001 else said

    def _pass(self, now: float) -> None:
        kept = math.exp(-(now - self._at) / TIME_CONSTANT)
        self._at = now
        busy = self._under_way / self._workers
        self._utilization = busy + (self._utilization - busy) * kept
        self._rate *= kept
        self._errors *= kept
