"""The lab beside the wire: the fleets of `make bench` and the same requests, real and simulated.

    python -m benchmarks.validation [--fleet one-slow] [--strategy least-work] [--share 0.7] [--seconds 5] [--rounds 1]

It prints mean and p99 of both for each strategy, and whether they are within 15 % and in the same order. Requests,
their work and the endpoints' pauses are the same on both sides, by the same seed. Run it on a quiet machine, or with
real-time priority (`chrt -r 10`): what the machine adds to the wire's times is not in the lab.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import statistics
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks import load, processes
from benchmarks.fleets import FLEETS, MEAN, WORKERS, capacity
from benchmarks.openloop import at_random
from benchmarks.peers.lb import Lb, LbSource
from benchmarks.peers.peer import FAILURES, RETRY_STATUSES, Setup
from benchmarks.unequal import CLIENT_TIMEOUT, RESPONSE_TIMEOUT, scripted

from balancer.balancing.policy import Policy
from balancer.balancing.request import RequestInfo
from balancer.lab.experiment import Setting, run
from balancer.lab.fleet import Script
from balancer.lab.replica import Rules
from balancer.lab.traffic import Ask

STRATEGIES = ("round-robin", "least-connections", "least-response-time", "least-work")
NEAR = 0.15
"""How far (a share) the lab may be off."""
ALIKE = 1.03
"""Strategies whose p99s differ by less have no order."""
_WORK = re.compile(rb"X-Work: ([\d.]+)")


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """Mean and p99 (s) on the wire and in the lab."""

    strategy: str
    wire_mean: float
    lab_mean: float
    wire_p99: float
    lab_p99: float
    failures: tuple[int, int]

    @property
    def is_near(self) -> bool:
        """Both figures are."""
        return abs(self.lab_mean / self.wire_mean - 1) <= NEAR and abs(self.lab_p99 / self.wire_p99 - 1) <= NEAR

    def __str__(self) -> str:
        figures = (self.wire_mean, self.lab_mean, self.wire_p99, self.lab_p99)
        wire_mean, lab_mean, wire_p99, lab_p99 = (f"{1000 * figure:,.1f}" for figure in figures)
        ratios = f"{self.lab_mean / self.wire_mean:.2f} | {wire_p99} | {lab_p99} | {self.lab_p99 / self.wire_p99:.2f}"
        return f"{self.strategy} | {wire_mean} | {lab_mean} | {ratios} | {self.failures[0]}, {self.failures[1]}"


def wire(fleet: str, strategy: str, rate: float, seconds: float, seed: int, folder: Path) -> load.Open:
    """What came of it by the real balancer."""
    balancer_core, load_core = processes.cores()
    kind = Lb if Lb.missing() is None else LbSource
    with scripted(folder, load_core, fleet, seed) as addresses:
        setup = Setup(
            folder,
            addresses,
            policy=strategy,
            response_timeout=RESPONSE_TIMEOUT,
            core=balancer_core,
            watched=True,
            eject_time=_eject_time(fleet),
        )
        with kind(setup) as peer:
            options = ["--seed", str(seed)]
            return load.open_loop(
                peer.port, rate, seconds, load_core, options, timeout=CLIENT_TIMEOUT, failed_as=CLIENT_TIMEOUT
            )


def lab(fleet: str, strategy: str, rate: float, seconds: float, seed: int) -> tuple[float, float, int]:
    """Mean and p99 (s) and failures, simulated."""
    scripts = [
        Script(WORKERS, each.slower, float(each.fails), each.hangs, each.pause_every, each.pause, each.joins_after)
        for each in FLEETS[fleet]
    ]
    asks = [
        Ask(due, RequestInfo("127.0.0.1", "GET", "/"), MEAN * _work(request))
        for due, request in at_random(rate, seconds, ["/"], seed)
    ]
    rules = Rules(
        Policy(eject_after=FAILURES, eject_time=_eject_time(fleet)),
        retry_statuses=RETRY_STATUSES,
        response_timeout=RESPONSE_TIMEOUT,
        client_timeout=CLIENT_TIMEOUT,
    )
    found = run(Setting(tuple(scripts), replayed=tuple(asks), exact=True, rules=rules), strategy, seed)
    return found.mean, found.p99, found.failures


def _work(request: bytes) -> float:
    found = _WORK.search(request)
    return float(found[1]) if found else 1.0


def _eject_time(fleet: str) -> float:
    return 1.0 if fleet == "one-joining" else 10.0


def compare(fleet: str, strategy: str, share: float, seconds: float, rounds: int, folder: Path) -> Pair:
    """Both, each figure the median of the rounds."""
    rate = round(share * capacity(FLEETS[fleet]))
    real = [wire(fleet, strategy, rate, seconds, seed, folder) for seed in range(1, rounds + 1)]
    simulated = [lab(fleet, strategy, rate, seconds, seed) for seed in range(1, rounds + 1)]
    median = statistics.median
    return Pair(
        strategy,
        median(one.mean for one in real),
        median(mean for mean, _, _ in simulated),
        median(one.quantiles[0.99] for one in real),
        median(p99 for _, p99, _ in simulated),
        (sum(one.failures for one in real), sum(failures for _, _, failures in simulated)),
    )


def disorder(pairs: Sequence[Pair]) -> list[str]:
    """Pairs of strategies whose p99s are the other way round in the lab, where they differ at all on both sides."""
    return [
        f"{one.strategy} and {other.strategy}"
        for i, one in enumerate(pairs)
        for other in pairs[i + 1 :]
        if max(one.wire_p99, other.wire_p99) > ALIKE * min(one.wire_p99, other.wire_p99)
        and max(one.lab_p99, other.lab_p99) > ALIKE * min(one.lab_p99, other.lab_p99)
        and (one.wire_p99 < other.wire_p99) != (one.lab_p99 < other.lab_p99)
    ]


def main() -> None:
    """Compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fleet", action="append", choices=FLEETS, help="only this one, repeatedly (all)")
    parser.add_argument("--strategy", action="append", choices=STRATEGIES, help="only this one, repeatedly (all)")
    parser.add_argument("--share", type=float, default=0.7, help="load, as a share of capacity (0.7)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of load in each round (5)")
    parser.add_argument("--rounds", type=int, default=1, help="of each; the medians count (1)")
    asked = parser.parse_args()
    print("| fleet | strategy | mean, wire, ms | lab | lab to wire | p99, wire, ms | lab | lab to wire | failed |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    far, wrong, total = 0, [], 0
    with tempfile.TemporaryDirectory() as folder:
        one = partial(compare, share=asked.share, seconds=asked.seconds, rounds=asked.rounds, folder=Path(folder))
        for fleet in asked.fleet or FLEETS:
            pairs = []
            for strategy in asked.strategy or STRATEGIES:
                pairs.append(one(fleet, strategy))
                print(f"| {fleet} | {pairs[-1]} |", flush=True)
            far += sum(not pair.is_near for pair in pairs)
            total += len(pairs)
            wrong += [f"{fleet}: {names}" for names in disorder(pairs)]
    print(f"\n{total - far} of {total} within {NEAR:.0%}; in another order: {', '.join(wrong) or 'none'}")


if __name__ == "__main__":
    main()
