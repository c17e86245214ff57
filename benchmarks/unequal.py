"""The measurement for which one has a balancer: latency and failures before endpoints that are not equal, open loop.

Every program is asked the same: in the nth round the same requests, each as much work, at the same times, by the same
seed. So the rounds are compared one by one, and what is left to chance is who chooses which endpoint.

Ours is held to the rivals with one strategy for all fleets, OWN; each rival with the best it has for this one.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks import ideal, load, processes
from benchmarks.bench import Bench
from benchmarks.fleets import FLEETS, SERVED, capacity
from benchmarks.peers.peer import Peer, Setup
from benchmarks.ports import free_port, speaks_http2, status_of
from benchmarks.results import IDEAL, OURS, Result
from benchmarks.workloads import Bar

RESPONSE_TIMEOUT = 1.0
"""Seconds that every balancer waits for an endpoint before it gives it up."""
CLIENT_TIMEOUT = 5.0
"""Seconds that a client waits. A failed request counts as so long a one."""
SECONDS = 5.0
"""Of load, at least: one or two pass until a hung endpoint is noticed, and then there must be some left."""
OWN = "least-work"
"""The default, which an operator has who sets no strategy."""
NOT_HERE = frozenset({"consistent-hash"})
"""Binds one client, as the generator is, to one endpoint: it is for another purpose."""
FAR_OFF = 1.5
"""Where many rounds decide, a strategy whose first p99 is so many times its program's best is not asked again."""
WATCHED = ("one-slow", "one-hung", "one-failing")
"""Those for which there is a bar."""

CALLED = ("one-slow", "one-hung", "one-failing")
"""Those that gRPC calls are made to as well."""

Fleet = Callable[[int], AbstractContextManager[tuple[str, ...]]]
"""Starts endpoints by a seed; their addresses."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One fleet at one load."""

    name: str
    title: str
    rate: int
    fleet: Fleet
    rounds: int = 1
    paths: tuple[str, ...] = ("/",)
    eject_time: float = 10.0
    group: str = "fleets"
    barred: bool = False
    calls: bool = False
    """Whether gRPC calls are made, by HTTP/2 on both sides."""
    peers: tuple[str, ...] = ()
    """Only these, where there are any."""
    ideal: Callable[[int], float] | None = None
    """Seconds, by seed: the p99 that could not be better."""


@dataclass(slots=True)
class Seen:
    """What the rounds of one strategy of one program came to."""

    p99: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    failures: int = 0
    requests: int = 0

    def add(self, found: load.Open) -> None:
        """One round more."""
        self.p99.append(found.quantiles[0.99] * 1000)
        self.p50.append(found.quantiles[0.5] * 1000)
        self.mean.append(found.mean * 1000)
        self.failures += found.failures
        self.requests += found.requests

    def details(self) -> dict[str, float]:
        """All but the p99: milliseconds, and numbers of requests."""
        median = statistics.median
        return {
            "mean": median(self.mean),
            "p50": median(self.p50),
            "failures": self.failures,
            "requests": self.requests,
        }


def unequal(bench: Bench, fleet: str, share: float) -> list[Result]:
    """Each strategy of each balancer over `fleet`, at `share` of what its sound endpoints can do."""
    rate = round(share * capacity(FLEETS[fleet]))
    barred = fleet in WATCHED and share == 0.7
    return [
        compare(
            bench,
            Trial(
                f"fleet-{fleet}-{share * 100:.0f}",
                f"p99, {fleet.replace('-', ' ')}, at {share:.0%} of capacity ({rate:,} a second)",
                rate,
                partial(scripted, bench.folder, bench.load_core, fleet),
                # Where a bar is to be decided, more of them; elsewhere one shows the order.
                rounds=bench.rounds + 2 if barred else max(1, bench.rounds - 2),
                eject_time=1.0 if fleet == "one-joining" else 10.0,
                barred=barred,
                ideal=partial(ideal.p99, fleet, rate, max(bench.seconds, SECONDS)),
            ),
        )
    ]


def called(bench: Bench, fleet: str) -> list[Result]:
    """OWN and each strategy of each rival for gRPC calls, at 70 % of what `fleet` can do."""
    rate = round(0.7 * capacity(FLEETS[fleet]))
    start = partial(scripted, bench.folder, bench.load_core, fleet, calls=True)
    title = f"p99 of gRPC calls, {fleet.replace('-', ' ')} ({rate:,} a second)"
    trial = Trial(f"grpc-{fleet}", title, rate, start, bench.rounds, group="calls", barred=True, calls=True)
    return [compare(bench, trial)]


def compare(bench: Bench, trial: Trial) -> Result:
    """Each strategy of each balancer, as the trial says."""
    seen: dict[str, Seen] = {}
    peers = [kind for kind in bench.peers if not trial.peers or kind.name in trial.peers]
    if trial.calls:
        peers = [kind for kind in peers if "h2" in kind.modes]
    for number in range(trial.rounds):
        for kind in peers:
            for policy in _worth_asking(kind, trial, seen if trial.barred else {}):
                found = _ask(bench, kind, policy, trial, number + 1)
                name = f"{kind.name}/{policy}"
                seen.setdefault(name, Seen()).add(found)
                p99, failures = seen[name].p99[-1], found.failures
                bench.tell(f"  {trial.name}, round {number + 1}: {name} p99 {p99:.1f} ms, {failures} failed")
    samples = {name: result.p99 for name, result in seen.items()}
    details = {name: result.details() for name, result in seen.items()}
    notes = {}
    for kind in peers:
        best = f"{OURS}/{OWN}" if kind.name == OURS else _best(kind, seen)
        samples[kind.name], details[kind.name] = samples[best], details[best]
        notes[kind.name] = best.partition("/")[2]
    if trial.ideal is not None:
        samples[IDEAL] = [trial.ideal(number + 1) * 1000 for number in range(trial.rounds)]
    rivals = tuple(kind.name for kind in peers if not kind.name.startswith(OURS))
    return Result(
        trial.name,
        trial.title,
        "ms",
        "lower",
        samples,
        f"make bench ONLY={trial.name}",
        Bar(1.0, rivals) if trial.barred and rivals else None,
        group=trial.group,
        notes=notes,
        details=details,
    )


def _of(kind: type[Peer], seen: dict[str, Seen]) -> dict[str, Seen]:
    return {name: result for name, result in seen.items() if name.partition("/")[0] == kind.name}


def _best(kind: type[Peer], seen: dict[str, Seen]) -> str:
    """The least p99, among those that were asked in every round."""
    own = _of(kind, seen)
    rounds = max(len(result.p99) for result in own.values())
    return min(
        (name for name in own if len(own[name].p99) == rounds), key=lambda name: statistics.median(own[name].p99)
    )


def _worth_asking(kind: type[Peer], trial: Trial, seen: dict[str, Seen]) -> list[str]:
    if trial.calls and kind.name == OURS:
        return [OWN]
    policies = [policy for policy in kind.policies if policy not in NOT_HERE]
    own = _of(kind, seen)
    if len(own) < len(policies):
        return policies
    limit = FAR_OFF * min(result.p99[0] for result in own.values())
    return [
        policy
        for policy in policies
        if own[f"{kind.name}/{policy}"].p99[0] <= limit or (kind.name, policy) == (OURS, OWN)
    ]


def _ask(bench: Bench, kind: type[Peer], policy: str, trial: Trial, seed: int) -> load.Open:
    """One balancer, newly started: it knows nothing of the endpoints yet."""
    with trial.fleet(seed) as addresses:
        setup = Setup(
            bench.folder,
            addresses,
            "h2" if trial.calls else "http",
            policy=policy,
            response_timeout=RESPONSE_TIMEOUT,
            core=bench.balancer_core,
            watched=True,
            eject_time=trial.eject_time,
        )
        with kind(setup) as peer:
            options = ["--seed", str(seed), *(["--calls"] if trial.calls else []), "--paths", *trial.paths]
            return load.open_loop(
                peer.port,
                trial.rate,
                max(bench.seconds, SECONDS),
                bench.load_core,
                options,
                timeout=CLIENT_TIMEOUT,
                failed_as=CLIENT_TIMEOUT,
            )


@contextmanager
def scripted(
    folder: Path, core: int | None, fleet: str, seed: int, *, calls: bool = False
) -> Iterator[tuple[str, ...]]:
    """Start `fleet` on `core`; its addresses."""
    ports = [free_port() for _ in SERVED[fleet]]
    options = [fleet, str(seed), *map(str, ports), *(["--calls"] if calls else [])]
    command = [sys.executable, "-m", "benchmarks.fleets", *options]
    endpoints = processes.start(command, folder, core)
    try:
        while not (speaks_http2(ports[0]) if calls else status_of(ports[0])):
            time.sleep(0.01)
        yield tuple(f"127.0.0.1:{port}" for port in ports)
    finally:
        processes.stop(endpoints)
