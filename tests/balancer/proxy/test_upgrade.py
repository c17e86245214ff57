"""Upgraded connections: a tunnel in both directions, counted as one request while it is open."""

from __future__ import annotations

import asyncio
import os

import pytest
from tests.balancer.proxy.wire.ends import OK, Accepted, Client, Endpoint
from tests.balancer.proxy.wire.process import Start

UPGRADE = (
    "GET /chat HTTP/1.1\r\nHost: lb.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SWITCH = (
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


async def open_tunnel(client: Client, endpoint: Endpoint) -> Accepted:
    await client.send(UPGRADE)
    connection = await endpoint.accept()
    head = await connection.head()
    assert (head.get("connection"), head.get("upgrade")) == ("Upgrade", "websocket")
    assert head.get("sec-websocket-key") == "dGhlIHNhbXBsZSBub25jZQ=="
    await connection.send(SWITCH)
    answer = await client.head()
    assert answer.status == 101
    assert (answer.get("connection") or "").lower() == "upgrade"
    assert answer.get("upgrade") == "websocket"
    assert answer.get("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    return connection


async def test_bytes_pass_both_ways_untouched(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        connection = await open_tunnel(client, endpoint)
        for data in (b"\x81\x05hello", b"\0\r\n\r\n", os.urandom(100_000)):
            await client.send(data)
            assert await connection.exactly(len(data)) == data
            await connection.send(data[::-1])
            assert await client.exactly(len(data)) == data[::-1]
        await connection.close()


async def test_bytes_sent_right_behind_the_heads_are_not_lost(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(UPGRADE + "early")
        connection = await endpoint.accept()
        await connection.head()
        await connection.send(SWITCH + "first")
        assert (await client.head()).status == 101
        assert await client.exactly(5) == b"first"
        assert await connection.exactly(5) == b"early"
        await connection.close()


async def test_nothing_behind_an_upgrade_reaches_an_endpoint_that_has_not_switched(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(UPGRADE + "early")
        connection = await endpoint.accept()
        await connection.head()
        assert await connection.some(within=0.1) == b""
        await connection.send(OK)
        assert (await client.response()).status == 200
        await connection.close()


async def test_an_open_tunnel_counts_as_in_flight(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client = await Client.connect(balancer.port)
        connection = await open_tunnel(client, endpoint)
        assert balancer.metric("lb_tunnels_open") == 1
        assert balancer.metric("lb_endpoint_in_flight") == 1
        await client.close()
        assert await connection.to_end() == b""
        await connection.close()


@pytest.mark.parametrize("who", ["client", "endpoint"])
async def test_a_half_close_passes_and_the_other_direction_goes_on(who: str, start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        connection = await open_tunnel(client, endpoint)
        one, other = (client, connection) if who == "client" else (connection, client)
        await one.send("last")
        one.half_close()
        assert await other.to_end() == b"last"
        await other.send("still")
        assert await one.exactly(5) == b"still"
        other.half_close()
        assert await one.to_end() == b""
        await connection.close()


@pytest.mark.parametrize("who", ["client", "endpoint"])
async def test_a_reset_passes(who: str, start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client = await Client.connect(balancer.port)
        connection = await open_tunnel(client, endpoint)
        one, other = (client, connection) if who == "client" else (connection, client)
        one.reset()
        assert await other.to_end() in (b"", b"(reset)")
        for end in (client, connection):
            await end.close()


async def test_an_idle_tunnel_is_closed_in_its_own_time(start: Start) -> None:
    balancer = start(tunnel_idle_timeout=0.5, idle_timeout=0.2, keepalive_timeout=0.2)
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        connection = await open_tunnel(client, endpoint)
        for _ in range(5):
            await asyncio.sleep(0.3)
            await client.send("x")
            assert await connection.exactly(1) == b"x"
        assert (await client.to_end()).removesuffix(b"(reset)") == b""
        await connection.close()


@pytest.mark.parametrize("status", [200, 400, 403, 426])
async def test_an_upgrade_may_be_declined(status: int, start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(UPGRADE)
        connection = await endpoint.accept()
        await connection.head()
        await connection.send(f"HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno")
        response = await client.response()
        assert (response.status, response.body) == (status, b"no")
        await client.send("GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n")
        await connection.request()
        await connection.send(OK)
        assert (await client.response()).body == b"ok"
        await connection.close()


async def test_any_protocol_but_h2c_may_be_switched_to(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(
            "POST /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
        )
        connection = await endpoint.accept()
        head = await connection.head()
        assert head.get("upgrade") == "tcp"
        await connection.send("HTTP/1.1 101 Upgraded\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        assert (await client.head()).status == 101
        await client.send("ping")
        assert await connection.exactly(4) == b"ping"
        await connection.close()


async def test_a_tunnel_holds_back_a_sender_whose_reader_is_slow(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        connection = await open_tunnel(client, endpoint)
        before = balancer.memory()
        sent = 0
        block = b"x" * (1 << 20)
        try:
            while sent < 128:
                client.writer.write(block)
                async with asyncio.timeout(1):
                    await client.writer.drain()
                sent += 1
        except TimeoutError:
            pass
        assert sent < 64, "the sender was never stopped"
        assert balancer.memory() - before < 20 << 20
        client.reset()
        connection.reset()
