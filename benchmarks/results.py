"""What was measured, as values: medians, spread, ratios to the peers, and whether a bar is met; to and from JSON."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from benchmarks.workloads import BEST, Bar
from tools.interpreter import PLAIN

OURS = "lb"
IDEAL = "ideal"
"""Beside the programs: what none of them could do better."""


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
    details: dict[str, dict[str, float]] = field(default_factory=dict)
    """By peer: other quantities of the same measurement, by name."""
    at: str = ""
    load: float = 0.0
    """The machine's load average before it began, over one minute."""

    def typical(self, peer: str) -> float:
        """The median of its rounds."""
        return median(self.samples[peer])

    def ratio(self) -> float | None:
        """Ours to the best of those that the bar names, or where there is none, of BEST; None when none was here."""
        ratios = self.ratios()
        return median(ratios) if ratios else None

    def ratios(self) -> list[float]:
        """Ours to the hardest rival's, for each round.

        The rounds took turns: what slowed one of them slowed all programs in it, and leaves their ratio alone.
        """
        rival = self.hardest(self.bar.against if self.bar else BEST)
        return self.between(OURS, rival) if rival else []

    def hardest(self, rivals: Sequence[str]) -> str | None:
        """The one of them that ours compares worst with; None when none was here, or ours was not."""
        beside = {peer: ratios for peer in rivals if (ratios := self.between(OURS, peer))}
        worst = min if self.better == "higher" else max
        return worst(beside, key=lambda peer: median(beside[peer])) if beside else None

    def between(self, peer: str, rival: str) -> list[float]:
        """The one's to the other's, for each round, or of the medians where the rounds are not the same."""
        these, those = self.samples.get(peer, []), self.samples.get(rival, [])
        if these and those and len(these) != len(those):
            these, those = [median(these)], [median(those)]
        return [one / other for one, other in zip(these, those, strict=False) if other]

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


def number(value: float) -> str:
    """Three digits, or all of a larger number."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def slow_interpreter(interpreter: str) -> str:
    """What to say about a Python that was not built for speed, as tools/interpreter.py describes it; else nothing."""
    if PLAIN not in interpreter:
        return ""
    return (
        f"{interpreter}: the images' Python, and Debian's, are built with PGO and LTO, and need less CPU time. "
        "Measure with such a one: `rm -r .venv-compiled; make bench COMPILED_PYTHON=/usr/bin/python3`"
    )


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
