"""What nobody can beat: one queue before the workers of all sound endpoints, that knows how long each will take.

A balancer has a queue at each endpoint instead, and learns how long a request takes when it is over.
"""

from __future__ import annotations

import re

from benchmarks.fleets import FLEETS, MEAN, WORKERS
from benchmarks.load import quantiles
from benchmarks.openloop import at_random

_WORK = re.compile(rb"X-Work: ([\d.]+)")


def p99(fleet: str, rate: float, seconds: float, seed: int) -> float:
    """Seconds, for the requests that the load generator draws from `seed`; pauses and late joiners are left out."""
    sound = [script for script in FLEETS[fleet] if not (script.hangs or script.fails or script.joins_after)]
    workers = [script.slower * MEAN for script in sound for _ in range(WORKERS)]
    free = [0.0] * len(workers)
    taken = []
    for due, request in at_random(rate, seconds, ("/",), seed):
        found = _WORK.search(request)
        work = float(found[1]) if found else 0.0
        ends = [max(due, since) + work * mean for since, mean in zip(free, workers, strict=True)]
        first = min(ends)
        free[ends.index(first)] = first
        taken.append(first - due)
    return quantiles(sorted(taken))[0.99]
