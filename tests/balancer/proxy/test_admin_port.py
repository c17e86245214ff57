"""The admin port stays reachable, whatever is done to it or to the data port, and costs the data port nothing."""

from __future__ import annotations

import asyncio
import socket

from tests.balancer.proxy.wire.ends import Client, Endpoint
from tests.balancer.proxy.wire.process import Balancer, Start

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connect(port: int, says: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), 5)
    if says:
        sock.sendall(says)
    return sock


def close(socks: list[socket.socket]) -> None:
    for sock in socks:
        sock.close()


async def stays_reachable(balancer: Balancer) -> None:
    """The admin port answers, and so does the data port."""
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await asyncio.to_thread(balancer.admin, path))[0] == 200
    async with await Client.connect(balancer.port) as client:
        assert (await client.ask(GET)).status == 200


async def test_many_silent_connections_to_it_keep_nobody_out(start: Start) -> None:
    balancer = start(open_files=200)
    async with Endpoint(balancer.endpoints[0]):
        held = await asyncio.to_thread(lambda: [connect(balancer.admin_port) for _ in range(300)])
        await stays_reachable(balancer)
        assert balancer.open_files() < 100, "25 of them, and what lb holds anyway"
        close(held)


async def test_connections_that_ask_now_and_then_make_room_too(start: Start) -> None:
    balancer = start(open_files=200)
    async with Endpoint(balancer.endpoints[0]):
        held = await asyncio.to_thread(lambda: [connect(balancer.admin_port, HEALTH) for _ in range(100)])
        await stays_reachable(balancer)
        close(held)


async def test_an_event_stream_outlives_a_flood(start: Start) -> None:
    balancer = start(open_files=200)
    async with Endpoint(balancer.endpoints[0]):
        stream = connect(balancer.admin_port, b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in await asyncio.to_thread(stream.recv, 4096)
        held = await asyncio.to_thread(lambda: [connect(balancer.admin_port) for _ in range(100)])
        await stays_reachable(balancer)
        stream.settimeout(5)
        assert await asyncio.to_thread(stream.recv, 65536), "it goes on"
        close([stream, *held])


async def test_both_ports_flooded_at_once_leave_it_reachable(start: Start) -> None:
    balancer = start(open_files=150, max_connections=10000)
    clients = await asyncio.to_thread(lambda: [connect(balancer.port) for _ in range(200)])
    held = await asyncio.to_thread(lambda: [connect(balancer.admin_port) for _ in range(200)])
    for path in ("/healthz", "/metrics"):
        assert (await asyncio.to_thread(balancer.admin, path))[0] == 200
    close(clients + held)
