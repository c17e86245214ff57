"""What a burst of discovery costs the data plane: 5,000 endpoints in 50 EndpointSlices, all replaced every two seconds.

    .venv/bin/python -m benchmarks.bursts             the source
    .venv-compiled/bin/python -m benchmarks.bursts    what the images run

The balancer is the real one with its garbage collector as it sets it up, in a process of its own, and so are the load
(open loop, a fixed rate) and the endpoints (one port, at every address of 127.0.0.0/8). Prints latencies without and
with bursts, and the longest time that the event loop was held: as a client sees it, and in processor time, which other
programs on this machine hardly change.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web
from benchmarks import processes
from benchmarks.kubeapi import kubeconfig_for
from benchmarks.load import summed
from benchmarks.ports import free_port

SLICES, EACH = 50, 100
EVERY = 2.0
"""Seconds from one burst to the next."""
BAR = 0.05
"""Seconds that the event loop may be held at most (issue 12)."""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello world\n"
PROBE = 0.001
"""Seconds between two looks at the event loop."""


# --- the endpoints and the API server -------------------------------------------------------------------------------


class Answering(asyncio.Protocol):
    """One connection to any of the endpoints."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._transport.write(ANSWER * data.count(b"\r\n\r\n"))


async def serve_endpoints(port: int) -> None:
    """All of 127.0.0.0/8 is this machine: one listening socket is every endpoint."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answering, "0.0.0.0", port, backlog=4096)
    await server.serve_forever()


def slices(generation: int, port: int) -> list[dict[str, Any]]:
    """All endpoints of one generation, at addresses of its own."""
    return [
        {
            "metadata": {
                "name": f"shop-{number:02d}",
                "resourceVersion": str(1000 + SLICES * generation + number),
                "labels": {"kubernetes.io/service-name": "shop"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
            "endpoints": [
                {
                    "addresses": [f"127.{100 + generation % 100}.{number}.{place}"],
                    "conditions": {"ready": True, "serving": True, "terminating": False},
                    "hints": {"forZones": [{"name": "west"}]},
                    "nodeName": f"node-{place}",
                    "zone": "west",
                    "targetRef": {
                        "kind": "Pod",
                        "name": f"shop-{number}-{place}",
                        "uid": f"{generation}-{number}-{place}",
                    },
                }
                for place in range(EACH)
            ],
        }
        for number in range(SLICES)
    ]


class Api:
    """Lists generation 0, and sends each later one to the watch, as 50 events at once."""

    def __init__(self, endpoints: int) -> None:
        self._endpoints = endpoints
        self._watching: web.StreamResponse | None = None
        self._generation = 0

    async def start(self, folder: Path) -> Path:
        """Serve; the kubeconfig that leads here."""
        app = web.Application()
        app.router.add_get("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port := free_port()).start()
        file = folder / "kubeconfig"
        file.write_text(kubeconfig_for(port))
        return file

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            response = web.StreamResponse()
            await response.prepare(request)
            self._watching = response
            await asyncio.sleep(float(request.query.get("timeoutSeconds", "30")))
            self._watching = None
            mark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": self._version}}}
            await response.write(json.dumps(mark).encode() + b"\n")
            return response
        kind = {"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1"}
        items = slices(self._generation, self._endpoints)
        return web.json_response({**kind, "metadata": {"resourceVersion": self._version}, "items": items})

    @property
    def _version(self) -> str:
        return str(1000 + SLICES * self._generation + SLICES - 1)

    async def burst(self) -> None:
        """Replace every endpoint."""
        generation = self._generation + 1
        events = ({"type": "MODIFIED", "object": item} for item in slices(generation, self._endpoints))
        body = b"".join(json.dumps(event).encode() + b"\n" for event in events)
        while (watching := self._watching) is None:  # noqa: ASYNC110 (between two watches, for milliseconds)
            await asyncio.sleep(0.01)
        self._generation = generation
        await watching.write(body)


# --- the balancer, watched ------------------------------------------------------------------------------------------


class Held:
    """The longest that the event loop was held since the last report, by the wall's clock and by processor time."""

    def __init__(self, report: Path) -> None:
        self._report = report
        self.longest = {"wall": 0.0, "cpu": 0.0}

    async def look(self) -> None:
        """For ever."""
        while True:
            wall, cpu = time.perf_counter(), time.thread_time()
            await asyncio.sleep(PROBE)
            self._longer("wall", time.perf_counter() - wall - PROBE)
            self._longer("cpu", time.thread_time() - cpu)

    def _longer(self, clock: str, seconds: float) -> None:
        self.longest[clock] = max(self.longest[clock], seconds)

    def tell(self) -> None:
        """Write the report, and begin a new one."""
        made = self._report.with_suffix(".new")
        made.write_text(json.dumps(self.longest))
        made.replace(self._report)
        self.longest = dict.fromkeys(self.longest, 0.0)


def run_balancer(report: Path) -> None:
    """The balancer with its settings from the environment, and a look at its event loop; it reports at SIGUSR1."""
    from balancer import app
    from balancer.log import configure
    from balancer.settings import load

    class Watched(app.Balancer):
        async def serve(self) -> None:
            held = Held(report)
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGUSR1, held.tell)
            looking = loop.create_task(held.look())
            await super().serve()
            looking.cancel()

    app.Balancer = Watched  # type: ignore[misc]
    settings = load(os.environ)
    app.main(settings, configure(settings.log_level, settings.log_format or "json"))


# --- the measurement ------------------------------------------------------------------------------------------------


@contextmanager
def running(folder: Path, *arguments: str, core: int | None, environ: dict[str, str] | None = None) -> Iterator[int]:
    """A part of this program in a process of its own: its process id."""
    process = processes.start([sys.executable, "-m", "benchmarks.bursts", *arguments], folder, core, environ)
    try:
        yield process.pid
    finally:
        processes.stop(process)


async def ask(port: int, rate: float, seconds: float, core: int | None) -> dict[str, float]:
    """What came of a load, in milliseconds."""
    pinned = ["taskset", "-c", str(core)] if core is not None else []
    command = [*pinned, sys.executable, "-m", "benchmarks.openloop", str(port), str(rate), str(seconds), "10"]
    made = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    output, _ = await made.communicate()
    told = summed([(status, took) for status, took in json.loads(output)])
    return {f"p{share * 100:g}": took * 1000 for share, took in told.quantiles.items()} | {"failed": told.failures}


def reported(pid: int, report: Path) -> dict[str, float]:
    """How long the event loop was held at most since the last report, in milliseconds."""
    report.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    while not report.exists():
        time.sleep(0.01)
    return {clock: seconds * 1000 for clock, seconds in json.loads(report.read_text()).items()}


async def measure(folder: Path, rate: float, seconds: float) -> dict[str, dict[str, float]]:
    """Without bursts, then with them."""
    first, second = processes.cores()
    endpoints, port, admin, report = free_port(), free_port(), free_port(), folder / "held"
    api = Api(endpoints)
    environ = {
        "KUBECONFIG": str(await api.start(folder)),
        "LB_DISCOVERY": "kubernetes",
        "LB_KUBERNETES_SERVICE": "shop",
        "LB_PORT": str(port),
        "LB_ADMIN_PORT": str(admin),
        "LB_STRATEGY": "least-connections",
        "LB_ACCESS_LOG": "off",
    }
    with ExitStack() as stack:
        stack.enter_context(running(folder, "--endpoints", str(endpoints), core=second))
        pid = stack.enter_context(running(folder, "--balancer", str(report), core=first, environ=environ))
        await until_ready(admin)
        await ask(port, rate, 2, second)
        reported(pid, report)
        told = {"quiet": await ask(port, rate, seconds, second)}
        told["quiet"] |= reported(pid, report)
        loaded = asyncio.create_task(ask(port, rate, seconds, second))
        while not loaded.done():
            await api.burst()
            await asyncio.wait({loaded}, timeout=EVERY)
        told["bursts"] = loaded.result() | reported(pid, report)
    return told


async def until_ready(admin: int) -> None:
    """Wait until the balancer is. Raises TimeoutError."""
    async with asyncio.timeout(60):
        while True:
            try:
                await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{admin}/readyz", timeout=5)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                return


def main() -> int:
    """Measure and print; the exit status is 1 when the event loop was held for longer than the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=300, help="requests a second")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--endpoints", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--balancer", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.endpoints:
        uvloop.run(serve_endpoints(asked.endpoints))
    if asked.balancer:
        run_balancer(asked.balancer)
        return 0
    from balancer.balancing import pool

    compiled = not str(pool.__file__).endswith(".py")
    print(
        f"{'compiled' if compiled else 'not compiled'}, {SLICES * EACH:,} endpoints, {asked.rate:g} requests a second"
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            told = uvloop.run(measure(Path(folder), asked.rate, asked.seconds))
        except TimeoutError:
            raise SystemExit(f"the balancer was not ready: {(Path(folder) / 'output.log').read_text()}") from None
    for name, row in told.items():
        p50, p99, p999 = (row[key] for key in ("p50", "p99", "p99.9"))
        print(
            f"{name:7} p50 {p50:6.2f} ms  p99 {p99:6.2f} ms  p99.9 {p999:6.2f} ms  failed {row['failed']:g}  "
            f"loop held at most {row['cpu']:5.1f} ms of processor time, {row['wall']:5.1f} ms in all"
        )
    return int(told["bursts"]["cpu"] > BAR * 1000)


if __name__ == "__main__":
    sys.exit(main())
