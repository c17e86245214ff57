"""Where HTTP/2 says a thing by its frames that HTTP/1.1 says by its fields, and the reverse: nothing may be lost."""

from __future__ import annotations

import asyncio
import base64
import hashlib

import pytest
from hpack import Encoder
from hyperframe.frame import DataFrame, GoAwayFrame
from tests.balancer.proxy.wire.ends import Client, Endpoint
from tests.balancer.proxy.wire.http2 import Asked, Fields, Frames, H2Client, H2Endpoint, asking, frame, headers
from tests.balancer.proxy.wire.process import Start

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n"
H2C = {"upstream_protocol": "h2c"}
DATA = 0


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_a_body_where_there_is_none_reaches_nobody(method: str, status: int, start: Start) -> None:
    """To an HTTP/1.1 client it would be the response to its next request."""
    balancer = start(**H2C)

    async def script(asked: Asked) -> None:
        if asked.field("x-bad") is None:
            await asked.respond()
            return
        asked.served.h2.send_headers(asked.stream, [(":status", str(status))])
        await asked.served.flush()
        await asyncio.sleep(0.05)
        await asked.served.end.send(frame(DATA, 1, asked.stream, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"))

    async with H2Endpoint(balancer.endpoints[0], script), await Client.connect(balancer.port) as client:
        request = f"{method} / HTTP/1.1\r\nHost: a\r\nX-Bad: 1\r\n\r\n"
        assert (await client.ask(request, method)).status == status
        assert await client.some(0.2) == b""
        assert (await client.ask(GET)).body == b"ok"


@pytest.mark.parametrize("ends", ["at once", "by an empty frame", "never"])
async def test_a_response_to_head_may_end_as_it_likes(ends: str, start: Start) -> None:
    balancer = start(idle_timeout=0.5, **H2C)

    async def script(asked: Asked) -> None:
        h2 = asked.served.h2
        h2.send_headers(asked.stream, [(":status", "200"), ("content-length", "7")], end_stream=ends == "at once")
        if ends == "by an empty frame":
            h2.end_stream(asked.stream)
        await asked.served.flush()

    async with H2Endpoint(balancer.endpoints[0], script) as endpoint, await Client.connect(balancer.port) as client:
        for _ in range(2):
            answer = await client.ask("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD")
            assert (answer.status, answer.get("content-length")) == (200, "7")
        if ends == "never":
            await endpoint.until(lambda: all(asked.reset is not None for asked in endpoint.requests))


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_response_without_body_or_length_has_an_end(version: str, start: Start) -> None:
    """END_STREAM says it; an HTTP/1.1 client that reads no length would wait for the connection's end."""
    balancer = start(**H2C)

    async def script(asked: Asked) -> None:
        await asked.respond(404, b"")

    async with H2Endpoint(balancer.endpoints[0], script), await Client.connect(balancer.port) as client:
        for _ in range(2):
            answer = await client.ask(f"GET / HTTP/{version}\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
            assert (answer.status, answer.get("content-length")) == (404, "0")


@pytest.mark.parametrize("status", [204, 304])
async def test_a_length_without_body_passes_where_no_body_is_expected(status: int, start: Start) -> None:
    balancer = start(**H2C)

    async def script(asked: Asked) -> None:
        await asked.respond(status, b"", [("content-length", "5")])

    async with H2Endpoint(balancer.endpoints[0], script), await Client.connect(balancer.port) as client:
        for _ in range(2):
            assert (await client.ask(GET)).status == status


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "GET", "HEAD"])
async def test_a_refusal_has_a_date_and_no_body_for_head(method: str, start: Start) -> None:
    balancer = start(max_uri_bytes=100)
    tunnel = [(":method", "CONNECT"), (":authority", "a:1")]
    fields = tunnel if method == "CONNECT" else asking("/" if method == "TRACE" else "/" + "x" * 200, method)
    async with await H2Client.connect(balancer.port) as client:
        answer = await client.answer(await client.begin(fields))
        assert answer.status in (405, 414)
        assert answer.field("date")
        assert bool(answer.body) == (method != "HEAD")


@pytest.mark.parametrize("empty", [":authority", "host"])
async def test_an_empty_authority_is_no_authority(empty: str, start: Start) -> None:
    balancer = start()
    fields: Fields = [(":method", "GET"), (":scheme", "http"), (":path", "/")]
    fields = [(empty, ""), *fields] if empty == ":authority" else [*fields, (empty, "")]
    async with await H2Client.connect(balancer.port) as client:
        assert (await client.answer(await client.begin(fields))).reset == 1


async def test_a_websocket_by_extended_connect_is_opened_with_a_date(start: Start) -> None:
    balancer = start()
    fields = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "a")]
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await H2Client.connect(balancer.port) as client:
        stream = await client.begin([*fields, (":path", "/"), ("sec-websocket-version", "13")], ended=False)
        connection = await endpoint.accept()
        key = (await connection.head()).get("sec-websocket-key") or ""
        digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False).digest()
        accept = base64.b64encode(digest).decode()
        await connection.send(
            f"HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        await client.until(lambda: client.answers[stream].status == 200)
        assert client.answers[stream].field("date")
        await connection.close()


async def test_near_the_limit_a_client_is_asked_to_use_another_connection(start: Start) -> None:
    """As `Connection: close` asks a client of HTTP/1: and then it is closed, instead of idling on."""
    balancer = start(max_connections=20)
    encoder = Encoder()
    async with Endpoint(balancer.endpoints[0]), await Frames.connect(balancer.port) as client:
        await client.send(headers(1, encoder.encode(asking())))
        assert (await client.until(DataFrame)).data == b"ok"
        others = [await Client.connect(balancer.port) for _ in range(17)]
        async with asyncio.timeout(5):
            while balancer.metric("lb_downstream_connections_open") < 18:  # noqa: ASYNC110 (another process)
                await asyncio.sleep(0.02)
        await client.send(headers(3, encoder.encode(asking())))
        assert (await client.until(GoAwayFrame)).last_stream_id == (1 << 31) - 1
        assert (await client.until(DataFrame)).data == b"ok"
        assert (await client.until(GoAwayFrame)).last_stream_id == 3
        assert await client.next() is None
        for other in others:
            await other.close()
