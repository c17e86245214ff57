"""Replicas that do not behave: of another version, deaf, or gone without a word. They cost the others little."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs
from tests.balancer.balancing.world import REQUEST
from tests.balancer.peers.test_connection import Handler, served
from tests.balancer.peers.test_reports import SEEN, Replica, replicas, seen

from balancer.balancing.outcome import Outcome
from balancer.peers.connection import UNREADABLE
from balancer.peers.link import PATIENCE, Link

pytestmark = pytest.mark.timeout(30)


@asynccontextmanager
async def linked(handler: Handler) -> AsyncIterator[Link]:
    """The link of a replica to another that does as `handler`."""
    async with served(handler, patience=0.1) as address:
        replica = Replica(0, [int(address.rpartition(":")[2])], "least-connections")
        task = asyncio.create_task(replica.peers.run())
        try:
            assert await seen(lambda: bool(replica.peers._links))
            ((link, _),) = replica.peers._links.values()
            yield link
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


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


@pytest.mark.parametrize("asked", [True, False])
async def test_one_that_reads_no_more_is_let_go_and_connected_to_again(asked: bool) -> None:
    async with replicas(2) as (one, _):
        link = next(link for link, task in one.peers._links.values() if not task.done())
        assert await seen(lambda: link._asked_at is None)
        connection = link._connection
        assert connection is not None
        if asked:
            link._asked_at = time.perf_counter()
        connection.pause_writing()  # As asyncio does once so much waits to be sent.
        one.beat()
        assert link._asked_at is not None
        link._asked_at -= PATIENCE + 1.0
        one.beat()
        assert await seen(lambda: connection.closed.done())
        assert await seen(lambda: link._connection not in (None, connection))


@pytest.mark.parametrize("leaves_first", [False, True])
async def test_requests_at_an_endpoint_that_has_left_do_not_count_for_the_next_at_its_address(
    leaves_first: bool,
) -> None:
    async with replicas(2) as (one, two):
        fleet = one.fleet
        lease = fleet.pool.lease_at(fleet["a"], REQUEST, fleet.now)  # A tunnel, perhaps: it stays open.
        assert lease is not None
        assert await seen(lambda: two.told() == [1, 0, 0, 0])
        if leaves_first:
            fleet.remove("a")
            fleet.now += 61.0
            fleet.pool.tick(fleet.now)
        fleet.add("a", uid="another")
        assert await seen(lambda: two.told() == [0, 0, 0, 0])
        own = fleet.pool.lease_at(fleet["a"], REQUEST, fleet.now)
        assert own is not None
        lease.close(Outcome.answered(200), fleet.now)
        assert await seen(lambda: two.told() == [1, 0, 0, 0])
        own.close(Outcome.answered(200), fleet.now)
        assert await seen(lambda: two.told() == [0, 0, 0, 0])


async def test_a_connection_that_a_replica_has_lost_is_let_go_and_one_of_two_keeps_its_news() -> None:
    async with replicas(2) as (one, _), aiohttp.ClientSession(headers={"Authorization": "Bearer secret"}) as session:
        sockets = [await session.ws_connect(f"http://127.0.0.1:{one.port}/peers") for _ in range(3)]
        for socket in sockets:
            await socket.send_str('{"v":1,"replica":"twice","whole":true,"answer":true,"in_flight":{"a:80":7}}')
            assert "lb-0" in (await socket.receive(SEEN)).data
        assert one.fleet["a"].elsewhere.requests >= 7.0
        await sockets[2].close()
        await sockets[1].send_str('{"v":1,"replica":"twice","answer":true}')
        assert "lb-0" in (await sockets[1].receive(SEEN)).data
        assert one.fleet["a"].elsewhere.requests >= 7.0
        late = next(each for each in one.peers._hearing.open if each.name == "twice")
        late.heard_at -= 70.0
        one.peers._hearing.end_silent(time.monotonic())
        assert (await sockets[0].receive(SEEN)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        assert not sockets[1].closed


async def test_one_connection_is_of_one_replica() -> None:
    async with replicas(2) as (one, _), aiohttp.ClientSession(headers={"Authorization": "Bearer secret"}) as session:
        async with session.ws_connect(f"http://127.0.0.1:{one.port}/peers") as socket:
            await socket.send_str('{"v":1,"replica":"some","in_flight":{"a:80":1}}')
            await socket.send_str('{"v":1,"replica":"other","in_flight":{"a:80":1}}')
            assert (await socket.receive(SEEN)).type is aiohttp.WSMsgType.CLOSE
            assert socket.close_code == UNREADABLE
        assert "other" not in {replica.name for replica in one.peers.heard}


async def test_another_replica_of_the_same_name_is_told_from_oneself() -> None:
    with capture_logs() as logs:
        async with replicas(1) as (one,), aiohttp.ClientSession(headers={"Authorization": "Bearer secret"}) as session:
            assert not [entry for entry in logs if "name" in entry["event"]]  # It has connected to itself.
            async with session.ws_connect(f"http://127.0.0.1:{one.port}/peers?from=another") as socket:
                await socket.send_str('{"v":1,"replica":"lb-0"}')
                assert (await socket.receive(SEEN)).type is aiohttp.WSMsgType.CLOSE
    assert [entry["remedy"] for entry in logs if "name" in entry["event"]] == ["give each its own HOSTNAME"]
