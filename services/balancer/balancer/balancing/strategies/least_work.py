"""Least-work: the endpoint that is expected to finish the request first."""

from __future__ import annotations

from collections.abc import Collection
from math import exp, log
from typing import ClassVar, Final

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.request import RequestInfo
from balancer.balancing.rng import Random
from balancer.balancing.strategies.heap import Entry, Heap, take_least
from balancer.balancing.strategies.strategy import Strategy, load_of, turn

LOOKS: Final = 16
"""Endpoints of one class that a choice looks at."""
STEP: Final = 1.5
"""Paces are compared in steps of this factor: what differs by less is noise, or not worth the while."""
CROWD: Final = 0.02
"""What each request in flight counts for, in mean costs, where a worker is free: it breaks ties."""
PENALTY: Final = 20.0
"""Mean costs that the latest failure counts for, times failures in a row."""
FORGIVEN: Final = 5.0
"""Seconds in which a penalty falls to 1/e."""
FORGOTTEN: Final = 10.0
"""Seconds unused in which what is known of a slow endpoint's pace falls to 1/e: it is tried again."""
_STEP: Final = log(STEP)


class _Class:
    """Endpoints of one pace and one weight: those with a free worker by load, the others by when they have one."""

    __slots__ = ("busy", "free", "pace", "weight")

    def __init__(self, step: int, weight: float) -> None:
        self.pace = STEP**step
        self.weight = weight
        self.free: Heap[_Place] = Heap()
        self.busy: Heap[_Place] = Heap()


class _Place:
    """Where one endpoint stands."""

    __slots__ = ("endpoint", "entry", "is_free", "owner", "step")

    def __init__(self, endpoint: Endpoint, owner: _Class) -> None:
        self.endpoint = endpoint
        self.owner = owner
        self.entry: Entry[_Place] = Entry(self)
        self.is_free = True
        self.step = 0


class LeastWork(Strategy):
    """The lowest expected time to completion.

    That is pace times (the request's expected cost + the time until a worker is free), all three learned (cost.py,
    work.py). Where several have a free worker, the fewest in flight; failures of late and a suspicious silence count
    against an endpoint.

    The minimum without a scan: endpoints of one pace (in steps) and one weight form a class. In a class those with a
    free worker stand in a heap by load, the others in one by the time at which they have one, which can only come later
    than expected. So a heap's keys are lower bounds of the score: a choice takes endpoints in their order until the
    next bound is above the best score, `LOOKS` of a heap at most.
    """

    watches_cost: ClassVar[bool] = True

    def __init__(self, random: Random) -> None:
        self._places: dict[Endpoint, _Place] = {}
        self._classes: dict[tuple[int, float], _Class] = {}

    def added(self, endpoint: Endpoint) -> None:
        """`endpoint` has become eligible."""
        step = round(_log_pace(endpoint) / _STEP) if endpoint.work.doubt < _STEP / 4 else 0
        self._enter(_Place(endpoint, self._class(step, endpoint.weight)), step)

    def removed(self, endpoint: Endpoint) -> None:
        """`endpoint` is no longer eligible."""
        place = self._places.pop(endpoint)
        self._exit(place)

    def changed(self, endpoint: Endpoint) -> None:
        """The load, pace or weight of an eligible endpoint has changed."""
        place = self._places[endpoint]
        exact = _log_pace(endpoint) / _STEP
        step = place.step
        # It changes its class only when that is beyond doubt, so that equal endpoints do not look unequal by chance.
        if abs(exact - step) > 0.6 + 3.0 * endpoint.work.doubt / _STEP:
            step = round(exact)
        if step != place.step or endpoint.weight != place.owner.weight:
            self._exit(place)
            place.owner = self._class(step, endpoint.weight)
            self._enter(place, step)
            return
        was_free = place.is_free
        self._set_key(place)
        owner = place.owner
        if was_free == place.is_free:
            (owner.free if was_free else owner.busy).moved(place.entry)
        else:
            (owner.free if was_free else owner.busy).remove(place.entry)
            (owner.free if place.is_free else owner.busy).push(place.entry)

    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        """The endpoint that is expected to have done it first."""
        best: Endpoint | None = None
        lowest = 0.0
        cost = -1.0
        for owner in self._classes.values():
            for heap in (owner.free, owner.busy):
                entries = heap.entries
                if not entries:
                    continue
                if cost < 0.0:
                    cost = entries[0].item.endpoint.work.costs.kinds.of(request).expected
                edge = [entries[0]]
                looks = 0
                while edge and looks < LOOKS:
                    entry = take_least(edge)
                    endpoint = entry.item.endpoint
                    if heap is owner.free:
                        # `_score` lets the pace of an idle endpoint fade to 1.
                        bound = cost * min(owner.pace, 1.0)
                    else:
                        bound = owner.pace * cost + (entry.key - now) / owner.weight
                    if best is not None and bound > lowest:
                        break
                    heap.add_children(entry, edge)
                    if excluded and endpoint in excluded:
                        continue
                    looks += 1
                    score = self._score(endpoint, owner.pace, cost, now)
                    if best is None or score < lowest or (score == lowest and turn(endpoint) < turn(best)):
                        best = endpoint
                        lowest = score
                    if heap is owner.free and endpoint.work.oldest is None and endpoint.work.failures == 0:
                        break  # Nobody below it has less to do.
        return best

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        """Expected seconds until it has done the request, and what counts against it; the lowest wins."""
        place = self._places.get(endpoint)
        pace = endpoint.work.pace if place is None else place.owner.pace
        return self._score(endpoint, pace, endpoint.work.costs.kinds.of(request).expected, now)

    def _score(self, endpoint: Endpoint, pace: float, cost: float, now: float) -> float:
        work = endpoint.work
        mean = work.costs.mean or 1.0
        if pace > 1.0 and work.waiting == 0 and work.unsent == 0:
            pace = 1.0 + (pace - 1.0) * exp(min(work.learned_at - now, 0.0) / FORGOTTEN)
        score = pace * (cost + work.wait(endpoint.elsewhere, now) / endpoint.weight + CROWD * mean * load_of(endpoint))
        if work.oldest is not None:  # What has been silent for long may be so for as long again.
            score = max(score, pace * cost + work.silence(now))
        if work.failures:
            score += PENALTY * mean * work.failures * exp(min(work.failed_at - now, 0.0) / FORGIVEN)
        return score

    def _class(self, step: int, weight: float) -> _Class:
        owner = self._classes.get((step, weight))
        if owner is None:
            owner = self._classes[step, weight] = _Class(step, weight)
        return owner

    def _enter(self, place: _Place, step: int) -> None:
        place.step = step
        self._places[place.endpoint] = place
        self._set_key(place)
        (place.owner.free if place.is_free else place.owner.busy).push(place.entry)

    def _exit(self, place: _Place) -> None:
        owner = place.owner
        (owner.free if place.is_free else owner.busy).remove(place.entry)
        if not owner.free.entries and not owner.busy.entries:
            del self._classes[place.step, owner.weight]

    def _set_key(self, place: _Place) -> None:
        endpoint = place.endpoint
        work = endpoint.work
        entry = place.entry
        entry.tie = turn(endpoint)
        now = work.changed_at
        place.is_free = work.has_room(endpoint.elsewhere)
        if place.is_free:
            entry.key = load_of(endpoint)
        else:
            entry.key = place.owner.pace * work.wait(endpoint.elsewhere, now) + now


def _log_pace(endpoint: Endpoint) -> float:
    return endpoint.work.pace_log - endpoint.work.costs.typical
