"""What is learned of requests and of how much endpoints work on at once, pooled over all endpoints.

**Distinct** are requests once it is known which of them has more to do: where kinds predict costs better than the mean
does. Otherwise estimates differ by chance alone, and an order by them is worse than by the number of requests: that is
taken instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, log
from typing import Final

from balancer.balancing.cost import RequestKind, RequestKinds
from balancer.balancing.lengthy import Usual

PACE_MEMORY: Final = 0.01
"""Least weight of a sample in the pace: about the last two hundred count."""
ONE_BY_ONE: Final = 20
"""So many answers in the order of their requests, with others waiting: one worker."""
FOR_EACH: Final = 4
"""And so many for each worker, with more waiting: that is all they work on at once."""
SAME_BOUND: Final = 0.5
"""Replicas agree on how much that is where they differ by less."""
DISTINCT: Final = 0.2
"""Kinds distinguish requests once they explain so much of the variance of the logarithm of a cost."""
ALIKE: Final = 0.1
"""And no longer where it is half of that."""
LEAST: Final = 0.05
"""At most so many means are left, as 1 / LEAST, of one that is found at work."""
MIN_COMPARED: Final = 32
"""Requests that are compared before any count as distinct."""


@dataclass(frozen=True, slots=True)
class Bound:
    """How much endpoints work on at once."""

    workers: float
    """The most that has been seen."""
    answers: int
    """Answers that would have shown more, had they worked on more."""

    @property
    def is_certain(self) -> bool:
        """Whether that is enough to know it."""
        return self.answers >= _enough(self.workers)


@dataclass(frozen=True, slots=True)
class CostsLearned:
    """What is known of all requests and endpoints together."""

    workers: float
    """What an endpoint works on at once; 0: they have not shown that there is a bound."""
    usual: float
    """Mean logarithm of the seconds of work of a request."""
    by_kind: float
    by_mean: float
    """Mean squared errors of the logarithm of a cost, expected by its kind and as the mean of all."""
    compared: int
    """Requests that these are learned from."""
    distinct: bool


class Costs:
    """What is learned of requests, pooled over all endpoints of a pool."""

    __slots__ = (
        "_answers",
        "_by_kind",
        "_by_mean",
        "_compared",
        "_misses",
        "_total",
        "bias",
        "bounded",
        "connections",
        "dearest",
        "distinct",
        "endpoints",
        "epoch",
        "kinds",
        "typical",
        "usual",
        "workers",
    )

    def __init__(self, key: str = "", connections: bool = False) -> None:
        self.kinds = RequestKinds(key)
        self.connections = connections
        """Whether these are connections, in TCP mode: nothing is known of the work that they bring, and all count."""
        self.workers = 1.0
        """How much a new endpoint is believed to work on at once: as much as the others."""
        self.bounded = False
        """Whether the endpoints have shown that they work on no more than that."""
        self._answers = 0
        """Answers that would have shown it, had they worked on more."""
        self.dearest = 0.0
        """Expected seconds of the most expensive kind."""
        self.epoch = 0
        """Changes when what was learned of workers no longer holds."""
        self.usual = Usual()
        """What a request usually takes, and what is known of those that take much longer."""
        self.typical = 0.0
        """Mean logarithm of the endpoints' paces."""
        self.distinct = False
        """Whether its kind says which request has more to do. Until then they count as alike, by their number."""
        self._by_kind = 0.0
        """Mean squared error of the logarithm of a cost, expected by its kind."""
        self._by_mean = 0.0
        """The same, expected to be the mean of all."""
        self._compared = 0
        self.bias = 0.0
        """Mean of what is missed of the logarithm of a request's work where its kind's mean is expected: below 0, and
        the more so the more costs differ within a kind."""
        self._misses = 0.0
        self._total = 0.0
        self.endpoints = 0
        """How many there are."""

    @property
    def mean(self) -> float:
        """Expected seconds of any request."""
        return self.kinds.all.mean

    @property
    def found(self) -> float:
        """Expected seconds that are left of a request that is found at work, of which nothing else is known.

        Long ones are found more often (the inspection paradox): half the mean where all cost the same, the mean where
        costs are exponential, many times that where a few are expensive. Source: Feller, An Introduction to Probability
        Theory and Its Applications II, I.4.
        """
        return self.mean / max(1.0 - self.kinds.all.growth, LEAST)

    def bound(self, at_once: int, waiting: int) -> None:
        """Learn from an answer of an endpoint with so many waiting that it works on so many at once, at least."""
        if at_once > self.workers:
            self.workers = float(at_once)
            self._answers = 0
        elif waiting > self.workers:
            self._answers += 1
            if self._answers >= _enough(self.workers):
                self._know_bound()

    def _know_bound(self) -> None:
        if not self.bounded:
            self.bounded = True
            self.usual.changes += 1

    @property
    def shown(self) -> Bound:
        """What has shown here how much the endpoints work on at once."""
        enough = ceil(_enough(self.workers)) if self.bounded else 0
        return Bound(self.workers, max(self._answers, enough))

    def corroborate(self, others: Iterable[Bound]) -> None:
        """Count what has shown the bound at other replicas, while too little has here.

        Each sends but a part of the requests, so few of its own wait together: by itself it may never know.
        """
        if self.bounded or self.epoch:  # The others may count what was found here to be no work.
            return
        answers = 0
        for bound in others:
            if bound.is_certain:
                self.workers = bound.workers
                self._know_bound()
                return
            if bound.workers > self.workers + SAME_BOUND:
                self.workers = bound.workers
                self._answers = answers = 0
            if bound.workers > self.workers - SAME_BOUND:
                answers += bound.answers
        if self._answers + answers >= _enough(self.workers):
            self._know_bound()

    def compare(self, kind: RequestKind, logarithm: float) -> None:
        """One request was this much work (a logarithm): did its kind predict that better than the mean of all?"""
        mean = self.mean
        expected = kind.expected
        if mean <= 0.0 or expected <= 0.0:
            return
        self._compared += 1
        weight = max(1.0 / self._compared, PACE_MEMORY)
        by_mean = logarithm - log(mean)
        by_kind = by_mean if expected == mean else logarithm - log(expected)
        self._by_mean += weight * (by_mean * by_mean - self._by_mean)
        self._by_kind += weight * (by_kind * by_kind - self._by_kind)
        if self.knows:
            least = ALIKE if self.distinct else DISTINCT
            self.distinct = self._by_kind < (1.0 - least) * self._by_mean

    def sort(self, kind: RequestKind) -> None:
        """See whether `kind`, whose mean has changed, is lengthy."""
        if self.usual.sort(kind) and self.workers > 1.0:
            self.begin_again()  # Its requests may have been counted among those that take a worker each.

    def waits(self, kind: RequestKind) -> bool:
        """Whether requests of `kind` wait for something, as far as is known, and take no worker."""
        if kind.parked or not kind.lengthy:
            return kind.parked
        return self.usual.takes_none(self.workers) and not self.usual.holds_up(kind)

    @property
    def unproven(self) -> bool:
        """Whether there are lengthy requests of which it is not known whether they hold others up."""
        return self.usual.aside > 0 and not self.usual.takes_none(self.workers)

    def missed(self, logarithm: float, own: float) -> None:
        """So much was missed of one, at a typical endpoint's pace; `own`: its part of the work that its time was for.

        The time of several requests together is nearer to its mean: only about `own * bias` is missed of it (of n
        exponential ones psi(n) - log(n), about a tenth less than that), so the bias is the slope.
        """
        self._misses += own * own
        self.bias += own * max(1.0 / max(self._misses, 1.0), PACE_MEMORY) * (logarithm - own * self.bias)

    @property
    def knows(self) -> bool:
        """Whether enough is known to be handed over."""
        return self._compared >= MIN_COMPARED

    def learned(self) -> CostsLearned:
        """What another replica may take over."""
        workers = self.workers if self.bounded else 0.0
        return CostsLearned(workers, self.usual.logarithm, self._by_kind, self._by_mean, self._compared, self.distinct)

    def take_over(self, given: CostsLearned, most: int) -> None:
        """Take what another replica has learned, as of `most` requests at the most, where that is more than here."""
        if given.workers > 0.0 and not self.bounded:
            self.workers = given.workers
            self._know_bound()
        compared = min(given.compared, most)
        if compared > self._compared:
            self.usual.take_over(given.usual)
            self._by_kind = given.by_kind
            self._by_mean = given.by_mean
            self._compared = compared
            self.distinct = given.distinct

    def begin_again(self) -> None:
        """What was learned of workers no longer holds."""
        self.epoch += 1
        self.workers = 1.0
        self.bounded = False
        self._answers = 0

    def join(self, pace_log: float) -> None:
        """An endpoint of this pace (a logarithm) is there."""
        self.endpoints += 1
        self._total += pace_log

    def leave(self, pace_log: float) -> None:
        """An endpoint of this pace is gone."""
        self.endpoints -= 1
        self._total -= pace_log
        self._update_typical()

    def shift(self, step: float) -> None:
        """The pace of one endpoint has changed."""
        self._total += step
        self._update_typical()

    def _update_typical(self) -> None:
        if self.endpoints > 0:
            self.typical = self._total / self.endpoints


def _enough(workers: float) -> float:
    """Answers that show that endpoints work on no more than so many at once."""
    return max(float(ONE_BY_ONE), FOR_EACH * workers)
