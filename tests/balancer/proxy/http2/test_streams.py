"""Ten thousand streams at one moment, and nothing of them left when they have ended."""

from __future__ import annotations

import asyncio

import hpack
import pytest
from tests.balancer.proxy.wire.ends import Accepted, Client, Endpoint
from tests.balancer.proxy.wire.http2 import PREFACE, asking, frame, headers
from tests.balancer.proxy.wire.process import Start

STREAMS, CLIENTS = 10_000, 10
PATIENCE = 200
"""Seconds that all of them may take, on a machine with other things to do."""
SETTINGS = frame(4, 0, 0)


async def heads(reader: asyncio.StreamReader, number: int) -> list[int]:
    """Read until `number` HEADERS have come; their streams."""
    streams: list[int] = []
    while len(streams) < number:
        head = await reader.readexactly(9)
        await reader.readexactly(int.from_bytes(head[:3], "big"))
        if head[3] == 1:
            streams.append(int.from_bytes(head[5:9], "big"))
    return streams


@pytest.mark.timeout(400)
async def test_ten_thousand_streams_at_once(start: Start) -> None:
    """Each connection has its thousand, and none is answered before the last has reached the endpoint."""
    balancer = start(1, fresh=True, upstream_protocol="h2c", response_timeout=600, idle_timeout=600, access_log="off")
    came, all_here, release = 0, asyncio.Event(), asyncio.Event()

    async def gathers(connection: Accepted) -> None:
        nonlocal came
        await connection.exactly(len(PREFACE))
        await connection.send(SETTINGS)
        streams: list[int] = []

        async def read() -> None:
            nonlocal came
            while not release.is_set():
                streams.extend(await heads(connection.reader, 1))
                came += 1
                if came == STREAMS:
                    all_here.set()

        reading = asyncio.ensure_future(read())
        await release.wait()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await connection.send(b"".join(headers(stream, b"\x88") for stream in streams))
        await connection.to_end()

    each = STREAMS // CLIENTS
    block = hpack.Encoder().encode(asking())
    wanted = [headers(2 * number + 1, block) for number in range(each)]
    async with Endpoint(balancer.endpoints[0], gathers) as endpoint, asyncio.timeout(PATIENCE):
        before = balancer.memory()
        clients = [await Client.connect(balancer.port) for _ in range(CLIENTS)]
        for client in clients:
            await client.send(PREFACE + SETTINGS + b"".join(wanted))
        await all_here.wait()
        assert balancer.metric("lb_requests_in_flight") == STREAMS
        grown = balancer.memory() - before
        release.set()
        for client in clients:
            assert sorted(await heads(client.reader, each)) == list(range(1, 2 * each, 2))
        assert endpoint.accepted <= CLIENTS + 2, "a thousand streams on each connection"
        for client in clients:
            await client.close()
    assert grown < STREAMS * 12_000, f"{grown / STREAMS:.0f} bytes a stream"
    assert balancer.metric("lb_responses_total") == STREAMS
