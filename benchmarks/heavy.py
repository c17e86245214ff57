"""Heavy-tailed traffic on the wire: least-work and least-connections beside nginx's and HAProxy's least connections.

    python -m benchmarks.heavy [--load 0.5] [--seconds 12] [--seeds 1] [--peers lb,nginx,haproxy]

Sixteen endpoints of one worker each; a request costs 4 ms to 4 s, scaled to a mean of 30 ms, and its path shows how
much: the traffic that benchmarks/grid.py makes in the lab. By the same seed every program is asked the same at the same
times; `--peers lb-interpreted,nginx,haproxy` does without a compiled build, which at so few requests a second changes
little. Printed are the p99 and the p99 slowdown (a request's time over its own cost), geometric means over the seeds.

`python -m benchmarks.heavy --ask PORT RATE SECONDS SEED` is the generator: it prints both figures and the failures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import uvloop
from benchmarks import load, openloop, processes
from benchmarks.fleets import MEAN, SERVED, SINGLE
from benchmarks.peers.haproxy import Haproxy
from benchmarks.peers.lb import Lb, LbSource
from benchmarks.peers.nginx import Nginx
from benchmarks.peers.peer import Peer, Setup
from benchmarks.unequal import scripted

from balancer.lab.record import geometric_mean, quantile
from balancer.lab.traffic import Traffic

COST = 0.03
"""Seconds of work of a request, on average."""
TIMEOUT = 60.0
"""Seconds that balancers and clients wait: longer than the most expensive request takes."""
ASKED: tuple[tuple[type[Peer], tuple[str, ...]], ...] = (
    (Lb, ("least-work", "least-connections")),
    (LbSource, ("least-work", "least-connections")),
    (Nginx, ("least-connections",)),
    (Haproxy, ("least-connections",)),
)


class Generator(openloop.Generator):
    """Knows what each request costs: no two are due at the same time."""

    def __init__(self, port: int) -> None:
        super().__init__(port, TIMEOUT)
        self._costs: dict[float, float] = {}
        self.slowdowns: list[float] = []

    def _ask(self, due: float, request: bytes) -> None:
        self._costs[due] = float(request.rpartition(b"X-Work: ")[2]) * MEAN
        super()._ask(due, request)

    def ended(self, status: int, due: float) -> None:
        super().ended(status, due)
        self.slowdowns.append(self.answers[-1][1] / self._costs.pop(due))


def requests(rate: float, seconds: float, seed: int) -> Iterator[tuple[float, bytes]]:
    """When each request is due, and the request, as the lab makes them."""
    for ask in Traffic("heavy", COST).asks(rate, round(rate * seconds), Random(seed)):
        yield ask.at, openloop.get(ask.info.path, ask.cost / MEAN)


async def ask(port: int, rate: float, seconds: float, seed: int) -> None:
    """Ask, and print p99 (s), p99 slowdown and failures."""
    generator = Generator(port)
    answers = await generator.run(requests(rate, seconds, seed))
    times = sorted(took for _, took in answers)
    failed = sum(status != 200 for status, _ in answers)
    print(json.dumps([quantile(times, 0.99), quantile(sorted(generator.slowdowns), 0.99), failed]))


def measure(kind: type[Peer], policy: str, rate: float, seconds: float, seed: int, folder: Path) -> list[float]:
    """p99 (s), p99 slowdown and failures of one program, newly started."""
    balancer_core, load_core = processes.cores()
    with scripted(folder, load_core, SINGLE, seed) as addresses:
        setup = Setup(folder, addresses, policy=policy, response_timeout=TIMEOUT, core=balancer_core)
        with kind(setup) as peer:
            numbers = [str(value) for value in (peer.port, rate, seconds, seed)]
            command = load.pinned([sys.executable, "-m", "benchmarks.heavy", "--ask", *numbers], load_core)
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise load.LoadError(f"heavy says: {done.stderr}")
            found: list[float] = json.loads(done.stdout)
            return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", type=float, nargs="+", default=[0.5])
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--peers", default="lb,nginx,haproxy")
    parser.add_argument("--ask", nargs=4, metavar=("PORT", "RATE", "SECONDS", "SEED"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.ask:
        port, rate, seconds, seed = asked.ask
        uvloop.run(ask(int(port), float(rate), float(seconds), int(seed)))
        return
    print("| load | program | strategy | p99, ms | p99 slowdown | failed |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for share in asked.load:
            rate = share * sum(script.workers for script in SERVED[SINGLE]) / COST
            for kind, policies in ASKED:
                if kind.name not in asked.peers.split(","):
                    continue
                for policy in policies:
                    runs = [measure(kind, policy, rate, asked.seconds, seed, Path(folder)) for seed in asked.seeds]
                    p99, slowdown = (geometric_mean([run[i] for run in runs]) for i in (0, 1))
                    failed = sum(round(run[2]) for run in runs)
                    told = f"{1000 * p99:,.0f} | {slowdown:.1f} | {failed}"
                    print(f"| {share:g} | {kind.name} | {policy} | {told} |", flush=True)


if __name__ == "__main__":
    main()
