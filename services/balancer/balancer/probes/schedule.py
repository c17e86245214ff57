"""When to check which endpoint, and what a row of results means. Pure."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from random import Random

from balancer.balancing.endpoint import Endpoint

JITTER = 0.1
"""Part of the interval by which each pause is shortened or lengthened, so that replicas don't check in step."""
SPREAD = 0.01
"""Seconds between first checks, on average, when many endpoints join at once; spread over one interval at most."""


class Streak:
    """What the checks of one endpoint say so far.

    The first check decides alone, so that an endpoint that joins broken is soon out. From then on it takes `rise`
    successes or `fall` failures in a row, as in HAProxy.
    """

    __slots__ = ("_against", "_fall", "_first", "_rise", "healthy")

    def __init__(self, rise: int, fall: int, healthy: bool = True) -> None:
        self._rise = rise
        self._fall = fall
        self._first = True
        self._against = 0
        """Results in a row that say otherwise than `healthy`."""
        self.healthy = healthy

    def heard(self, success: bool) -> bool:
        """Take in one result; whether it changed `healthy`."""
        if success == self.healthy:
            self._against = 0
        else:
            self._against += 1
        needed = 1 if self._first else (self._rise if success else self._fall)
        self._first = False
        if self._against < needed:
            return False
        self.healthy = success
        self._against = 0
        return True


class Schedule:
    """Who is to be checked when. Times in seconds on the caller's clock."""

    def __init__(self, interval: float, random: Random) -> None:
        self._interval = interval
        self._random = random
        self._members: dict[Endpoint, int] = {}
        """Who is to be checked, and the number of the one entry in the heap that counts for it."""
        self._heap: list[tuple[float, int, Endpoint]] = []
        self._number = count()  # so that the heap never compares endpoints

    def __contains__(self, endpoint: Endpoint) -> bool:
        return endpoint in self._members

    def add(self, endpoint: Endpoint, now: float) -> None:
        """Check `endpoint` from now on: soon when there are few, spread over an interval when there are many."""
        if endpoint not in self._members:
            spread = min(self._interval, (len(self._members) + 1) * SPREAD)
            self._at(now + self._random.random() * spread, endpoint)

    def remove(self, endpoint: Endpoint) -> None:
        """Check `endpoint` no more."""
        self._members.pop(endpoint, None)

    def again(self, endpoint: Endpoint, started: float, now: float) -> None:
        """The check that began at `started` has ended: one interval after that beginning, the next is due."""
        if endpoint in self._members:
            pause = self._interval * (1 + JITTER * (2 * self._random.random() - 1))
            self._at(max(now, started + pause), endpoint)

    def due(self, now: float) -> Endpoint | None:
        """One endpoint whose check is due, or None."""
        while self._heap and self._heap[0][0] <= now:
            _, number, endpoint = heappop(self._heap)
            if self._members.get(endpoint) == number:
                return endpoint
        return None

    def soonest(self) -> float | None:
        """When the next check is due; None when there is nobody to check."""
        return self._heap[0][0] if self._heap else None

    def _at(self, due: float, endpoint: Endpoint) -> None:
        # An entry made before counts no more: an endpoint that left and returned would have one of each stay.
        number = next(self._number)
        self._members[endpoint] = number
        heappush(self._heap, (due, number, endpoint))
