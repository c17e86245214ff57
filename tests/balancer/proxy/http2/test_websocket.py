"""WebSocket over HTTP/2 (RFC 8441): an extended CONNECT becomes an upgrade towards an endpoint of HTTP/1.1."""

from __future__ import annotations

import asyncio
import base64
import json
import os

import pytest
from tests.balancer.proxy.test_upgrade import UPGRADE
from tests.balancer.proxy.wire.ends import Accepted, Client, Endpoint, always
from tests.balancer.proxy.wire.http2 import Asked, Fields, H2Client, H2Endpoint
from tests.balancer.proxy.wire.messages import Message
from tests.balancer.proxy.wire.process import Balancer, Start
from tests.balancer.proxy.wire.websocket import echo
from websockets.frames import Frame, Opcode
from websockets.utils import accept_key

CONNECT: Fields = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "http"),
    (":path", "/chat"),
    (":authority", "lb.test"),
    ("sec-websocket-version", "13"),
]


def masked(opcode: Opcode, data: bytes) -> bytes:
    return Frame(opcode, data).serialize(mask=True)


async def send_all(client: H2Client, stream: int, data: bytes) -> None:
    """Send as the windows allow."""
    while data:
        await client.until(lambda: client.h2.local_flow_control_window(stream) > 0)
        size = min(client.h2.local_flow_control_window(stream), client.h2.max_outbound_frame_size, len(data))
        await client.send(stream, data[:size])
        data = data[size:]


async def received(client: H2Client, stream: int, size: int) -> None:
    """Wait for so many bytes."""
    await client.until(lambda: len(client.answers[stream].body) >= size)


async def opened(client: H2Client, endpoint: Endpoint) -> tuple[int, Accepted]:
    """A tunnel that the endpoint has agreed to: the client's stream, and the endpoint's connection."""
    stream = await client.begin(CONNECT, ended=False)
    connection = await endpoint.accept()
    await connection.send(agreeing(await connection.head()))
    await client.until(lambda: client.answers[stream].status != 0)
    assert client.answers[stream].status == 200
    return stream, connection


def agreeing(head: Message) -> str:
    """The answer to an upgrade."""
    confirmed = accept_key(head.get("sec-websocket-key") or "")
    return (
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Accept: {confirmed}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    )


async def test_messages_pass_both_ways_to_a_real_server_and_the_close_too(start: Start) -> None:
    balancer = start(1)
    async with (
        await asyncio.start_server(echo, "127.0.0.1", balancer.endpoints[0]),
        await H2Client.connect(balancer.port) as client,
    ):
        stream = await client.begin(CONNECT, ended=False)
        answer = client.answers[stream]
        await client.until(lambda: answer.status == 200)
        assert client.h2.remote_settings.enable_connect_protocol == 1
        assert answer.field("sec-websocket-accept") is None
        for size in (5, 200, 70_000, 1_000_000):
            payload = os.urandom(size)
            answer.body = b""
            expected = Frame(Opcode.BINARY, payload).serialize(mask=False)
            await send_all(client, stream, masked(Opcode.BINARY, payload))
            await received(client, stream, len(expected))
            assert answer.body == expected
        answer.body = b""
        await client.send(stream, masked(Opcode.PING, b"are you there"))
        await client.until(lambda: bool(answer.body))
        assert answer.body == Frame(Opcode.PONG, b"are you there").serialize(mask=False)
        answer.body = b""
        await client.send(stream, masked(Opcode.CLOSE, b"\x03\xe8bye"))
        await client.until(lambda: answer.over)
        assert answer.body == Frame(Opcode.CLOSE, b"\x03\xe8bye").serialize(mask=False)
        assert answer.ended
        await client.send(stream, b"", ended=True)
        assert (await client.get("/nothing")).status != 0, "the connection goes on"


async def test_the_endpoint_gets_an_upgrade_of_http_1(start: Start) -> None:
    balancer = start(1)
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await H2Client.connect(balancer.port) as client:
        extra = [("origin", "http://lb.test"), ("sec-websocket-protocol", "chat"), ("sec-websocket-key", "chosen")]
        stream = await client.begin([*CONNECT, *extra], ended=False)
        connection = await endpoint.accept()
        head = await connection.head()
        assert (head.method, head.target) == ("GET", "/chat")
        assert (head.get("connection"), head.get("upgrade")) == ("Upgrade", "websocket")
        key = head.get("sec-websocket-key") or ""
        assert len(base64.b64decode(key)) == 16, "a key of our own, whatever the client says"
        assert (head.get("sec-websocket-version"), head.get("sec-websocket-protocol")) == ("13", "chat")
        assert head.get("host") == "lb.test"
        assert head.get("transfer-encoding") is None
        assert head.get("content-length") is None
        await connection.send(agreeing(head))
        await client.until(lambda: client.answers[stream].status == 200)
        fields = dict(client.answers[stream].fields)
        assert fields["sec-websocket-protocol"] == "chat"
        assert not {"connection", "upgrade", "sec-websocket-accept"} & set(fields)
        await connection.close()


async def test_what_comes_before_the_endpoint_agrees_reaches_it_only_then(start: Start) -> None:
    balancer = start(1)
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await H2Client.connect(balancer.port) as client:
        stream = await client.begin(CONNECT, ended=False)
        connection = await endpoint.accept()
        head = await connection.head()
        await client.send(stream, b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.get("/nothing-to-wait-for", method="TRACE")).status == 405
        assert await connection.some(within=0.1) == b""
        await connection.send(agreeing(head))
        assert (await connection.exactly(12)) == b"GET /smuggle"
        await connection.close()


async def test_it_never_reaches_an_endpoint_that_does_not_agree(start: Start) -> None:
    balancer = start(1)
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await H2Client.connect(balancer.port) as client:
        stream = await client.begin(CONNECT, ended=False)
        await client.send(stream, b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        connection = await endpoint.accept()
        await connection.head()
        await connection.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        answer = await client.answer(stream)
        assert (answer.status, answer.body) == (403, b"no")
        assert await connection.some(within=0.1) == b""
        await connection.close()


async def test_an_ordinary_success_is_no_tunnel_and_charges_nobody(start: Start) -> None:
    """A 2xx would tell the client that the tunnel is open; and clients could eject endpoints by asking for one."""
    balancer = start(2, fresh=True, eject_after=2, eject_time=30)
    body = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    async with (
        Endpoint(balancer.endpoints[0], always(body)),
        Endpoint(balancer.endpoints[1], always(body)),
        await H2Client.connect(balancer.port) as client,
    ):
        for _ in range(6):
            answer = await client.answer(await client.begin(CONNECT, ended=False))
            assert answer.status == 502
            assert "no switch of protocols" in (answer.field("proxy-status") or "")
        assert (await client.get()).body == b"hi"
    assert balancer.metric("lb_endpoint_ejections_total") == 0


async def test_an_endpoint_that_does_not_confirm_the_key_is_no_websocket(start: Start) -> None:
    balancer = start(1)
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await H2Client.connect(balancer.port) as client:
        stream = await client.begin(CONNECT, ended=False)
        connection = await endpoint.accept()
        head = await connection.head()
        await connection.send(agreeing(head).replace(accept_key(head.get("sec-websocket-key") or ""), "wrong"))
        answer = await client.answer(stream)
        assert answer.status == 502
        assert "bad response" in (answer.field("proxy-status") or "")
        await connection.close()


async def test_the_end_of_either_side_passes_and_the_other_direction_goes_on(start: Start) -> None:
    balancer = start(1)
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await H2Client.connect(balancer.port) as client:
        stream, connection = await opened(client, endpoint)
        await client.send(stream, b"last", ended=True)
        assert await connection.to_end() == b"last"
        await connection.send("still")
        await client.until(lambda: client.answers[stream].body == b"still")
        await connection.close()
        assert (await client.answer(stream)).ended

        stream, connection = await opened(client, endpoint)
        await connection.send("last")
        connection.half_close()
        answer = await client.answer(stream)
        assert (answer.body, answer.ended) == (b"last", True)
        await client.send(stream, b"still", ended=True)
        assert await connection.to_end() == b"still"
        await connection.close()


async def test_a_reset_passes_both_ways(start: Start) -> None:
    balancer = start(1)
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await H2Client.connect(balancer.port) as client:
        stream, connection = await opened(client, endpoint)
        connection.reset()
        assert (await client.answer(stream)).reset == 8
        await connection.close()

        stream, connection = await opened(client, endpoint)
        client.h2.reset_stream(stream, 8)
        await client.flush()
        assert await connection.to_end() in (b"", b"(reset)")
        await connection.close()


async def test_an_idle_tunnel_is_closed_in_its_own_time_and_its_neighbours_stay(start: Start) -> None:
    balancer = start(1, tunnel_idle_timeout=0.5, idle_timeout=0.2)
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await H2Client.connect(balancer.port) as client:
        stream, connection = await opened(client, endpoint)
        for _ in range(4):
            await asyncio.sleep(0.3)  # longer than other silence is borne
            await client.send(stream, b"x")
            assert await connection.exactly(1) == b"x"
        answer = await client.answer(stream)
        assert answer.ended
        assert await connection.to_end() in (b"", b"(reset)")
        assert (await client.get(method="TRACE")).status == 405
        await connection.close()


async def test_tunnels_are_streams_that_count_and_stall_no_other(start: Start) -> None:
    balancer = start(1)
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client = await H2Client.connect(balancer.port, acknowledges=False)
        stalled, connection = await opened(client, endpoint)
        other, beside = await opened(client, endpoint)
        assert balancer.metric("lb_tunnels_open") == 2
        assert balancer.metric("lb_endpoint_in_flight") == 2
        for each in (stalled, other):
            client.h2.increment_flow_control_window(1000, each)
        client.h2.increment_flow_control_window(1 << 20)
        await client.flush()
        writing = asyncio.ensure_future(connection.send("x" * 30_000_000))
        await client.until(lambda: len(client.answers[stalled].body) > 60_000)
        await beside.send("quick")
        await client.until(lambda: client.answers[other].body == b"quick")
        assert not writing.done(), "the endpoint is made to wait"
        assert len(client.answers[stalled].body) < 70_000
        await client.close()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        for each_connection in (connection, beside):
            await each_connection.to_end()
            await each_connection.close()


async def test_the_access_log_and_the_limit_know_tunnels(start: Start) -> None:
    balancer = start(1, fresh=True, access_log="on", endpoint_max_requests=1, queue_size=0)
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await H2Client.connect(balancer.port) as client:
        stream, connection = await opened(client, endpoint)
        assert (await client.get()).status == 503
        await client.send(stream, b"hello", ended=True)
        assert await connection.to_end() == b"hello"
        await connection.close()
        await client.answer(stream)
        async with asyncio.timeout(5):
            while '"/chat"' not in balancer.log():  # noqa: ASYNC110  (it is another process that writes)
                await asyncio.sleep(0.01)
    lines = [json.loads(line) for line in balancer.log().splitlines() if '"/chat"' in line]
    assert [(line["status"], line["bytes_received"]) for line in lines] == [(101, 5)]


@pytest.mark.parametrize(
    "fields",
    [
        [field for field in CONNECT if field[0] != ":path"],
        [field for field in CONNECT if field[0] != ":scheme"],
        [*CONNECT, ("content-length", "5")],
        [(":method", "GET"), *CONNECT[1:]],
    ],
    ids=["no path", "no scheme", "a length", "a GET"],
)
async def test_a_malformed_extended_connect_is_reset(start: Start, fields: Fields) -> None:
    balancer = start(1)
    async with await H2Client.connect(balancer.port) as client:
        stream = await client.begin(fields, ended=False)
        assert (await client.answer(stream)).reset == 1


async def test_other_protocols_are_refused(start: Start) -> None:
    balancer = start(1)
    fields = [(name, "connect-udp" if name == ":protocol" else value) for name, value in CONNECT]
    async with await H2Client.connect(balancer.port) as client:
        assert (await client.answer(await client.begin(fields, ended=False))).status == 405


# Towards endpoints that speak HTTP/2.


async def agree(asked: Asked) -> None:
    asked.served.h2.send_headers(asked.stream, [(":status", "200"), ("sec-websocket-protocol", "chat")])
    await asked.served.flush()


def h2c(start: Start, **settings: object) -> Balancer:
    return start(1, upstream_protocol="h2c", **settings)


async def test_an_upgrade_of_http_1_becomes_an_extended_connect(start: Start) -> None:
    balancer = h2c(start)
    async with (
        H2Endpoint(balancer.endpoints[0], agree, connects=True) as endpoint,
        await Client.connect(balancer.port) as client,
    ):
        await client.send(UPGRADE)
        head = await client.head()
        assert head.status == 101
        assert head.get("sec-websocket-accept") == accept_key("dGhlIHNhbXBsZSBub25jZQ==")
        assert head.get("upgrade") == "websocket"
        asked = endpoint.requests[0]
        assert (asked.field(":method"), asked.field(":protocol")) == ("CONNECT", "websocket")
        assert asked.field("sec-websocket-key") is None
        await client.send("hello")
        await endpoint.until(lambda: asked.body == b"hello")
        asked.served.h2.send_data(asked.stream, b"world", end_stream=True)
        await asked.served.flush()
        assert await client.to_end() == b"world"


@pytest.mark.parametrize("connects", [False, True], ids=["as its SETTINGS say", "in spite of its SETTINGS"])
async def test_an_endpoint_that_knows_no_extended_connect_is_not_charged(start: Start, connects: bool) -> None:
    async def refuses(asked: Asked) -> None:
        if asked.field(":method") == "CONNECT":
            assert connects, "it has not said that it knows any"
            await asked.refuse(1)
        else:
            await asked.respond()

    balancer = start(2, fresh=True, upstream_protocol="h2c", eject_after=2, eject_time=30)
    async with (
        H2Endpoint(balancer.endpoints[0], refuses, connects=connects),
        H2Endpoint(balancer.endpoints[1], refuses, connects=connects),
        await H2Client.connect(balancer.port) as client,
    ):
        for _ in range(6):
            answer = await client.answer(await client.begin(CONNECT, ended=False))
            assert answer.status == 503
            assert "request not taken" in (answer.field("proxy-status") or "")
        assert (await client.get()).status == 200
    assert balancer.metric("lb_endpoint_ejections_total") == 0


async def test_a_websocket_goes_to_the_endpoint_that_knows_extended_connect(start: Start) -> None:
    """What its client sends at once is kept until then."""
    balancer = start(2, upstream_protocol="h2c", retry_budget=1)
    async with (
        H2Endpoint(balancer.endpoints[0]) as old,
        H2Endpoint(balancer.endpoints[1], agree, connects=True) as new,
        await H2Client.connect(balancer.port) as client,
    ):
        for count in range(1, 5):
            stream = await client.begin(CONNECT, ended=False)
            await client.send(stream, b"hello")
            await client.until(lambda known=stream: client.answers[known].status == 200)  # type: ignore[misc]
            await new.until(lambda known=count: [a.body for a in new.requests] == [b"hello"] * known)  # type: ignore[misc]
            await client.send(stream, b"", ended=True)
            asked = new.requests[-1]
            asked.served.h2.end_stream(asked.stream)
            await asked.served.flush()
            assert (await client.answer(stream)).ended
        assert old.requests == []


async def test_h2_passes_through_to_h2(start: Start) -> None:
    balancer = h2c(start)
    async with (
        H2Endpoint(balancer.endpoints[0], agree, connects=True) as endpoint,
        await H2Client.connect(balancer.port) as client,
    ):
        stream = await client.begin(CONNECT, ended=False)
        await client.until(lambda: client.answers[stream].status == 200)
        await client.send(stream, b"hello", ended=True)
        await endpoint.until(lambda: endpoint.requests[0].whole.is_set())
        assert endpoint.requests[0].body == b"hello"
        asked = endpoint.requests[0]
        asked.served.h2.send_data(asked.stream, b"world", end_stream=True)
        await asked.served.flush()
        assert (await client.answer(stream)).body == b"world"
