"""When an endpoint that fails is left out for a while, and for how long.

Source: Envoy's outlier detection (consecutive 5xx and success rate), with two differences. An endpoint that returns is
on probation: one failure more ejects it again. And a low success rate must lie at least `_LEAST_GAP` below the mean,
lest one failure in a hundred eject an endpoint from a fleet that is otherwise without fault.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt
from typing import Final

from balancer.balancing.endpoint import Endpoint

INTERVAL: Final = 10.0
"""The success rates of this long a time (s) are compared."""

LONGEST: Final = 300.0
"""Longest ejection (s), unless LB_EJECT_TIME itself is longer."""

_LEAST_REQUESTS: Final = 100
"""An endpoint with fewer requests in the interval is not judged by its rate."""
_LEAST_ENDPOINTS: Final = 5
"""Nor is any, where fewer endpoints than this had so many."""
_DEVIATIONS: Final = 1.9
"""How many standard deviations below the mean rate is too low."""
_LEAST_GAP: Final = 0.05


def may_eject(ejected: int, endpoints: int, max_share: float) -> bool:
    """Whether one more of `endpoints` may be ejected, `ejected` being so already. One alone never is."""
    return endpoints > 1 and ejected + 1 <= max_share * endpoints


def eject(endpoint: Endpoint, base: float, now: float) -> float:
    """Mark `endpoint` as ejected and return for how long (s): `base` times the level, which repetition raises.

    The level falls by one for each `base` seconds that the endpoint has behaved since it returned.
    """
    if endpoint.ejection_level and base > 0:
        behaved = int((now - endpoint.returned_at) / base)
        endpoint.ejection_level = max(0, endpoint.ejection_level - behaved)
    endpoint.ejection_level += 1
    endpoint.ejections += 1
    seconds = min(base * endpoint.ejection_level, max(LONGEST, base))
    endpoint.ejected_until = now + seconds
    return seconds


def readmit(endpoint: Endpoint, eject_after: int, now: float) -> None:
    """Mark `endpoint` as ejected no more, on probation until its first success."""
    endpoint.ejected_until = 0.0
    endpoint.returned_at = now
    endpoint.failures_in_row = max(0, eject_after - 1)


def low_success(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Those whose success rate in the past interval is too low against the fleet's; begins the next interval."""
    judged: list[Endpoint] = []
    rates: list[float] = []
    for endpoint in endpoints:
        if endpoint.recent >= _LEAST_REQUESTS and endpoint.ejected_until == 0.0:
            judged.append(endpoint)
            rates.append(1.0 - endpoint.recent_failures / endpoint.recent)
        endpoint.recent = 0
        endpoint.recent_failures = 0
    if len(rates) < _LEAST_ENDPOINTS:
        return []
    mean = sum(rates) / len(rates)
    deviation = sqrt(sum((rate - mean) ** 2 for rate in rates) / len(rates))
    threshold = min(mean - _DEVIATIONS * deviation, mean - _LEAST_GAP)
    return [endpoint for endpoint, rate in zip(judged, rates, strict=True) if rate < threshold]
