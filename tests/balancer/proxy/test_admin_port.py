"""The admin port stays reachable, whatever is done to it or to the data port, and costs the data port nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
import warnings

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from tests.balancer.proxy.wire.authority import Authority
from tests.balancer.proxy.wire.ends import Client, Endpoint
from tests.balancer.proxy.wire.process import Balancer, Start

from balancer.admin.callers import HANDSHAKE_TIMEOUT

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


# By TLS.

HELLO = b"\x16\x03\x01\x02\x00\x01"
"""What the first message of a handshake begins with."""


def by_tls(authority: Authority) -> dict[str, str]:
    return {"admin_tls_cert": str(authority.certificate), "admin_tls_key": str(authority.key)}


@pytest.mark.parametrize("says", [b"", HELLO, b"GET / HTTP/1.1\r\n"])
async def test_handshakes_that_never_end_keep_nobody_out(start: Start, authority: Authority, says: bytes) -> None:
    balancer = start(open_files=200, **by_tls(authority))
    async with Endpoint(balancer.endpoints[0]):
        held = await asyncio.to_thread(lambda: [connect(balancer.admin_port, says) for _ in range(300)])
        await stays_reachable(balancer)
        assert balancer.open_files() < 100, "25 of them, and what lb holds anyway"
        close(held)


@pytest.mark.parametrize("says", [b"", HELLO])
async def test_a_handshake_that_never_ends_is_given_up(start: Start, authority: Authority, says: bytes) -> None:
    balancer = start(**by_tls(authority))
    with connect(balancer.admin_port, says) as silent:
        silent.settimeout(HANDSHAKE_TIMEOUT + 10)
        began = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.to_thread(silent.recv, 1) == b""
        assert time.monotonic() - began > HANDSHAKE_TIMEOUT - 1


async def test_by_tls_the_dashboard_its_events_and_changes_work(start: Start, authority: Authority) -> None:
    balancer = start(admin_token="secret", **by_tls(authority))
    url = f"https://lb.test:{balancer.admin_port}"
    # A page of this port, as the browser says: by its own name and scheme.
    headers = {"Authorization": "Bearer secret", "Origin": f"https://localhost:{balancer.admin_port}"}
    headers |= {"Host": f"localhost:{balancer.admin_port}", "Sec-Fetch-Site": "same-origin"}
    tcp = aiohttp.TCPConnector(resolver=Here(), ssl=authority.client())
    async with aiohttp.ClientSession(connector=tcp, headers=headers) as session:
        async with session.get(f"{url}/") as page:
            assert page.status == 200
            assert "http://" not in (await page.text()).replace("http://www.w3.org/", "")
        async with session.put(f"{url}/api/strategy", json={"strategy": "random-of-two"}) as switched:
            assert switched.status == 200
        async with session.get(f"{url}/api/events") as events:
            assert (await events.content.readuntil(b"event: hello")).startswith(b"retry: ")


async def test_by_tls_it_speaks_http_1_1_and_no_old_version(start: Start, authority: Authority) -> None:
    balancer = start(**by_tls(authority))
    context = authority.client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with connect(balancer.admin_port) as sock:
        secured = await asyncio.to_thread(context.wrap_socket, sock, server_hostname="lb.test")
        assert secured.selected_alpn_protocol() == "http/1.1"
        secured.close()
    old = authority.client()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with connect(balancer.admin_port) as sock, pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.to_thread(old.wrap_socket, sock, server_hostname="lb.test")


class Here(AbstractResolver):
    """Every name is this machine's."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is held."""
