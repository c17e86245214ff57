"""Slow start: an endpoint that comes or returns takes its share little by little.

Its weight rises in a straight line from a tenth to the whole over the window, so that caches, pools and compilers
warm before the full load comes. Source: Envoy's slow start mode, with aggression 1 and a minimum weight of 10 %.
"""

from __future__ import annotations

from typing import Final

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
