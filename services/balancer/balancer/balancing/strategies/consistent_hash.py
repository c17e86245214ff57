"""Consistent-hash: the same key goes to the same endpoint, whichever others come or go."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Collection
from hashlib import blake2b, shake_128
from typing import Final

from mypy_extensions import mypyc_attr

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.request import RequestInfo
from balancer.balancing.rng import Random
from balancer.balancing.strategies.strategy import Strategy

POINTS: Final = 40
"""Points of each endpoint on the ring: its share of the keys is even to about one part in the root of this."""

FACTOR: Final = 1.25
"""No endpoint takes more than this times its fair share of the requests in flight."""

_BITS: Final = 60
"""The ring has 2**60 places: the largest power whose distances compiled code keeps in a register."""
_ROUND: Final = 1 << _BITS
_OVER: Final = 2.0**128
"""An endpoint over its bound has its score raised so far that all below theirs come first, in any case."""
_UNPACK: Final = struct.Struct(f">{POINTS}Q")
_REMEMBERED: Final = 2048


@mypyc_attr(acyclic=True)
class _Node:
    """An endpoint on the ring."""

    __slots__ = ("active", "endpoint", "in_flight", "points", "weight")

    def __init__(self, endpoint: Endpoint, points: list[int]) -> None:
        self.endpoint = endpoint
        self.points = points
        self.active = False
        self.in_flight = 0
        self.weight = 0.0


@mypyc_attr(acyclic=True)
class _Point:
    """A place of an endpoint on the ring, linked to the next in its bucket."""

    __slots__ = ("following", "node", "place")

    def __init__(self, place: int, node: _Node, following: _Point | None) -> None:
        self.place = place
        self.node = node
        self.following = following


class ConsistentHash(Strategy):
    """The endpoint nearest to the key on a ring, distances counted clockwise and divided by weight.

    Each endpoint has `POINTS` places on the ring, from a hash of its address: when one of n endpoints goes, only its
    keys, about 1/n of all, move. The load is bounded: an endpoint that holds `FACTOR` times its share of the requests
    in flight is passed over for the next nearest. The hash is the same in every process and replica.

    The ring is kept in buckets by the places' first bits, about a point to each, so that finding a place, adding and
    removing cost the same at any size. An endpoint that is no longer eligible stays on the ring, passed over, until
    there are more of those than eligible ones: an endpoint that comes and goes with its limit costs nothing.

    What the buckets pay, compiled: a choice costs 2 to 3 µs at any size, most of it the hash; the lowest of all scores
    0.3 ms among 100 endpoints and 34 ms among 10,000. In one sorted list a choice would cost the same, but a join
    3.4 ms among 10,000, during which no request is served: here 0.03 ms.

    Sources: Karger et al., "Consistent Hashing and Random Trees", STOC 1997; Mirrokni, Thorup and Zadimoghaddam,
    "Consistent Hashing with Bounded Loads", SODA 2018; distances divided by weights after the linear method of
    Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", SPAA 2005.
    """

    def __init__(self, random: Random, hash_key: str = "client-ip") -> None:
        self._source, self._field = _parse(hash_key)
        self._nodes: dict[Endpoint, _Node] = {}
        self._buckets: list[_Point | None] = [None]
        self._shift = _BITS
        self._eligible = 0
        self._in_flight = 0
        self._weight = 0.0
        self._weights: dict[float, int] = {}
        """How many eligible endpoints there are of each weight."""
        self._heaviest = 0.0
        self._remembered: dict[str, list[int]] = {}
        """Points of endpoints that are not on this ring, for `score`."""

    def added(self, endpoint: Endpoint) -> None:
        """`endpoint` has become eligible."""
        node = self._nodes.get(endpoint)
        if node is None:
            node = _Node(endpoint, _points(endpoint.address))
            self._nodes[endpoint] = node
            if len(self._nodes) * POINTS > 2 * len(self._buckets):
                self._rebuild()
            else:
                self._place(node)
        node.active = True
        self._eligible += 1
        self._count(node)

    def removed(self, endpoint: Endpoint) -> None:
        """`endpoint` is no longer eligible."""
        node = self._nodes[endpoint]
        node.active = False
        self._eligible -= 1
        self._uncount(node)
        if len(self._nodes) > 2 * self._eligible + 8:
            self._nodes = {kept.endpoint: kept for kept in self._nodes.values() if kept.active}
            self._rebuild()

    def changed(self, endpoint: Endpoint) -> None:
        """The load or weight of an eligible endpoint has changed."""
        node = self._nodes[endpoint]
        self._in_flight += endpoint.in_flight - node.in_flight
        node.in_flight = endpoint.in_flight
        if node.weight != endpoint.weight:
            self._uncount(node)
            self._count(node)

    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        """The nearest endpoint within its bound that is not in `excluded`; where none is within, the nearest."""
        if self._eligible == 0:
            return None
        key = self._key(request)
        heaviest = self._heaviest * _ROUND
        best: Endpoint | None = None
        nearest = 0.0
        best_over: Endpoint | None = None
        nearest_over = 0.0
        number = key >> self._shift
        # The key's own bucket comes twice: first the points behind the key, after the whole round those before it.
        for step in range(len(self._buckets) + 1):
            point = self._buckets[number]
            while point is not None:
                gap = point.place - key
                node = point.node
                point = point.following
                if gap < 0:
                    if step == 0:
                        continue
                    gap += _ROUND
                elif step == len(self._buckets):
                    break
                if best is not None and gap + 1 >= nearest * heaviest:
                    return best
                if not node.active or (excluded and node.endpoint in excluded):
                    continue
                distance = (gap + 1) / _ROUND / node.weight
                if self._is_over(node.in_flight, node.weight):
                    if best_over is None or distance < nearest_over:
                        best_over = node.endpoint
                        nearest_over = distance
                elif best is None or distance < nearest:
                    best = node.endpoint
                    nearest = distance
                    if node.weight >= self._heaviest:  # No endpoint farther on can be nearer.
                        return best
            number += 1
            if number == len(self._buckets):
                number = 0
        return best or best_over

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        """Distance from the key to the endpoint's next point, as a part of the ring, divided by its weight.

        Raised beyond all others when the endpoint is over its bound.
        """
        node = self._nodes.get(endpoint)
        points = self._remember(endpoint.address) if node is None else node.points
        key = self._key(request)
        following = bisect_left(points, key)
        gap = points[following] - key if following < POINTS else points[0] + _ROUND - key
        distance = (gap + 1) / _ROUND / endpoint.weight
        over = node is not None and node.active and self._is_over(endpoint.in_flight, endpoint.weight)
        return distance * _OVER if over else distance

    def _is_over(self, in_flight: int, weight: float) -> bool:
        """Whether one request more is above the bound: FACTOR times the fair share, rounded up."""
        return in_flight >= FACTOR * (self._in_flight + 1) * weight / self._weight

    def _key(self, request: RequestInfo) -> int:
        """The key's place on the ring; a request without that header or cookie goes by its client's address."""
        value: str | None = None
        if self._source == "path":
            value = request.path or None  # a connection has none
        elif self._source == "header":
            value = request.header(self._field)
        elif self._source == "cookie":
            value = request.cookie(self._field)
        if value is None:
            value = request.client
        digest = blake2b(value.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> (64 - _BITS)

    def _count(self, node: _Node) -> None:
        """Count an eligible endpoint's load and weight."""
        node.in_flight = node.endpoint.in_flight
        node.weight = node.endpoint.weight
        self._in_flight += node.in_flight
        self._weight += node.weight
        self._weights[node.weight] = self._weights.get(node.weight, 0) + 1
        self._heaviest = max(self._heaviest, node.weight)

    def _uncount(self, node: _Node) -> None:
        self._in_flight -= node.in_flight
        self._weight -= node.weight
        left = self._weights[node.weight] - 1
        if left:
            self._weights[node.weight] = left
            return
        del self._weights[node.weight]
        if not self._weights:
            self._weight = 0.0  # What rounding left over would grow for ever.
        self._heaviest = max(self._weights, default=0.0)

    def _place(self, node: _Node) -> None:
        buckets = self._buckets
        for place in node.points:
            number = place >> self._shift
            first = buckets[number]
            if first is None or place < first.place:
                buckets[number] = _Point(place, node, first)
                continue
            before = first
            after = first.following
            while after is not None and after.place < place:
                before = after
                after = after.following
            before.following = _Point(place, node, after)

    def _rebuild(self) -> None:
        """Make as many buckets as there are points, to the next power of two."""
        bits = (len(self._nodes) * POINTS).bit_length()
        self._shift = _BITS - bits
        self._buckets = [None] * (1 << bits)
        for node in self._nodes.values():
            self._place(node)

    def _remember(self, address: str) -> list[int]:
        points = self._remembered.get(address)
        if points is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            points = _points(address)
            self._remembered[address] = points
        return points


def _points(address: str) -> list[int]:
    """The places of an endpoint on the ring, in order."""
    digest = shake_128(address.encode()).digest(8 * POINTS)
    return sorted([place >> (64 - _BITS) for place in _UNPACK.unpack(digest)])


def _parse(hash_key: str) -> tuple[str, str]:
    """What to hash: its kind, and the header's or cookie's name. Raises ValueError."""
    kind, _, field = hash_key.partition(":")
    if hash_key in {"client-ip", "path"} or (kind in {"header", "cookie"} and field):
        return kind, field
    raise ValueError(f"hash key {hash_key!r}: allowed are client-ip, path, header:NAME and cookie:NAME")
