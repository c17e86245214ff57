"""Least-response-time: the endpoint that is likely to answer first."""

from __future__ import annotations

from collections.abc import Collection
from math import inf, log
from typing import ClassVar, Final

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.latency import TIME_CONSTANT
from balancer.balancing.request import RequestInfo
from balancer.balancing.rng import Random
from balancer.balancing.strategies.by_load import first
from balancer.balancing.strategies.heap import Entry, Heap, take_least
from balancer.balancing.strategies.strategy import Strategy, load_of, turn

LOOKS: Final = 32
"""How many endpoints a choice looks at when requests that wait have raised the scores: in a brownout, where everything
waits, the best of these is good enough."""

AGES: Final = 4
"""Requests whose age is looked at."""

AT_ONCE: Final = 0.01
"""Seconds within which one endpoint connects as soon as another, in TCP mode: below, the times differ by chance and by
what the balancer itself was doing, and say nothing of what follows on the connection."""

_LAST: Final = 1e9
"""Score of an endpoint that was never measured and holds its share: behind all that were measured."""


_UNMEASURED: Final = -1
"""What is noted in the entry of an endpoint that was never measured, instead of its requests in flight."""


class LeastResponseTime(Strategy):
    """The lowest product of expected response time and load.

    A time counts as what an average request would have taken (cost.py), so that an expensive one, a long poll or a
    stream makes no endpoint look slow. The time is the larger of the peak-EWMA of the time to the response's first byte
    and the age of the oldest request that still waits for its response; the load is requests in flight, this one
    included, for each unit of weight.

    An endpoint never measured comes before those that were, as long as with this request it holds no more than one or
    the mean in flight of the measured ones, whichever is more; in slow start no more than one. So a new one is tried
    at once and not stampeded.

    In TCP mode the time is that of connecting, and `AT_ONCE` where it is shorter: endpoints near by get connections by
    their number and, where these are seconds apart, in turn; one that is slow to accept or far away gets fewer.

    The exact minimum needs no scan. All averages decay by one common factor, so that the order of endpoints does not
    change with time: log(average) + last sample / time constant + log(load) stands in a heap that is touched when an
    endpoint changes. The age can only raise a score, so that the choice looks at the top again, and on until the next
    key is above the best score found, at `LOOKS` endpoints at most.

    Source: Finagle's peak-EWMA balancer for the score, with the exact minimum instead of the better of two.
    """

    watches_cost: ClassVar[bool] = True

    def __init__(self, random: Random) -> None:
        self._entries: dict[Endpoint, Entry[Endpoint]] = {}
        self._measured: Heap[Endpoint] = Heap()
        self._unmeasured: Heap[Endpoint] = Heap()
        self._in_flight = 0
        """Requests in flight at the measured endpoints."""
        self._shortest = 0.0
        """Seconds as which a shorter average counts; above 0 in TCP mode."""

    def added(self, endpoint: Endpoint) -> None:
        """`endpoint` has become eligible."""
        entry = Entry(endpoint)
        self._entries[endpoint] = entry
        self._enter(entry)

    def removed(self, endpoint: Endpoint) -> None:
        """`endpoint` is no longer eligible."""
        self._exit(self._entries.pop(endpoint))

    def changed(self, endpoint: Endpoint) -> None:
        """The load, latency or weight of an eligible endpoint has changed."""
        entry = self._entries[endpoint]
        before = entry.seen
        self._set_key(entry)
        if before >= 0 and entry.seen >= 0:
            self._in_flight += entry.seen - before
            self._measured.moved(entry)
        elif before < 0 and entry.seen < 0:
            self._unmeasured.moved(entry)
        else:
            entry.seen = before
            self._exit(entry)
            self._enter(entry)

    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        """The endpoint with the lowest score that is not in `excluded`."""
        if not request.method and self._shortest == 0.0:
            self._shortest = AT_ONCE
            for endpoint in self._entries:
                self.changed(endpoint)
        if not self._unmeasured.entries:
            return self._fastest(excluded, now)
        untried = first(self._unmeasured, excluded)
        if untried is None:
            return self._fastest(excluded, now)
        if self._comes_first(untried):
            return untried
        return self._fastest(excluded, now) or untried

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        """Expected response time (s) times load; below zero for one that was never measured and comes first."""
        average = endpoint.latency.average(now)
        if average is None:
            if self._comes_first(endpoint):
                return -1.0 / (endpoint.in_flight + 1)
            return _unmeasured_key(endpoint) + _LAST
        if not request.method:
            average *= max(AT_ONCE / endpoint.latency.value, 1.0)
        return max(average, _age(endpoint, now)) * load_of(endpoint)

    def _comes_first(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint never measured is tried before those that were."""
        in_flight = endpoint.in_flight
        if in_flight == 0:
            return True
        if endpoint.slow_start_from is not None:
            return False
        measured = len(self._measured.entries)
        return measured > 0 and (in_flight + 1) * measured <= self._in_flight

    def _fastest(self, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        """The lowest score among the measured endpoints."""
        entries = self._measured.entries
        if not entries:
            return None
        top = entries[0]
        if not excluded and top.item.oldest is None:
            return top.item
        shift = now / TIME_CONSTANT
        best: Entry[Endpoint] | None = None
        lowest = inf
        looks = 0
        edge = [top]
        while edge and looks < LOOKS:
            entry = take_least(edge)
            if entry.key > lowest:
                break
            self._measured.add_children(entry, edge)
            if excluded and entry.item in excluded:
                continue
            looks += 1
            key = _aged(entry, shift, now)
            if best is None or key < lowest or (key == lowest and entry.tie < best.tie):
                best = entry
                lowest = key
        return None if best is None else best.item

    def _enter(self, entry: Entry[Endpoint]) -> None:
        self._set_key(entry)
        if entry.seen >= 0:
            self._in_flight += entry.seen
            self._measured.push(entry)
        else:
            self._unmeasured.push(entry)

    def _exit(self, entry: Entry[Endpoint]) -> None:
        if entry.seen >= 0:
            self._in_flight -= entry.seen
            self._measured.remove(entry)
        else:
            self._unmeasured.remove(entry)

    def _set_key(self, entry: Entry[Endpoint]) -> None:
        endpoint = entry.item
        entry.tie = turn(endpoint)
        latency = endpoint.latency
        if latency.measured:
            entry.seen = endpoint.in_flight
            entry.key = latency.level + log(load_of(endpoint))
            if latency.value < self._shortest:
                entry.key += log(self._shortest / latency.value)
        else:
            entry.seen = _UNMEASURED
            entry.key = _unmeasured_key(endpoint)


def _unmeasured_key(endpoint: Endpoint) -> float:
    """The fewest in flight first; in slow start, only the first request comes before all others."""
    in_flight = endpoint.in_flight
    return in_flight + (_LAST if in_flight and endpoint.slow_start_from is not None else 0.0)


def _age(endpoint: Endpoint, now: float) -> float:
    """How long (s) a request has waited there, as an average one: the longest of the oldest few.

    Where one is a long poll, the next may say more.
    """
    longest = 0.0
    pending = endpoint.oldest
    looks = 0
    while pending is not None and looks < AGES:
        job = pending.job
        age = max(now - (pending.sent_at or 0.0), 0.0) if job is None else job.fair(job.running(now))
        longest = max(longest, age)
        pending = pending.newer
        looks += 1
    return longest


def _aged(entry: Entry[Endpoint], shift: float, now: float) -> float:
    """The key of a measured endpoint, raised by the age of its oldest request that waits."""
    endpoint = entry.item
    age = _age(endpoint, now)
    if age == 0.0:
        return entry.key
    return max(entry.key, log(age) + shift + log(load_of(endpoint)))
