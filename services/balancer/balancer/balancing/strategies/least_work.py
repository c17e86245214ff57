"""Least-work: the endpoint that is expected to finish the request first."""

from __future__ import annotations

from collections.abc import Collection
from math import exp, log
from typing import ClassVar, Final

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.request import RequestInfo
from balancer.balancing.rng import Random
from balancer.balancing.strategies.heap import Entry, Heap, take_least
from balancer.balancing.strategies.strategy import Strategy, turn

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
    """Endpoints alike: those whose place goes by their load, and those that are ordered by when they have a worker."""

    __slots__ = ("at_once", "by_load", "by_time", "pace", "step", "weight")

    def __init__(self, step: int, weight: float, at_once: int) -> None:
        self.step = step
        self.pace = STEP**step
        self.weight = weight
        self.at_once = at_once
        """Requests that each works on at once; 0 where costs differ as expected, and each has its own estimate."""
        self.by_load: Heap[_Place] = Heap()
        """Keys are mean costs."""
        self.by_time: Heap[_Place] = Heap()


class _Place:
    """Where one endpoint stands."""

    __slots__ = ("endpoint", "entry", "has_key_by_load", "owner")

    def __init__(self, endpoint: Endpoint, owner: _Class) -> None:
        self.endpoint = endpoint
        self.owner = owner
        self.entry: Entry[_Place] = Entry(self)
        self.has_key_by_load = True

    @property
    def heap(self) -> Heap[_Place]:
        """Where its entry is."""
        return self.owner.by_load if self.has_key_by_load else self.owner.by_time


class LeastWork(Strategy):
    """The lowest expected time to completion.

    That is pace times (the request's expected cost + the time until a worker is free), all three learned (cost.py,
    work.py). Where several have a free worker, the fewest in flight; failures of late and a suspicious silence count
    against an endpoint. While requests count as alike, the wait goes by their number: among endpoints that
    differ in nothing, that is least-connections.

    The minimum without a scan: endpoints of one pace (in steps), one weight and so many workers form a class. In a
    class those with a free worker stand in a heap by load, and all do while requests are alike; the others stand in one
    by the time at which they have a worker, which can only come later than expected. So a heap's keys are lower bounds
    of the score: a choice takes endpoints in their order until the next bound is above the best score, `LOOKS` of a
    heap at most.
    """

    watches_cost: ClassVar[bool] = True

    def __init__(self, random: Random) -> None:
        self._places: dict[Endpoint, _Place] = {}
        self._classes: dict[tuple[int, float, int], _Class] = {}
        self._weight = 0.0
        """Of all."""
        self._distinct = False
        """Whether requests differed as expected when the endpoints were arranged."""

    def added(self, endpoint: Endpoint) -> None:
        """`endpoint` has become eligible."""
        step = round(_log_pace(endpoint) / _STEP) if endpoint.work.doubt < _STEP / 4 else 0
        self._enter(endpoint, step)

    def removed(self, endpoint: Endpoint) -> None:
        """`endpoint` is no longer eligible."""
        self._exit(self._places.pop(endpoint))

    def changed(self, endpoint: Endpoint) -> None:
        """The load, pace or weight of an eligible endpoint has changed."""
        place = self._places[endpoint]
        owner = place.owner
        exact = _log_pace(endpoint) / _STEP
        step = owner.step
        # It changes its class only when that is beyond doubt, so that equal endpoints do not look unequal by chance.
        if abs(exact - step) > 0.6 + 3.0 * endpoint.work.doubt / _STEP:
            step = round(exact)
        at_once = endpoint.work.at_once
        if (
            step != owner.step
            or endpoint.weight != owner.weight
            or (owner.at_once and 4 * abs(at_once - owner.at_once) > owner.at_once + 2)
        ):
            self._exit(place)
            self._enter(endpoint, step)
            return
        heap = place.heap
        self._set_key(place)
        if heap is place.heap:
            heap.moved(place.entry)
        else:
            heap.remove(place.entry)
            place.heap.push(place.entry)

    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        """The endpoint that is expected to have done it first."""
        best: Endpoint | None = None
        lowest = 0.0
        cost = -1.0
        mean = 0.0
        for owner in self._classes.values():
            for heap in (owner.by_load, owner.by_time):
                entries = heap.entries
                if not entries:
                    continue
                if cost < 0.0:
                    costs = entries[0].item.endpoint.work.costs
                    if costs.distinct != self._distinct:
                        self._arrange(costs.distinct)
                        return self.choose(request, excluded, now)
                    cost = costs.kinds.of(request).expected
                    mean = costs.mean or 1.0
                edge = [entries[0]]
                looks = 0
                while edge and looks < LOOKS:
                    entry = take_least(edge)
                    endpoint = entry.item.endpoint
                    if heap is owner.by_load:
                        # `_score` lets the pace of an idle endpoint fade to 1.
                        bound = min(owner.pace, 1.0) * (cost + mean * entry.key)
                    else:
                        bound = owner.pace * cost + (entry.key - now) / owner.weight
                    if best is not None and bound > lowest:
                        break
                    heap.add_children(entry, edge)
                    if excluded and endpoint in excluded:
                        continue
                    looks += 1
                    work = endpoint.work
                    silence = 0.0 if work.oldest is None else work.silence(now)
                    score = self._score(endpoint, owner, cost, silence, now)
                    if best is None or score < lowest or (score == lowest and self._comes_before(endpoint, best)):
                        best = endpoint
                        lowest = score
                    if heap is owner.by_load and silence == 0.0 and work.failures == 0.0:
                        break  # Nobody below it has less to do.
        return best

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        """Expected seconds until it has done the request, and what counts against it; the lowest wins."""
        work = endpoint.work
        place = self._places.get(endpoint)
        owner = _Class(0, endpoint.weight, 0 if self._distinct else work.at_once) if place is None else place.owner
        silence = 0.0 if work.oldest is None else work.silence(now)
        return self._score(endpoint, owner, work.costs.kinds.of(request).expected, silence, now)

    def _score(self, endpoint: Endpoint, owner: _Class, cost: float, silence: float, now: float) -> float:
        work = endpoint.work
        mean = work.costs.mean or 1.0
        pace = owner.pace
        if pace > 1.0 and work.waiting == 0 and work.unsent == 0:
            pace = 1.0 + (pace - 1.0) * exp(min(work.learned_at - now, 0.0) / FORGOTTEN)
        if owner.at_once or work.has_room(endpoint.elsewhere):
            score = pace * (cost + mean * _crowd(endpoint, owner))
        else:
            wait = work.wait(endpoint.elsewhere, now) / endpoint.weight
            score = pace * (cost + wait + mean * _crowd(endpoint, owner))
        if silence > 0.0:  # What has been silent for long may be so for as long again.
            score = max(score, pace * cost + silence)
        if work.failures:
            score += PENALTY * mean * work.failures * exp(min(work.failed_at - now, 0.0) / FORGIVEN)
        return score

    def _comes_before(self, one: Endpoint, other: Endpoint) -> bool:
        """Which of two of equal score: idle ones of different weights take turns by those."""
        if one.weight == other.weight or not (one.chosen_at and other.chosen_at):
            return turn(one) < turn(other)
        if one.oldest is not None or other.oldest is not None:
            return turn(one) < turn(other)
        return one.chosen_at + self._weight / one.weight < other.chosen_at + self._weight / other.weight

    def _arrange(self, distinct: bool) -> None:
        """Put all in order again: requests differ as expected now, or no longer do."""
        self._distinct = distinct
        places = list(self._places.values())
        self._classes.clear()
        self._weight = 0.0
        for place in places:
            self._enter(place.endpoint, place.owner.step)

    def _class(self, step: int, weight: float, at_once: int) -> _Class:
        key = (step, weight, at_once)
        owner = self._classes.get(key)
        if owner is None:
            owner = self._classes[key] = _Class(step, weight, at_once)
        return owner

    def _enter(self, endpoint: Endpoint, step: int) -> None:
        at_once = 0 if self._distinct else endpoint.work.at_once
        place = _Place(endpoint, self._class(step, endpoint.weight, at_once))
        self._places[endpoint] = place
        self._weight += endpoint.weight
        self._set_key(place)
        place.heap.push(place.entry)

    def _exit(self, place: _Place) -> None:
        owner = place.owner
        self._weight -= owner.weight
        place.heap.remove(place.entry)
        if not owner.by_load.entries and not owner.by_time.entries:
            del self._classes[owner.step, owner.weight, owner.at_once]

    def _set_key(self, place: _Place) -> None:
        endpoint = place.endpoint
        owner = place.owner
        work = endpoint.work
        entry = place.entry
        entry.tie = turn(endpoint)
        place.has_key_by_load = owner.at_once > 0 or work.has_room(endpoint.elsewhere)
        if place.has_key_by_load:
            entry.key = _crowd(endpoint, owner)
        else:
            now = work.changed_at
            entry.key = owner.pace * work.wait(endpoint.elsewhere, now) + now


def _crowd(endpoint: Endpoint, owner: _Class) -> float:
    """What its requests in flight count for, in mean costs."""
    crowd = CROWD * (endpoint.in_flight + endpoint.elsewhere) / endpoint.weight
    if owner.at_once:
        crowd += endpoint.work.excess(endpoint.elsewhere, owner.at_once) / endpoint.weight
    return crowd


def _log_pace(endpoint: Endpoint) -> float:
    return endpoint.work.pace_log - endpoint.work.costs.typical
