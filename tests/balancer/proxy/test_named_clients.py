"""Who the client is where a trusted proxy stands between: for the limit of each client, and for the log."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.balancer.proxy.wire.ends import OK, Client, Endpoint
from tests.balancer.proxy.wire.http2 import H2Client
from tests.balancer.proxy.wire.process import Balancer, Start

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n"
TRUSTED = "127.0.0.0/8,10.0.0.0/8"


def named(client: str, *more: str) -> str:
    return f"{GET}X-Forwarded-For: {', '.join([client, *more])}\r\n\r\n"


async def clients_logged(balancer: Balancer, number: int) -> list[str]:
    """The clients of the next so many lines of the access log."""
    found: list[str] = []
    for _ in range(250):
        lines = [json.loads(line) for line in balancer.new_log().splitlines() if line.startswith("{")]
        found += [line["client"] for line in lines if "client" in line and "status" in line]
        if len(found) >= number:
            break
        await asyncio.sleep(0.02)
    return found


async def test_the_limit_of_each_client_sees_whom_a_trusted_proxy_names(start: Start) -> None:
    balancer = start(trusted_proxies=TRUSTED, max_connections_per_client=2)
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        proxies = [await Client.connect(balancer.port) for _ in range(7)]
        busy = []
        for proxy in proxies[:2]:
            await proxy.send(named("203.0.113.1", "10.1.2.3"))
            busy.append(await endpoint.accept())
        refused = await proxies[2].ask(named("198.51.100.7", "203.0.113.1", "10.1.2.3"))
        assert refused.status == 503
        assert "connection_limit_reached" in (refused.get("proxy-status") or "")
        assert refused.get("connection") is None, "the proxy's connection may carry others' requests"
        for proxy, other in zip(proxies[3:7], ["203.0.113.2", "203.0.113.2", "::2", "::3"], strict=True):
            await proxy.send(named(other))
            busy.append(await endpoint.accept())
        assert balancer.metric("lb_downstream_connections_refused_total") >= 1
        for connection in busy:
            await connection.request()
            await connection.send(OK)
        for proxy in [*proxies[:2], *proxies[3:]]:
            assert (await proxy.response()).status == 200
        # What is answered counts no more, on whichever connection.
        await proxies[2].send(named("203.0.113.1"))
        [connection] = [await endpoint.accept()] if endpoint.accepted > 6 else busy[-1:]
        await connection.request()
        await connection.send(OK)
        assert (await proxies[2].response()).status == 200
        for proxy in proxies:
            await proxy.close()


async def test_the_limit_of_each_client_sees_whom_a_proxy_names_over_http_2(start: Start) -> None:
    balancer = start(trusted_proxies=TRUSTED, max_connections_per_client=2)
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        async with await H2Client.connect(balancer.port) as proxy:
            pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "lb.test"), (":path", "/")]
            streams, busy = [], []
            for client in ("203.0.113.1", "203.0.113.1", "203.0.113.2"):
                streams.append(await proxy.begin([*pseudo, ("x-forwarded-for", client)]))
                busy.append(await endpoint.accept())
            refused = await proxy.get("/", [("x-forwarded-for", "203.0.113.1")])
            assert refused.status == 503
            for connection in busy:
                await connection.request()
                await connection.send(OK)
            for stream in streams:
                assert (await proxy.answer(stream)).status == 200


async def test_a_client_that_leaves_gives_its_place_in_the_limit_back(start: Start) -> None:
    balancer = start(trusted_proxies=TRUSTED, max_connections_per_client=1)
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        for _ in range(3):
            client = await Client.connect(balancer.port)
            await client.send(named("203.0.113.1"))
            connection = await endpoint.accept()
            client.reset()
            assert (await connection.to_end()) != b""
            await connection.close()


@pytest.mark.parametrize("mode", ["http", "tcp"])
async def test_the_limit_of_each_client_sees_whom_the_proxy_protocol_names(mode: str, start: Start) -> None:
    balancer = start(
        mode=mode, proxy_protocol="on", trusted_proxies="127.0.0.0/8", max_connections_per_client=1, access_log="on"
    )

    async def behind(client: str) -> Client:
        proxy = await Client.connect(balancer.port)
        await proxy.send(f"PROXY TCP4 {client} 10.0.0.1 4321 80\r\n{GET}\r\n")
        return proxy

    async with Endpoint(balancer.endpoints[0]):
        balancer.new_log()
        clients = [await behind(f"203.0.113.{number}") for number in range(1, 4)]
        for client in clients:
            assert (await client.response()).status == 200
        extra = await behind("203.0.113.2")
        said = await extra.to_end()
        assert said.startswith(b"HTTP/1.1 503") if mode == "http" else said.removesuffix(b"(reset)") == b""
        await clients[1].close()
        await asyncio.sleep(0.05)
        again = await behind("203.0.113.2")
        assert (await again.response()).status == 200
        for client in [*clients, extra, again]:
            await client.close()


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("203.0.113.1", "203.0.113.1"),
        ("198.51.100.1, 203.0.113.1", "203.0.113.1"),
        ("203.0.113.1, 10.1.1.1, 127.0.0.9", "203.0.113.1"),
        ("203.0.113.1:4321, 10.1.1.1:80", "203.0.113.1"),
        ("[2001:db8::1]:4321", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:203.0.113.1", "203.0.113.1"),
        ("203.0.113.1, ::ffff:10.1.1.1", "203.0.113.1"),
        ("203.0.113.1, unknown", "127.0.0.1"),
        ("203.0.113.1, unknown, 10.1.1.1", "10.1.1.1"),
        ("10.1.1.1", "10.1.1.1"),
    ],
)
async def test_the_log_names_the_rightmost_address_that_is_not_trusted(chain: str, client: str, start: Start) -> None:
    balancer = start(trusted_proxies=TRUSTED, access_log="on")
    async with Endpoint(balancer.endpoints[0]):
        async with await Client.connect(balancer.port) as proxy, await H2Client.connect(balancer.port) as other:
            balancer.new_log()
            assert (await proxy.ask(named(chain))).status == 200
            assert (await other.get("/", [("x-forwarded-for", chain)])).status == 200
            assert await clients_logged(balancer, 2) == [client, client]


async def test_refused_requests_are_logged_with_their_client_too(start: Start) -> None:
    balancer = start(trusted_proxies=TRUSTED, access_log="on", max_body_bytes=10)
    async with await Client.connect(balancer.port) as proxy, await H2Client.connect(balancer.port) as other:
        balancer.new_log()
        await proxy.send(f"{GET}X-Forwarded-For: 203.0.113.5\r\nContent-Length: 11\r\n\r\n")
        assert (await proxy.response()).status == 413
        refused = await other.get("/", [("x-forwarded-for", "203.0.113.6"), ("accept", "application/json")], "TRACE")
        assert refused.status == 405
        assert refused.field("content-type") == "application/problem+json"
        assert await clients_logged(balancer, 2) == ["203.0.113.5", "203.0.113.6"]
    async with await Client.connect(balancer.port) as proxy:
        await proxy.send(f"{GET}X-Forwarded-For: 203.0.113.7\r\nBad Field: 1\r\n\r\n")
        assert (await proxy.response()).status == 400
        assert await clients_logged(balancer, 1) == ["203.0.113.7"]


async def test_a_stranger_names_nobody(start: Start) -> None:
    balancer = start(max_connections_per_client=50, access_log="on")
    async with Endpoint(balancer.endpoints[0]), await Client.connect(balancer.port) as client:
        balancer.new_log()
        assert (await client.ask(named("203.0.113.1"))).status == 200
        assert await clients_logged(balancer, 1) == ["127.0.0.1"]
