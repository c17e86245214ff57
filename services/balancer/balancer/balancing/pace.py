"""How fast an endpoint is: the time that it takes over what was expected, as in minutes per kilometre; above 1 is slow.

It is the mean of the logarithm, so that a heavy tail weighs little, and only the comparison of endpoints counts. So an
expensive request makes no endpoint look slow. The time of several requests together has less of a tail: as much less is
allowed for, or an endpoint that others do not use would look fast.
"""

from __future__ import annotations

from math import exp, log, sqrt
from typing import Final

from mypy_extensions import mypyc_attr

from balancer.balancing.cost import EXPONENTIAL, RequestKind
from balancer.balancing.costs import PACE_MEMORY, Costs

PRIOR_SAMPLES: Final = 4
"""A pace begins as if so many samples of the typical one had been taken."""
TRIED_AFTER: Final = 20.0
"""Seconds unused after which what is known of an endpoint's pace is old: it counts as the fastest, and is tried."""
OF_OLD: Final = 0.25
"""Weight of the first sample after that."""
LEAST_OWN: Final = 0.25
"""The time of several requests together varies less than that of one, and says more of a pace: 1 / (own part) times as
much, 1 / LEAST_OWN at the most."""
MOST_SAMPLES: Final = 200
"""Samples of a pace that count."""
SAME_PACE: Final = 0.005
"""A pace is worked out again when its logarithm has changed by this."""
SMALLEST: Final = 1e-6
"""Shortest time (s) that has a logarithm."""


@mypyc_attr(acyclic=True)
class Pace:
    """That of one endpoint."""

    __slots__ = ("_costs", "_counts", "_factor", "_factor_of", "_given", "_samples", "learned_at", "logarithm")

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self.logarithm = costs.typical
        self._counts = False
        """Whether its endpoint is there, so that this is one of those of which the typical is the mean."""
        self._samples = 0.0
        """Requests that it is learned from; those that say little in part, those that say more several times."""
        self._given = False
        """Whether it is another replica's, which has acted on it, and no sample of our own has come since."""
        self._factor = 1.0
        self._factor_of = 0.0
        """The logarithm of `_factor`."""
        self.learned_at = 0.0
        """When the endpoint last gave the response that this was learned from."""

    @property
    def factor(self) -> float:
        """Time that the endpoint takes, as a multiple of a typical one's."""
        logarithm = self.logarithm - self._costs.typical
        changed = logarithm - self._factor_of
        if changed > SAME_PACE or changed < -SAME_PACE:
            self._factor_of = logarithm
            self._factor = exp(logarithm)
        return self._factor

    @property
    def doubt(self) -> float:
        """Standard error of the logarithm; half of that where another replica has acted on it."""
        error = EXPONENTIAL / sqrt(min(self._samples, MOST_SAMPLES) + PRIOR_SAMPLES)
        return error / 2 if self._given else error

    @property
    def samples(self) -> int:
        """Requests that it is learned from."""
        return int(self._samples + 0.5)

    def joined(self) -> None:
        """Its endpoint is there (again)."""
        self._counts = True
        self._costs.join(self.logarithm)

    def left(self) -> None:
        """Its endpoint is gone; its last requests may still be under way."""
        self._counts = False
        self._costs.leave(self.logarithm)

    def learn(self, kind: RequestKind, logarithm: float, own: float, answered_at: float) -> None:
        """A request of `kind` took so long (a logarithm); `own`: its part of the work that its time was for."""
        costs = self._costs
        self._given = False
        known = max(own, LEAST_OWN)
        share = kind.certainty / known
        self._samples += share
        weight = share * max(1.0 / (self._samples + PRIOR_SAMPLES), PACE_MEMORY)
        if answered_at - self.learned_at > TRIED_AFTER:
            weight = max(weight, OF_OLD)
        missed = logarithm - log(max(kind.mean, SMALLEST)) - self.logarithm
        costs.missed(missed + costs.typical, own)
        step = missed - own * costs.bias
        kind.missed(step / sqrt(known))
        self._shift(weight * step)
        self.learned_at = answered_at

    def take_over(self, logarithm: float, samples: int, learned_at: float) -> bool:
        """Count `samples` requests that another replica has seen, where that is more than were seen here.

        `learned_at`: when the last of them was answered (s).
        """
        own = self.samples
        if own >= samples:
            return False
        self._samples = float(own + samples)
        self._shift(samples / self._samples * (logarithm - self.logarithm))
        self.learned_at = max(self.learned_at, learned_at)
        self._given = True
        return True

    def _shift(self, step: float) -> None:
        """Change it (a logarithm)."""
        self.logarithm += step
        if self._counts:
            self._costs.shift(step)
