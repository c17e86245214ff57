"""What routing costs among 1, 1,000 and 10,000 routes, and how soon a change of one is in force.

Run it with the interpreter whose balancer is to be measured: `.venv/bin/python -m benchmarks.routing` for the source,
`.venv-compiled/bin/python -m benchmarks.routing` for what the images run.

1. Our own code's cost of a request (as benchmarks/own.py counts it) when every one of a thousand heads goes to another
   host or path, among so many routes; and a table's making, with the longest piece that no request can interrupt.
2. A balancer in this process, a stand-in for the Kubernetes API in another: a route is changed, and requests are sent
   until one is answered by the changed rule. A pause is CPU time that passes between two turns of the event loop.
3. The memory of a balancer in front of 500 Services of five endpoints each, beside one in front of one Service.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import aiohttp
import structlog
import uvloop
from benchmarks import gateway, own, processes
from benchmarks.ports import free_port

from balancer.app import Balancer
from balancer.log import Output
from balancer.proxy.http1 import server as server_module
from balancer.proxy.http1.client import ClientConnection
from balancer.proxy.http1.server import ServerConnection
from balancer.proxy.routes import SiteRouter
from balancer.routing.candidates import Entry
from balancer.routing.match import Match
from balancer.routing.rule import Backend, Rule
from balancer.routing.site import Site
from balancer.routing.table import Table
from balancer.settings import load as load_settings

SIZES: Final = (1, 1_000, 10_000)
HEADS: Final = 1_000
ROUNDS: Final = 30
ROUTES: Final = "/apis/gateway.networking.k8s.io/v1/httproutes"
API: Final = "gateway.networking.k8s.io"

Json = dict[str, Any]


def table_of(kind: str, size: int) -> tuple[Table, float, float]:
    """A table of so many routes, the milliseconds that it took, and its longest piece."""
    made = []
    for number in range(size):
        host, path = (b"h%d.example.com" % number, b"/") if kind == "hosts" else (b"", b"/p%d" % number)
        if size == 1:
            host, path = b"", b"/"
        made.append(Entry(host, Match(path), Rule("r", [Backend("default")]), name=f"shop/r{number}"))
    table: Table | None = None
    pieces, last = [], time.thread_time()
    for step in Table().changing([], made):
        table = step
        now = time.thread_time()
        pieces.append(now - last)
        last = now
    assert table is not None
    return table, sum(pieces) * 1e3, max(pieces) * 1e3


def heads(kind: str, size: int) -> list[bytes]:
    """As many different requests whatever the size, to routes all over the table."""
    random = Random(1)
    numbers = [random.randrange(max(size, HEADS)) for _ in range(HEADS)]
    return [
        b"GET /p%d/x HTTP/1.1\r\nHost: h%d.example.com\r\n\r\n" % (number if kind == "paths" else 0, number)
        for number in numbers
    ]


def cost(kind: str, table: Table | None) -> list[float]:
    """Nanoseconds of CPU for a request, in many rounds; no table: by environment settings, without routes."""
    clients = own.proxy(endpoints=2)
    service = clients[0].service
    if table is not None:
        cluster = service.router.only
        service.router = SiteRouter(cluster, 80)
        service.router.use(Site({b"": table}), {"default": cluster})
    requests = heads(kind, 1 if table is None else 10_000)
    return [_round(clients, requests) for _ in range(ROUNDS)]


def _round(clients: list[ServerConnection], requests: Sequence[bytes]) -> float:
    began = time.thread_time()
    for start in range(0, len(requests), len(clients)):
        several = list(zip(clients, requests[start:], strict=False))
        for client, request in several:
            client.data_received(request)
        for client, _ in several:
            exchange = client.exchange
            if exchange is not None and isinstance(exchange.stream, ClientConnection):
                exchange.stream.data_received(own.RESPONSE)
    return (time.thread_time() - began) / len(requests) * 1e9


async def costs() -> None:
    """The first part."""
    for kind in ("hosts", "paths"):
        first = 0.0
        for size in SIZES:
            table, took, piece = table_of(kind, size)
            found = min(cost(kind, table))
            first = first or found
            words = f"made in {took:6.1f} ms, longest piece {piece:5.2f} ms"
            print(f"{size:7,} routes by {kind}: {found:7.0f} ns a request, {found / first:4.2f} x; {words}", flush=True)


def world(routes: int) -> dict[str, list[Json]]:
    """One Gateway, so many routes to half as many Services; everything has the one endpoint there is."""
    front = {
        "metadata": {"name": "front", "namespace": "lb-system"},
        "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "lb"}, "ports": [{"port": 80}]},
    }
    return {
        f"/apis/{API}/v1/gatewayclasses": [{"metadata": {"name": "lb"}, "spec": {"controllerName": "lb/lb"}}],
        f"/apis/{API}/v1/gateways": [
            {
                "metadata": {"name": "door", "namespace": "shop"},
                "spec": {"gatewayClassName": "lb", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
            }
        ],
        ROUTES: [route(number, 0) for number in range(routes)],
        f"/apis/{API}/v1/grpcroutes": [],
        f"/apis/{API}/v1beta1/referencegrants": [],
        "/api/v1/services": [
            front,
            *(
                {
                    "metadata": {"name": f"s{number}", "namespace": "shop"},
                    "spec": {"clusterIP": "10.96.1.1", "ports": [{"port": 80}]},
                }
                for number in range((routes + 1) // 2)
            ),
        ],
        "/api/v1/namespaces": [{"metadata": {"name": name}} for name in ("shop", "lb-system")],
        "/apis/discovery.k8s.io/v1/endpointslices": [],
        "/apis/policy.lb/v1alpha1/loadbalancingpolicies": [],
        "/apis/coordination.k8s.io/v1/leases": [],
    }


def route(number: int, step: int) -> Json:
    """A route by host; `step` is seen in its redirect, which needs no endpoint."""
    redirect = {"type": "RequestRedirect", "requestRedirect": {"hostname": f"step{step}.example.com"}}
    rules: list[Json] = [
        {"matches": [{"path": {"type": "PathPrefix", "value": "/step"}}], "filters": [redirect]},
        {"backendRefs": [{"name": f"s{number // 2}", "port": 80}]},
    ]
    return {
        "metadata": {"name": f"r{number}", "namespace": "shop"},
        "spec": {"parentRefs": [{"name": "door"}], "hostnames": [f"h{number}.example.com"], "rules": rules},
    }


class Pauses:
    """The longest time on the CPU between two turns of the event loop."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last = time.thread_time()

    def turn(self) -> None:
        """Once each millisecond."""
        now = time.thread_time()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        asyncio.get_running_loop().call_later(0.001, self.turn)


async def changes(routes: int, count: int) -> None:
    """The second part."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kubeconfig, port = folder / "kubeconfig", free_port()
        (folder / "objects").write_text(json.dumps(world(routes)))
        arguments = ["-m", "benchmarks.clusterapi", str(port), str(kubeconfig), str(folder / "objects")]
        api = await asyncio.create_subprocess_exec(sys.executable, *arguments)
        try:
            while not kubeconfig.exists():  # noqa: ASYNC110 (another process writes it)
                await asyncio.sleep(0.05)
            os.environ["KUBECONFIG"] = str(kubeconfig)
            await _changes(routes, count, f"http://127.0.0.1:{port}")
        finally:
            api.terminate()
            await api.wait()


async def _changes(routes: int, count: int, api: str) -> None:
    environment = {
        "LB_GATEWAY_CLASS": "lb",
        "LB_OWN_SERVICE": "front",
        "LB_BACKENDS": "127.0.0.1:9",
        "LB_PORT": "0",
        "LB_HOST": "127.0.0.1",
        "LB_ADMIN_PORT": "0",
        "LB_ADMIN_HOST": "127.0.0.1",
        "LB_ACCESS_LOG": "off",
    }
    balancer = Balancer(load_settings(environment), Output(1))
    await balancer.start()
    pauses = Pauses()
    try:
        gateways, control = balancer.gateways, balancer.control
        assert gateways is not None
        assert control is not None
        began = time.monotonic()
        pauses.turn()
        await control.ready.wait()
        while not gateways.ports or len(control.plan.statuses) > 0:  # noqa: ASYNC110 (the API's writes come back)
            await asyncio.sleep(0.05)
        print(f"{routes:7,} routes: in force and statuses written after {time.monotonic() - began:.1f} s", end="")
        print(f", longest pause {pauses.longest * 1e3:.1f} ms", flush=True)
        pauses.longest = 0.0
        took = []
        port = next(iter(gateways.ports))
        async with aiohttp.ClientSession() as session:
            for step in range(1, count + 1):
                number = step * 7919 % routes
                url = f"{api}{ROUTES.replace('/httproutes', '')}/namespaces/shop/httproutes/r{number}"
                async with session.put(url, json=route(number, step)) as answer:
                    assert answer.status == 200, await answer.text()
                took.append(await _until(session, port, number, step))
        took.sort()
        p99 = took[min(len(took) - 1, int(len(took) * 0.99))]
        print(
            f"{routes:7,} routes: a change is in force after {statistics.median(took) * 1e3:.1f} ms, p99 "
            f"{p99 * 1e3:.1f} ms, longest {took[-1] * 1e3:.1f} ms of {count}; "
            f"longest pause {pauses.longest * 1e3:.1f} ms",
            flush=True,
        )
    finally:
        await balancer.stop()


async def _until(session: aiohttp.ClientSession, port: int, number: int, step: int) -> float:
    began = time.monotonic()
    headers = {"Host": f"h{number}.example.com"}
    while time.monotonic() - began < 10.0:
        async with session.get(f"http://127.0.0.1:{port}/step", headers=headers, allow_redirects=False) as answer:
            if f"step{step}." in answer.headers.get("Location", ""):
                return time.monotonic() - began
        await asyncio.sleep(0.001)
    raise AssertionError(f"the change of route {number} is not in force after 10 s")


async def memory(services: int, endpoints: int) -> None:
    """The third part."""
    few, many = await _resident(1, endpoints), await _resident(services, endpoints)
    words = f"{services:,} Services of {endpoints} endpoints"
    print(f"{words}: {(many - few) / 1e6:.1f} MB more than one, {many / 1e6:.1f} MB in all", flush=True)


async def _resident(services: int, endpoints: int) -> int:
    """Bytes in memory of a balancer that knows all of it."""
    names = [f"s{number}" for number in range(services)]
    door = gateway.gateway({"name": "http", "port": 80, "protocol": "HTTP"})
    slices = [_slice(name, number, endpoints) for number, name in enumerate(names)]
    kinds = gateway.kinds(door, {80: free_port()}, [gateway.service(name) for name in names], slices)
    kinds[ROUTES] = [gateway.route(name, name, f"{name}.example.com") for name in names]
    with tempfile.TemporaryDirectory() as name:
        api, admin = gateway.Api(Path(name), kinds), free_port()
        try:
            async with gateway.balancer(Path(name), api, admin) as pid:
                await gateway.until(admin, lambda routes: _endpoints_in(routes) == services * endpoints)
                await asyncio.sleep(2.0)
                return processes.resident_bytes([pid])
        finally:
            api.stop()


def _endpoints_in(routes: Json) -> int:
    return sum(each["endpoints"] for each in routes["clusters"])


def _slice(name: str, number: int, endpoints: int) -> Json:
    """Addresses that nobody listens at."""
    addresses = [f"10.{number // 250}.{number % 250}.{1 + each}:8080" for each in range(endpoints)]
    first, *others = gateway.slices_of(name, addresses)
    return {**first, "endpoints": [each["endpoints"][0] for each in (first, *others)]}


def main() -> None:
    """Measure all, or one."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--part", type=int, choices=(1, 2, 3), help="only this one")
    arguments.add_argument("--routes", type=int, default=1_000, help="routes of the second part (%(default)s)")
    arguments.add_argument("--changes", type=int, default=200, help="changes of a route (%(default)s)")
    chosen = arguments.parse_args()
    print("not compiled" if str(server_module.__file__).endswith(".py") else "compiled", flush=True)
    if chosen.part in (None, 1):
        gc.disable()
        asyncio.run(costs())
        gc.enable()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    if chosen.part in (None, 2):
        uvloop.run(changes(chosen.routes, chosen.changes))
    if chosen.part in (None, 3):
        uvloop.run(memory(500, 5))


if __name__ == "__main__":
    main()
