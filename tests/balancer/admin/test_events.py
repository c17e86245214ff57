from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession
from tests.balancer.admin.world import Alone, MakeWorld, World

from balancer.admin import events
from balancer.admin.events import Hub, Listener, encode
from balancer.admin.fleet import total
from balancer.settings import Settings

Stream = AsyncIterator[tuple[str, Any]]


async def follow(response: ClientResponse) -> Stream:
    """The events of a stream."""
    name = ""
    async for line in response.content:
        field, _, text = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = text
        elif field == "data":
            yield name, json.loads(text)


async def first(stream: Stream, name: str) -> Any:
    async with asyncio.timeout(5):
        async for event, data in stream:
            if event == name:
                return data
    raise AssertionError(f"no {name}")


async def test_a_new_listener_is_told_who_this_is_and_how_things_stand(world: World, client: ClientSession) -> None:
    world.request()
    async with client.get("/api/events") as response:
        assert response.content_type == "text/event-stream"
        stream = follow(response)
        hello = await first(stream, "hello")
        endpoints = await first(stream, "endpoints")
        decisions = await first(stream, "decisions")
    assert hello["replica"] == "lb-7f9c-x2x4q"
    assert hello["strategies"]["strategy"] == "round-robin"
    assert hello["changeable"] is True
    assert [view["address"] for view in endpoints["shown"]] == ["10.0.0.1:8000", "10.0.0.2:8000"]
    assert len(decisions["decisions"]) == 1


async def test_transitions_and_switches_are_told_at_once(
    world: World, client: ClientSession, operator: ClientSession
) -> None:
    async with client.get("/api/events") as response:
        stream = follow(response)
        await first(stream, "decisions")
        world.pool.drain(world.endpoint(2), True, world.now)
        told = await first(stream, "transition")
        assert (told["endpoint"], told["event"]) == ("10.0.0.2:8000", "drained")
        async with operator.put("/api/strategy", json={"strategy": "n-to-one"}) as switched:
            assert switched.status == 200
        told = await first(stream, "strategy")
        assert (told["before"], told["strategy"]) == ("round-robin", "n-to-one")
        world.switch("least-work")  # As where another replica was asked, for the whole fleet.
        told = await first(stream, "strategy")
        assert (told["before"], told["strategy"]) == ("n-to-one", "least-work")


async def test_each_second_is_told_with_rates_and_shares(world: World, client: ClientSession) -> None:
    feed = world.admin._feed
    async with client.get("/api/events") as response:
        stream = follow(response)
        await first(stream, "decisions")
        for _ in range(100):
            world.request(seconds=0.01)
        world.counters.responses[5] += 1
        await feed._second()
        second = await first(stream, "second")
        endpoints = await first(stream, "endpoints")
        decisions = await first(stream, "decisions")
    assert second["requests"] == pytest.approx(100, rel=0.01)
    assert second["responses"][1] == pytest.approx(100, rel=0.01)
    assert 0.005 < second["latency"][0] < second["latency"][2] <= 0.01
    assert [view["share"] for view in endpoints["shown"]] == [0.5, 0.5]
    assert len(decisions["decisions"]) == 10


async def test_the_streams_end_when_the_port_closes(make_world: MakeWorld) -> None:

    world = await make_world()
    async with ClientSession(world.url) as client, client.get("/api/events") as response:
        async with asyncio.timeout(5):
            await world.admin.stop()
            assert (await response.content.read())[:5] == b"retry"


async def test_too_many_listeners_are_refused_and_a_place_is_free_when_one_leaves(
    world: World, client: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LISTENERS", 1)
    async with client.get("/api/events") as response:
        await first(follow(response), "hello")
        async with client.get("/api/events") as refused:
            assert (refused.status, "Retry-After" in refused.headers) == (503, True)
    async with asyncio.timeout(5):
        while world.admin._feed.hub:
            world.admin._feed.hub.publish("second", {})
            await asyncio.sleep(0.01)
    async with client.get("/api/events") as response:
        assert response.status == 200


async def test_what_a_slow_listener_misses_is_counted_and_not_kept() -> None:
    listener = Listener()
    for number in range(events.BACKLOG + 30):
        listener.publish(encode("second", {"n": number}))
    told = await listener.take() or b""
    assert told.count(b"event: second") == events.BACKLOG
    assert told.endswith(encode("missed", {"count": 30}))
    listener.end()
    assert await listener.take() is None


async def test_a_listener_that_takes_nothing_is_dropped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "STUCK_AFTER", 0.2)
    hub: Hub = world.admin._feed.hub
    _, writer = await asyncio.open_connection("127.0.0.1", world.admin.port)
    writer.write(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(10):
        while not hub:  # noqa: ASYNC110 - the hub does not tell who comes
            await asyncio.sleep(0.01)
        while hub:  # It never reads: the socket's buffers fill, then its backlog, then it is dropped.
            hub.publish("second", {"filler": "x" * 500_000})
            await asyncio.sleep(0.01)
    writer.transport.abort()


@pytest.mark.parametrize("watched", [True, False])
async def test_what_all_replicas_do_is_worked_out_once_a_second_and_kept(watched: bool) -> None:
    peers = Alone()
    feed = World(Settings.model_validate({"backends": "10.0.0.1:8000"}), peers=peers).admin._feed
    listener = Listener()
    if watched:
        feed.hub._listeners.add(listener)
    for _ in range(3):
        await feed._second()
    assert peers.asked == 3
    assert len(list(feed._fleet_history)) == 3
    assert (b"event: fleet" in b"".join(listener._backlog)) is watched


def test_what_all_do_is_summed_where_one_of_another_version_says_less() -> None:
    running = World(Settings.model_validate({"backends": "10.0.0.1:8000"})).admin._feed._running
    said = {"version": "0", "second": {"requests": 3}, "latency_counts": {}}
    summed = total(running, [said, {**said, "second": {"at": 7.0, "requests": 2, "errors": {"reset": 1}}}])
    assert summed is not None
    assert (summed["requests"], summed["errors"], summed["at"]) == (5, {"reset": 1}, None)
