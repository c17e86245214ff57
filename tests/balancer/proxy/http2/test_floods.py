"""What a hostile client may send without end, and what it must not send at all: each ends with its code and a count."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import hpack
import pytest
from hyperframe.frame import GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame
from tests.balancer.proxy.wire.ends import Accepted, Client, Endpoint, always
from tests.balancer.proxy.wire.http2 import Asked, Fields, Frames, H2Client, H2Endpoint, asking, frame, headers, plain
from tests.balancer.proxy.wire.process import Balancer, Start

CALM = 11
"""ENHANCE_YOUR_CALM."""


def rapid_reset(number: int) -> bytes:
    stream = 2 * number + 1
    return headers(stream, hpack.Encoder().encode(asking())) + frame(3, 0, stream, b"\x00\x00\x00\x08")


def opened(number: int, *, ended: bool = True) -> bytes:
    return headers(2 * number + 1, hpack.Encoder().encode(asking()), ended=ended)


FLOODS: dict[str, Callable[[int], bytes]] = {
    "rapid reset": rapid_reset,
    "ping": lambda _: frame(6, 0, 0, bytes(8)),
    "settings": lambda _: frame(4, 0, 0),
    "priority": lambda number: frame(2, 0, 2 * number + 1, b"\x00\x00\x00\x00\x10"),
    # CVE-2025-8671: what makes us reset our own streams, work and all.
    "made you reset by a window": lambda number: opened(number) + frame(8, 0, 2 * number + 1, bytes(4)),
    "made you reset by too much window": lambda number: (
        opened(number) + frame(8, 0, 2 * number + 1, b"\x7f\xff\xff\xff")
    ),
    "made you reset by data": lambda number: opened(number) + frame(0, 1, 2 * number + 1, b"x"),
    "made you reset by trailers": lambda number: (
        opened(number, ended=False) + headers(2 * number + 1, hpack.Encoder().encode([(":path", "/")]))
    ),
    "malformed requests": lambda number: headers(2 * number + 1, hpack.Encoder().encode(asking("/ a"))),
    "unknown kinds": lambda _: frame(0xBE, 0, 0, b"x"),
    "window updates": lambda _: frame(8, 0, 0, b"\x00\x00\x00\x01"),
    "empty data": lambda number: (
        headers(1, hpack.Encoder().encode(asking("/", "POST")), ended=False) if number == 0 else frame(0, 0, 1)
    ),
}


def balancer_of(start: Start) -> Balancer:
    return start(1, upstream_protocol="h2c")


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_ends_the_connection(start: Start, kind: str) -> None:
    balancer = balancer_of(start)
    before = balancer.metric("lb_client_faults_total", kind="flood of frames")
    cpu, memory = balancer.cpu(), balancer.memory()
    async with H2Endpoint(balancer.endpoints[0]), await Frames.connect(balancer.port) as client:
        await client.send(b"".join(FLOODS[kind](number) for number in range(6000)))
        assert (await client.until(GoAwayFrame)).error_code == CALM
        async with await H2Client.connect(balancer.port) as other:
            assert (await other.get()).status == 200
    assert balancer.metric("lb_client_faults_total", kind="flood of frames") == before + 1
    assert balancer.cpu() - cpu < 4, "it does not work through what comes behind its end"
    assert balancer.memory() - memory < 16 << 20


async def test_windows_that_change_to_and_fro_cost_one_walk_over_the_streams(start: Start) -> None:
    """Thousands of values in one SETTINGS, with a thousand streams open, would be millions of steps."""

    async def hangs(asked: Asked) -> None:
        await asyncio.Event().wait()

    balancer = balancer_of(start)
    async with H2Endpoint(balancer.endpoints[0], hangs, max_streams=1000) as endpoint:
        async with await Frames.connect(balancer.port) as client:
            await client.send(b"".join(opened(number) for number in range(900)))
            await endpoint.until(lambda: len(endpoint.requests) == 900)
            before = balancer.cpu()
            values = b"".join(b"\x00\x04" + (each % 2 * 1000).to_bytes(4, "big") for each in range(2700))
            await client.send(frame(4, 0, 0, values) * 3 + frame(6, 0, 0, b"finished"))
            while (await client.until(PingFrame)).opaque_data != b"finished":
                pass
            assert balancer.cpu() - before < 1


async def test_a_long_download_pays_for_the_windows_that_it_needs(start: Start) -> None:
    """Some clients open both windows after each frame: 64 MB are thousands of updates and nothing else from them."""
    size = 64 << 20
    balancer = start(1)

    async def sends(connection: Accepted) -> None:
        await connection.head()
        await connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")
        block = b"x" * (1 << 20)
        for _ in range(size >> 20):
            await connection.send(block)

    wide = frame(4, 0, 0, b"\x00\x04\x7f\x00\x00\x00") + frame(8, 0, 0, b"\x7f\x00\x00\x00")
    async with Endpoint(balancer.endpoints[0], sends), await Frames.connect(balancer.port, settings=wide) as client:
        await client.send(opened(0))
        came = opened_for = 0
        tail = b""
        while came < size:
            data = await asyncio.wait_for(client.end.reader.read(1 << 18), 20)
            assert data, f"it was ended after {came} bytes: {tail[-60:]!r}"
            came, tail = came + len(data), data
            updates, opened_for = (came - opened_for) >> 14, came - (came - opened_for) % (1 << 14)
            await client.send((frame(8, 0, 0, b"\0\0\0\1") + frame(8, 0, 1, b"\0\0\0\1")) * updates)


async def test_windows_opened_long_after_the_data_was_sent_are_no_flood(start: Start) -> None:
    """What is on its way to a client, and in its buffers, has been sent long before the client opens windows for it."""
    size = 40 << 20

    async def sends(connection: Accepted) -> None:
        for _ in range(2):
            await connection.head()
            await connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")
            for _ in range(size >> 20):
                await connection.send(b"x" * (1 << 20))

    wide = frame(4, 0, 0, b"\x00\x04\x7f\x00\x00\x00") + frame(8, 0, 0, b"\x7f\x00\x00\x00")
    balancer = start(1)
    async with Endpoint(balancer.endpoints[0], sends), await Frames.connect(balancer.port, settings=wide) as client:
        for number in (0, 1):
            await client.send(opened(number))
            came = 0
            while came < size:
                data = await asyncio.wait_for(client.end.reader.read(1 << 18), 20)
                assert data, f"it was ended after {came} bytes of response {number}"
                came += len(data)
            updates = frame(8, 0, 0, b"\0\0\0\1") + frame(8, 0, 2 * number + 1, b"\0\0\0\1")
            await client.send(updates * (size >> 14))


async def test_a_long_upload_ends_no_connection_to_its_endpoint(start: Start) -> None:
    size = 48 << 20

    async def opens_windows(connection: Accepted) -> None:
        await connection.send(frame(4, 0, 0, b"\x00\x04\x7f\x00\x00\x00") + frame(8, 0, 0, b"\x7f\x00\x00\x00"))
        came = opened_for = 0
        while came < size:
            came += len(await connection.reader.read(1 << 18))
            updates, opened_for = (came - opened_for) >> 14, came - (came - opened_for) % (1 << 14)
            await connection.send((frame(8, 0, 0, b"\0\0\0\1") + frame(8, 0, 1, b"\0\0\0\1")) * updates)
        await connection.send(headers(1, b"\x88"))
        await connection.to_end()

    balancer = balancer_of(start)
    async with Endpoint(balancer.endpoints[0], opens_windows), await Client.connect(balancer.port) as client:
        await client.send(f"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n")
        block = b"x" * (1 << 20)
        for _ in range(size >> 20):
            await client.send(block)
        assert (await client.head()).status == 200


async def test_a_header_block_without_end_ends_the_connection(start: Start) -> None:
    balancer = balancer_of(start)
    async with await Frames.connect(balancer.port) as client:
        block = hpack.Encoder().encode(asking())
        await client.send(frame(1, 0x1, 1, block) + frame(9, 0, 1, b"\x00\x01a\x01b" * 10) * 2000)
        assert (await client.until(GoAwayFrame)).error_code == CALM
    assert balancer.metric("lb_client_faults_total", kind="header block too large") >= 1


async def test_empty_continuations_without_end_end_the_connection(start: Start) -> None:
    async with await Frames.connect(balancer_of(start).port) as client:
        await client.send(frame(1, 0x1, 1) + frame(9, 0, 1) * 2000)
        assert (await client.until(GoAwayFrame)).error_code == CALM


async def test_a_bomb_of_header_fields_costs_a_refusal(start: Start) -> None:
    balancer = start(1, upstream_protocol="h2c", max_header_bytes=16384)
    async with H2Endpoint(balancer.endpoints[0]) as endpoint, await Frames.connect(balancer.port) as client:
        encoder = hpack.Encoder()
        await client.send(headers(1, encoder.encode([*asking(), ("x-big", "v" * 3900)])))
        await client.send(headers(3, encoder.encode(asking()) + b"\xbe" * 10_000))
        answers: dict[int, HeadersFrame] = {}
        while len(answers) < 2:
            found: HeadersFrame = await client.until(HeadersFrame)
            answers[found.stream_id] = found
        assert dict(plain(hpack.Decoder().decode(answers[3].data, raw=True)))[":status"] == "431"
        assert len(endpoint.requests) == 1


async def test_an_honest_connection_is_never_ended(start: Start) -> None:
    """Thousands of requests, each with the pings and window updates that clients send, and some that are cancelled."""
    balancer = balancer_of(start)
    async with H2Endpoint(balancer.endpoints[0]), await H2Client.connect(balancer.port) as client:
        for round_of in range(200):
            streams = [await client.begin(asking("/", "POST"), ended=False) for _ in range(10)]
            for stream in streams[2:]:
                await client.send(stream, b"x", ended=True)
            client.h2.ping(bytes(8))
            for stream in streams[:2]:
                client.h2.reset_stream(stream, 8)
            await client.flush()
            for stream in streams[2:]:
                assert (await client.answer(stream)).status == 200, round_of
        assert not client.goaways


async def test_requests_with_all_that_clients_send_beside_them_never_add_up(start: Start) -> None:
    """Thousands of requests, each with two updates of windows and a ping, as gRPC's libraries send them."""
    balancer = start(1, access_log="off")
    answer = always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    beside = frame(8, 0, 0, b"\0\0\0\1") + frame(6, 0, 0, bytes(8))
    async with Endpoint(balancer.endpoints[0], answer, remembers=False), await Frames.connect(balancer.port) as client:
        for turn in range(50):
            numbers = range(turn * 50, turn * 50 + 50)
            await client.send(b"".join(opened(number) + beside + beside for number in numbers))
            for _ in numbers:
                found: HeadersFrame = await client.until(HeadersFrame)
                assert not isinstance(found, GoAwayFrame)


async def test_a_window_that_never_opens_is_given_up(start: Start) -> None:
    balancer = start(1, upstream_protocol="h2c", idle_timeout=0.5)
    async with (
        H2Endpoint(balancer.endpoints[0]),
        await Frames.connect(balancer.port, settings=frame(4, 0, 0, b"\x00\x04\x00\x00\x00\x00")) as client,
    ):
        await client.send(headers(1, hpack.Encoder().encode(asking())))
        while not isinstance(got := await client.next(), RstStreamFrame):
            if isinstance(got, PingFrame) and "ACK" not in got.flags:
                await client.send(frame(6, 1, 0, got.opaque_data))
        assert got.error_code == 8
    assert balancer.metric("lb_client_faults_total", kind="response not read") >= 1


MALFORMED: list[Fields] = [
    [*asking(), ("connection", "close")],
    [*asking(), ("transfer-encoding", "chunked")],
    [*asking(), ("te", "gzip")],
    [*asking(), ("X-Upper", "1")],
    [*asking(), ("a", "1\r\nb: 2")],
    [*asking(), ("a", "\0")],
    [*asking(), ("a b", "1")],
    [*asking(), ("host", "other.test")],
    [*asking(), ("content-length", "1")],
    [*asking(), ("content-length", "+0")],
    [*asking(), (":path", "/")],
    [*asking(), (":unknown", "/")],
    asking("/a b"),
    asking("/ HTTP/1.1\r\nHost: evil"),
    asking("*"),
    asking("http://other.test/"),
    asking("/", "GE T"),
    asking("/a#b"),
    asking("/a\tb"),
    asking("/\x7f"),
    asking("/\xe9"),
    asking(""),
    asking("a"),
    asking("\\a"),
    asking("/a\0b"),
    asking("/", "GET\r\nX: 1"),
    [*asking(), ("a", "1\rb")],
    [*asking(), ("a", "1\nb")],
    [*asking(), ("a", " 1")],
    [*asking(), ("a", "1 ")],
    [*asking(), ("", "1")],
    [*asking(), ("a:", "1")],
    [*asking(), ("a\r\nb", "1")],
    [*asking(), ("keep-alive", "1")],
    [*asking(), ("proxy-connection", "close")],
    [*asking(), ("upgrade", "h2c")],
    [*asking(), ("te", "trailers, gzip")],
    [*asking(), ("content-length", "1,1")],
    [*asking(), ("content-length", "0"), ("content-length", "0")],
    [*asking(), ("content-length", "0x0")],
    [*asking(), ("content-length", "9" * 30)],
    [*asking(), (":method", "GET")],
    [*asking(), (":status", "200")],
    [*asking()[:2], (":authority", "user@lb.test"), (":path", "/")],
    [*asking()[:2], (":authority", "lb.test\r\nX: 1"), (":path", "/")],
    [*asking()[:2], (":authority", "a b"), (":path", "/")],
    [("a", "1"), *asking()],
    [(":method", "GET"), (":scheme", "ftp"), (":authority", "a"), (":path", "/")],
    asking()[1:],
]


@pytest.mark.parametrize("fields", MALFORMED, ids=str)
async def test_a_malformed_request_is_reset_and_never_forwarded(start: Start, fields: Fields) -> None:
    balancer = start(1)
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Frames.connect(balancer.port) as client:
        await client.send(headers(1, hpack.Encoder().encode(fields)))
        assert (await client.until(RstStreamFrame)).error_code == 1
        await client.send(headers(3, hpack.Encoder().encode(asking())))
        assert (await client.until(HeadersFrame)).stream_id == 3
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("sent", [b"abc", b"abcde"])
async def test_a_body_other_than_its_content_length_is_reset(start: Start, sent: bytes) -> None:
    balancer = start(1)
    async with Endpoint(balancer.endpoints[0], None), await Frames.connect(balancer.port) as client:
        block = hpack.Encoder().encode([*asking("/", "POST"), ("content-length", "4")])
        await client.send(headers(1, block, ended=False) + frame(0, 1, 1, sent))
        assert (await client.until(RstStreamFrame)).error_code == 1


async def test_two_clients_headers_are_never_mixed_up(start: Start) -> None:
    """Blocks that are the same bytes mean different things as tables change, on many connections at once."""
    balancer = balancer_of(start)
    async with H2Endpoint(balancer.endpoints[0]) as endpoint:
        clients = [await H2Client.connect(balancer.port) for _ in range(4)]
        for turn in range(60):
            for number, client in enumerate(clients):
                mark = f"{number}-{turn // 3}"
                before = len(endpoint.requests)
                assert (await client.get("/", [("x-mark", mark), ("x-other", str(turn % 2))])).status == 200
                assert endpoint.requests[before].field("x-mark") == mark
                assert endpoint.requests[before].field("x-other") == str(turn % 2)
        for client in clients:
            await client.close()
