"""Recorded traffic: access logs of lb, read into requests, their costs, and the speed of each endpoint.

What a log holds is when a request ended and how long its endpoint took, waiting in that endpoint's queue included. Its
cost is what is left when the waiting is taken off, for which the number of its workers is fitted: the one that lets
the endpoint's own order of ends explain the times best.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heappop, heappush, heappushpop
from typing import Final

from balancer.balancing.cost import shape
from balancer.balancing.outcome import FAILURE, Outcome
from balancer.balancing.request import RequestInfo
from balancer.counters import GRPC_AS_HTTP, GRPC_CODES
from balancer.lab.fleet import Script
from balancer.lab.record import Summary, quantile
from balancer.lab.traffic import Ask

ENOUGH: Final = 1000
"""Requests below which a log says nothing of a p99."""
MOST: Final = 50_000
"""Requests that are replayed, unless more are asked for: a study of them takes minutes, and they fit into memory."""
FEW: Final = 200
"""Requests below which it is not replayed at all."""
CLOSE: Final = 1.25
"""A simulated p99 within this factor of the recorded one is near."""
LASTING: Final = 0.05
"""Seconds from a response's first byte to its last from which on it is replayed as a stream, which needs no worker."""
COMMON: Final = 20
"""Requests from which on a kind has figures of its own."""
SHORTEST: Final = 1e-6
PAUSE: Final = 30.0
"""Seconds without a request that are replayed: a longer pause, as between the logs of two days, is shortened to it.
What is known of latencies has faded by then, and a simulated day takes minutes however little happens."""
SWAPPED: Final = 0.005
"""Share of an endpoint's requests that may have overtaken another without showing one more worker."""
SWAPPED_OF_WAITING: Final = 0.05
"""The same, of those that had to wait: with one worker more a large part of these would overtake."""
WORKERS: Final = (1, 2, 4, 8, 16, 64, 256)
MAX_COST: Final = 3600.0
"""Seconds beyond which a line is taken to be wrong."""


@dataclass(slots=True)
class _Entry:
    """One line."""

    began: float
    took: float
    lasted: float
    """Seconds from its first byte on, or that it was sent for: it holds its endpoint, but no worker of it."""
    total: float
    endpoint: str
    strategy: str
    cluster: str
    failed: bool
    info: RequestInfo


class _Newest:
    """The `most` requests of each cluster that ended last, of however many: what is kept of a log is bounded."""

    def __init__(self, most: int) -> None:
        self.counts: Counter[str] = Counter()
        self._most = most
        self._kept: dict[str, list[tuple[float, int, _Entry]]] = {}

    def add(self, entry: _Entry) -> None:
        """One more request."""
        self.counts[entry.cluster] += 1
        kept = self._kept.setdefault(entry.cluster, [])
        item = (entry.began + entry.total, self.counts[entry.cluster], entry)
        if len(kept) < self._most:
            heappush(kept, item)
        else:
            heappushpop(kept, item)

    def of(self, cluster: str) -> list[_Entry]:
        """Those of one cluster."""
        return [entry for _, _, entry in self._kept[cluster]]


@dataclass(slots=True)
class Recording:
    """What the logs say."""

    asks: tuple[Ask, ...] = ()
    fleet: tuple[Script, ...] = ()
    endpoints: tuple[str, ...] = ()
    good: int = 0
    bad: int = 0
    """Lines that should be access log entries of lb, and are not."""
    other: int = 0
    """Lines of other logs, which `kubectl logs` and `make run` mix in."""
    unanswered: int = 0
    """Requests that no endpoint answered: they say nothing of costs, and are left out."""
    rate: float = 0.0
    """Requests a second."""
    strategy: str = ""
    """What chose most of them."""
    p50: float = 0.0
    """Seconds that clients waited, as recorded; of a response that lasts, until its first byte."""
    p99: float = 0.0
    warnings: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """What was read and fitted, in a few lines."""
        times = f"p50 {self.p50 * 1000:,.1f} ms, p99 {self.p99 * 1000:,.1f} ms"
        lines = [
            f"{self.good:,} requests, {self.rate:,.1f} a second, by {self.strategy}: {times}",
            f"Left out: {self.left_out()}",
        ]
        for address, script in zip(self.endpoints, self.fleet, strict=True):
            lines.append(
                f"  {address}: {script.workers} at once, pace {script.slower:.2f}, failures {script.fails:.1%}"
            )
        return "\n".join([*lines, *self.warnings])

    def left_out(self) -> str:
        """What is not replayed."""
        return f"{self.unanswered:,} unanswered, {_lines(self.other)} of other logs, {_lines(self.bad, 'bad ')}"

    def compared(self, simulated: Summary) -> str:
        """How far `simulated`, a run of the requests as recorded by what chose then, is from what was recorded."""
        ratio = simulated.p99 / self.p99 if self.p99 > 0 else 1.0
        verdict = f"For {self.strategy} the lab gives a p99 {ratio:.2f} times the recorded one"
        if 1 / CLOSE <= ratio <= CLOSE:
            return f"{verdict}."
        verdict += ": rely on the order of the strategies more than on their figures."
        if ratio < 1.0:
            return verdict
        return f"{verdict} Where endpoints are busy, clients that wait for their answers send less; a replay does not."


def read(lines: Iterable[str], cluster: str = "", most: int = MOST) -> Recording:
    """Read access log lines, of any number of files one after another. Raises ValueError for too few.

    Where routes lead to several Services, only the requests of one are replayed: `cluster`, or the one that has most.
    Of more than `most` requests the newest are.
    """
    found = Recording()
    newest = _Newest(most)
    for line in lines:
        if not line.strip():
            continue
        entry = _entry(line)
        if entry is None and _is_other(line):
            found.other += 1
        elif entry is None:
            found.bad += 1
        elif not entry.endpoint:
            found.unanswered += 1
        else:
            newest.add(entry)
    entries = _of_one_cluster(found, newest, cluster)
    found.good = len(entries)
    if found.good < FEW:
        raise ValueError(_too_few(found))
    if found.good < ENOUGH:
        found.warnings.append(f"Few requests: below {ENOUGH:,} a p99 is little more than the slowest ones.")
    _fit(found, sorted(entries, key=lambda entry: entry.began))
    return found


def _too_few(found: Recording) -> str:
    needed = f"{FEW} are needed to say anything, {ENOUGH:,} for a p99"
    if found.good:
        return f"the log has {found.good} usable requests (left out: {found.left_out()}): {needed}"
    if found.unanswered:
        return f"the log has no request that an endpoint answered (left out: {found.left_out()}): {needed}"
    if found.other or found.bad:
        return (
            f"no line is of lb's access log (left out: {found.left_out()}): "
            "is LB_ACCESS_LOG off, or is it another program's log?"
        )
    return f"the log is empty: {needed}"


def _lines(number: int, which: str = "") -> str:
    return f"{number:,} {which}line{'' if number == 1 else 's'}"


def _of_one_cluster(found: Recording, newest: _Newest, wanted: str) -> list[_Entry]:
    clusters = newest.counts
    if wanted and wanted not in clusters:
        raise ValueError(f"the log has no cluster {wanted!r}: it has {', '.join(sorted(clusters)) or 'none'}")
    if not clusters:
        return []
    chosen = wanted or clusters.most_common(1)[0][0]
    if len(clusters) > 1:
        others = ", ".join(name for name, _ in clusters.most_common() if name != chosen)
        found.warnings.append(f"Only the cluster {chosen} is replayed; --cluster chooses another: {others}.")
    entries = newest.of(chosen)
    if len(entries) < clusters[chosen]:
        found.warnings.append(
            f"Replayed are the newest {len(entries):,} of {clusters[chosen]:,} requests; --requests takes more."
        )
    return entries


def _is_other(line: str) -> bool:
    """It is a message of lb's other log, or no JSON object at all: another program's output, mixed in."""
    start = line.find("{")
    if start < 0:
        return True
    try:
        return "event" in json.loads(line[start:])
    except (ValueError, RecursionError):
        return False


def _entry(line: str) -> _Entry | None:
    try:
        # kubectl logs --prefix, and a container runtime, put a word of their own before the line.
        fields = json.loads(line[line.index("{") :])
        total = float(fields["total"])
        ended = datetime.fromisoformat(fields["time"]).timestamp()
        first_byte = fields.get("first_byte")
        took = total if first_byte is None else float(first_byte)
        if not (took >= 0.0 and 0.0 <= total <= MAX_COST):
            return None
        lasted = 0.0
        if first_byte is not None and fields.get("attempts") == 1:
            lasted = total - took - float(fields.get("queue") or 0.0) - float(fields.get("connect") or 0.0)
        took = min(took, total)
        status = int(fields["status"])
        info = RequestInfo(str(fields["client"]), str(fields["method"]), str(fields["path"]))
        # One that no endpoint answered took the time of a timeout, not that of its work.
        answered = fields["endpoint"] and (first_byte is not None or fields["reason"] is None) and status != 499
        endpoint = str(fields["endpoint"]) if answered else ""
        by, cluster = str(fields.get("strategy", "")), str(fields.get("cluster", ""))
        failed = _failed(status, fields.get("grpc_status"))
        lasted = lasted if lasted >= LASTING and not failed else 0.0
        return _Entry(ended - total, took, lasted, total, endpoint, by, cluster, failed, info)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _failed(status: int, grpc_status: str | None) -> bool:
    """Whether the balancer charged the endpoint for such an answer."""
    if status == 200 and grpc_status in GRPC_CODES:
        status = GRPC_AS_HTTP[GRPC_CODES.index(grpc_status)]
    return Outcome.answered(status).verdict == FAILURE


def _fit(found: Recording, entries: list[_Entry]) -> None:
    by_endpoint: dict[str, list[_Entry]] = defaultdict(list)
    for entry in entries:
        by_endpoint[entry.endpoint].append(entry)
    found.strategy = Counter(entry.strategy for entry in entries).most_common(1)[0][0]
    totals = sorted(entry.total - entry.lasted for entry in entries)
    found.p50, found.p99 = quantile(totals, 0.5), quantile(totals, 0.99)
    moments, left_out = _without_pauses(entries)
    if left_out:
        found.warnings.append(
            f"Pauses of more than {PAUSE:g} s are shortened to that: {left_out:,.0f} s in which nothing came are left "
            "out."
        )
    span = moments[-1]
    found.rate = len(entries) / span if span > 0 else 0.0
    found.endpoints = tuple(sorted(by_endpoint))
    if len(by_endpoint) == 1:
        found.warnings.append("Only one endpoint answered: there is nothing to choose, so all strategies are alike.")
    if all(entry.failed for entry in entries):
        found.warnings.append("Every request failed: nothing can be said of what strategies would do.")
    costs: dict[int, float] = {}
    scripts = []
    workers = {address: _workers(group) for address, group in by_endpoint.items()}
    least = _by_kind(entries, lambda entry: entry.took, min)
    for address in found.endpoints:
        for entry, cost in zip(by_endpoint[address], _services(by_endpoint[address], workers[address]), strict=True):
            # What the fitted queue leaves nothing of was still work: as much as the quickest of its kind.
            costs[id(entry)] = max(cost, min(least[_kind(entry)], entry.took), SHORTEST)
    typical = _by_kind(entries, lambda entry: costs[id(entry)], statistics.fmean)
    for address in found.endpoints:
        group = by_endpoint[address]
        work = sum(costs[id(entry)] for entry in group if not entry.failed)
        expected = sum(typical[_kind(entry)] for entry in group if not entry.failed)
        pace = work / expected if work > 0 and expected > 0 else 1.0
        fails = sum(entry.failed for entry in group) / len(group)
        scripts.append(Script(workers[address], slower=pace, fails=fails))
    paces = {address: script.slower for address, script in zip(found.endpoints, scripts, strict=True)}
    found.fleet = tuple(scripts)
    found.asks = tuple(
        Ask(moment, entry.info, costs[id(entry)] / paces[entry.endpoint], stream=entry.lasted)
        for moment, entry in zip(moments, entries, strict=True)
    )


def _without_pauses(entries: list[_Entry]) -> tuple[list[float], float]:
    """When each request comes, from the first on and without long pauses, and how many seconds that leaves out."""
    moments: list[float] = []
    start = busy_until = entries[0].began
    left_out = 0.0
    for entry in entries:
        too_long = entry.began - busy_until - PAUSE
        if too_long > 0.0:
            left_out += too_long
        busy_until = max(busy_until, entry.began + entry.total)
        moments.append(entry.began - start - left_out)
    return moments, left_out


def _kind(entry: _Entry) -> str:
    return f"{entry.info.method} {shape(entry.info.path, True)}"


def _by_kind(
    entries: list[_Entry], value: Callable[[_Entry], float], of: Callable[[list[float]], float]
) -> dict[str, float]:
    """A figure of each kind of request (as least-work has them), from `value` of each; of rare kinds, that of all."""
    seen: dict[str, list[float]] = defaultdict(list)
    for entry in entries:
        seen[_kind(entry)].append(value(entry))
    whole = of([each for values in seen.values() for each in values])
    return {kind: of(values) if len(values) >= COMMON else whole for kind, values in seen.items()}


def _services(entries: list[_Entry], workers: int) -> list[float]:
    """Seconds of work of each request, if the endpoint works on `workers` at a time, first come, first served."""
    busy: list[float] = []
    services = []
    for entry in entries:
        free = entry.began if len(busy) < workers else max(entry.began, heappop(busy))
        end = entry.began + entry.took
        services.append(end - free)
        heappush(busy, max(end, free))
    return services


def _workers(entries: list[_Entry]) -> int:
    """How many the endpoint works on at a time: fewest such that hardly any request ends before it can begin.

    A few do: of two that were sent within a millisecond on two connections, an endpoint may read the later one first.
    """
    if len(entries) < FEW // 4:
        return WORKERS[2]
    for workers in WORKERS:
        early = waiting = 0
        busy: list[float] = []
        for entry in entries:
            free = entry.began if len(busy) < workers else max(entry.began, heappop(busy))
            end = entry.began + entry.took
            waiting += free > entry.began
            early += end < free - 0.001
            heappush(busy, max(end, free))
        if early <= max(SWAPPED * len(entries), SWAPPED_OF_WAITING * waiting):
            return workers
    return WORKERS[-1]
