"""What our own code costs a request: nanoseconds from a client's bytes to an endpoint's, and back, without the kernel.

Run it with the interpreter whose balancer is to be measured: `.venv/bin/python -m benchmarks.own` for the source,
`.venv-compiled/bin/python -m benchmarks.own` for what the images run. The connections are real, their transports only
keep what was written last: left is the code of `proxy/` and `balancing/`, measured to some 20 ns, where the whole costs
15,000 and cannot be measured to a thousand. `perf record --call-graph dwarf` on this program tells where they go.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from random import Random

from benchmarks.workloads import BROWSER_HEAD

from balancer.balancing.endpoint import EndpointSpec
from balancer.balancing.pool import Policy as PoolPolicy
from balancer.balancing.pool import Pool
from balancer.balancing.retry import RetryBudget
from balancer.balancing.strategies import load
from balancer.counters import Counters
from balancer.proxy.buffers import Buffers
from balancer.proxy.cluster import Cluster, Policy, Router
from balancer.proxy.door import Door, Protocols
from balancer.proxy.http1 import server as server_module
from balancer.proxy.http1.client import ClientConnection
from balancer.proxy.http1.heads import KnownBlocks
from balancer.proxy.http1.server import ServerConnection
from balancer.proxy.http1.upstreams import Http1Upstreams
from balancer.proxy.http_service import HttpService
from balancer.proxy.place import Place
from balancer.proxy.poller import Poller
from balancer.proxy.service import Context
from balancer.proxy.timers import TimerWheel
from balancer.proxy.transport import Transport
from balancer.settings import load as load_settings

CONNECTIONS = 64
ROUNDS = 30
TURNS = 200
"""Requests on each connection in a round."""

TINY = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 28 Nov 2026 15:21:42 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 12\r\nConnection: keep-alive\r\n\r\nHello world\n"
)


class Sink(socket.socket):
    """A socket that takes everything and keeps the last of it."""

    last = b""

    def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override]
        self.last = data
        return len(data)


def still(poller: Poller) -> Transport:
    """A transport on which nothing moves."""
    return Transport(poller, Sink())


def proxy(endpoints: int) -> list[ServerConnection]:
    """Client connections of a proxy that has idle connections to all its endpoints."""
    settings = load_settings({"LB_BACKENDS": "127.0.0.1:9000"})
    random = Random(1)
    counters = Counters()
    pool = Pool(load("round-robin", random), "round-robin", PoolPolicy(), random)
    wheel = TimerWheel(time.monotonic())
    poller = Poller(wheel, time.monotonic, Buffers(1 << 30))
    context = Context(pool, counters, wheel, poller, time.monotonic, None)
    upstreams = Http1Upstreams(settings, context)
    cluster = Cluster("default", pool, Policy(settings), RetryBudget(settings.retry_budget), upstreams)
    service = HttpService(settings, context, Router(cluster))
    known = KnownBlocks(service)
    door = Door(settings, Protocols(), poller, counters)
    pool.replace([EndpointSpec("127.0.0.1", 9000 + number) for number in range(endpoints)], time.monotonic())
    for endpoint in pool.endpoints:
        for _ in range(CONNECTIONS):
            connection = ClientConnection(upstreams.owner, endpoint)
            still(poller).attach(connection)
            upstreams.owner.give_back(connection, time.monotonic())
    clients = [ServerConnection(service, known, Place(door, "127.0.0.1", b"http", 0.0)) for _ in range(CONNECTIONS)]
    for client in clients:
        still(poller).attach(client)
    return clients


def run(clients: list[ServerConnection], request: bytes, turns: int) -> None:
    """Every client asks `turns` times; all have asked before the first is answered."""
    for _ in range(turns):
        for client in clients:
            client.data_received(request)
        for client in clients:
            exchange = client.exchange
            if exchange is not None and isinstance(exchange.stream, ClientConnection):
                exchange.stream.data_received(RESPONSE)


async def measure(request: bytes) -> float:
    """Nanoseconds for a request: the least of many rounds, which a noisy machine spoils least."""
    clients = proxy(endpoints=2)
    run(clients, request, TURNS)
    sink = clients[-1].transport.sock
    assert isinstance(sink, Sink)
    answered = sink.last
    assert answered.endswith(b"\r\nHello world\n"), answered
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        run(clients, request, TURNS)
        taken.append((time.perf_counter() - began) / TURNS / CONNECTIONS * 1e9)
    return min(taken)


def main() -> None:
    """Measure both heads and print a line for each."""
    gc.disable()
    compiled = not str(server_module.__file__).endswith(".py")
    browser = TINY[:-2] + "".join(f"{field}\r\n" for field in BROWSER_HEAD).encode() + b"\r\n"
    print("compiled" if compiled else "not compiled")
    for name, request in (("tiny GET", TINY), ("a browser's head", browser)):
        print(f"{name:18}{asyncio.run(measure(request)):6.0f} ns a request")


if __name__ == "__main__":
    main()
