"""Lengthy requests: those of a kind that takes fifty times the usual, or more.

They may be work, and then each takes a worker. Or they wait for something, a long poll or a call to another service,
and take none: an endpoint on asyncio goes on answering others beside hundreds of them. What a request is, its time does
not say; what becomes of the others does. Until it has shown, a lengthy request counts as one more: it is laid aside
from those that wait for a worker, and takes one worker of several.

It **holds others up** where one of them comes late, and after it has ended; it does not where one that was sent later
has its answer first. Kinds differ in that (long polls, reports), and so do endpoints (on asyncio or not). Those that
are likely to hold others up count as work. And where others were answered beside two more than an endpoint works on at
once, those laid aside **take no worker**.
"""

from __future__ import annotations

from math import exp
from typing import Final

from mypy_extensions import mypyc_attr

from balancer.balancing.cost import MIN_WEIGHT, RequestKind
from balancer.balancing.holding import TESTED, Holding

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
RISE: Final = 0.5
"""What is known to leave room rises by half of the difference, and by this at least: one odd answer, as of a cache,
must not do."""
HELD: Final = 0.25
"""Of the time from which a request is lengthy: one that took less was not held up."""
MORE: Final = 2.0
"""Where others were answered beside so many more than an endpoint works on at once, lengthy requests take no worker.
How many those are is learned from the others, and may be one or two more than they show."""


class Usual:
    """What a request usually takes, and what all endpoints together have shown of lengthy ones."""

    __slots__ = ("_answers", "_holding", "_of", "_strange", "aside", "beside", "changes", "lengthy_from", "logarithm")

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
        self._holding = Holding()
        self.aside = 0
        """Lengthy requests laid aside, at all endpoints."""
        self.changes = 0
        """Times that more turned out to be lengthy, or to leave room: some under way may be laid aside."""

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
        if kind.mean > self.lengthy_from and self._answers >= FIRST:
            self.find(kind)
        return kind.lengthy

    def find(self, kind: RequestKind) -> None:
        """`kind` turns out to be lengthy."""
        kind.lengthy = True
        self.changes += 1

    def note(self, kind: RequestKind, there: Holding, held_up: bool) -> None:
        """One of `kind` has shown whether it holds others up; `there`: what its endpoint has shown."""
        before = self.holds_up(kind, there)
        self._holding.add(held_up)
        kind.holding.add(held_up)
        there.add(held_up)
        if before and not self.holds_up(kind, there):
            self.changes += 1

    @property
    def is_untested(self) -> bool:
        """Whether too few have shown whether they hold others up."""
        return self._holding.number < TESTED

    def holds_up(self, kind: RequestKind, there: Holding | None = None) -> bool:
        """Whether one of `kind` is likely to hold others up, anywhere or at the endpoint that has shown `there`."""
        holding = self._holding
        if self.is_untested:
            return False
        share = holding.share + kind.holding.beyond(holding)
        return (share if there is None else share + there.beyond(holding)) > 0.5

    def takes_none(self, workers: float) -> bool:
        """Whether a lengthy request takes no worker of an endpoint of so many, as all have shown together."""
        return _takes_none(self.beside, workers)


@mypyc_attr(acyclic=True)
class Lengthy:
    """The lengthy requests at one endpoint."""

    __slots__ = (
        "_beside",
        "_ended_kind",
        "_ended_sent_at",
        "_held_until",
        "_holding",
        "_newest",
        "_together",
        "_usual",
        "aside",
        "ended",
        "ended_at",
        "present",
    )

    def __init__(self, usual: Usual) -> None:
        self._usual = usual
        self.present = 0
        """Those that wait for their response."""
        self.aside = 0
        """Those of them that are laid aside."""
        self.ended = 0
        """Those that have had their response, or will have none, so far."""
        self._newest = -1.0
        """When the newest request was sent (s) that was answered though these might have taken all workers."""
        self.ended_at = 0.0
        """When (s) the last of those had its response."""
        self._ended_kind: RequestKind | None = None
        self._ended_sent_at = 0.0
        self._held_until = -1.0
        """When (s) the last that held others up had its response."""
        self._holding = Holding()
        self._beside = 0.0
        """The most beside which the endpoint has answered another."""
        self._together = 0.0
        """The most requests that it has worked on at once, if each of them takes a worker."""

    @property
    def beside(self) -> float:
        """The most beside which the endpoint, or another, has answered others."""
        return max(self._beside, self._usual.beside)

    def unproven(self, servers: int) -> float:
        """Those aside that may hold others up: beyond the workers, and the most beside which others were answered."""
        return 0.0 if self.aside == 0 else max(self.aside - max(self.beside, servers - 1.0), 0.0)

    def spare(self, servers: int) -> int:
        """Requests that the endpoint works on at once beside those aside, where others show that it is `servers`."""
        if self.aside == 0 or self.takes_none(servers):
            return servers
        return max(servers, int(self._together)) - self.aside

    def takes_none(self, servers: int) -> bool:
        """Whether one of them takes no worker of so many."""
        return _takes_none(self.beside, servers)

    def holds_up(self, kind: RequestKind) -> bool:
        """Whether one of `kind` is likely to hold others up here."""
        return self._usual.holds_up(kind, self._holding)

    def takes_some(self, servers: int) -> bool:
        """Whether any takes a worker of so many, as far as is known."""
        return self.present > (self.aside if self.takes_none(servers) else 0)

    def begin(self) -> None:
        """One more waits for its response."""
        self.present += 1

    def lay_aside(self) -> None:
        """One of them is laid aside."""
        self.aside += 1
        self._usual.aside += 1

    def end(self, aside: bool) -> None:
        """One has its response, or will have none; `aside`: it was laid aside."""
        self.present -= 1
        self.ended += 1
        if aside:
            self.aside -= 1
            self._usual.aside -= 1

    def answered(self, kind: RequestKind, sent_at: float, now: float) -> None:
        """One of `kind`, sent then, has its response: it held nobody up where one that was sent later had its own."""
        self.ended_at = now
        self._ended_kind = kind
        self._ended_sent_at = sent_at
        if self._newest > sent_at:
            self._usual.note(kind, self._holding, False)

    def answered_beside(self, number: int, sent_at: float, servers: int, at_once: int) -> None:
        """A request sent then was answered beside so many that were there before, and so many others at once.

        `servers`: how many requests the endpoint is believed to work on at once.
        """
        if number >= servers:
            self._newest = max(self._newest, sent_at)
        if number > self._beside:
            self._beside = _risen(self._beside, number)
            self._usual.beside = max(self._usual.beside, self._beside)
        together = number + at_once
        if together > self._together:
            self._together = _risen(self._together, together)

    def held_up(self, sent_at: float) -> bool:
        """A request that was sent then is late; True: it probably waited until the last of these ended."""
        kind = self._ended_kind
        if kind is None or self._ended_sent_at > sent_at or self.ended_at < sent_at:
            return False
        if self._held_until != self.ended_at:
            self._held_until = self.ended_at
            self._usual.note(kind, self._holding, True)
        return self._usual.is_untested or self.holds_up(kind)


def _takes_none(beside: float, workers: float) -> bool:
    """Whether a lengthy request takes no worker, where others were answered beside so many of them."""
    return beside >= workers + MORE


def _risen(most: float, seen: int) -> float:
    """The most that is known, after more was seen."""
    return most + max(RISE, (seen - most) / 2)
