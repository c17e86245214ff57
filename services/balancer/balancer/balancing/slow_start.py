"""Slow start: an endpoint that joins or returns takes its share little by little.

Its weight rises in a straight line from a tenth to the whole over the window, so that caches, pools and compilers
warm before the full load comes. Source: Envoy's slow start mode, with aggression 1 and a minimum weight of 10 %.
"""

from __future__ import annotations

from typing import Final

from balancer.balancing.endpoint import Endpoint

FIRST: Final = 0.1
"""Share of the weight at the start."""

_STEPS: Final = 50
"""The line is climbed in steps of a fiftieth, so that most ticks have nothing to do."""


def weight(full: float, since: float, window: float, now: float) -> float:
    """The weight in force `now` (s) of an endpoint whose slow start of `window` seconds began at `since`."""
    elapsed = now - since
    if elapsed >= window:
        return full
    steps = int(_STEPS * max(elapsed, 0.0) / window)
    return full * (FIRST + (1.0 - FIRST) * steps / _STEPS)


class SlowStart:
    """The endpoints of a pool that are in slow start: a tick looks at no others."""

    __slots__ = ("_starting", "_window")

    def __init__(self, window: float) -> None:
        """`window`: how long it takes (s); 0: there is none."""
        self._window = window
        self._starting: dict[Endpoint, None] = {}

    def begin(self, endpoint: Endpoint, now: float) -> bool:
        """Begin with `endpoint`, which has joined or returned; True when its weight in force has changed."""
        if self._window <= 0 or not endpoint.discovered:
            return False
        endpoint.slow_start_from = now
        self._starting[endpoint] = None
        return self.weigh(endpoint, now)

    def weigh(self, endpoint: Endpoint, now: float) -> bool:
        """Bring its weight in force up to date; True when that or the end of its slow start changed something."""
        since = endpoint.slow_start_from
        ends = since is not None and now - since >= self._window
        if ends:
            endpoint.slow_start_from = None
            self._starting.pop(endpoint, None)
        full = endpoint.spec.weight * endpoint.load_factor
        current = full if since is None or ends else weight(full, since, self._window, now)
        if current == endpoint.weight and not ends:
            return False
        endpoint.weight = current
        return True

    def tick(self, now: float) -> list[Endpoint]:
        """Let time pass; the endpoints whose weight has changed."""
        return [endpoint for endpoint in list(self._starting) if self.weigh(endpoint, now)]

    def forget(self, endpoint: Endpoint) -> None:
        """`endpoint` has left the pool."""
        self._starting.pop(endpoint, None)
