"""When to use which strategy: each claim of the documentation, as an experiment that anyone can repeat.

`python -m balancer lab --claims` runs them all and prints the table of docs/strategies.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from balancer.balancing.policy import Policy
from balancer.lab.experiment import Setting, run
from balancer.lab.fleet import Script, named
from balancer.lab.record import Summary, geometric_mean
from balancer.lab.replica import Rules
from balancer.lab.traffic import Kind, Traffic

REQUESTS: Final = 4_000
SEEDS: Final = (1, 2, 3)


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


P99: Final = Figure("p99", lambda summary: summary.p99)
MEAN: Final = Figure("mean time", lambda summary: summary.mean)
SLOWDOWN: Final = Figure("p99 slowdown", lambda summary: summary.slowdown, 1.0, "")
FAILED: Final = Figure("failed requests", lambda summary: summary.failures / summary.requests, 100.0, "%")
LAST: Final = Figure("share of the last endpoint", lambda summary: summary.shares[-1], 100.0, "%")
SECOND: Final = Figure("share of the second endpoint", lambda summary: summary.shares[1], 100.0, "%")
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
    figure: Figure
    at_least: float = 0.0
    at_most: float = 1.0
    """Bounds of the ratio of both."""


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


def _equal(endpoints: int, workers: int) -> tuple[Script, ...]:
    return tuple(named("equal", endpoints, workers))


_ONE_SLOW: Final = tuple(named("one-slow", 4, 4))
_ONE_FAILING: Final = tuple(named("one-failing", 4, 4))
_ONE_HUNG: Final = tuple(named("one-hung", 4, 4))
_NO_RETRIES: Final = Rules(retries=0, response_timeout=1.0)
_NEVER_EJECTED: Final = Rules(Policy(eject_after=1_000_000), retries=0)
_KINDS: Final = Traffic("kinds")
_SHARDS: Final = tuple(Kind(f"/user/{name}", 1.0, 0.01) for name in range(1000, 1400))

CLAIMS: Final = (
    Claim(
        "round-robin",
        "endpoints are equal and requests cost the same",
        "16 endpoints, 4 workers each, all requests 8 ms",
        Setting(_equal(16, 4), Traffic("fixed")),
        "least-connections",
        P99,
        at_most=1.005,
    ),
    Claim(
        "round-robin",
        "beware: a slow endpoint gets as much as a fast one",
        "one of four endpoints 10 times as slow",
        Setting(_ONE_SLOW),
        "least-connections",
        LAST,
        at_least=3.0,
        at_most=30.0,
    ),
    Claim(
        "least-connections",
        "requests differ in cost",
        "16 endpoints of one worker",
        Setting(_equal(16, 1)),
        "round-robin",
        P99,
        at_most=0.8,
    ),
    Claim(
        "least-connections",
        "connections last",
        "4 endpoints that carry 8 at once, connections of 2 s, load 0.8",
        Setting(_equal(4, 8), Traffic(mean=2.0), load=0.8, rules=Rules(response_timeout=600.0, client_timeout=600.0)),
        "round-robin",
        MEAN,
        at_most=0.95,
    ),
    Claim(
        "least-connections",
        "beware: an endpoint that fails fast looks idle",
        "one of four endpoints fails; no ejection, no retries",
        Setting(_ONE_FAILING, rules=_NEVER_EJECTED),
        "least-response-time",
        FAILED,
        at_least=10.0,
        at_most=float("inf"),
    ),
    Claim(
        "least-response-time",
        "endpoints differ",
        "one of four endpoints 10 times as slow",
        Setting(_ONE_SLOW),
        "least-connections",
        P99,
        at_most=0.6,
    ),
    Claim(
        "least-response-time",
        "some hang at times",
        "one of four endpoints hangs; no retries",
        Setting(_ONE_HUNG, rules=_NO_RETRIES),
        "least-connections",
        FAILED,
        at_most=0.8,
    ),
    Claim(
        "least-response-time",
        "some fail at times",
        "one of four endpoints fails; no retries",
        Setting(_ONE_FAILING, rules=_NO_RETRIES),
        "least-connections",
        FAILED,
        at_most=0.6,
    ),
    Claim(
        "least-response-time",
        "many replicas, endpoints that differ",
        "8 blind replicas, one of 8 endpoints 10 times as slow",
        Setting(tuple(named("one-slow", 8, 4)), replicas=8),
        "least-connections",
        P99,
        at_most=0.6,
    ),
    Claim(
        "least-response-time",
        "beware: pauses of all endpoints look like slow ones",
        "4 endpoints that pause for 150 ms now and then",
        Setting(tuple(named("noisy", 4, 4))),
        "least-connections",
        P99,
        at_least=1.0,
        at_most=2.0,
    ),
    Claim(
        "least-work",
        "requests differ in cost and the path shows it",
        "16 endpoints of one worker, three kinds of request of 4, 20 and 300 ms",
        Setting(_equal(16, 1), _KINDS),
        "least-connections",
        SLOWDOWN,
        at_most=0.8,
    ),
    Claim(
        "least-work",
        "and endpoints differ",
        "8 endpoints of one worker, one of them 4 times as slow, the same requests",
        Setting((*[Script(1)] * 7, Script(1, slower=4.0)), _KINDS),
        "least-connections",
        MEAN,
        at_most=0.9,
    ),
    Claim(
        "least-work",
        "one endpoint is slow",
        "one of four endpoints 10 times as slow",
        Setting(_ONE_SLOW),
        "least-response-time",
        P99,
        at_most=1.0,
    ),
    Claim(
        "random-of-two",
        "many replicas that do not know of each other: about as good as least-connections",
        "8 blind replicas, 16 endpoints of one worker",
        Setting(_equal(16, 1), replicas=8),
        "least-connections",
        P99,
        at_most=1.1,
    ),
    Claim(
        "random-of-two",
        "beware: it meets a slow endpoint more often",
        "one of four endpoints 10 times as slow",
        Setting(_ONE_SLOW),
        "least-connections",
        P99,
        at_least=1.05,
        at_most=3.0,
    ),
    Claim(
        "consistent-hash",
        "endpoints keep something for a key",
        "8 endpoints; each keeps 80 of 400 users' data, with which a request takes a tenth; hashed by path",
        Setting(
            tuple(Script(4, cache=80) for _ in range(8)),
            Traffic("kinds", kinds=_SHARDS),
            load=0.5,
            rules=Rules(Policy(hash_key="path")),
        ),
        "least-connections",
        MEAN,
        at_most=0.6,
    ),
    Claim(
        "n-to-one",
        "one active endpoint, the others in reserve",
        "4 endpoints, load 0.15",
        Setting(_equal(4, 4), load=0.15),
        "round-robin",
        FIRST,
        at_least=4.0,
        at_most=4.01,
    ),
    Claim(
        "n-to-one",
        "the next takes over while it is out",
        "the first of 4 endpoints is down, load 0.15",
        Setting((Script(4, joins_after=1e9), *_equal(3, 4)), load=0.15),
        "round-robin",
        SECOND,
        at_least=2.9,
        at_most=3.01,
    ),
)
"""In the order of the table of strategies."""


def check(
    requests: int = REQUESTS, seeds: Sequence[int] = SEEDS, progress: Callable[[int], None] | None = None
) -> Iterator[Finding]:
    """Try every claim, with `requests` requests for each of `seeds`."""
    for claim in CLAIMS:
        yield try_claim(claim, requests, seeds, progress)


def try_claim(
    claim: Claim, requests: int, seeds: Sequence[int], progress: Callable[[int], None] | None = None
) -> Finding:
    """Try one."""
    setting = replace(claim.setting, requests=requests)
    own, others = (
        geometric_mean([claim.figure.of(run(setting, name, seed, progress)) for seed in seeds])
        for name in (claim.strategy, claim.other)
    )
    return Finding(claim, own, others)


def table(findings: Sequence[Finding]) -> str:
    """The findings in Markdown."""
    lines = [
        "| strategy | use it when … | tried with | figure | it has | compared with |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for finding in findings:
        claim = finding.claim
        own, others = (claim.figure.text(value) for value in (finding.own, finding.others))
        fails = "" if finding.holds else " **does not hold**"
        lines.append(
            f"| `{claim.strategy}` | {claim.when} | {claim.where} | {claim.figure.name} | {own}{fails} "
            f"| {others}, `{claim.other}` |"
        )
    return "\n".join(lines)
