"""The Pi service as the workload: four of it, one worker each, behind every strategy of every balancer, open loop.

They share both cores with the balancer and the load generator, which need little of them: a request takes the Pi
service milliseconds. Their workers have a lower priority than both, and than whatever else the machine does: it must
be quiet, or there is less capacity than was measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from benchmarks import load, processes
from benchmarks.bench import Bench
from benchmarks.peers.lb import LbSource
from benchmarks.peers.nginx import Nginx
from benchmarks.peers.peer import Setup
from benchmarks.ports import free_port, status_of
from benchmarks.results import OURS, Result
from benchmarks.unequal import SECONDS, Trial, compare
from benchmarks.workloads import BEST

SERVICES = 4
PATHS = ("/1000",) * 4 + ("/10000",) * 3 + ("/50000",)
"""What is asked for, at random: from a tenth of a millisecond of computing to some fifteen."""
SHARES = (0.5, 0.7, 0.9)
LOOKS = 5
"""How often the capacity is measured."""
MODERATE = 200
"""Requests a second meanwhile: some third of what two cores can do."""


def pi(bench: Bench) -> list[Result]:
    """p99 and failures at a half, 0.7 and 0.9 of what the four services can compute."""
    with _services(bench) as addresses:
        most = _capacity(bench, addresses)
        return [
            compare(
                bench,
                Trial(
                    f"pi-{share * 100:.0f}",
                    f"p99, Pi services, at {share:.0%} of capacity ({share * most:,.0f} a second)",
                    round(share * most),
                    lambda _seed: nullcontext(addresses),
                    rounds=bench.rounds,
                    peers=(OURS, *BEST),
                    paths=PATHS,
                    group="pi",
                ),
            )
            for share in SHARES
        ]


def _capacity(bench: Bench, addresses: tuple[str, ...]) -> float:
    """Requests a second that would keep both cores busy, balancer and generator included.

    By the CPU time that one takes at a moderate load; the least of a few looks, since a virtual machine computes now
    faster and now slower, by a third on ours, and what is near its capacity at one time is beyond it at another.
    """
    setup = Setup(bench.folder, addresses, policy="least-connections", core=bench.balancer_core)
    # Unpinned, on a machine with one core, both are None.
    cores = len({bench.balancer_core, bench.load_core})
    found = []
    with Nginx(setup) as balancer:
        for seed in range(LOOKS):
            began = processes.busy_seconds()
            options = ["--seed", str(seed), "--paths", *PATHS]
            done = load.open_loop(balancer.port, MODERATE, SECONDS, bench.load_core, options)
            busy = processes.busy_seconds() - began
            found.append(cores * done.requests / busy)
            bench.tell(f"  pi, look {seed + 1}: {found[-1]:,.0f} a second")
    return min(found)


@contextmanager
def _services(bench: Bench) -> Iterator[tuple[str, ...]]:
    """Two on each core."""
    cores = (bench.balancer_core, bench.load_core)
    ports = [free_port() for _ in range(SERVICES)]
    started = []
    try:
        for number, port in enumerate(ports):
            environ = {"PI_HOST": "127.0.0.1", "PI_PORT": str(port), "PI_WORKERS": "1", "PI_NAME": f"pi-{number}"}
            command = [LbSource.program, "-m", "pi"]
            started.append(processes.start(command, bench.folder, cores[number % 2], environ))
        while any(status_of(port, "/readyz") != 200 for port in ports):
            if any(service.poll() is not None for service in started):
                raise RuntimeError(f"a Pi service does not start: {(bench.folder / 'output.log').read_text()[-2000:]}")
            time.sleep(0.01)
        yield tuple(f"127.0.0.1:{port}" for port in ports)
    finally:
        for service in started:
            processes.stop(service)
