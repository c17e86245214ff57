"""What our own code costs a request: nanoseconds from a client's bytes to an endpoint's, and back, without the kernel.

Run it with the interpreter whose balancer is to be measured: `.venv/bin/python -m benchmarks.own` for the source,
`.venv-compiled/bin/python -m benchmarks.own` for what the images run. The connections are real, their transports only
keep what was written last: left is the code of `proxy/` and `balancing/`, measured to some 20 ns, where the whole costs
15,000 and cannot be told to a thousand. `perf record --call-graph dwarf` on this program tells where they go.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from random import Random
from typing import cast

from benchmarks.workloads import BROWSER_HEAD

from balancer.balancing.endpoint import EndpointSpec
from balancer.balancing.pool import Policy, Pool
from balancer.balancing.strategies import load
from balancer.counters import Counters
from balancer.proxy.http import downstream as downstream_module
from balancer.proxy.http.downstream import Downstream
from balancer.proxy.http.service import HttpService
from balancer.proxy.http.upstream import Upstream
from balancer.proxy.listener import Accepting, Listener
from balancer.proxy.service import Means
from balancer.proxy.timers import TimerWheel
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


class Still:
    """A transport on which nothing moves."""

    def __init__(self) -> None:
        self.written: deque[bytes] = deque(maxlen=1)
        self.write = self.written.append

    def set_write_buffer_limits(self, high: int) -> None:
        """Nothing is ever unsent."""

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> tuple[str, int] | None:
        return ("127.0.0.1", 50_000) if name == "peername" else None


def nobody() -> Accepting:
    """The listener is never started."""
    raise NotImplementedError


def proxy(endpoints: int) -> list[Downstream]:
    """Client connections of a proxy that has idle connections to all its endpoints."""
    settings = load_settings({"LB_BACKENDS": "127.0.0.1:9000"})
    random = Random(1)
    counters = Counters()
    pool = Pool(load("round-robin", random), "round-robin", Policy(), random)
    wheel = TimerWheel(time.monotonic())
    service = HttpService(settings, Means(pool, counters, wheel, time.monotonic, None))
    service.clients.listener = Listener(settings, nobody, counters)
    pool.replace([EndpointSpec("127.0.0.1", 9000 + number) for number in range(endpoints)], time.monotonic())
    for endpoint in pool.endpoints:
        for _ in range(CONNECTIONS):
            upstream = Upstream(service.upstreams, endpoint)
            upstream.connection_made(cast("asyncio.Transport", Still()))
            service.upstreams.give_back(upstream, time.monotonic())
    clients = [Downstream(service, b"http") for _ in range(CONNECTIONS)]
    for client in clients:
        client.connection_made(cast("asyncio.Transport", Still()))
    return clients


def run(clients: list[Downstream], request: bytes, turns: int) -> None:
    """Every client asks `turns` times; all have asked before the first is answered."""
    for _ in range(turns):
        for client in clients:
            client.data_received(request)
        for client in clients:
            exchange = client.exchange
            if exchange is not None and exchange.upstream is not None:
                exchange.upstream.data_received(RESPONSE)


async def measure(request: bytes) -> float:
    """Nanoseconds for a request: the least of many rounds, which a noisy machine spoils least."""
    clients = proxy(endpoints=2)
    run(clients, request, TURNS)
    answered = cast("Still", clients[-1].transport).written[0]
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
    compiled = not str(downstream_module.__file__).endswith(".py")
    browser = TINY[:-2] + "".join(f"{field}\r\n" for field in BROWSER_HEAD).encode() + b"\r\n"
    print("compiled" if compiled else "not compiled")
    for name, request in (("tiny GET", TINY), ("a browser's head", browser)):
        print(f"{name:18}{asyncio.run(measure(request)):6.0f} ns a request")


if __name__ == "__main__":
    main()
