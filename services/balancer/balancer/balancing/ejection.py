"""When an endpoint that fails is left out for a while, and for how long.

Source: Envoy's outlier detection (consecutive 5xx and success rate), with two differences. An endpoint that returns is
on probation: one failure more ejects it again. And a low success rate must lie at least `_LEAST_GAP` below the mean,
so that one failure in a hundred ejects no endpoint from a fleet that is otherwise without fault.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt
from typing import Final

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.health import Health

INTERVAL: Final = 10.0
"""The success rates of this long a time (s) are compared."""

LONGEST: Final = 300.0
"""Longest ejection (s), unless LB_EJECT_TIME itself is longer."""

_LEAST_REQUESTS: Final = 100
"""The rate of an endpoint with fewer requests in the interval says nothing."""
_LEAST_ENDPOINTS: Final = 5
"""Rates are compared where this many endpoints had so many requests."""
_DEVIATIONS: Final = 1.9
"""How many standard deviations below the mean rate is too low."""
_LEAST_GAP: Final = 0.05


def may_eject(ejected: int, endpoints: int, max_share: float) -> bool:
    """Whether one more of `endpoints` may be ejected, `ejected` being so already. One alone never is."""
    return endpoints > 1 and ejected + 1 <= max_share * endpoints


def begin(health: Health, base: float, now: float) -> float:
    """Count one more ejection and return how long it lasts (s): `base` times the level, which repetition raises.

    The level falls by one for each `base` seconds without an ejection since the last one ended.
    """
    if health.ejection_level and base > 0:
        behaved = int((now - health.returned_at) / base)
        health.ejection_level = max(0, health.ejection_level - behaved)
    health.ejection_level += 1
    health.ejections += 1
    return min(base * health.ejection_level, max(LONGEST, base))


def end(health: Health, eject_after: int, now: float) -> None:
    """The ejection is over: the endpoint is on probation until its first success."""
    health.returned_at = now
    health.failures_in_row = max(0, eject_after - 1)


def low_success(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Those whose success rate in the past interval is too low against the fleet's; begins the next interval."""
    compared: list[Endpoint] = []
    rates: list[float] = []
    for endpoint in endpoints:
        health = endpoint.health
        if health.recent >= _LEAST_REQUESTS and not health.ejected:
            compared.append(endpoint)
            rates.append(1.0 - health.recent_failures / health.recent)
        health.recent = 0
        health.recent_failures = 0
    if len(rates) < _LEAST_ENDPOINTS:
        return []
    mean = sum(rates) / len(rates)
    deviation = sqrt(sum((rate - mean) ** 2 for rate in rates) / len(rates))
    threshold = min(mean - _DEVIATIONS * deviation, mean - _LEAST_GAP)
    return [endpoint for endpoint, rate in zip(compared, rates, strict=True) if rate < threshold]
