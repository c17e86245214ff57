"""The measurement for which one has a balancer: latency and failures over fleets of unequal endpoints, open loop."""

from __future__ import annotations

import statistics
import sys
import time

from benchmarks import load, processes
from benchmarks.bench import Bench
from benchmarks.fleets import FLEETS, capacity
from benchmarks.peers.peer import Peer, Setup
from benchmarks.ports import free_port, status_of
from benchmarks.results import OURS, Result
from benchmarks.workloads import Bar

RESPONSE_TIMEOUT = 1.0
"""Seconds that every balancer waits for an endpoint before it gives it up."""
CLIENT_TIMEOUT = 5.0
"""Seconds that a client waits. A failed request counts as so long a one."""
NOT_HERE = frozenset({"consistent-hash"})
"""Binds one client, as the generator is, to one endpoint: it is for another purpose."""


def unequal(bench: Bench, fleet: str, share: float) -> list[Result]:
    """Each strategy of each balancer over `fleet`, at `share` of what its sound endpoints can do."""
    rate = round(share * capacity(FLEETS[fleet]))
    p99: dict[str, list[float]] = {}
    notes: dict[str, str] = {}
    for _ in range(bench.rounds):
        for kind in bench.peers:
            for policy in kind.policies:
                if policy in NOT_HERE:
                    continue
                seen = _ask(bench, kind, policy, fleet, rate)
                name = f"{kind.name}/{policy}"
                p99.setdefault(name, []).append(seen.quantiles[0.99] * 1000)
                notes[name] = (
                    f"mean {seen.mean * 1000:.1f} ms, p50 {seen.quantiles[0.5] * 1000:.1f} ms, "
                    f"{seen.failures} of {seen.requests} failed"
                )
                bench.tell(f"  {fleet} at {share:.0%}: {name} p99 {p99[name][-1]:.1f} ms, {notes[name]}")
    samples = dict(p99)
    for kind in bench.peers:
        own = {name: values for name, values in p99.items() if name.startswith(kind.name + "/")}
        best = min(own, key=lambda name: statistics.median(own[name]))
        samples[kind.name] = own[best]
        notes[kind.name] = best.partition("/")[2]
    rivals = tuple(kind.name for kind in bench.peers if not kind.name.startswith(OURS))
    watched = fleet in ("one-slow", "one-hung", "one-failing")
    return [
        Result(
            f"fleet-{fleet}-{share * 100:.0f}",
            f"p99, {fleet.replace('-', ' ')}, at {share:.0%} of capacity ({rate:,} a second)",
            "ms",
            "lower",
            samples,
            f"make bench ONLY=fleet-{fleet}-{share * 100:.0f}",
            Bar(1.0, rivals) if watched and rivals else None,
            group="fleets",
            notes=notes,
        )
    ]


def _ask(bench: Bench, kind: type[Peer], policy: str, fleet: str, rate: int) -> load.Open:
    """One balancer, newly started, before a newly started fleet: neither knows anything of the other."""
    ports = [free_port() for _ in FLEETS[fleet]]
    command = [sys.executable, "-m", "benchmarks.fleets", fleet, *map(str, ports)]
    endpoints = processes.start(command, bench.folder, bench.load_core)
    addresses = tuple(f"127.0.0.1:{port}" for port in ports)
    setup = Setup(bench.folder, addresses, "http", False, policy, RESPONSE_TIMEOUT, bench.balancer_core, watched=True)
    try:
        while not status_of(ports[0]):
            time.sleep(0.01)
        with kind(setup) as peer:
            seconds = max(bench.seconds, 1.0)
            return load.open_loop(peer.port, rate, seconds, bench.load_core, CLIENT_TIMEOUT, failed_as=CLIENT_TIMEOUT)
    finally:
        processes.stop(endpoints)
