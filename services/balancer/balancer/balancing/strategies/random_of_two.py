"""Random-of-two: draw two, take the less loaded."""

from __future__ import annotations

from collections.abc import Collection

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.request import RequestInfo
from balancer.balancing.rng import Random
from balancer.balancing.strategies.strategy import Strategy, load_of, turn


class RandomOfTwo(Strategy):
    """The less loaded of two drawn uniformly, without replacement, from the eligible endpoints.

    Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._endpoints: list[Endpoint] = []
        self._places: dict[Endpoint, int] = {}

    def added(self, endpoint: Endpoint) -> None:
        """`endpoint` has become eligible."""
        self._places[endpoint] = len(self._endpoints)
        self._endpoints.append(endpoint)

    def removed(self, endpoint: Endpoint) -> None:
        """`endpoint` is no longer eligible."""
        self._swap(self._places[endpoint], len(self._endpoints) - 1)
        self._endpoints.pop()
        del self._places[endpoint]

    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        """The less loaded of two that are not in `excluded`; the only one, where there is but one."""
        endpoints = self._endpoints
        size = len(endpoints)
        if excluded:
            size = self._put_last(excluded)
        if size < 2:
            return endpoints[0] if size == 1 else None
        first = int(self._random.random() * size)
        second = int(self._random.random() * (size - 1))
        if second >= first:
            second += 1
        one = endpoints[first]
        other = endpoints[second]
        one_score = load_of(one)
        other_score = load_of(other)
        if one_score == other_score:
            return one if turn(one) <= turn(other) else other
        return one if one_score < other_score else other

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        """Requests in flight, this one included, for each unit of weight: the lower of the two drawn wins."""
        return load_of(endpoint)

    def _put_last(self, excluded: Collection[Endpoint]) -> int:
        """Move the excluded to the end of the list; the number of the others, which are then in front."""
        size = len(self._endpoints)
        for endpoint in excluded:
            place = self._places.get(endpoint)
            if place is not None and place < size:
                size -= 1
                self._swap(place, size)
        return size

    def _swap(self, one: int, other: int) -> None:
        endpoints = self._endpoints
        endpoints[one], endpoints[other] = endpoints[other], endpoints[one]
        self._places[endpoints[one]] = one
        self._places[endpoints[other]] = other
