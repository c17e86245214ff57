"""Who is charged for what goes wrong with endpoints that speak HTTP/2: as with HTTP/1.1, and what streams add to it."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.balancer.proxy.test_blame import Charges
from tests.balancer.proxy.wire.authority import Authority
from tests.balancer.proxy.wire.ends import Client
from tests.balancer.proxy.wire.http2 import Asked, H2Client, H2Endpoint, asking, frame
from tests.balancer.proxy.wire.process import Balancer, Start

H2C = {"upstream_protocol": "h2c"}
GRPC = [("content-type", "application/grpc"), ("te", "trailers")]
REFUSED_STREAM = 7
HTTP_1_1_REQUIRED = 13


async def hangs(asked: Asked) -> None:
    await asyncio.Event().wait()


async def ok(asked: Asked) -> None:
    await asked.whole.wait()
    await asked.respond()


async def refuses(asked: Asked) -> None:
    await asked.refuse(REFUSED_STREAM)


def reasons(balancer: Balancer) -> set[str]:
    """The reasons of errors in the access log."""
    lines = [json.loads(line) for line in balancer.log().splitlines() if '"reason"' in line]
    return {line["reason"] for line in lines if line["reason"]}


async def test_a_refused_stream_charges_nobody_and_is_repeated_elsewhere(start: Start) -> None:
    balancer = start(2, fresh=True, eject_after=2, eject_time=30, retry_budget=1, **H2C)
    charges = Charges(balancer)
    async with (
        H2Endpoint(balancer.endpoints[0], refuses) as refusing,
        H2Endpoint(balancer.endpoints[1], ok),
        await H2Client.connect(balancer.port) as client,
    ):
        for _ in range(8):
            stream = await client.begin(asking("/", "POST"), ended=False)
            await client.send(stream, b"body", ended=True)
            assert (await client.answer(stream)).status == 200
        assert len(refusing.requests) >= 4, "it stays in rotation"
    assert charges.since() == {}
    assert balancer.metric("lb_endpoint_ejections_total") == 0


async def test_streams_refused_again_and_again_are_answered_and_charge_nobody(start: Start) -> None:
    balancer = start(1, fresh=True, eject_after=2, **H2C)
    charges = Charges(balancer)
    async with H2Endpoint(balancer.endpoints[0], refuses), await H2Client.connect(balancer.port) as client:
        answer = await client.get()
        assert (answer.status, answer.field("retry-after")) == (503, "1")
        assert "request not taken" in (answer.field("proxy-status") or "")
        called = await client.answer(await client.begin(asking("/t.T/Unary", "POST", GRPC)))
        assert (called.status, called.field("grpc-status")) == (200, "14")
    assert charges.since() == {}


async def test_an_endpoint_that_always_says_goodbye_gets_an_answer_in_the_end(start: Start) -> None:
    """Each stream is above the last that its GOAWAY names: repeated, a few times, at nobody's charge."""

    async def leaves(asked: Asked) -> None:
        await asked.served.goaway(0)

    balancer = start(1, retries=1, **H2C)
    charges = Charges(balancer)
    async with H2Endpoint(balancer.endpoints[0], leaves) as endpoint, await H2Client.connect(balancer.port) as client:
        stream = await client.begin(asking("/", "POST"), ended=False)
        await client.send(stream, b"body", ended=True)
        answer = await client.answer(stream)
        assert answer.status == 503
        assert "request not taken" in (answer.field("proxy-status") or "")
        assert 2 <= len(endpoint.connections) <= 8
    assert charges.since() == {}


async def test_our_own_lack_of_descriptors_charges_no_endpoint(start: Start) -> None:
    balancer = start(1, open_files=80, fresh=True, retries=0, access_log="on", **H2C)
    charges = Charges(balancer)
    async with H2Endpoint(balancer.endpoints[0], hangs, max_streams=1) as endpoint:
        client = await H2Client.connect(balancer.port)
        first = await client.begin(asking())
        await endpoint.until(lambda: bool(endpoint.requests))  # it has said that it takes one stream at a time
        streams = [await client.begin(asking()) for _ in range(90)]
        await client.until(lambda: any(client.answers[stream].over for stream in streams))
        failed = [client.answers[stream] for stream in streams if client.answers[stream].over]
        assert {answer.status for answer in failed} == {503}
        assert "out of local resources" in (failed[0].field("proxy-status") or "")
        assert charges.since() == {}
        for stream in (first, *streams):
            if not client.answers[stream].over:
                client.h2.reset_stream(stream, 8)
        await client.flush()
        await client.close()


@pytest.mark.parametrize("trusted", [False, True], ids=["unknown authority", "another name"])
async def test_an_endpoint_not_trusted_is_told_as_that(start: Start, authority: Authority, trusted: bool) -> None:
    context = authority.server("other.test")
    context.set_alpn_protocols(["h2"])
    ours = {"upstream_tls_ca": authority.file} if trusted else {}
    balancer = start(1, fresh=True, upstream_protocol="h2", upstream_tls="on", access_log="on", **ours)
    async with (
        H2Endpoint(balancer.endpoints[0], ok, tls=context),
        await H2Client.connect(balancer.port) as client,
    ):
        answer = await client.get()
        assert answer.status == 502
        assert answer.field("proxy-status") == 'lb; error=tls_certificate_error; details="certificate not trusted"'
        called = await client.answer(await client.begin(asking("/t.T/Unary", "POST", GRPC)))
        assert (called.field("grpc-status"), "certificate not trusted" in (called.field("grpc-message") or "")) == (
            "14",
            True,
        )
    assert balancer.metric("lb_endpoint_failures_total", reason="certificate not trusted") >= 2
    async with asyncio.timeout(10):  # the log, which another process writes, has the details
        while not any(reason.startswith("certificate not trusted: ") for reason in reasons(balancer)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_response_that_goes_quiet_is_no_failure_of_its_endpoint(start: Start) -> None:
    async def begins(asked: Asked) -> None:
        h2 = asked.served.h2
        h2.send_headers(asked.stream, [(":status", "200")])
        h2.send_data(asked.stream, b"data: 1\n\n")
        await asked.served.flush()

    balancer = start(1, idle_timeout=0.3, **H2C)
    charges = Charges(balancer)
    async with H2Endpoint(balancer.endpoints[0], begins) as endpoint, await H2Client.connect(balancer.port) as client:
        answer = await client.get()
        assert (answer.body, answer.reset) == (b"data: 1\n\n", 2)
        await endpoint.until(lambda: endpoint.requests[0].reset == 8)
    assert charges.since() == {}


async def test_an_endpoint_that_had_the_whole_request_and_hangs_is_charged(start: Start) -> None:
    balancer = start(1, response_timeout=0.3, retries=0, **H2C)
    charges = Charges(balancer)
    async with H2Endpoint(balancer.endpoints[0], hangs), await H2Client.connect(balancer.port) as client:
        assert (await client.get()).status == 504
    assert charges.since() == {"response timed out": 1}


@pytest.mark.parametrize("by_http1", [False, True], ids=["h2 client", "h1 client"])
async def test_an_endpoint_that_never_says_continue_is_tried_elsewhere(start: Start, by_http1: bool) -> None:
    """It is the endpoint that is waited for: the client rightly sends nothing, and must not be told that it is slow."""
    balancer = start(2, strategy="n-to-one", response_timeout=0.4, idle_timeout=0.2, retry_budget=1, **H2C)
    charges = Charges(balancer)

    async def says_continue(asked: Asked) -> None:
        asked.served.h2.send_headers(asked.stream, [(":status", "100")])
        await asked.served.flush()
        await asked.whole.wait()
        assert asked.body == b"hello"
        await asked.respond()

    async with H2Endpoint(balancer.endpoints[0], hangs), H2Endpoint(balancer.endpoints[1], says_continue):
        if by_http1:
            async with await Client.connect(balancer.port) as old:
                await old.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
                assert (await old.head()).status == 100
                await old.send("hello")
                assert (await old.response()).status == 200
        else:
            async with await H2Client.connect(balancer.port) as client:
                extra = [("expect", "100-continue"), ("content-length", "5")]
                stream = await client.begin(asking("/", "POST", extra), ended=False)
                await client.until(lambda: client.answers[stream].interim == [100] or client.answers[stream].over)
                assert client.answers[stream].interim == [100]
                await client.send(stream, b"hello", ended=True)
                assert (await client.answer(stream)).status == 200
    assert charges.since() == {"response timed out": 1}


async def test_a_client_that_leaves_or_cancels_charges_nobody(start: Start) -> None:
    balancer = start(1, fresh=True, eject_after=2, **H2C)
    charges = Charges(balancer)
    async with H2Endpoint(balancer.endpoints[0], hangs) as endpoint:
        for turn in (1, 2, 3):
            client = await H2Client.connect(balancer.port)
            streams = [await client.begin(asking()) for _ in range(4)]
            await endpoint.until(lambda all_of=4 * turn: len(endpoint.requests) == all_of)  # type: ignore[misc]
            client.h2.reset_stream(streams[0], 8)
            await client.flush()
            await client.close()
        await endpoint.until(lambda: all(asked.reset == 8 for asked in endpoint.requests))
    assert charges.since() == {}


@pytest.mark.parametrize(
    "sent",
    [
        frame(0, 1, 1, b"x"),
        frame(1, 5, 1, b"\xff\xff\xff"),
        frame(1, 4, 1, b"\x88") + frame(1, 4, 1, b"\x88"),
        frame(5, 4, 1, b"\x00\x00\x00\x02\x88"),
        frame(8, 0, 1, bytes(4)),
        frame(1, 5, 3, b"\x88"),
    ],
    ids=["data first", "bad block", "head twice", "push", "window by nothing", "a stream of its own"],
)
async def test_an_endpoint_that_breaks_the_protocol_is_charged_and_the_client_gets_its_answer(
    start: Start, sent: bytes
) -> None:
    async def breaks(asked: Asked) -> None:
        await asked.served.end.send(sent)

    balancer = start(1, retries=0, **H2C)
    charges = Charges(balancer)
    async with H2Endpoint(balancer.endpoints[0], breaks), await H2Client.connect(balancer.port) as client:
        answer = await client.get()
        assert (answer.status, answer.reset) in ((502, None), (200, 2))
    assert charges.since() == {"bad response": 1}


async def test_a_client_slow_to_send_after_100_charges_nobody(start: Start) -> None:
    balancer = start(1, response_timeout=0.4, retries=0, **H2C)
    charges = Charges(balancer)

    async def says_continue(asked: Asked) -> None:
        asked.served.h2.send_headers(asked.stream, [(":status", "100")])
        await asked.served.flush()
        await ok(asked)

    async with H2Endpoint(balancer.endpoints[0], says_continue), await Client.connect(balancer.port) as client:
        await client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (await client.response()).status == 100
        await asyncio.sleep(0.8)
        await client.send("hi")
        assert (await client.response()).status == 200
    assert charges.since() == {}


async def test_an_endpoint_that_asks_for_http_1_1_is_not_charged(start: Start) -> None:
    balancer = start(1, retries=0, **H2C)
    charges = Charges(balancer)

    async def declines(asked: Asked) -> None:
        await asked.refuse(HTTP_1_1_REQUIRED)

    async with H2Endpoint(balancer.endpoints[0], declines), await H2Client.connect(balancer.port) as client:
        assert (await client.get()).status == 503
    assert charges.since() == {}


async def test_a_response_that_breaks_off_is_charged_and_not_repeated(start: Start) -> None:
    balancer = start(1, retries=2, **H2C)
    charges = Charges(balancer)

    async def breaks_off(asked: Asked) -> None:
        h2 = asked.served.h2
        h2.send_headers(asked.stream, [(":status", "200")])
        h2.send_data(asked.stream, b"part")
        h2.reset_stream(asked.stream, 2)
        await asked.served.flush()

    async with (
        H2Endpoint(balancer.endpoints[0], breaks_off) as endpoint,
        await H2Client.connect(balancer.port) as by_http2,
        await Client.connect(balancer.port) as by_http1,
    ):
        answer = await by_http2.get()
        assert (answer.status, answer.ended, answer.reset) == (200, False, 2)
        await by_http1.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await by_http1.to_end()).endswith(b"(reset)")
        assert len(endpoint.requests) == 2
    assert charges.since() == {"connection closed": 2}


async def test_an_endpoint_that_opens_no_window_for_an_upload_is_charged_and_another_gets_it(start: Start) -> None:
    balancer = start(2, strategy="n-to-one", idle_timeout=0.5, retry_budget=1, retry_buffer=1_000_000, **H2C)
    charges = Charges(balancer)

    async def stalls(asked: Asked) -> None:
        asked.served.h2.acknowledge_received_data = lambda *_: None  # type: ignore[method-assign]
        await hangs(asked)

    body = "x" * 400_000
    async with (
        H2Endpoint(balancer.endpoints[0], stalls),
        H2Endpoint(balancer.endpoints[1], ok) as second,
        await Client.connect(balancer.port) as client,
    ):
        answer = await client.ask(f"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n{body}")
        assert answer.status == 200
        assert len(second.requests[0].body) == len(body)
    assert charges.since() == {"response timed out": 1}


async def test_a_stream_refused_behind_an_interim_response_is_not_repeated(start: Start) -> None:
    balancer = start(2, strategy="n-to-one", retry_budget=1, **H2C)

    async def hints_and_refuses(asked: Asked) -> None:
        asked.served.h2.send_headers(asked.stream, [(":status", "103"), ("link", "a")])
        await asked.refuse(REFUSED_STREAM)

    async with (
        H2Endpoint(balancer.endpoints[0], hints_and_refuses),
        H2Endpoint(balancer.endpoints[1], ok) as second,
        await Client.connect(balancer.port) as client,
    ):
        assert (await client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")).status == 103
        assert (await client.response()).status == 502
        assert not second.requests


@pytest.mark.parametrize("queue", [0, 10], ids=["full", "too slow"])
async def test_a_call_that_finds_no_place_is_told_unavailable_and_charges_nobody(queue: int, start: Start) -> None:
    balancer = start(1, endpoint_max_requests=1, queue_size=queue, queue_timeout=0.2, **H2C)
    charges = Charges(balancer)
    may_end = asyncio.Event()

    async def waits(asked: Asked) -> None:
        await may_end.wait()
        await asked.respond()

    async with (
        H2Endpoint(balancer.endpoints[0], waits) as endpoint,
        await H2Client.connect(balancer.port) as client,
    ):
        first = await client.begin(asking("/t.T/Unary", "POST", GRPC))
        await endpoint.until(lambda: bool(endpoint.requests))
        answer = await client.answer(await client.begin(asking("/t.T/Unary", "POST", GRPC)))
        assert (answer.status, answer.field("grpc-status")) == (200, "14")
        assert "queue" in (answer.field("grpc-message") or "")
        may_end.set()
        await client.answer(first)
    assert charges.since() == {}
