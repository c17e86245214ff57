"""Least-work: the endpoint that is expected to finish the request first."""

from __future__ import annotations

from collections.abc import Collection
from math import exp, log
from typing import ClassVar, Final

from balancer.balancing.cost import RequestKind
from balancer.balancing.endpoint import Endpoint
from balancer.balancing.pace import TRIED_AFTER
from balancer.balancing.request import RequestInfo
from balancer.balancing.rng import Random
from balancer.balancing.strategies.heap import Entry, Heap, take_least
from balancer.balancing.strategies.strategy import Strategy, turn
from balancer.balancing.work import NOTHING_KNOWN, Work

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
TRIED: Final = 2.0
"""A silent endpoint is tried each time that it has been silent for so many times as long."""
FORGOTTEN: Final = 10.0
"""Seconds unused in which what is known of a slow endpoint's pace falls to 1/e."""
KEPT: Final = 64
"""Changes noted beyond two of each endpoint before those of endpoints that have left are dropped: while nothing is
chosen, only more of these come."""
LOOKED_AT: Final = 0.1
"""Seconds between two times that all endpoints are looked at for requests to lay aside, at the least."""
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

    __slots__ = ("crowd", "endpoint", "entry", "has_key_by_load", "moved", "owner")

    def __init__(self, endpoint: Endpoint, owner: _Class) -> None:
        self.endpoint = endpoint
        self.owner = owner
        self.entry: Entry[_Place] = Entry(self)
        self.has_key_by_load = True
        self.crowd = 0.0
        """What its requests in flight count for beside the wait (s), when its key was made."""
        self.moved = False
        """Whether it has changed since its key was made."""

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
    heap at most. An endpoint that changes is noted, and gets its new key at the next choice: once, though it changes at
    each step of each request.
    """

    watches_cost: ClassVar[bool] = True

    def __init__(self, random: Random) -> None:
        self._places: dict[Endpoint, _Place] = {}
        self._moved: list[_Place] = []
        """Those that have changed since the last choice."""
        self._classes: list[_Class] = []
        self._weight = 0.0
        """Of all."""
        self._distinct = False
        """Whether requests differed as expected when the endpoints were arranged."""
        self._costs = NOTHING_KNOWN.costs
        self._changes = 0
        """Those of the costs that the endpoints have followed."""
        self._look_from = 0.0
        """When (s) they may follow the next."""
        self._fastest = 1.0
        """The pace of the fastest class."""
        self._lowest = 0.0
        """Score of the best endpoint that was found for the choice being made."""

    def added(self, endpoint: Endpoint) -> None:
        """`endpoint` has become eligible."""
        self._costs = endpoint.work.costs
        step = round(_log_pace(endpoint) / _STEP) if endpoint.work.pace.doubt < _STEP / 4 else 0
        self._enter(endpoint, step, 0.0)
        self.changed(endpoint)

    def removed(self, endpoint: Endpoint) -> None:
        """`endpoint` is no longer eligible."""
        self._exit(self._places.pop(endpoint))
        if len(self._moved) > 2 * len(self._places) + KEPT:
            self._moved = [place for place in self._moved if place.entry.place >= 0]

    def changed(self, endpoint: Endpoint) -> None:
        """The load, pace or weight of an eligible endpoint has changed."""
        place = self._places[endpoint]
        if not place.moved:
            place.moved = True
            self._moved.append(place)

    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        """The endpoint that is expected to have done it first."""
        if not self._places:
            return None
        self._settle(now)
        cost = self._cost(self._costs.kinds.expect(request))
        best: Endpoint | None = None
        for owner in self._classes:
            if owner.by_load.entries:
                best = self._better_by_load(best, owner, cost, excluded, now)
            if owner.by_time.entries:
                best = self._better_by_time(best, owner, cost, excluded, now)
        return best

    def _better_by_load(
        self, best: Endpoint | None, owner: _Class, cost: float, excluded: Collection[Endpoint], now: float
    ) -> Endpoint | None:
        """`best`, or one that is better of those whose place goes by their load."""
        heap = owner.by_load
        each = self._each(cost)
        fastest = self._fastest  # `_pace` lets the pace of an idle endpoint fade to that.
        entry = heap.entries[0]
        edge: list[Entry[_Place]] | None = None
        for _ in range(LOOKS):
            if best is not None and fastest * (cost + each * entry.key) > self._lowest:
                break
            endpoint = entry.item.endpoint
            if not excluded or endpoint not in excluded:
                work = endpoint.work
                silence = 0.0 if work.oldest is None else work.silence(now)
                if silence > 0.0 and _is_tried(work, silence, cost, now):
                    silence = 0.0
                pace = owner.pace if owner.pace <= fastest else self._pace(endpoint, owner, now)
                score = pace * (cost + each * entry.key)
                if silence == 0.0 and work.failures == 0.0:
                    return self._better(best, endpoint, score)  # Nobody below it has less to do.
                best = self._better(best, endpoint, _against(work, score, pace * cost, silence, now))
            if edge is None:
                edge = []
            heap.add_children(entry, edge)
            if not edge:
                break
            entry = take_least(edge)
        return best

    def _better_by_time(
        self, best: Endpoint | None, owner: _Class, cost: float, excluded: Collection[Endpoint], now: float
    ) -> Endpoint | None:
        """`best`, or one that is better of those that have no worker for it yet."""
        heap = owner.by_time
        edge = [heap.entries[0]]
        looks = 0
        while edge and looks < LOOKS:
            entry = take_least(edge)
            if best is not None and owner.pace * cost + (entry.key - now) / owner.weight > self._lowest:
                break
            heap.add_children(entry, edge)
            endpoint = entry.item.endpoint
            if excluded and endpoint in excluded:
                continue
            looks += 1
            best = self._better(best, endpoint, self._score(entry.item, cost, now))
        return best

    def _better(self, best: Endpoint | None, endpoint: Endpoint, score: float) -> Endpoint:
        if best is None or score < self._lowest or (score == self._lowest and self._comes_before(endpoint, best)):
            self._lowest = score
            return endpoint
        return best

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        """Expected seconds until it has done the request, and what counts against it; the lowest wins."""
        self._settle(now)
        place = self._places.get(endpoint)
        if place is None:
            place = _Place(
                endpoint, _Class(0, endpoint.weight, 0 if self._distinct else endpoint.work.concurrency.at_once)
            )
            self._set_key(place, now)
        return self._score(place, self._cost(endpoint.work.costs.kinds.of(request)), now)

    def _score(self, place: _Place, cost: float, now: float) -> float:
        endpoint = place.endpoint
        owner = place.owner
        work = endpoint.work
        if place.has_key_by_load:
            ahead = self._each(cost) * place.entry.key
        else:
            ahead = work.wait(endpoint.elsewhere, now, owner.pace) / endpoint.weight + place.crowd
        pace = self._pace(endpoint, owner, now)
        silence = 0.0 if work.oldest is None else work.silence(now)
        if silence > 0.0 and _is_tried(work, silence, cost, now):
            silence = 0.0
            ahead = min(ahead, work.costs.mean * work.excess(endpoint.elsewhere.requests, work.concurrency.at_once))
        return _against(work, pace * (cost + ahead), pace * cost, silence, now)

    def _cost(self, kind: RequestKind) -> float:
        """Seconds that one takes a worker: none where it waits for something there, which no pace makes shorter."""
        return 0.0 if self._costs.waits(kind) else kind.expected

    def _each(self, cost: float) -> float:
        """Seconds that a request counts for where requests count by their number, for the choice of one that costs so.

        Until it is known how much endpoints work on at once all may be as expensive as this one: else an expensive one
        would rather wait behind many others, of which it is not known whether they cost anything, than go to an idle
        endpoint that is a little slower.
        """
        costs = self._costs
        mean = costs.mean or 1.0
        return mean if cost < mean or (costs.bounded and not costs.unproven) else cost

    def _pace(self, endpoint: Endpoint, owner: _Class, now: float) -> float:
        """What is believed of its pace: one that gets nothing comes to count as the fastest, and so is tried again."""
        work = endpoint.work
        fastest = self._fastest
        if owner.pace <= fastest or work.waiting or work.unsent:
            return owner.pace
        unused = now - work.pace.learned_at
        if unused > TRIED_AFTER:
            return fastest
        return fastest + (owner.pace - fastest) * exp(min(-unused, 0.0) / FORGOTTEN)

    def _comes_before(self, one: Endpoint, other: Endpoint) -> bool:
        """Which of two of equal score: idle ones of different weights take turns by those."""
        if one.weight == other.weight or not (one.chosen_at and other.chosen_at):
            return turn(one) < turn(other)
        if one.oldest is not None or other.oldest is not None:
            return turn(one) < turn(other)
        return one.chosen_at + self._weight / one.weight < other.chosen_at + self._weight / other.weight

    def _settle(self, now: float) -> None:
        """Give new keys to those that have changed; to all, where requests differ as expected now or no longer do."""
        distinct = self._costs.distinct
        if distinct != self._distinct:
            self._distinct = distinct
            places = list(self._places.values())
            self._classes.clear()
            self._moved.clear()
            self._weight = 0.0
            for place in places:
                self._enter(place.endpoint, place.owner.step, now)
                self.changed(place.endpoint)  # Its pace may have changed as well.
        if self._changes != self._costs.usual.changes and now >= self._look_from:
            self._changes = self._costs.usual.changes
            self._look_from = now + LOOKED_AT
            for place in self._places.values():
                if place.endpoint.work.waiting:
                    place.endpoint.work.lay_aside(now)
                    self.changed(place.endpoint)
        if self._moved:
            for place in self._moved:
                place.moved = False
                if place.entry.place >= 0:  # Else it has left.
                    self._update(place, now)
            self._moved.clear()

    def _update(self, place: _Place, now: float) -> None:
        endpoint = place.endpoint
        owner = place.owner
        work = endpoint.work
        step = owner.step
        exact = _log_pace(endpoint) / _STEP
        off = exact - step if exact > step else step - exact
        # It differs from the typical only when that is beyond doubt, so that equal ones do not look unequal by chance.
        if off > 0.6:
            nearest = round(exact)
            if abs(nearest) < abs(step) or off > 0.6 + 2.0 * work.pace.doubt / _STEP:
                step = nearest
        if (
            step != owner.step
            or endpoint.weight != owner.weight
            or (owner.at_once and _far(work.concurrency.at_once, owner.at_once))
        ):
            self._exit(place)
            self._enter(endpoint, step, now)
            return
        had_key_by_load = place.has_key_by_load
        self._set_key(place, now)
        if place.has_key_by_load == had_key_by_load:
            place.heap.moved(place.entry)
        else:
            (owner.by_load if had_key_by_load else owner.by_time).remove(place.entry)
            place.heap.push(place.entry)

    def _class(self, step: int, weight: float, at_once: int) -> _Class:
        for owner in self._classes:
            if owner.step == step and owner.weight == weight and owner.at_once == at_once:
                return owner
        owner = _Class(step, weight, at_once)
        self._classes.append(owner)
        self._fastest = min(self._fastest, owner.pace) if len(self._classes) > 1 else owner.pace
        return owner

    def _enter(self, endpoint: Endpoint, step: int, now: float) -> None:
        at_once = 0 if self._distinct else endpoint.work.concurrency.at_once
        place = _Place(endpoint, self._class(step, endpoint.weight, at_once))
        self._places[endpoint] = place
        self._weight += endpoint.weight
        self._set_key(place, now)
        place.heap.push(place.entry)

    def _exit(self, place: _Place) -> None:
        owner = place.owner
        self._weight -= owner.weight
        place.heap.remove(place.entry)
        if not owner.by_load.entries and not owner.by_time.entries:
            self._classes.remove(owner)
            if self._classes:
                self._fastest = min([each.pace for each in self._classes])

    def _set_key(self, place: _Place, now: float) -> None:
        endpoint = place.endpoint
        owner = place.owner
        work = endpoint.work
        entry = place.entry
        entry.tie = turn(endpoint)
        place.has_key_by_load = owner.at_once > 0 or work.has_room(endpoint.elsewhere)
        if place.has_key_by_load:
            entry.key = _crowd(endpoint, owner)
        else:
            place.crowd = (work.costs.mean or 1.0) * _crowd(endpoint, owner)
            entry.key = owner.pace * (work.wait(endpoint.elsewhere, now, owner.pace) + owner.weight * place.crowd) + now


def _far(at_once: int, usual: int) -> bool:
    """Whether an endpoint works on another number at once than the others of its class."""
    more = at_once - usual if at_once > usual else usual - at_once
    return 4 * more > usual


def _is_tried(work: Work, silence: float, cost: float, now: float) -> bool:
    """Whether it is time to try an endpoint that has been silent for so long (s) with a request that costs so much.

    What it works on may be of a kind that was short so far and waits for something now. Then all endpoints fall silent,
    one after the other, and the last would get everything.
    """
    newest = work.newest
    if newest is None or work.unsent or silence <= work.costs.usual.lengthy_from or cost > work.costs.mean:
        return False
    return TRIED * (now - newest.sent_at) > silence


def _against(work: Work, score: float, least: float, silence: float, now: float) -> float:
    """`score` with what counts against an endpoint; `least`: seconds for the request if it began at once."""
    if silence > 0.0:  # What has been silent for long may be so for as long again.
        score = max(score, least + silence)
    if work.failures:
        mean = work.costs.mean or 1.0
        score += PENALTY * mean * work.failures * exp(min(work.failed_at - now, 0.0) / FORGIVEN)
    return score


def _crowd(endpoint: Endpoint, owner: _Class) -> float:
    """What its requests in flight count for, in mean costs.

    Those that have their answer and last (a download, a WebSocket) count the same at each pace: how fast an endpoint
    answers does not say how many of them it can hold. In TCP mode all do, those of other replicas too.
    """
    work = endpoint.work
    if work.costs.connections:
        return CROWD * (endpoint.in_flight + endpoint.load_elsewhere) / endpoint.weight
    waiting = work.waits
    elsewhere = endpoint.elsewhere
    others = elsewhere.load(waiting)
    crowd = CROWD * (waiting + others + (endpoint.in_flight - waiting) / owner.pace)
    crowd += work.lengthy.unproven(work.concurrency.servers)
    at_once = owner.at_once
    if at_once == 0 and not work.concurrency.is_bounded:
        at_once = int(work.costs.workers)  # The most that was seen at once.
    if at_once:
        crowd += work.excess(others, at_once)
    return crowd / endpoint.weight


def _log_pace(endpoint: Endpoint) -> float:
    return endpoint.work.pace.logarithm - endpoint.work.costs.typical
