"""What it is worth that replicas know of each other, and what it costs: of those that do, beside those that do not.

Endpoints of one worker each stand before nothing but a clock: a request takes as long as its X-Work header says, after
those that came before it. The same requests come at the same times to blind replicas and to those that tell each other.

    python -m benchmarks.replicas [--endpoints 4 16] [--load 0.5 0.7 0.9] [--milliseconds 20] [--seconds 8] [--rounds 1]

prints a table of p99s. `--late 0.1` holds all that they tell each other for so many seconds, `--slow 10` makes one
endpoint so many times as slow; the load is then a share of what they can do together. With `--cpu 0 140 500 2000` it
prints what share of a core each replica takes at so many requests a second each, of which none waits for another at its
endpoint, for each number of `--replicas`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import uvloop
from benchmarks.openloop import Generator, at_random
from benchmarks.ports import free_port
from benchmarks.processes import cpu_seconds

TIMEOUT = 10.0
SETTLED = 1.5
"""Seconds until all have found each other, and the work of a start is done."""
AT_REST = 5.0
"""Seconds until they have nothing more to say to each other."""
COMPILED = Path(".venv-compiled/bin/python")
READY = Path(".venv-compiled/.ready")
_WORK = re.compile(rb"X-Work: ([0-9.]+)")
_SENT = re.compile(r'lb_peer_events_total\{[^}]*"sent"[^}]*\} ([0-9.e+]+)')


class Endpoint(asyncio.Protocol):
    """A connection to an endpoint of one worker, whose clock is free again at `free[port]` (s, the loop's time)."""

    free: dict[int, float] = {}  # noqa: RUF012 (one for all connections of the process)
    unit = 0.0
    """Seconds that one unit of work takes."""
    one_by_one = True
    """Whether a request waits for those before it."""
    slower: dict[int, float] = {}  # noqa: RUF012 (the same)
    """By port: how many times the usual time it takes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._port: int = transport.get_extra_info("sockname")[1]

    def data_received(self, data: bytes) -> None:
        work = _WORK.search(data)
        loop = asyncio.get_running_loop()
        begins = max(loop.time(), self.free.get(self._port, 0.0) if self.one_by_one else 0.0)
        seconds = self.unit * self.slower.get(self._port, 1.0)
        self.free[self._port] = ends = begins + seconds * (float(work[1]) if work else 1.0)
        loop.call_at(ends, self._answer)

    def _answer(self) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


class Relay(asyncio.Protocol):
    """One direction of a connection that passes through: every byte is passed on `late` seconds later."""

    late = 0.0

    def __init__(self, other: Relay | None = None, target: int = 0) -> None:
        self._other = other
        self._target = target
        self._transport: asyncio.Transport | None = None
        self._waiting = b""
        self._connecting: asyncio.Task[object] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self.write(b"")
        if self._other is None:
            self._other = other = Relay(self)
            loop = asyncio.get_running_loop()
            self._connecting = loop.create_task(loop.create_connection(lambda: other, "127.0.0.1", self._target))

    def data_received(self, data: bytes) -> None:
        assert self._other is not None
        asyncio.get_running_loop().call_later(self.late, self._other.write, data)

    def write(self, data: bytes) -> None:
        """Send what the other side has received."""
        self._waiting += data
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._waiting)
            self._waiting = b""

    def connection_lost(self, error: Exception | None) -> None:
        if self._other is not None and self._other._transport is not None:
            self._other._transport.close()


@contextlib.contextmanager
def replicas(
    backends: str, strategy: str, admin_ports: list[int], peers: list[int]
) -> Iterator[tuple[list[int], list[subprocess.Popen[bytes]]]]:
    """Replicas of the balancer, one for each of `admin_ports`: their ports, and their processes.

    `peers`: where they find each other; empty: they know nothing of each other.
    """
    ports = [free_port() for _ in admin_ports]
    python = str(COMPILED) if READY.exists() else sys.executable
    started = []
    for i, (port, admin_port) in enumerate(zip(ports, admin_ports, strict=True)):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LB_")} | {
            "LB_BACKENDS": backends,
            "LB_PORT": str(port),
            "LB_ADMIN_PORT": str(admin_port),
            "LB_STRATEGY": strategy,
            "LB_ACCESS_LOG": "off",
            "LB_LOG_LEVEL": "error",
            "HOSTNAME": f"lb-{i}",
        }
        if peers:
            environment["LB_PEERS"] = ",".join(f"127.0.0.1:{other}" for other in peers)
            environment["LB_PEERS_TOKEN"] = "benchmark"
        started.append(subprocess.Popen([python, "-m", "balancer"], env=environment))
    try:
        for admin_port in admin_ports:
            _wait_until_ready(admin_port)
        yield ports, started
    finally:
        for process in started:
            process.send_signal(signal.SIGINT)
        for process in started:
            process.wait(20)


def _wait_until_ready(admin_port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/readyz", timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def reports_of(admin_port: int) -> int:
    """Reports that a replica has sent so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/metrics", timeout=5) as answer:
        sent = _SENT.search(answer.read().decode())
    return int(float(sent[1])) if sent else 0


class Run(NamedTuple):
    """What was measured of some replicas."""

    p99: float
    """Seconds."""
    failed: int
    cpu: float
    """Of a core, each."""
    reports: float
    """Sent a second by each."""


async def measure(options: argparse.Namespace, number: int, rate: float, aware: bool, seed: int) -> Run:
    """`number` replicas that get `rate` requests a second each."""
    loop = asyncio.get_running_loop()
    Endpoint.free.clear()
    ports = [free_port() for _ in range(options.size)]
    Endpoint.slower = {ports[-1]: options.slow}
    servers = [await loop.create_server(Endpoint, "127.0.0.1", port) for port in ports]
    backends = ",".join(f"127.0.0.1:{port}" for port in ports)
    admin_ports = peers = [free_port() for _ in range(number)]
    if options.late:
        Relay.late = options.late
        peers = [free_port() for _ in admin_ports]
        for port, target in zip(peers, admin_ports, strict=True):
            servers.append(await loop.create_server(partial(Relay, None, target), "127.0.0.1", port))
    try:
        with replicas(backends, options.strategy, admin_ports, peers if aware else []) as (entries, processes):
            pids = [process.pid for process in processes]
            await asyncio.sleep(SETTLED if rate > 0 else AT_REST)
            sent, cpu = sum(map(reports_of, admin_ports)), cpu_seconds(pids)
            began = time.monotonic()
            answers: list[tuple[int, float]] = []
            if rate > 0:
                runs = [
                    Generator(port, TIMEOUT).run(at_random(rate, options.seconds, ["/"], number * seed + i))
                    for i, port in enumerate(entries)
                ]
                answers = [answer for run in await asyncio.gather(*runs) for answer in run]
            else:
                await asyncio.sleep(options.seconds)
            took = time.monotonic() - began
            cpu = cpu_seconds(pids) - cpu
            sent = sum(map(reports_of, admin_ports)) - sent
    finally:
        for server in servers:
            server.close()
    times = sorted(seconds for _, seconds in answers) or [0.0]
    failed = sum(status != 200 for status, _ in answers)
    return Run(times[int(len(times) * 0.99)], failed, cpu / number / took, sent / number / took)


def worth(options: argparse.Namespace) -> None:
    """Print the ratio of p99s for each size and load."""
    number = options.replicas[0]
    print(
        "| endpoints | load | blind p99, ms | aware p99, ms | aware to blind | CPU of each, blind and aware | failed |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for size in options.endpoints:
        for load in options.load:
            options.size = size
            rate = load * (size - 1 + 1 / options.slow) / Endpoint.unit / number
            pairs = []
            for seed in range(1, options.rounds + 1):
                blind, aware = (uvloop.run(measure(options, number, rate, knows, seed)) for knows in (False, True))
                pairs.append((blind, aware))
            mean = statistics.geometric_mean
            blind_p99, aware_p99 = (mean([pair[i].p99 for pair in pairs]) for i in (0, 1))
            ratio = mean([aware.p99 / blind.p99 for blind, aware in pairs])
            cpu = " and ".join(f"{statistics.mean([pair[i].cpu for pair in pairs]):.1%}" for i in (0, 1))
            failed = ", ".join(str(sum(pair[i].failed for pair in pairs)) for i in (0, 1))
            figures = f"{1000 * blind_p99:.0f} | {1000 * aware_p99:.0f} | {ratio:.2f} | {cpu} | {failed}"
            print(f"| {size} | {load:g} | {figures} |", flush=True)


def costs(options: argparse.Namespace) -> None:
    """Print what each replica takes of a core, for each number of them and each rate."""
    Endpoint.one_by_one = False
    options.size = options.endpoints[0]
    print("| replicas | requests a second each | blind, % of a core | aware | for the peers | reports a second |")
    print("| --- | --- | --- | --- | --- | --- |")
    for number in options.replicas:
        for rate in options.cpu:
            blind, aware = (uvloop.run(measure(options, number, rate, knows, 1)) for knows in (False, True))
            figures = [f"{100 * share:.2f}" for share in (blind.cpu, aware.cpu, aware.cpu - blind.cpu)]
            print(f"| {number} | {rate:g} | {' | '.join(figures)} | {aware.reports:.0f} |", flush=True)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, nargs="+", default=[16])
    parser.add_argument("--load", type=float, nargs="+", default=[0.7])
    parser.add_argument("--milliseconds", type=float, default=20.0, help="what a request takes, on average")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--replicas", type=int, nargs="+", default=[4])
    parser.add_argument("--cpu", type=float, nargs="+", help="requests a second: print the CPU time instead")
    parser.add_argument("--strategy", default="least-connections")
    parser.add_argument("--late", type=float, default=0.0, help="seconds that what they tell each other is held back")
    parser.add_argument("--slow", type=float, default=1.0, help="how many times as slow the last endpoint is")
    options = parser.parse_args()
    Endpoint.unit = options.milliseconds / 1000
    if options.cpu:
        costs(options)
    else:
        worth(options)


if __name__ == "__main__":
    main()
