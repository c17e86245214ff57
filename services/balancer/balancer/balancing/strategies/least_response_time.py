"""Least-response-time: whoever is likely to answer first."""

from __future__ import annotations

from collections.abc import Collection
from math import inf, log
from typing import Final

from balancer.balancing.chance import Random
from balancer.balancing.endpoint import Endpoint
from balancer.balancing.latency import TIME_CONSTANT
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies.by_load import Seat, first, take_least
from balancer.balancing.strategies.heap import Heap
from balancer.balancing.strategies.strategy import Strategy

LOOKS: Final = 32
"""How many endpoints a choice looks at when requests that wait have raised the scores: in a brownout, where everything
waits, the best of these is good enough."""

_LAST: Final = 1e9
"""Score of an endpoint that was never measured and holds its share: behind all that were measured."""


class _Seat(Seat):
    """A measured endpoint's key is the logarithm of its score, age left aside, plus now / TIME_CONSTANT."""

    __slots__ = ("in_flight", "load", "measured")

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self.measured = endpoint.latency.measured
        self.in_flight = 0
        self.load = 0.0
        """log((in flight + 1) / weight)."""


class LeastResponseTime(Strategy):
    """The lowest product of expected response time and load.

    The time is the larger of the peak-EWMA of the time to the response's first byte and the age of the oldest request
    that still waits for its response; the load is requests in flight, this one included, for each unit of weight.

    An endpoint never measured comes before those that were, as long as with this request it holds no more than one or
    the mean in flight of the measured ones, whichever is more; in slow start no more than one. So a new one is tried
    at once and not stampeded.

    The exact minimum needs no scan. All averages decay by one common factor, so that the order of endpoints does not
    change with time: log(average) + last sample / time constant + log(load) stands in a heap that is touched when an
    endpoint changes. The age can only raise a score, so that the choice looks at the top again, and on until the next
    key is above the best score found, at `LOOKS` endpoints at most.

    Source: Finagle's peak-EWMA balancer for the score, with the exact minimum instead of the better of two.
    """

    def __init__(self, random: Random) -> None:
        self._seats: dict[Endpoint, _Seat] = {}
        self._measured: Heap[_Seat] = Heap()
        self._unmeasured: Heap[_Seat] = Heap()
        self._in_flight = 0
        """Requests in flight at the measured endpoints."""

    def added(self, endpoint: Endpoint) -> None:
        """`endpoint` has become eligible."""
        seat = _Seat(endpoint)
        self._seats[endpoint] = seat
        self._enter(seat)

    def removed(self, endpoint: Endpoint) -> None:
        """`endpoint` is eligible no more."""
        self._exit(self._seats.pop(endpoint))

    def changed(self, endpoint: Endpoint) -> None:
        """The load, latency or weight of an eligible endpoint has changed."""
        seat = self._seats[endpoint]
        if seat.measured != endpoint.latency.measured:
            self._exit(seat)
            self._enter(seat)
            return
        before = seat.in_flight
        self._set_key(seat)
        if seat.measured:
            self._in_flight += seat.in_flight - before
            self._measured.moved(seat)
        else:
            self._unmeasured.moved(seat)

    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        """The endpoint with the lowest score that is not in `excluded`."""
        if not self._unmeasured.entries:
            return self._fastest(excluded, now)
        untried = first(self._unmeasured, excluded)
        if untried is None:
            return self._fastest(excluded, now)
        if self._comes_first(untried.endpoint):
            return untried.endpoint
        return self._fastest(excluded, now) or untried.endpoint

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        """Expected response time (s) times load; below zero for one that was never measured and comes first."""
        average = endpoint.latency.average(now)
        if average is None:
            if self._comes_first(endpoint):
                return -1.0 / (endpoint.in_flight + 1)
            return _unmeasured_key(endpoint) + _LAST
        for sent_at in endpoint.waiting.values():
            average = max(average, now - sent_at)
            break
        return average * (endpoint.in_flight + 1) / endpoint.weight

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
        if not excluded and not top.endpoint.waiting:
            return top.endpoint
        shift = now / TIME_CONSTANT
        best: _Seat | None = None
        lowest = inf
        looks = 0
        edge = [top]
        while edge and looks < LOOKS:
            seat = take_least(edge)
            if seat.key > lowest:
                break
            self._measured.add_children(seat, edge)
            if excluded and seat.endpoint in excluded:
                continue
            looks += 1
            key = _aged(seat, shift, now)
            if best is None or key < lowest or (key == lowest and seat.tie < best.tie):
                best = seat
                lowest = key
        return None if best is None else best.endpoint

    def _enter(self, seat: _Seat) -> None:
        seat.measured = seat.endpoint.latency.measured
        self._set_key(seat)
        if seat.measured:
            self._in_flight += seat.in_flight
            self._measured.push(seat)
        else:
            self._unmeasured.push(seat)

    def _exit(self, seat: _Seat) -> None:
        if seat.measured:
            self._in_flight -= seat.in_flight
            self._measured.remove(seat)
        else:
            self._unmeasured.remove(seat)

    def _set_key(self, seat: _Seat) -> None:
        endpoint = seat.endpoint
        seat.in_flight = endpoint.in_flight
        seat.tie = endpoint.chosen_at
        if seat.measured:
            seat.load = log((endpoint.in_flight + 1) / endpoint.weight)
            seat.key = endpoint.latency.level + seat.load
        else:
            seat.key = _unmeasured_key(endpoint)


def _unmeasured_key(endpoint: Endpoint) -> float:
    """The fewest in flight first; in slow start, only the first request comes before all others."""
    in_flight = endpoint.in_flight
    return in_flight + (_LAST if in_flight and endpoint.slow_start_from is not None else 0.0)


def _aged(seat: _Seat, shift: float, now: float) -> float:
    """The key of a measured endpoint, raised by the age of its oldest request that waits."""
    for sent_at in seat.endpoint.waiting.values():
        age = now - sent_at
        if age > 0.0:
            return max(seat.key, log(age) + shift + seat.load)
        break
    return seat.key
