"""What it is worth that replicas know of each other: p99 of four that do, beside four that do not.

Endpoints of one worker each stand before nothing but a clock: a request takes as long as its X-Work header says, after
those that came before it. The same requests come at the same times to blind replicas and to those that tell each other.

    python -m benchmarks.replicas [--endpoints 16] [--load 0.7] [--milliseconds 20] [--seconds 10] [--rounds 3]
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
from pathlib import Path

import uvloop
from benchmarks.openloop import Generator, at_random
from benchmarks.ports import free_port

REPLICAS = 4
TIMEOUT = 10.0
COMPILED = Path(".venv-compiled/bin/python")
_WORK = re.compile(rb"X-Work: ([0-9.]+)")


class Endpoint(asyncio.Protocol):
    """A connection to an endpoint of one worker, whose clock is free again at `free[port]` (s, the loop's time)."""

    free: dict[int, float] = {}  # noqa: RUF012 (one for all connections of the process)
    unit = 0.0
    """Seconds that one unit of work takes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._port: int = transport.get_extra_info("sockname")[1]

    def data_received(self, data: bytes) -> None:
        work = _WORK.search(data)
        loop = asyncio.get_running_loop()
        begins = max(loop.time(), self.free.get(self._port, 0.0))
        self.free[self._port] = ends = begins + self.unit * (float(work[1]) if work else 1.0)
        loop.call_at(ends, self._answer)

    def _answer(self) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@contextlib.contextmanager
def replicas(backends: str, strategy: str, aware: bool) -> Iterator[tuple[list[int], list[subprocess.Popen[bytes]]]]:
    """Four replicas of the balancer: their ports, and their processes."""
    ports = [free_port() for _ in range(REPLICAS)]
    admin_ports = [free_port() for _ in range(REPLICAS)]
    python = str(COMPILED) if COMPILED.exists() else sys.executable
    started = []
    for number, (port, admin_port) in enumerate(zip(ports, admin_ports, strict=True)):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LB_")} | {
            "LB_BACKENDS": backends,
            "LB_PORT": str(port),
            "LB_ADMIN_PORT": str(admin_port),
            "LB_STRATEGY": strategy,
            "LB_ACCESS_LOG": "off",
            "LB_LOG_LEVEL": "warning",
            "HOSTNAME": f"lb-{number}",
        }
        if aware:
            environment["LB_PEERS"] = ",".join(f"127.0.0.1:{other}" for other in admin_ports)
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


def cpu_of(process: subprocess.Popen[bytes]) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(options: argparse.Namespace, aware: bool, seed: int) -> tuple[float, int, float]:
    """p99 (s), requests that failed, and the CPU (s) that a replica took in a second."""
    loop = asyncio.get_running_loop()
    Endpoint.unit = options.milliseconds / 1000
    ports = [free_port() for _ in range(options.endpoints)]
    servers = [await loop.create_server(Endpoint, "127.0.0.1", port) for port in ports]
    backends = ",".join(f"127.0.0.1:{port}" for port in ports)
    rate = options.load * options.endpoints / Endpoint.unit / REPLICAS
    try:
        with replicas(backends, options.strategy, aware) as (entries, processes):
            await asyncio.sleep(0.5)
            before = sum(map(cpu_of, processes))
            runs = [
                Generator(port, TIMEOUT).run(at_random(rate, options.seconds, ["/"], REPLICAS * seed + number))
                for number, port in enumerate(entries)
            ]
            answers = [answer for run in await asyncio.gather(*runs) for answer in run]
            cpu = (sum(map(cpu_of, processes)) - before) / REPLICAS / options.seconds
    finally:
        for server in servers:
            server.close()
    took = sorted(seconds for _, seconds in answers)
    failed = sum(status != 200 for status, _ in answers)
    return took[int(len(took) * 0.99)], failed, cpu


def main() -> None:
    """Measure, round by round, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=16)
    parser.add_argument("--load", type=float, default=0.7)
    parser.add_argument("--milliseconds", type=float, default=20.0, help="what a request takes, on average")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--strategy", default="least-connections")
    options = parser.parse_args()
    ratios = []
    for seed in range(1, options.rounds + 1):
        blind, blind_failed, blind_cpu = uvloop.run(measure(options, False, seed))
        aware, aware_failed, aware_cpu = uvloop.run(measure(options, True, seed))
        ratios.append(aware / blind)
        print(
            f"round {seed}: blind p99 {blind * 1000:.0f} ms ({blind_failed} failed, {blind_cpu:.1%} of a core each), "
            f"aware {aware * 1000:.0f} ms ({aware_failed} failed, {aware_cpu:.1%}): {aware / blind:.2f}"
        )
    print(f"{options.endpoints} endpoints at {options.load:.0%}: {statistics.geometric_mean(ratios):.2f}")


if __name__ == "__main__":
    main()
