"""The result of a run: every request's time, and what it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


class Record:
    """Collects one run; `timeout` (s) is what a failed request counts as."""

    def __init__(self, endpoints: int, timeout: float) -> None:
        self._timeout = timeout
        self._times: list[float] = []
        self._slowdowns: list[float] = []
        self._shares = [0] * endpoints
        self.failures = 0
        self.noted = 0
        self.whole: tuple[int, Callable[[], None]] | None = None
        """So many requests are the whole run, and what to call when the last has ended."""
        self.ended = 0.0
        self.fault = ""
        """What a strategy of a user's own raised, and how often."""

    def add(self, took: float, cost: float, succeeded: bool, endpoint: int, now: float) -> None:
        """One request has ended: seconds it took, seconds of work it was, and at which endpoint."""
        self.noted += 1
        self.ended = now
        if not succeeded:
            self.failures += 1
            took = self._timeout
        self._times.append(took)
        self._slowdowns.append(took / cost if cost > 0 else 1.0)
        if endpoint >= 0:
            self._shares[endpoint] += 1
        if self.whole is not None and self.noted == self.whole[0]:
            self.whole[1]()

    def summary(self) -> Summary:
        """The run in a few figures."""
        times = sorted(self._times)
        slowdowns = sorted(self._slowdowns)
        total = max(sum(self._shares), 1)
        return Summary(
            requests=len(times),
            mean=sum(times) / max(len(times), 1),
            p50=quantile(times, 0.5),
            p99=quantile(times, 0.99),
            p999=quantile(times, 0.999),
            slowdown=quantile(slowdowns, 0.99),
            failures=self.failures,
            shares=tuple(count / total for count in self._shares),
            fault=self.fault,
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """One run, or the middle of several: seconds, and the p99 of time over the request's own cost."""

    requests: int
    mean: float
    p50: float
    p99: float
    p999: float
    slowdown: float
    failures: int
    shares: tuple[float, ...]
    fault: str = ""
    """What the strategy raised, where it is a user's own and did; round-robin chose in its place."""


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of an ascending sequence lies; 0 of an empty one."""
    if not ordered:
        return 0.0
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def geometric_mean(values: Sequence[float]) -> float:
    """The mean for ratios and times."""
    return math.exp(sum(math.log(max(value, 1e-9)) for value in values) / len(values))


def middle(runs: Sequence[Summary]) -> Summary:
    """Several runs as one: geometric means of the times, so that no one seed counts for all."""
    shares = tuple(sum(run.shares[i] for run in runs) / len(runs) for i in range(len(runs[0].shares)))
    return Summary(
        requests=sum(run.requests for run in runs),
        mean=geometric_mean([run.mean for run in runs]),
        p50=geometric_mean([run.p50 for run in runs]),
        p99=geometric_mean([run.p99 for run in runs]),
        p999=geometric_mean([run.p999 for run in runs]),
        slowdown=geometric_mean([run.slowdown for run in runs]),
        failures=sum(run.failures for run in runs),
        shares=shares,
        fault=next((run.fault for run in runs if run.fault), ""),
    )
