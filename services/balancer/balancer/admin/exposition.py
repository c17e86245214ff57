"""The metrics as text, in slices short enough that no request waits for a scrape.

prometheus-client writes the text. It is given a family in slices of some hundred samples, and the event loop runs
between two of them: with 10,000 endpoints a scrape is 200,000 lines, half a second of work in one piece.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from itertools import accumulate, islice
from math import inf
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from balancer.accept import BY_NAME, Range, preference, ranges
from balancer.admin.compression import compress
from balancer.admin.metrics import METRICS, Metric, Reading
from balancer.admin.status import Running
from balancer.counters import SECONDS, Histogram

SLICE = 100
"""Readings rendered in one go: about a millisecond of work."""
OPENMETRICS: Final = "application/openmetrics-text"
PLAIN: Final = "text/plain"
_VERSION: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){0,2}")
_ESCAPING: Final = ("allow-utf-8", "underscores")
"""Ways to write names that are not plain, as all of ours are. The others, "dots" and "values", are not passed on:
prometheus-client rewrites plain names by them too (findings/prometheus-client-rewrites-plain-names.sh).
"""
UNITS = ("seconds", "bytes")
TOLD = frozenset((*SECONDS, inf))
"""Bounds of the exported buckets; finer ones are counted for the dashboard."""


class BalancerCollector(Collector):
    """Reads the running balancer for prometheus-client."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._process = ProcessCollector(registry=CollectorRegistry())

    def collect(self) -> Iterator[Family]:
        """Every family, whole."""
        for metric in METRICS:
            yield family(metric, metric.read(self._running))
        yield from self._process.collect()

    def slices(self) -> Iterator[tuple[bool, Family]]:
        """Every family in parts of at most SLICE readings, each with whether it is the family's first."""
        for metric in METRICS:
            readings = iter(metric.read(self._running))
            yield True, family(metric, islice(readings, SLICE))
            while rest := list(islice(readings, SLICE)):
                yield False, family(metric, rest)
        for process in self._process.collect():
            yield True, process


class _Part(Collector):
    """One family (or a slice of it) for prometheus-client's writer, which wants a registry."""

    def __init__(self, part: Family) -> None:
        self._part = part

    def collect(self) -> Iterable[Family]:
        return (self._part,)


def family(metric: Metric, readings: Iterable[Reading]) -> Family:
    """The readings as prometheus-client wants them."""
    name = metric.name.removesuffix("_total")
    unit = next((unit for unit in UNITS if name.endswith(f"_{unit}")), "")
    made = Family(name, metric.meaning, metric.kind, unit)
    for values, reading in readings:
        labels = dict(zip(metric.labels, values, strict=True))
        if isinstance(reading, Histogram):
            _add_histogram(made, labels, reading)
        else:
            made.add_sample(metric.name, labels, reading)
    return made


def _add_histogram(made: Family, labels: dict[str, str], histogram: Histogram) -> None:
    cumulative = list(accumulate(histogram.counts))
    for bound, count in zip((*histogram.bounds, inf), cumulative, strict=True):
        if bound in TOLD:
            made.add_sample(f"{made.name}_bucket", {**labels, "le": _bound(bound)}, count)
    made.add_sample(f"{made.name}_count", labels, cumulative[-1])
    made.add_sample(f"{made.name}_sum", labels, histogram.sum)


def _bound(value: float) -> str:
    return "+Inf" if value == inf else repr(value)


async def render(collector: BalancerCollector, encode: Callable[[Collector], bytes]) -> AsyncIterator[bytes]:
    """The text, in pieces; lets the event loop run between two of them."""
    openmetrics = False
    for first, part in collector.slices():
        text = encode(_Part(part))
        if text.endswith(b"# EOF\n"):
            openmetrics = True
            text = text.removesuffix(b"# EOF\n")
        if not first:
            text = b"".join(line for line in text.splitlines(keepends=True) if not line.startswith(b"#"))
        yield text
        await asyncio.sleep(0)
    if openmetrics:
        yield b"# EOF\n"


def _form(accept: str) -> str:
    """The one form of `accept` that it prefers, in the words in which prometheus-client takes no weight: it would give
    OpenMetrics to who names it at all. Empty: the plain text that everybody reads.
    """
    accepted = [each for each in ranges(accept) if _readable(each)]
    text, _ = preference(accepted, PLAIN)
    open_metrics, named = preference(accepted, OPENMETRICS)
    chosen = OPENMETRICS if open_metrics > text or (named == BY_NAME and open_metrics == text > 0.0) else PLAIN
    weight = max(text, open_metrics)
    best = next((each for each in accepted if each.name == chosen and each.weight == weight), None)
    if best is None:
        return OPENMETRICS if chosen == OPENMETRICS else ""
    words = [f"{name}={value}" for name, value in best.parameters.items() if name == "version" or value in _ESCAPING]
    return ";".join([chosen, *words])


def _readable(each: Range) -> bool:
    """Whether it is a form that can be written here: not OpenMetrics before 1.0.0, nor a version that is none."""
    version = each.parameters.get("version", "1.0.0")
    return _VERSION.fullmatch(version) is not None and (each.name != OPENMETRICS or not version.startswith("0"))


def handler(running: Running) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Answers GET /metrics in Prometheus or OpenMetrics form, whichever Accept prefers."""
    collector = BalancerCollector(running)

    async def metrics(request: web.Request) -> web.StreamResponse:
        encode, content_type = choose_encoder(_form(",".join(request.headers.getall("Accept", []))))
        response = web.StreamResponse(headers={"Content-Type": content_type, "Vary": "Accept"})
        compress(response, request)
        await response.prepare(request)
        gathered = bytearray()
        async for text in render(collector, encode):
            gathered += text
            if len(gathered) > 16_384:
                await response.write(bytes(gathered))
                gathered.clear()
        await response.write_eof(bytes(gathered))
        return response

    return metrics
