"""Weights from what endpoints say of their load: what each serves for the utilisation that it costs there.

An endpoint that serves 100 requests a second at half of its CPU is worth twice one that serves 50 at half. Failures
count as utilisation, so that one that fails fast draws no traffic.

Source: gRFC A58 (weighted_round_robin) and Envoy's client-side weighted round robin: the weight is
rate / (utilisation + errors/rate x penalty), it is not used before reports have come for the blackout period nor when
none has come for the expiration period, an endpoint without one counts as the mean of the others, and with fewer than
two there are none. Beyond that: where a report gives no rate, the rate of our own requests stands for it, and a weight
moves in steps, so that strategies that sort endpoints by weight have few classes.
"""

from __future__ import annotations

import math
from typing import Final

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.load_report import LoadReport, parse

PERIOD: Final = 1.0
"""Seconds between two looks at what has been reported."""
FAINT: Final = 0.01
"""Utilisation below which a report says nothing of what an endpoint can do."""
ERROR_PENALTY: Final = 1.0
"""Utilisation that a share of failed requests of 1 counts as."""
MOST: Final = 10.0
"""As much as a weight may differ from the mean, either way."""
STEP: Final = math.log(1.05)
"""A weight is a power of 1.05."""


class _Reports:
    """What one endpoint has reported."""

    __slots__ = (
        "answered",
        "at",
        "bad",
        "errors",
        "last",
        "last_report",
        "number",
        "rate",
        "since",
        "utilization",
        "worth",
    )

    def __init__(self, endpoint: Endpoint) -> None:
        self.since = 0.0
        """When (s) reports began to come without a pause."""
        self.at = float("-inf")
        """When the last one came."""
        self.last = b""
        self.last_report: LoadReport | None = None
        """What `last`, the last value, was read as."""
        self.bad = 0
        """Values that could not be read as a report."""
        self.number = 0
        """Reports since the last look, of which these are the sums."""
        self.utilization = 0.0
        self.rate = 0.0
        self.errors = 0.0
        self.answered = sum(endpoint.stats.answered)
        """What it had answered at the last look."""
        self.worth = 0.0
        """Requests a second that it serves at full utilisation; 0: not known."""


class LoadWeights:
    """The weights of one pool's endpoints, as far as these report their load."""

    __slots__ = ("_blackout", "_expiry", "_known", "_looked_at")

    def __init__(self, blackout: float, expiry: float) -> None:
        """`blackout`: seconds of reports before they count; `expiry`: seconds without, after which they do no more."""
        self._blackout = blackout
        self._expiry = expiry
        self._known: dict[Endpoint, _Reports] = {}
        self._looked_at = float("-inf")

    def heard(self, endpoint: Endpoint, name: bytes, value: bytes, now: float) -> None:
        """A response of `endpoint` carries a report, in the field `name`."""
        reports = self._known.get(endpoint)
        if reports is None:
            reports = self._known[endpoint] = _Reports(endpoint)
        if value == reports.last:
            report = reports.last_report
        else:
            report = reports.last_report = parse(name, value)
            reports.last = value
        if report is None:
            reports.bad += 1
            return
        if now - reports.at > self._expiry:
            reports.since = now
        reports.at = now
        reports.number += 1
        reports.utilization += report.utilization
        reports.rate += report.rate
        reports.errors += report.errors

    def left(self, endpoint: Endpoint) -> None:
        """It has left the pool."""
        if self._known.pop(endpoint, None) is not None:
            endpoint.load_factor = 1.0
            endpoint.utilization = -1.0

    def tick(self, now: float) -> list[Endpoint]:
        """Work the factors out again, once in `PERIOD`; returns the endpoints whose `load_factor` has changed."""
        took = now - self._looked_at
        if took < PERIOD or not self._known:
            return []
        self._looked_at = now
        usable: list[_Reports] = []
        for endpoint, reports in self._known.items():
            self._update_worth(endpoint, reports, took)
            if now - reports.at > self._expiry:
                reports.worth = 0.0
            elif reports.worth > 0.0 and now - reports.since >= self._blackout:
                usable.append(reports)
        mean = sum([reports.worth for reports in usable]) / len(usable) if len(usable) > 1 else 0.0
        changed: list[Endpoint] = []
        for endpoint, reports in self._known.items():
            factor = 1.0
            if mean > 0.0 and reports.worth > 0.0 and now - reports.since >= self._blackout:
                factor = _stepped(reports.worth / mean)
            if factor != endpoint.load_factor:
                endpoint.load_factor = factor
                changed.append(endpoint)
        return changed

    def _update_worth(self, endpoint: Endpoint, reports: _Reports, took: float) -> None:
        """Work out what an endpoint can serve, from the reports since the last time."""
        answered = sum(endpoint.stats.answered)
        own_rate = (answered - reports.answered) / took
        reports.answered = answered
        number = reports.number
        if not number:
            return
        utilization = reports.utilization / number
        rate = reports.rate / number
        errors = reports.errors / number
        reports.number = 0
        reports.utilization = reports.rate = reports.errors = 0.0
        endpoint.utilization = utilization
        if rate == 0.0:
            rate = own_rate
        if rate > 0.0:
            utilization += errors / rate * ERROR_PENALTY
        if rate > 0.0 and utilization >= FAINT:
            worth = rate / utilization
            # The mean of old and new: the reports of one second are few.
            reports.worth = worth if reports.worth == 0.0 else (reports.worth + worth) / 2

    def bad_of(self, endpoint: Endpoint) -> int:
        """How many values of `endpoint` could not be read as a report."""
        reports = self._known.get(endpoint)
        return reports.bad if reports is not None else 0


def _stepped(factor: float) -> float:
    """The power of 1.05 that is nearest, between 1/MOST and MOST."""
    bounded = min(max(factor, 1.0 / MOST), MOST)
    return math.exp(round(math.log(bounded) / STEP) * STEP)
