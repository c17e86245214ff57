"""Several strategies over several seeds, and the one plain sentence that follows from it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from balancer.lab.experiment import Setting, run
from balancer.lab.record import Summary, geometric_mean, middle

STUDENT: Final = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)
"""Student's t for a two-sided interval of 95 %, by degrees of freedom from 1 on."""
SIMPLEST: Final = ("round-robin", "least-connections", "random-of-two", "least-response-time", "least-work")
"""Where two are alike, the one that needs to know less is recommended."""
WORTH: Final = 0.02
"""A difference of less than this part is none that anybody would notice."""
MAY_BE_NONE: Final = 0.15
"""A difference of less than this part is taken for none unless it is sure."""
STRETCHED: Final = 1.25
"""A slowdown so many times another's matters, where it is sure."""
STRETCHED_ANYHOW: Final = 2.0
"""The same, however sure it is."""
WIDE: Final = 10.0
"""An interval that reaches so many times its middle is not told: it says only that there are too few seeds."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure of one strategy over another's, paired by seed: the geometric mean, and its interval of 95 %."""

    middle: float
    low: float
    high: float

    @property
    def is_sure(self) -> bool:
        """The interval does not contain 1."""
        return self.high < 1.0 or self.low > 1.0


@dataclass(frozen=True, slots=True)
class Study:
    """The runs of each strategy, by seed."""

    runs: dict[str, list[Summary]]

    def summaries(self) -> dict[str, Summary]:
        """Each strategy's runs as one, the best first."""
        merged = {name: middle(runs) for name, runs in self.runs.items()}
        return dict(sorted(merged.items(), key=lambda item: _worth(item[1])))

    def ratio(self, one: str, other: str) -> Ratio:
        """The p99 of one over the other's."""
        return paired([run.p99 for run in self.runs[one]], [run.p99 for run in self.runs[other]])

    def recommendation(self) -> str:
        """What to use, why, and how sure that is."""
        summaries = self.summaries()
        names = list(summaries)
        if len(names) == 1:
            return f"Only {names[0]} was tried: name others to compare it with."
        seeds = len(self.runs[names[0]])
        if seeds < 2:
            return f"{names[0]} was best in this one run; more seeds would say how sure that is."
        near = [name for name in names if name == names[0] or self._alike(names[0], name, summaries)]
        quickest = min(near, key=lambda name: summaries[name].slowdown)
        alike = [name for name in near if not self._stretches(name, quickest)]
        best = min(alike, key=_plainness)
        worse = [name for name in names if name not in near and self._beats(best, name, summaries)]
        reason = ""
        if len(near) > len(alike):
            reason = self._by_slowdown(best, [name for name in near if name not in alike], summaries)
        elif worse:
            reason = self._by_time(best, worse[0], summaries)
        among = [name for name in alike if name != best]
        draw = ""
        if among:
            draw = (
                f" These runs show no difference from {_listed(among)} that would matter; {best} needs to know least."
            )
        return f"Use {best}{reason} ({seeds} seeds, intervals of 95 %).{draw}"

    def _beats(self, one: str, other: str, summaries: dict[str, Summary]) -> bool:
        return summaries[one].failures < summaries[other].failures or self.ratio(one, other).middle < 1.0

    def _by_time(self, best: str, second: str, summaries: dict[str, Summary]) -> str:
        if summaries[best].failures < summaries[second].failures:
            return (
                f": {summaries[best].failures:,} requests failed, with {second}, the next, "
                f"{summaries[second].failures:,}"
            )
        return f": its p99 is {_told(self.ratio(best, second), second)}"

    def _by_slowdown(self, best: str, near: Sequence[str], summaries: dict[str, Summary]) -> str:
        second = min(near, key=lambda name: summaries[name].slowdown)
        slowdown = _told(self._slowdown_ratio(best, second), second)
        return f": its p99 is about that of {_listed(near)}, but its slowdown {slowdown}"

    def _slowdown_ratio(self, one: str, other: str) -> Ratio:
        return paired([run.slowdown for run in self.runs[one]], [run.slowdown for run in self.runs[other]])

    def _stretches(self, one: str, other: str) -> bool:
        """Short requests wait noticeably longer with `one`."""
        ratio = self._slowdown_ratio(one, other)
        return ratio.middle >= STRETCHED_ANYHOW or (ratio.is_sure and ratio.middle >= STRETCHED)

    def _alike(self, one: str, other: str, summaries: dict[str, Summary]) -> bool:
        if summaries[one].failures * 1.1 + 5 < summaries[other].failures:
            return False
        ratio = self.ratio(one, other)
        difference = abs(ratio.middle - 1.0)
        return difference < (WORTH if ratio.is_sure else MAY_BE_NONE)


def study(
    setting: Setting, strategies: Sequence[str], seeds: Sequence[int], progress: Callable[[int], None] | None = None
) -> Study:
    """Run every strategy with every seed."""
    return Study({name: [run(setting, name, seed, progress) for seed in seeds] for name in strategies})


def paired(ones: Sequence[float], others: Sequence[float]) -> Ratio:
    """The ratios of two sequences, one by one, with Student's interval for their logarithms."""
    logs = [math.log(max(one, 1e-9) / max(other, 1e-9)) for one, other in zip(ones, others, strict=True)]
    mean = geometric_mean([math.exp(each) for each in logs])
    if len(logs) < 2:
        return Ratio(mean, 0.0, math.inf)
    t = STUDENT[min(len(logs) - 1, len(STUDENT)) - 1]
    spread = t * statistics.stdev(logs) / math.sqrt(len(logs))
    return Ratio(mean, mean * math.exp(-spread), mean * math.exp(spread))


def _worth(summary: Summary) -> tuple[float, float]:
    # A request in a thousand that fails outweighs any time.
    return (round(summary.failures / max(summary.requests, 1), 3), summary.p99)


def _plainness(name: str) -> int:
    return SIMPLEST.index(name) if name in SIMPLEST else len(SIMPLEST)


def _told(ratio: Ratio, second: str) -> str:
    chance = "" if ratio.is_sure else ", which may be chance: more --seeds would show it"
    interval = f" ({ratio.low:.2f} to {ratio.high:.2f})" if ratio.high <= WIDE * ratio.middle else ""
    return f"{ratio.middle:.2f}{interval} times that of {second}, the next{chance}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
