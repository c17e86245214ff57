"""How long HTTP/2's streams and connections wait for each side, and that waiting costs nothing meanwhile."""

from __future__ import annotations

import asyncio

from tests.balancer.proxy.wire.http2 import Asked, H2Client, H2Endpoint, asking
from tests.balancer.proxy.wire.process import Start

H2C = {"upstream_protocol": "h2c"}
PIECE = 16_384


async def pour(asked: Asked, size: int) -> None:
    """Send so much as the balancer's windows let us."""
    h2 = asked.served.h2
    while size:
        piece = min(size, PIECE, h2.local_flow_control_window(asked.stream))
        if piece:
            h2.send_data(asked.stream, bytes(piece))
            await asked.served.flush()
            size -= piece
        else:
            await asyncio.sleep(0.005)


async def test_connections_that_wait_are_not_looked_at_before_something_can_be_late(start: Start) -> None:
    """8,500 of them, looked at five times a second, held the event loop for 4 ms every 100."""
    balancer = start(1, fresh=True, **H2C)

    async def hangs(asked: Asked) -> None:
        await asyncio.Event().wait()

    async with H2Endpoint(balancer.endpoints[0], hangs) as endpoint:
        clients = [await H2Client.connect(balancer.port) for _ in range(20)]
        for client in clients:
            await client.begin(asking())
        await endpoint.until(lambda: len(endpoint.requests) == len(clients))
        for _ in range(3):
            balancer.inside()
            assert balancer.due_soon < 5
            await asyncio.sleep(0.15)
        for client in clients:
            await client.close()


async def test_a_client_has_the_idle_time_to_read_from_when_it_stops(start: Start) -> None:
    """Not from the response's begin: what streams for long was cut 0.2 s after the client had first paused."""
    balancer = start(1, idle_timeout=1, **H2C)

    async def trickles(asked: Asked) -> None:
        asked.served.h2.send_headers(asked.stream, [(":status", "200")])
        for _ in range(4):
            await pour(asked, 1)
            await asyncio.sleep(0.3)
        await pour(asked, 100_000)
        asked.served.h2.end_stream(asked.stream)
        await asked.served.flush()

    async with H2Endpoint(balancer.endpoints[0], trickles), await H2Client.connect(balancer.port) as client:
        client.acknowledges = False
        stream = await client.begin(asking())
        answer = client.answers[stream]
        await client.until(lambda: len(answer.body) == 65_535 or answer.over)
        await asyncio.sleep(0.5)
        client.acknowledges = True
        client.h2.acknowledge_received_data(65_535, stream)
        await client.flush()
        await client.answer(stream)
        assert answer.reset is None
        assert len(answer.body) == 100_004


async def test_an_endpoint_has_the_idle_time_to_take_an_upload_from_when_it_stops(start: Start) -> None:
    """Its sibling: from when the endpoint's window closed, not from the request's begin."""
    balancer = start(1, idle_timeout=1, **H2C)

    async def pauses(asked: Asked) -> None:
        h2 = asked.served.h2
        acknowledge = h2.acknowledge_received_data
        h2.acknowledge_received_data = lambda *_: None  # type: ignore[method-assign]
        while len(asked.body) < 65_535:  # noqa: ASYNC110 (it has no event for that)
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.5)
        h2.acknowledge_received_data = acknowledge  # type: ignore[method-assign]
        acknowledge(65_535, asked.stream)
        await asked.served.flush()
        await asked.whole.wait()
        await asked.respond()

    async with H2Endpoint(balancer.endpoints[0], pauses) as endpoint, await H2Client.connect(balancer.port) as client:
        stream = await client.begin(asking("/", "PUT"), ended=False)
        for _ in range(4):
            await client.send(stream, b"x")
            await asyncio.sleep(0.3)
        left = 100_000
        while left and not client.answers[stream].over:
            piece = min(left, PIECE, client.h2.local_flow_control_window(stream))
            if piece:
                await client.send(stream, bytes(piece), ended=piece == left)
                left -= piece
            else:
                await asyncio.sleep(0.005)
        assert (await client.answer(stream)).status == 200
        assert len(endpoint.requests[0].body) == 100_004


async def test_a_client_has_the_idle_time_for_its_body_from_the_100_on(start: Start) -> None:
    balancer = start(1, response_timeout=5, idle_timeout=0.6, **H2C)

    async def says_continue_late(asked: Asked) -> None:
        await asyncio.sleep(1)
        asked.served.h2.send_headers(asked.stream, [(":status", "100")])
        await asked.served.flush()
        await asked.whole.wait()
        await asked.respond()

    async with H2Endpoint(balancer.endpoints[0], says_continue_late), await H2Client.connect(balancer.port) as client:
        extra = [("expect", "100-continue"), ("content-length", "5")]
        stream = await client.begin(asking("/", "POST", extra), ended=False)
        await client.until(lambda: client.answers[stream].interim == [100] or client.answers[stream].over)
        await asyncio.sleep(0.35)
        assert not client.answers[stream].over
        await client.send(stream, b"hello", ended=True)
        assert (await client.answer(stream)).status == 200


async def test_a_connection_idles_from_its_last_response_on(start: Start) -> None:
    """Not from its last request: one that took longer than that was the connection's last."""
    balancer = start(1, keepalive_timeout=1, **H2C)

    async def takes_long(asked: Asked) -> None:
        await asyncio.sleep(1.3)
        await asked.respond()

    async with H2Endpoint(balancer.endpoints[0], takes_long), await H2Client.connect(balancer.port) as client:
        assert (await client.get()).status == 200
        await asyncio.sleep(0.4)
        assert not client.goaways
        assert (await client.get()).status == 200
