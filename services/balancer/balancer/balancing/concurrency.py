"""How many requests an endpoint works on at once, learned from answers that overtake requests sent before them.

An answer that leaves k older requests behind says that the endpoint works on k + 1 at least. The estimate is the 98th
percentile of that, so that a few odd answers (a cache in front of one worker) do not count. Lengthy requests do not
count either (lengthy.py). An endpoint that gets too few requests to show it follows the others, unless it answers one
by one.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import mypyc_attr

from balancer.balancing.costs import ONE_BY_ONE, Costs

MOST_WORKERS: Final = 1024.0
RISE: Final = 0.5
FALL: Final = 0.01
"""Steps of a stochastic quantile estimator: FALL / RISE of 2 % makes it settle at the 98th percentile."""
MARGIN: Final = 0.25
"""The estimate rises when a sample exceeds it by more than this; below 0.5, or rounding would hold it one too low."""
ROUNDED: Final = 0.4
"""What is added before rounding down: one odd answer raises the estimate by half a worker, and must not make it one."""
IN_ORDER: Final = 5
"""So many, and it is not believed to work on as much as the others when that becomes known."""
AS_OTHERS: Final = 0.1
"""How an endpoint that shows nothing of its workers follows the others: by this part of the difference an answer."""
WALKED: Final = 16
"""Where more requests than that wait at an endpoint, one answer in `waiting / WALKED` is looked at for those that it
overtook: so an answer costs the same whatever waits."""


@mypyc_attr(acyclic=True)
class Concurrency:
    """The estimate for one endpoint."""

    __slots__ = ("_costs", "_in_order", "_unlooked", "_unsure", "servers", "workers")

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self.workers = costs.workers
        """How many requests it works on at once."""
        self.servers = 1
        """The same, rounded."""
        self._unsure = not costs.bounded
        """Whether it was not yet compared with the others'."""
        self._in_order = 0
        """Answers since the last that overtook an older request, while others waited."""
        self._unlooked = 0
        """Answers that overtook others and were not looked at since the last that was."""
        self._round()

    def _round(self) -> None:
        self.servers = max(int(self.workers + ROUNDED), 1)

    @property
    def is_bounded(self) -> bool:
        """Whether it is known how many requests it works on at once."""
        return self._costs.bounded or self._in_order >= ONE_BY_ONE

    @property
    def at_once(self) -> int:
        """How many requests it works on at once; 1 while nothing is known."""
        if not self._costs.bounded:
            return 1
        return max(int(self._costs.workers + ROUNDED), 1) if self._unsure else self.servers

    @property
    def settled(self) -> float:
        """How many requests it works on at once; 0 while that is not known."""
        return 0.0 if self._unsure or not self._costs.bounded else self.workers

    def begin_again(self) -> None:
        """What was learned does not hold: it had counted requests that are no work."""
        self.workers = 1.0
        self._unsure = True

    def take_over(self, workers: float) -> None:
        """Another replica has seen so many."""
        if self._costs.bounded:
            self._unsure = False
            self.workers = workers
            self._round()

    def looks(self, overtakes: bool, waiting: int) -> bool:
        """Whether it is worth while to count the requests that an answer overtakes; `waiting`: those it was among."""
        if self._unsure and self._costs.bounded:
            self._unsure = False
            if self._in_order < IN_ORDER:
                self.workers = max(self.workers, self._costs.workers)
                self._round()
        if waiting <= self.servers and not overtakes and not self._unsure:
            self._follow_others(waiting)
            return False
        if not overtakes:
            return True
        self._unlooked += 1
        if self._unlooked * WALKED < waiting:
            return False
        self._unlooked = 0
        return True

    def saw(self, at_once: int, waiting: int, all_workers: bool) -> None:
        """An answer says that it works on so many at once at least, with so many waiting for theirs.

        `all_workers`: whether none is held by a lengthy request, so that it could have been more.
        """
        costs = self._costs
        if at_once > 1:
            self._in_order = 0
        elif waiting > 1:
            self._in_order += 1
        if not costs.bounded:
            costs.bound(at_once, waiting)
            self.workers = max(self.workers, float(at_once))
            self.servers = int(self.workers)
            return
        if at_once > self.workers + MARGIN:
            self.workers = min(self.workers + max(RISE, (at_once - self.workers) / 4), MOST_WORKERS)
        elif waiting > self.servers and all_workers:
            self.workers = max(self.workers - FALL, 1.0)
        self._round()
        costs.workers += 0.05 * (self.workers - costs.workers)

    def _follow_others(self, waiting: int) -> None:
        """It is not given more than it is believed to work on, and so cannot show that it works on more."""
        if waiting > 1:
            self._in_order += 1
        if self._in_order >= ONE_BY_ONE:
            self.workers += AS_OTHERS * (1.0 - self.workers)
        elif self.workers < self._costs.workers:
            self.workers += AS_OTHERS * (self._costs.workers - self.workers)
        self._round()
