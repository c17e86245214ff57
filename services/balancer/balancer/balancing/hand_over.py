"""What a replica has learned of requests and endpoints, handed over to one that has just started.

Kinds of request with their costs, what the endpoints work on at once, and the pace of each, in pieces so small that
none stalls the event loop. The newcomer takes what it knows less about itself, and weighs it as so many requests of its
own as it would remember anyway (`MOST_REQUESTS`, `MOST_SAMPLES`): its own outweigh them as soon as newer ones would.
What it has seen as often itself stays, so it does no harm that several replicas hand over, or that one does so again.

**Scale.** A cost is seconds at a typical endpoint, and typical is the mean of the endpoints' paces, which differ from
replica to replica. So the costs that are taken are scaled by how far the two means are apart, and the paces by how far
those are that both know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import exp
from typing import Final

from balancer.balancing.cost import MAX_KINDS, RequestKind
from balancer.balancing.costs import Costs, CostsLearned
from balancer.balancing.endpoint import Endpoint
from balancer.balancing.lengthy import Usual
from balancer.balancing.pace import MOST_SAMPLES

PIECE: Final = 64
"""Kinds or endpoints in one piece."""
MOST_REQUESTS: Final = 50
"""Requests of a kind that its mean remembers, and so the most that what is taken counts as."""
MOST_KINDS: Final = MAX_KINDS // 2
"""Kinds that are handed over, the most frequent, and the wider ones of these: the newcomer has room for its own."""
LONGEST_NAME: Final = 200
"""Characters of a kind's name; a kind with a longer one is left out."""
NAMES: Final = 1 << 16
"""Characters of all names together."""
MOST_HELD: Final = 10_000
"""Endpoints kept that this replica does not know yet."""
MOST_SENDERS: Final = 1000
"""Replicas whose scales are remembered."""
HELD: Final = 60.0
"""Seconds for which they are."""
COMPARED: Final = 8
"""Samples of its own from which on an endpoint's pace is compared with what is handed over."""


@dataclass(frozen=True, slots=True)
class KindLearned:
    """One kind of request."""

    name: str
    wider: str
    """Name of the wider kind; empty: that of all requests."""
    mean: float
    """Seconds of work at the sender's typical endpoint."""
    square: float
    """The mean of their squares."""
    count: int
    """Requests that this is learned from."""
    lengthy: bool = False


@dataclass(frozen=True, slots=True)
class EndpointLearned:
    """One endpoint."""

    address: str
    pace: float
    """Logarithm of its pace, on the sender's scale."""
    samples: int
    """Requests that this is learned from."""
    workers: float
    """What it works on at once; 0: not known."""
    age: float
    """Seconds since the last of them."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A piece of what is handed over."""

    key: str
    """LB_COST_KEY: kinds by another one are others, whatever they are called."""
    typical: float
    """Mean logarithm of the sender's paces."""
    costs: CostsLearned | None = None
    endpoints: tuple[EndpointLearned, ...] = ()
    kinds: tuple[KindLearned, ...] = ()
    all: KindLearned | None = None
    """The kind of all requests."""
    last: bool = False


def pieces(costs: Costs, endpoints: Iterable[Endpoint], now: float) -> Iterator[Learned]:
    """What has been learned, in the order in which it is to be taken; nothing while little is.

    Time may pass between two pieces.
    """
    if not costs.knows:
        return
    key = costs.kinds.key
    yield Learned(key, costs.typical, costs.learned())
    known = [endpoint for endpoint in endpoints if endpoint.work.pace.samples > 0]
    for start in range(0, len(known), PIECE):
        given = tuple([_of_endpoint(endpoint, now) for endpoint in known[start : start + PIECE]])
        yield Learned(key, costs.typical, endpoints=given)
    kinds = _kinds(costs)
    total = costs.kinds.all
    of_all = KindLearned("", "", total.mean, total.square, total.count)
    yield Learned(key, costs.typical, kinds=kinds[:PIECE], all=of_all, last=len(kinds) <= PIECE)
    for start in range(PIECE, len(kinds), PIECE):
        more = kinds[start : start + PIECE]
        yield Learned(key, costs.typical, kinds=more, last=start + PIECE >= len(kinds))


def _of_endpoint(endpoint: Endpoint, now: float) -> EndpointLearned:
    work = endpoint.work
    age = max(now - work.pace.learned_at, 0.0)
    return EndpointLearned(endpoint.address, work.pace.logarithm, work.pace.samples, work.concurrency.settled, age)


def _kinds(costs: Costs) -> tuple[KindLearned, ...]:
    """The most frequent kinds, the wider ones first."""
    by_traffic = costs.kinds.by_traffic()
    names = {kind: name for name, kind in by_traffic}
    wider: dict[str, KindLearned] = {}
    narrow: list[KindLearned] = []
    room = NAMES
    for name, kind in by_traffic[:MOST_KINDS]:
        above = "" if kind.wider is None else names.get(kind.wider, "")
        room -= len(name) + len(above)
        if len(name) > LONGEST_NAME or len(above) > LONGEST_NAME or room < 0 or not kind.mean > 0.0:
            continue
        if above and above not in wider and kind.wider is not None and kind.wider.mean > 0.0:
            wider[above] = _of_kind(above, "", kind.wider)
        narrow.append(_of_kind(name, above, kind))
    return (*wider.values(), *[each for each in narrow if each.name not in wider])


def _of_kind(name: str, wider: str, kind: RequestKind) -> KindLearned:
    return KindLearned(name, wider, kind.mean, kind.square, kind.count, kind.lengthy)


class TakenOver:
    """Takes what is handed over; keeps what it says of endpoints that are not known here yet."""

    __slots__ = ("_costs", "_held", "_held_until", "_shifts")

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._held: dict[str, tuple[EndpointLearned, str]] = {}
        """By address, with the sender."""
        self._held_until = 0.0
        self._shifts: dict[str, float] = {}
        """What is added to the logarithm of a pace to come to this replica's scale, by the sender: the pieces of
        several come in turn."""

    def take(
        self, learned: Learned, find: Callable[[str], Endpoint | None], now: float, sender: str = ""
    ) -> tuple[list[Endpoint], int]:
        """Take one piece: the endpoints of which more is known now, and the number of such kinds.

        `find` gives the endpoint at an address; `sender` is the replica's name.
        """
        costs = self._costs
        given = learned.costs
        if given is not None:
            if len(self._shifts) >= MOST_SENDERS:
                self._shifts.clear()
            self._shifts[sender] = 0.0
            costs.take_over(given, MOST_REQUESTS)
        changed = self._take_endpoints(learned.endpoints, find, now, sender) if learned.endpoints else []
        kinds = 0
        if learned.key == costs.kinds.key:
            # Without an endpoint there is no scale yet: it will be the sender's.
            shift = self._shifts.get(sender, 0.0)
            scale = exp(costs.typical - learned.typical - shift) if costs.endpoints else 1.0
            if learned.all is not None:
                _take_kind(costs.kinds.all, learned.all, scale, costs.usual)
            for each in learned.kinds:
                kind = costs.kinds.adopt(each.name, each.wider)
                if kind is not None and _take_kind(kind, each, scale, costs.usual):
                    kinds += 1
                    costs.dearest = max(costs.dearest, kind.mean)
        return changed, kinds

    def joined(self, endpoint: Endpoint, now: float) -> bool:
        """`endpoint` is known from now on: whether more is known of it by what was handed over."""
        given = self._held.pop(endpoint.address, None)
        if now > self._held_until:
            self._held.clear()
            return False
        return given is not None and self._take_endpoint(endpoint, given[0], now, given[1])

    def _take_endpoints(
        self, given: tuple[EndpointLearned, ...], find: Callable[[str], Endpoint | None], now: float, sender: str
    ) -> list[Endpoint]:
        found = [(find(each.address), each) for each in given]
        apart = [
            endpoint.work.pace.logarithm - each.pace
            for endpoint, each in found
            if endpoint is not None and endpoint.work.pace.samples >= COMPARED
        ]
        if apart:
            self._shifts[sender] = sum(apart) / len(apart)
        changed: list[Endpoint] = []
        for endpoint, each in found:
            if endpoint is None:
                if len(self._held) < MOST_HELD:
                    self._held_until = now + HELD
                    self._held[each.address] = each, sender
            elif self._take_endpoint(endpoint, each, now, sender):
                changed.append(endpoint)
        return changed

    def _take_endpoint(self, endpoint: Endpoint, given: EndpointLearned, now: float, sender: str) -> bool:
        samples = min(given.samples, MOST_SAMPLES)
        pace = given.pace + self._shifts.get(sender, 0.0)
        return endpoint.work.take_over(pace, samples, given.workers, now - given.age)


def _take_kind(kind: RequestKind, given: KindLearned, scale: float, usual: Usual) -> bool:
    if not kind.take_over(given.mean * scale, given.square * scale * scale, min(given.count, MOST_REQUESTS)):
        return False
    if given.lengthy and not kind.lengthy:
        usual.find(kind)
    return True
