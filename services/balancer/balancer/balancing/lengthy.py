"""Lengthy requests: those of a kind that takes fifty times the usual, or more.

They may be work, and then each takes a worker. Or they wait for something, a long poll or a call to another service,
and take none: an endpoint on asyncio goes on answering others beside hundreds of them. What a request is, its time does
not say; what becomes of the others does. So a lengthy request is laid aside: it does not count among those that wait
for a worker. An answer beside k of them shows that k leave room. One that comes late, and when a lengthy one has ended,
shows that it was held up; from then on they count as work.

Which requests are lengthy is learned for all endpoints together, what they do to others for each, and for those that
have not shown it as for the others.
"""

from __future__ import annotations

from math import exp
from typing import Final

from mypy_extensions import mypyc_attr

from balancer.balancing.cost import MIN_WEIGHT, RequestKind

LENGTHY: Final = 50.0
"""A request of a kind that takes so many times the usual is lengthy."""
NO_LONGER: Final = 5.0
"""And no longer where it takes that part of that."""
FIRST: Final = 20
"""Requests of which the usual is the mean (of logarithms); with more it is nearly the median."""
SAME_USUAL: Final = 0.05
"""From when on a request is lengthy is worked out again when the usual has changed by this (a logarithm)."""
FEW: Final = 0.1
"""Share of the answers that may be the first to a request of their kind where most kinds are known."""
HELD_UP: Final = 3
"""So many times others are held up beside no more lengthy requests than once left room, until it is believed."""
BEYOND: Final = 4
"""So many answers beside more lengthy requests than left room, and it is not so."""
RISE: Final = 0.5
"""What is known to leave room rises by half of the difference, and by this at least: one odd answer, as of a cache,
must not do."""
HELD: Final = 0.25
"""Of the time from which a request is lengthy: one that took less was not held up."""
MORE: Final = 2.0
"""Where others were answered beside so many more than an endpoint works on at once, lengthy requests take no worker.
How many those are is learned from the others, and may be one or two more than they show."""
MANY: Final = 16
"""Where an endpoint works on more at once, lengthy requests count as the others do: each takes little of that."""
ANY: Final = 1 << 30
"""Any number leaves room, as far as is known."""


class Usual:
    """What a request usually takes, and what all endpoints together have shown of lengthy ones."""

    __slots__ = ("_answers", "_of", "_strange", "aside", "beside", "lengthy_from", "logarithm", "room")

    def __init__(self) -> None:
        self.logarithm = 0.0
        """Of the seconds of work of a request: the mean of the first, then nearly the median."""
        self._answers = 0
        """Answers that this is learned from."""
        self._strange = 1.0
        """Share of them that were the first to a request of their kind."""
        self.lengthy_from = LENGTHY
        """Seconds from which on a request is lengthy."""
        self._of = 0.0
        """The logarithm that this was worked out for."""
        self.beside = 0.0
        """The most lengthy requests beside which an endpoint has answered another."""
        self.room = ANY
        """How many leave room for others, as the last endpoint that held others up has shown."""
        self.aside = 0
        """Lengthy requests laid aside, at all endpoints."""

    def learn(self, kind: RequestKind, logarithm: float) -> None:
        """A request of `kind` was this much work (a logarithm, of seconds)."""
        self._answers += 1
        weight = max(1.0 / self._answers, MIN_WEIGHT)
        self._strange += weight * ((0.0 if kind.count else 1.0) - self._strange)
        off = logarithm - self.logarithm
        if self._answers > FIRST:
            off = max(min(off, 1.0), -1.0)
        self._set(self.logarithm + weight * off)

    def take_over(self, logarithm: float) -> None:
        """Another replica has learned it."""
        self._answers = max(self._answers, FIRST)
        self._set(logarithm)

    def _set(self, logarithm: float) -> None:
        self.logarithm = logarithm
        off = logarithm - self._of
        if off > SAME_USUAL or off < -SAME_USUAL:
            self._of = logarithm
            self.lengthy_from = LENGTHY * exp(logarithm)

    @property
    def knows_most(self) -> bool:
        """Whether most requests are of a kind of which one was answered before."""
        return self._answers >= FIRST and self._strange < FEW

    def sort(self, kind: RequestKind) -> bool:
        """See whether `kind`, whose mean has changed, is lengthy; True: it has become so."""
        if kind.lengthy:
            kind.lengthy = NO_LONGER * kind.mean > self.lengthy_from
            return False
        kind.lengthy = kind.mean > self.lengthy_from and self._answers >= FIRST
        return kind.lengthy

    def takes_none(self, workers: float) -> bool:
        """Whether a lengthy request takes no worker of an endpoint of so many, as all have shown together."""
        return _takes_none(self.beside, workers)


@mypyc_attr(acyclic=True)
class Lengthy:
    """The lengthy requests at one endpoint."""

    __slots__ = (
        "_beside",
        "_beyond",
        "_episode",
        "_held_up",
        "_level",
        "_most",
        "_together",
        "_usual",
        "aside",
        "aside_cost",
        "ended",
        "present",
    )

    def __init__(self, usual: Usual) -> None:
        self._usual = usual
        self.present = 0
        """Those that wait for their response."""
        self.aside = 0
        """Those of them that are laid aside."""
        self.aside_cost = 0.0
        """Expected seconds of those."""
        self.ended = 0
        """Those that have had their response, or will have none, so far."""
        self._beside = 0.0
        """The most beside which the endpoint has answered another."""
        self._together = 0.0
        """The most requests that it has worked on at once, if each of them takes a worker."""
        self._most = ANY
        """How many leave room for others, where it has held others up."""
        self._beyond = 0
        """Answers beside more than leave room, since others were held up."""
        self._held_up = 0
        """Times that others were held up since one was answered beside as many."""
        self._level = 0
        """The fewest that did, in those."""
        self._episode = -1
        """The last of those ended with the end of this one."""

    @property
    def beside(self) -> float:
        """The most beside which the endpoint, or another, has answered others."""
        return max(self._beside, self._usual.beside)

    @property
    def room(self) -> int:
        """How many leave room for others."""
        if self._most == ANY and self._beside < self._usual.room + 1.0:
            return self._usual.room
        return self._most

    @property
    def unproven(self) -> float:
        """Those aside beyond the most beside which others were answered: they may hold others up."""
        return 0.0 if self.aside == 0 else max(self.aside - self.beside, 0.0)

    def spare(self, servers: int) -> int:
        """Requests that the endpoint works on at once beside those aside, where others show that it is `servers`."""
        if servers <= MANY and self.room == ANY and (self.aside == 0 or self.takes_none(servers)):
            return servers
        return max(servers, int(self._together)) - self.aside

    def takes_none(self, servers: int) -> bool:
        """Whether one of them takes no worker of so many."""
        return _takes_none(self.beside, servers)

    def begin(self) -> None:
        """One more waits for its response."""
        self.present += 1

    def lay_aside(self, cost: float) -> None:
        """One of them, which is expected to take so many seconds, is laid aside."""
        self.aside += 1
        self.aside_cost += cost
        self._usual.aside += 1

    def end(self, aside: bool, cost: float) -> None:
        """One has its response, or will have none; `aside`: it was laid aside."""
        self.present -= 1
        self.ended += 1
        if aside:
            self.aside -= 1
            self.aside_cost = self.aside_cost - cost if self.aside else 0.0
            self._usual.aside -= 1

    def answered_beside(self, number: int, at_once: int) -> None:
        """The endpoint has answered a request beside so many that were there before, with so many others at once."""
        if number >= self._level:
            self._held_up = 0
            self._level = 0
        if number > self._beside:
            self._beside = _risen(self._beside, number)
            self._usual.beside = max(self._usual.beside, self._beside)
        together = number + at_once
        if together > self._together:
            self._together = _risen(self._together, together)
        if number > self.room:
            self._beyond += 1
            if self._beyond >= BEYOND:
                self._beyond = 0
                self._beside = max(self._beside, float(number))
                self._most = self._usual.room = ANY

    def held_up(self, number: int) -> None:
        """A request waited beside so many until one ended."""
        self._beyond = 0
        if number > self.room or self.ended == self._episode:
            return
        self._episode = self.ended
        self._held_up += 1
        self._level = min(self._level, number) if self._level else number
        if self._held_up >= HELD_UP or number > self.beside:
            self._most = self._usual.room = self._level - 1
            self._beside = min(self._beside, float(self._most))
            self._together = min(self._together, float(self._level))
            self._usual.beside = self._beside
            self._held_up = 0
            self._level = 0


def _takes_none(beside: float, workers: float) -> bool:
    """Whether a lengthy request takes no worker, where others were answered beside so many of them."""
    return beside >= workers + MORE


def _risen(most: float, seen: int) -> float:
    """The most that is known, after more was seen."""
    return most + max(RISE, (seen - most) / 2)
