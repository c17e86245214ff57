"""Recorded traffic: access logs of lb, read into requests, their costs, and the speed of each endpoint.

What a log holds is when a request ended and how long its endpoint took, waiting in that endpoint's queue included. Its
cost is what is left when the waiting is taken off, for which the number of its workers is fitted: the one that lets
the endpoint's own order of ends explain the times best.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heappop, heappush
from typing import Final

from balancer.balancing.request import RequestInfo
from balancer.lab.fleet import Script
from balancer.lab.traffic import Ask

ENOUGH: Final = 1000
"""Requests below which a log says nothing of a p99."""
FEW: Final = 200
"""Requests below which it is not replayed at all."""
WORKERS: Final = (1, 2, 4, 8, 16, 64, 256)
MAX_COST: Final = 3600.0
"""Seconds beyond which a line is taken to be wrong."""


@dataclass(slots=True)
class _Entry:
    """One line."""

    began: float
    took: float
    endpoint: str
    failed: bool
    info: RequestInfo


@dataclass(slots=True)
class Recording:
    """What the logs say."""

    asks: tuple[Ask, ...] = ()
    fleet: tuple[Script, ...] = ()
    endpoints: tuple[str, ...] = ()
    good: int = 0
    bad: int = 0
    """Lines that are no access log entry of lb."""
    unanswered: int = 0
    """Requests that no endpoint answered: they say nothing of costs, and are left out."""
    rate: float = 0.0
    """Requests a second."""
    warnings: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """What was read and fitted, in a few lines."""
        lines = [
            f"{self.good:,} requests, {self.rate:,.1f} a second; {self.bad:,} bad lines, {self.unanswered:,} unanswered"
        ]
        for address, script in zip(self.endpoints, self.fleet, strict=True):
            lines.append(
                f"  {address}: {script.workers} at once, pace {script.slower:.2f}, failures {script.fails:.1%}"
            )
        return "\n".join([*lines, *self.warnings])


def read(lines: Iterable[str]) -> Recording:
    """Read access log lines, of any number of files one after another. Raises ValueError for too few."""
    found = Recording()
    entries: list[_Entry] = []
    for line in lines:
        if not line.strip():
            continue
        entry = _entry(line)
        if entry is None:
            found.bad += 1
        elif not entry.endpoint:
            found.unanswered += 1
        else:
            entries.append(entry)
    found.good = len(entries)
    if found.good < FEW:
        raise ValueError(
            f"the log has {found.good} usable requests ({found.bad} bad lines, {found.unanswered} unanswered): "
            f"{FEW} are needed to say anything, {ENOUGH} for a p99"
        )
    if found.good < ENOUGH:
        found.warnings.append(f"Few requests: below {ENOUGH:,} a p99 is little more than the slowest ones.")
    _fit(found, sorted(entries, key=lambda entry: entry.began))
    return found


def _entry(line: str) -> _Entry | None:
    try:
        # kubectl logs --prefix, and a container runtime, put a word of their own before the line.
        fields = json.loads(line[line.index("{") :])
        total = float(fields["total"])
        ended = datetime.fromisoformat(fields["time"]).timestamp()
        first_byte = fields.get("first_byte")
        took = total if first_byte is None else float(first_byte)
        if not (0.0 <= took <= MAX_COST and 0.0 <= total <= MAX_COST):
            return None
        status = int(fields["status"])
        info = RequestInfo(str(fields["client"]), str(fields["method"]), str(fields["path"]))
        # One that no endpoint answered took the time of a timeout, not that of its work.
        answered = fields["endpoint"] and (first_byte is not None or fields["reason"] is None) and status != 499
        return _Entry(ended - total, took, str(fields["endpoint"]) if answered else "", status >= 500, info)
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def _fit(found: Recording, entries: list[_Entry]) -> None:
    by_endpoint: dict[str, list[_Entry]] = defaultdict(list)
    for entry in entries:
        by_endpoint[entry.endpoint].append(entry)
    span = entries[-1].began - entries[0].began
    found.rate = len(entries) / span if span > 0 else 0.0
    found.endpoints = tuple(sorted(by_endpoint))
    costs: dict[int, float] = {}
    scripts = []
    workers = {address: _workers(group) for address, group in by_endpoint.items()}
    for address in found.endpoints:
        for entry, cost in zip(by_endpoint[address], _services(by_endpoint[address], workers[address]), strict=True):
            costs[id(entry)] = cost
    typical = _typical(entries, costs)
    for address in found.endpoints:
        group = by_endpoint[address]
        work = sum(costs[id(entry)] for entry in group if not entry.failed)
        expected = sum(typical[entry.info.method, entry.info.path] for entry in group if not entry.failed)
        pace = work / expected if work > 0 and expected > 0 else 1.0
        fails = sum(entry.failed for entry in group) / len(group)
        scripts.append(Script(workers[address], slower=pace, fails=fails))
    paces = {address: script.slower for address, script in zip(found.endpoints, scripts, strict=True)}
    found.fleet = tuple(scripts)
    start = entries[0].began
    found.asks = tuple(
        Ask(entry.began - start, entry.info, costs[id(entry)] / paces[entry.endpoint]) for entry in entries
    )


def _typical(entries: list[_Entry], costs: dict[int, float]) -> dict[tuple[str, str], float]:
    """The mean cost of each method and path, for comparing endpoints; of rare ones, the mean of all."""
    seen: dict[tuple[str, str], list[float]] = defaultdict(list)
    for entry in entries:
        seen[entry.info.method, entry.info.path].append(costs[id(entry)])
    mean = statistics.fmean(costs.values())
    return {key: statistics.fmean(values) if len(values) >= 20 else mean for key, values in seen.items()}


def _services(entries: list[_Entry], workers: int) -> list[float]:
    """Seconds of work of each request, if the endpoint works on `workers` at a time, first come, first served."""
    busy: list[float] = []
    services = []
    for entry in entries:
        free = entry.began if len(busy) < workers else max(entry.began, heappop(busy))
        end = entry.began + entry.took
        services.append(max(end - free, 1e-6))
        heappush(busy, max(end, free))
    return services


def _workers(entries: list[_Entry]) -> int:
    """How many the endpoint works on at a time: fewest such that hardly any request ends before it can begin."""
    if len(entries) < FEW // 4:
        return WORKERS[2]
    for workers in WORKERS:
        early = 0
        busy: list[float] = []
        for entry in entries:
            free = entry.began if len(busy) < workers else max(entry.began, heappop(busy))
            end = entry.began + entry.took
            early += end < free - 0.001
            heappush(busy, max(end, free))
        if early <= 0.005 * len(entries):
            return workers
    return WORKERS[-1]
