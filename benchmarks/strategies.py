"""What a strategy costs on the wire: tiny GETs for each second of CPU time, beside nginx and HAProxy.

    chrt -r 10 .venv-compiled/bin/python -m benchmarks.strategies [--rounds 5] [--seconds 2] [--connections 64]

Each program runs once for each strategy, in front of the same two endpoints, and all take turns. The last column is the
median, over the rounds, of the ratio to the better of nginx and HAProxy by round robin, which is their default.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import processes
from benchmarks.endpoints import Endpoints
from benchmarks.measures import tiny_per_cpu_second
from benchmarks.peers.haproxy import Haproxy
from benchmarks.peers.lb import Lb
from benchmarks.peers.nginx import Nginx
from benchmarks.peers.peer import Peer, Setup

ASKED: tuple[tuple[type[Peer], str], ...] = (
    (Lb, "round-robin"),
    (Lb, "least-connections"),
    (Lb, "least-work"),
    (Nginx, "round-robin"),
    (Nginx, "least-connections"),
    (Haproxy, "round-robin"),
    (Haproxy, "least-connections"),
)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--connections", type=int, default=64)
    asked = parser.parse_args()
    processes.look_further()
    core, load_core = processes.cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        addresses = stack.enter_context(Endpoints(folder, load_core)).addresses
        peers = [
            stack.enter_context(kind(Setup(folder, addresses, policy=policy, core=core))) for kind, policy in ASKED
        ]
        rounds = [
            [tiny_per_cpu_second(peer, asked.connections, asked.seconds, load_core) for peer in peers]
            for _ in range(asked.rounds)
        ]
    defaults = [i for i, (kind, policy) in enumerate(ASKED) if kind is not Lb and policy == "round-robin"]
    print("| program | strategy | requests per CPU second | to the better default |")
    print("| --- | --- | --- | --- |")
    for i, (kind, policy) in enumerate(ASKED):
        ratio = statistics.median(each[i] / max(each[j] for j in defaults) for each in rounds)
        print(f"| {kind.name} | {policy} | {statistics.median(each[i] for each in rounds):,.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
