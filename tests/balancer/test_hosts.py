"""`::` is every address that this machine can have: on IPv4-only, IPv6-only and dual-stack pods."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import aiohttp
import pytest
from aiohttp import web

from balancer import hosts
from balancer.admin.server import listen as listen_admin
from balancer.hosts import has_ipv6, to_listen_at
from balancer.proxy.listening import listen


@pytest.mark.parametrize(
    ("asked", "ipv6", "found"),
    [
        (["::"], True, ["::", "0.0.0.0"]),
        (["::"], False, ["0.0.0.0"]),
        (["0.0.0.0", "::"], True, ["::", "0.0.0.0"]),
        (["127.0.0.1", "::"], True, ["::", "127.0.0.1"]),
        (["127.0.0.1", "::"], False, ["127.0.0.1"]),
        (["::", "fd00::1"], True, ["::", "0.0.0.0", "fd00::1"]),
        (["127.0.0.1", "127.0.0.1"], True, ["127.0.0.1"]),
    ],
)
def test_what_is_asked_for_and_what_is_listened_at(
    monkeypatch: pytest.MonkeyPatch, asked: list[str], ipv6: bool, found: list[str]
) -> None:
    monkeypatch.setattr(hosts, "has_ipv6", lambda: ipv6)
    assert to_listen_at(asked) == found


async def test_the_admin_port_of_every_address_answers_ipv4_as_ipv4() -> None:
    seen = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.remote)
        return web.Response()

    app = web.Application()
    app.router.add_get("/", answer)
    async with AsyncExitStack() as stack:
        listening = await listen_admin(app, ["::"], 0)
        stack.push_async_callback(listening.close)
        client = await stack.enter_async_context(aiohttp.ClientSession())
        for host in ["127.0.0.1", *(["[::1]"] if has_ipv6() else [])]:
            assert (await client.get(f"http://{host}:{listening.port}/")).status == 200
    assert seen == ["127.0.0.1", *(["::1"] if has_ipv6() else [])]


async def test_the_data_port_of_every_address_takes_ipv4() -> None:
    port, sockets = 0, []
    try:
        for host in to_listen_at(["::"]):
            sockets.append(listen(host, port))
            port = sockets[-1].getsockname()[1]
        for host in ["127.0.0.1", *(["::1"] if has_ipv6() else [])]:
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
    finally:
        for each in sockets:
            each.close()
