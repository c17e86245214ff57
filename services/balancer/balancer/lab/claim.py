"""What a claim about strategies is, and how it is tried: one figure of one strategy beside another's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from balancer.lab.experiment import Setting, run
from balancer.lab.record import Summary, geometric_mean


@dataclass(frozen=True, slots=True)
class Figure:
    """What is compared: its name, its value in a run, and its unit's factor and name."""

    name: str
    of: Callable[[Summary], float]
    factor: float = 1000.0
    unit: str = "ms"

    def text(self, value: float) -> str:
        """`value`, to print."""
        value *= self.factor
        digits = 0 if value >= 100 else 1 if value >= 1 or value == 0 else 2
        return f"{value:,.{digits}f} {self.unit}".rstrip()


P50: Final = Figure("p50", lambda summary: summary.p50)
P99: Final = Figure("p99", lambda summary: summary.p99)
MEAN: Final = Figure("mean time", lambda summary: summary.mean)
SLOWDOWN: Final = Figure("p99 slowdown", lambda summary: summary.slowdown, 1.0, "")
FAILED: Final = Figure("failed requests", lambda summary: summary.failures / summary.requests, 100.0, "%")
LAST: Final = Figure("share of the last endpoint", lambda summary: summary.shares[-1], 100.0, "%")
SECOND: Final = Figure("share of the second endpoint", lambda summary: summary.shares[1], 100.0, "%")
BUSIEST: Final = Figure("share of the busiest endpoint", lambda summary: max(summary.shares), 100.0, "%")
FIRST: Final = Figure("share of the first endpoint", lambda summary: summary.shares[0], 100.0, "%")


@dataclass(frozen=True, slots=True)
class Claim:
    """`strategy` has so much of what `other` has, where things are as in `setting`."""

    strategy: str
    when: str
    """When to use it, or to beware."""
    where: str
    """The setting, in words."""
    setting: Setting
    other: str
    """What it is compared with, in words: another strategy's name, perhaps how its setting differs behind a comma."""
    figure: Figure
    at_least: float = 0.0
    at_most: float = 1.0
    """Bounds of the ratio of both."""
    elsewhere: Setting | None = None
    """The other's setting, where it is another one."""
    requests: int = 0
    """How many requests, where it is about the first ones; 0: as many as for all."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came out."""

    claim: Claim
    own: float
    others: float

    @property
    def ratio(self) -> float:
        """Own over other."""
        return self.own / self.others if self.others > 0 else 1.0 if self.own <= 0 else float("inf")

    @property
    def holds(self) -> bool:
        """The ratio is as claimed."""
        return self.claim.at_least <= self.ratio <= self.claim.at_most


def try_claim(
    claim: Claim, requests: int, seeds: Sequence[int], progress: Callable[[int], None] | None = None
) -> Finding:
    """Try one."""

    def measure(setting: Setting, strategy: str) -> float:
        sized = replace(setting, requests=claim.requests or requests)
        return geometric_mean([claim.figure.of(run(sized, strategy, seed, progress)) for seed in seeds])

    other, _, _ = claim.other.partition(",")
    return Finding(claim, measure(claim.setting, claim.strategy), measure(claim.elsewhere or claim.setting, other))


def table(findings: Sequence[Finding]) -> str:
    """The findings in Markdown."""
    lines = [
        "| strategy | use it when … | tried with | figure | it has | compared with |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for finding in findings:
        claim = finding.claim
        own, others = (claim.figure.text(value) for value in (finding.own, finding.others))
        other, comma, how = claim.other.partition(",")
        fails = "" if finding.holds else " **does not hold**"
        lines.append(
            f"| `{claim.strategy}` | {claim.when} | {claim.where} | {claim.figure.name} | {own}{fails} "
            f"| {others}, `{other}`{comma}{how} |"
        )
    return "\n".join(lines)
