"""What was measured, as values: medians, spread, ratios to the peers, and whether a bar is met; to and from JSON."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from benchmarks.workloads import BEST, Bar

OURS = "lb"


@dataclass(frozen=True, slots=True)
class Result:
    """One measurement, of each peer, several times."""

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    samples: dict[str, list[float]]
    """By peer, in the order measured: the rounds took turns, so that the nth of each belong together."""
    command: str
    """What repeats it."""
    bar: Bar | None = None
    group: str = "throughput"
    notes: dict[str, str] = field(default_factory=dict)
    """By peer: what the figure does not say, failures above all."""
    at: str = ""
    load: float = 0.0
    """The machine's load average before it began, over one minute."""

    def typical(self, peer: str) -> float:
        """The median of its rounds."""
        return median(self.samples[peer])

    def ratio(self) -> float | None:
        """Ours to the best of those that the bar names, or where there is none, of BEST; None when none was here."""
        rivals = [peer for peer in (self.bar.against if self.bar else BEST) if self.samples.get(peer)]
        if not rivals or not self.samples.get(OURS):
            return None
        typical = [self.typical(peer) for peer in rivals]
        best = max(typical) if self.better == "higher" else min(typical)
        return self.typical(OURS) / best if best else None

    def met(self) -> bool | None:
        """Whether the bar is; None when there is no bar, or nobody to be held against."""
        if self.bar is None or not self.samples.get(OURS):
            return None
        if not self.bar.against:
            return self.typical(OURS) <= self.bar.limit
        ratio = self.ratio()
        if ratio is None:
            return None
        return ratio >= self.bar.limit if self.better == "higher" else ratio <= self.bar.limit


@dataclass(slots=True)
class Report:
    """All results of one machine."""

    machine: dict[str, str] = field(default_factory=dict)
    peers: dict[str, str] = field(default_factory=dict)
    """By name: its version, or why it took no part."""
    results: dict[str, Result] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write everything to `path`."""
        document = {
            "machine": self.machine,
            "peers": self.peers,
            "results": {name: asdict(result) for name, result in self.results.items()},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_rounded(document), indent=1) + "\n")


def load(path: Path) -> Report:
    """Read what `save` wrote; an empty report when there is no such file."""
    if not path.exists():
        return Report()
    document: dict[str, Any] = json.loads(path.read_text())
    results = {name: _result(value) for name, value in document["results"].items()}
    return Report(document["machine"], document["peers"], results)


def describe_machine() -> dict[str, str]:
    """What the figures depend on."""
    cpu = platform.processor() or "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {"cpu": cpu, "cores": str(os.cpu_count()), "kernel": platform.release()}


def now() -> str:
    """The time, as the results carry it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _result(value: Mapping[str, Any]) -> Result:
    bar = value["bar"]
    return Result(**{**value, "bar": Bar(bar["limit"], tuple(bar["against"])) if bar else None})


def _rounded(value: Any) -> Any:  # noqa: ANN401 (JSON)
    """Five digits are more than any of these measurements is good for."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
