"""LB_HEALTH_CLOSES_TUNNELS: tunnels to an endpoint are reset when its health turns bad; off, they go on."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable

import pytest
from tests.balancer.proxy.test_upgrade import SWITCH, UPGRADE
from tests.balancer.proxy.wire.ends import Accepted, Client, Endpoint
from tests.balancer.proxy.wire.http2 import H2Client
from tests.balancer.proxy.wire.messages import Closed, Message
from tests.balancer.proxy.wire.process import Balancer, Start

PROBED = {"health_path": "tcp", "health_interval": 0.2, "health_timeout": 0.5, "health_fall": 1, "health_rise": 1}


async def until(met: Callable[[], bool], what: str) -> None:
    for _ in range(400):
        if met():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(what)


async def healthy(balancer: Balancer) -> None:
    """A probe may have come before the endpoint listened."""
    await until(lambda: balancer.metric("lb_endpoints", state="unhealthy") == 0, "never healthy")


async def asked(endpoint: Endpoint) -> Accepted:
    """The connection that carries a request, past the probes'."""
    return (await asked_with(endpoint))[0]


async def asked_with(endpoint: Endpoint) -> tuple[Accepted, Message]:
    """And the request's head."""
    async with asyncio.timeout(10):
        while True:
            connection = await endpoint.accept()
            try:
                return connection, await connection.head()
            except Closed:  # a probe
                await connection.close()


async def stop_listening(balancer: Balancer, endpoint: Endpoint) -> None:
    """Refuse new connections, and keep those that are open: the probes fail from here."""
    server = endpoint._server
    assert server is not None
    server.close()
    await until(lambda: balancer.metric("lb_endpoints", state="unhealthy") == 1, "never unhealthy")


@pytest.mark.parametrize("mode", ["http", "tcp"])
@pytest.mark.parametrize("closes", ["on", "off"])
async def test_tunnels_to_an_endpoint_that_turns_unhealthy(closes: str, mode: str, start: Start) -> None:
    balancer = start(fresh=True, mode=mode, health_closes_tunnels=closes, **PROBED)
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        await healthy(balancer)
        client = await Client.connect(balancer.port)
        await client.send(UPGRADE)
        connection = await asked(endpoint)
        await connection.send(SWITCH)
        assert (await client.head()).status == 101
        await stop_listening(balancer, endpoint)
        if closes == "on":
            assert await client.to_end() == b"(reset)", "the client learns that its tunnel broke off"
            assert (await connection.to_end()).removesuffix(b"(reset)") == b""
            assert balancer.metric("lb_tunnels_cut_total") == 1
        else:
            await asyncio.sleep(0.3)
            await client.send("still here")
            assert await connection.exactly(10) == b"still here"
            assert balancer.metric("lb_tunnels_cut_total") == 0
        await client.close()
        await connection.close()


async def test_a_websocket_over_http_2_to_an_endpoint_that_turns_unhealthy(start: Start) -> None:
    balancer = start(fresh=True, health_closes_tunnels="on", **PROBED)
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await H2Client.connect(balancer.port) as client:
        await healthy(balancer)
        pseudo = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "lb.test")]
        stream = await client.begin([*pseudo, (":path", "/"), ("sec-websocket-version", "13")], ended=False)
        connection, head = await asked_with(endpoint)
        key = (head.get("sec-websocket-key") or "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode(), usedforsecurity=False).digest()).decode()
        await connection.send(SWITCH.replace("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", accept))
        await client.until(lambda: client.answers[stream].status == 200)
        await stop_listening(balancer, endpoint)
        assert (await client.answer(stream)).reset is not None
        assert not client.closed, "only the tunnel's stream ends"
        await connection.close()


async def test_tunnels_to_an_endpoint_that_is_ejected(start: Start) -> None:
    balancer = start(endpoints=2, fresh=True, health_closes_tunnels="on", eject_after=1, eject_time=30, retries=0)

    async def script(connection: Accepted) -> None:
        while True:
            request = await connection.request()
            if request.target == "/chat":
                await connection.send(SWITCH)
                await connection.to_end()
                return
            await connection.send("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")

    async with Endpoint(balancer.endpoints[0], script), Endpoint(balancer.endpoints[1], script):
        tunnels = [await Client.connect(balancer.port) for _ in range(2)]
        for client in tunnels:
            await client.send(UPGRADE)
            assert (await client.head()).status == 101
        async with await Client.connect(balancer.port) as other:
            assert (await other.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")).status == 500
        await until(lambda: balancer.metric("lb_tunnels_cut_total") == 1, "no tunnel was cut")
        assert balancer.metric("lb_tunnels_open") == 1, "those to others go on"
        for client in tunnels:
            await client.close()
