"""Replicas that do not behave: of another version, deaf, or gone without a word. They cost the others little."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from structlog.testing import capture_logs
from tests.balancer.peers.test_reports import Replica, seen

from balancer.peers.connection import UNREADABLE
from balancer.peers.link import Link

pytestmark = pytest.mark.timeout(30)


@asynccontextmanager
async def linked(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[Link]:
    """The link of a replica to another that does as `handler`."""
    app = web.Application()
    app.add_routes([web.get("/peers", handler)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    replica = Replica(0, [runner.addresses[0][1]], "least-connections")
    task = asyncio.create_task(replica.peers.run())
    try:
        assert await seen(lambda: bool(replica.peers._links))
        ((link, _),) = replica.peers._links.values()
        yield link
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runner.cleanup()


async def test_one_of_another_version_is_connected_to_ever_more_rarely_and_logged_once() -> None:
    came: list[float] = []

    async def refuse(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        came.append(time.monotonic())
        await socket.receive()
        await socket.close(code=UNREADABLE)
        return socket

    with capture_logs() as logs:
        async with linked(refuse) as link:
            assert await seen(lambda: len(came) == 3)
            assert came[2] - came[1] >= 0.35  # 0.2 s after the first time, 0.4 s after the second.
            assert "version" in link.problem
    assert [entry["event"] for entry in logs].count("peer unreachable") == 1
