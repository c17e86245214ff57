"""Requests over HTTP/2, in and out: heads, bodies, trailers, each a choice of its own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import hpack
import pytest
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, PingFrame
from tests.balancer.proxy.wire.authority import Authority
from tests.balancer.proxy.wire.ends import Accepted, Client, Endpoint, answering
from tests.balancer.proxy.wire.http2 import Asked, Frames, H2Client, H2Endpoint, asking, headers
from tests.balancer.proxy.wire.messages import Message
from tests.balancer.proxy.wire.process import Start

H2C = {"upstream_protocol": "h2c"}


async def test_h2c_by_prior_knowledge_and_http_1_share_the_port(start: Start) -> None:
    balancer = start(1)
    async with Endpoint(balancer.endpoints[0]) as endpoint:
        async with await H2Client.connect(balancer.port) as client, await Client.connect(balancer.port) as other:
            answer = await client.get("/a?b", [("cookie", "a=1"), ("cookie", "b=2"), ("x-own", "1")])
            plain = await other.ask("GET /c HTTP/1.1\r\nHost: lb.test\r\n\r\n")

    assert (answer.status, answer.body, plain.body) == (200, b"ok", b"ok")
    assert answer.field("x-request-id")
    request = endpoint.requests[0]
    assert request.start == b"GET /a?b HTTP/1.1"
    assert request.get("host") == "lb.test"
    assert request.get("cookie") == "a=1; b=2"
    assert request.get("x-own") == "1"
    assert request.get("via") == "2 lb"


async def test_alpn_chooses_h2(start: Start, authority: Authority) -> None:
    balancer = start(1, tls_cert=authority.certificate, tls_key=authority.key)
    context = authority.client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with Endpoint(balancer.endpoints[0]) as endpoint:
        async with await H2Client.connect(balancer.port, tls=context) as client:
            assert client.end.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
            assert (await client.get("/")).status == 200
    assert endpoint.requests[0].get("x-forwarded-proto") == "https"


async def test_http2_can_be_switched_off(start: Start, authority: Authority) -> None:
    balancer = start(1, http2="off", tls_cert=authority.certificate, tls_key=authority.key)
    context = authority.client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with Endpoint(balancer.endpoints[0]), await Client.connect(balancer.port, tls=context) as client:
        assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"


async def test_streams_of_one_connection_go_to_different_endpoints(start: Start) -> None:
    balancer = start(3, **H2C)
    ports = balancer.endpoints
    async with H2Endpoint(ports[0]) as a, H2Endpoint(ports[1]) as b, H2Endpoint(ports[2]) as c:
        async with await H2Client.connect(balancer.port) as client:
            for _ in range(9):
                assert (await client.get()).status == 200
        assert [len(each.requests) for each in (a, b, c)] == [3, 3, 3]
        assert [len(each.connections) for each in (a, b, c)] == [1, 1, 1]


async def test_a_body_and_trailers_pass_both_ways(start: Start) -> None:
    async def script(asked: Asked) -> None:
        await asked.whole.wait()
        said = [("x-sum", str(len(asked.body))), ("www-authenticate", "Bearer"), ("proxy-authenticate", "Basic")]
        await asked.respond(body=asked.body[::-1], trailers=said)

    balancer = start(1, **H2C)
    async with H2Endpoint(balancer.endpoints[0], script) as endpoint:
        async with await H2Client.connect(balancer.port) as client:
            stream = await client.begin(asking("/", "POST", [("te", "trailers")]), ended=False)
            await client.send(stream, b"abc")
            client.h2.send_headers(stream, [("x-check", "1")], end_stream=True)
            await client.flush()
            answer = await client.answer(stream)
    # A gRPC server's metadata may ask who the client is; a proxy must not ask behind the body.
    assert (answer.body, answer.trailers) == (b"cba", [("x-sum", "3"), ("www-authenticate", "Bearer")])
    assert endpoint.requests[0].trailers == [("x-check", "1")]
    assert endpoint.requests[0].field("te") == "trailers"


async def test_http_1_clients_reach_endpoints_of_http_2(start: Start) -> None:
    async def script(asked: Asked) -> None:
        await asked.whole.wait()
        await asked.respond(body=asked.body, extra=[("x-back", "1")], trailers=[("x-sum", "1")])

    balancer = start(1, **H2C)
    async with H2Endpoint(balancer.endpoints[0], script) as endpoint, await Client.connect(balancer.port) as client:
        request = (
            "POST /p HTTP/1.1\r\nHost: lb.test\r\nX-Upper: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        answer = await client.ask(request)
    assert (answer.status, answer.body, answer.get("x-back")) == (200, b"abc", "1")
    asked = endpoint.requests[0]
    assert asked.fields[:4] == [(":path", "/p"), (":method", "POST"), (":scheme", "http"), (":authority", "lb.test")]
    assert asked.field("x-upper") == "1"
    assert asked.field("host") is None
    assert asked.field("transfer-encoding") is None


async def test_a_chunked_response_loses_its_framing(start: Start) -> None:
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n"
    chunked = head + "2\r\nok\r\n0\r\nX-Sum: 2\r\n\r\n"
    balancer = start(1)
    async with Endpoint(balancer.endpoints[0], answering(lambda _: chunked)):
        async with await H2Client.connect(balancer.port) as client:
            answer = await client.get()
    assert (answer.body, answer.trailers) == (b"ok", [("x-sum", "2")])
    assert not {"transfer-encoding", "connection", "x-hop"} & {name for name, _ in answer.fields}


async def test_head_has_no_body_and_interim_responses_pass(start: Start) -> None:
    def answer(request: Message) -> str:
        if request.method == "HEAD":
            return "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
        return "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"

    balancer = start(1)
    async with Endpoint(balancer.endpoints[0], answering(answer)), await H2Client.connect(balancer.port) as client:
        head = await client.get("/", method="HEAD")
        other = await client.get("/")
    assert (head.status, head.field("content-length"), head.body, head.ended) == (200, "5", b"", True)
    assert (other.interim, other.status, other.ended) == ([103], 204, True)


@pytest.mark.parametrize("protocol", ["h2c", "http1"])
async def test_large_bodies_pass_both_ways_by_windows(start: Start, protocol: str) -> None:
    size = 3_000_000
    body = bytes(range(256)) * (size // 256)

    async def script(asked: Asked) -> None:
        await asked.whole.wait()
        h2 = asked.served.h2
        h2.send_headers(asked.stream, [(":status", "200")])
        left = asked.body
        while left:
            room = min(h2.local_flow_control_window(asked.stream), 16384)
            if room == 0:
                await asked.served.flush()
                await asyncio.sleep(0.001)
                continue
            h2.send_data(asked.stream, left[:room], end_stream=len(left) <= room)
            left = left[room:]
        await asked.served.flush()

    def echo(request: Message) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(request.body), request.body)

    balancer = start(1, upstream_protocol=protocol)
    port = balancer.endpoints[0]
    async with H2Endpoint(port, script) if protocol == "h2c" else Endpoint(port, answering(echo)):
        async with await H2Client.connect(balancer.port) as client:
            stream = await client.begin(asking("/", "POST"), ended=False)
            left = body
            while left:
                await client.until(lambda: client.h2.local_flow_control_window(stream) > 0)
                piece = left[: min(16384, client.h2.local_flow_control_window(stream))]
                left = left[len(piece) :]
                await client.send(stream, piece, ended=not left)
            answer = await client.answer(stream)
    assert answer.body == body


async def test_a_stalled_stream_stalls_no_other_and_costs_a_window_of_memory(start: Start) -> None:
    sent = asyncio.Event()

    async def script(asked: Asked) -> None:
        await asked.whole.wait()
        if asked.field(":path") == "/stalled":
            h2 = asked.served.h2
            h2.send_headers(asked.stream, [(":status", "200")])
            h2.send_data(asked.stream, b"x" * 16000)
            await asked.served.flush()
            sent.set()
        else:
            await asked.respond()

    balancer = start(1, **H2C)
    async with H2Endpoint(balancer.endpoints[0], script):
        async with await H2Client.connect(balancer.port, acknowledges=False) as client:
            # Its own window is as good as closed; the connection's is not.
            client.h2.update_settings({4: 10})
            await client.flush()
            stalled = await client.begin(asking("/stalled"))
            await sent.wait()
            for _ in range(20):
                stream = await client.begin(asking("/quick"))
                client.h2.increment_flow_control_window(100, stream)
                await client.flush()
                assert (await client.answer(stream)).body == b"ok"
            assert len(client.answers[stalled].body) == 10
            client.h2.reset_stream(stalled)
            await client.flush()


async def test_a_client_that_cancels_frees_the_endpoint(start: Start) -> None:
    async def script(asked: Asked) -> None:
        await asyncio.Event().wait()

    balancer = start(1, **H2C)
    async with H2Endpoint(balancer.endpoints[0], script) as endpoint:
        async with await H2Client.connect(balancer.port) as client:
            stream = await client.begin(asking())
            await endpoint.until(lambda: bool(endpoint.requests))
            client.h2.reset_stream(stream, 8)
            await client.flush()
            await endpoint.until(lambda: endpoint.requests[0].reset is not None)
    assert endpoint.requests[0].reset == 8
    assert balancer.metric("lb_client_faults_total", kind="client left") >= 1


async def test_an_early_response_stops_the_upload(start: Start) -> None:
    async def script(asked: Asked) -> None:
        await asked.respond(413, b"no")

    balancer = start(1, **H2C)
    async with H2Endpoint(balancer.endpoints[0], script), await H2Client.connect(balancer.port) as client:
        stream = await client.begin(asking("/", "POST"), ended=False)
        answer = await client.answer(stream)
        assert (answer.status, answer.body) == (413, b"no")
        # The connection carries on.
        assert (await client.get()).status == 413


@pytest.mark.parametrize(
    ("extra", "settings", "status"),
    [
        ([("x-big", "v" * 9000)], {"max_header_bytes": 8192, "max_uri_bytes": 4096}, 431),
        ([("content-length", "9")], {"max_body_bytes": 8}, 413),
    ],
)
async def test_limits_are_told_by_status(
    start: Start, extra: list[tuple[str, str]], settings: dict[str, int], status: int
) -> None:
    balancer = start(1, **settings)
    async with Endpoint(balancer.endpoints[0]), await H2Client.connect(balancer.port) as client:
        stream = await client.begin(asking("/", "POST", extra), ended=False)
        assert (await client.answer(stream)).status == status
        assert (await client.get()).status == 200


async def test_connect_and_trace_are_refused(start: Start) -> None:
    balancer = start(1)
    async with Endpoint(balancer.endpoints[0]), await H2Client.connect(balancer.port) as client:
        assert (await client.get(method="TRACE")).status == 405
        stream = await client.begin([(":method", "CONNECT"), (":authority", "a.test:443")], ended=False)
        assert (await client.answer(stream)).status == 405


async def test_no_endpoint_is_told_as_over_http_1(start: Start) -> None:
    balancer = start(1)
    async with await H2Client.connect(balancer.port) as client:
        answer = await client.get()
    assert answer.status == 502
    assert "connection_refused" in (answer.field("proxy-status") or "")


# What endpoints do to streams.


async def test_a_refused_stream_goes_elsewhere_whatever_the_method(start: Start) -> None:
    async def refuses(asked: Asked) -> None:
        await asked.refuse(7)

    balancer = start(2, **H2C)
    first, second = balancer.endpoints
    async with (
        H2Endpoint(first, refuses) as bad,
        H2Endpoint(second) as good,
        await H2Client.connect(balancer.port) as client,
    ):
        for _ in range(6):
            stream = await client.begin(asking("/", "POST"), ended=False)
            await client.send(stream, b"body", ended=True)
            assert (await client.answer(stream)).status == 200
    assert len(good.requests) == 6
    assert bad.requests
    assert all(asked.body == b"body" for asked in good.requests)


async def test_streams_above_goaways_last_are_repeated_and_those_below_end(start: Start) -> None:
    async def script(asked: Asked) -> None:
        if asked.served.number == 1 and asked.stream == 1:
            return  # answered when the other has come
        if asked.served.number == 1:
            await asked.served.goaway(1)
            await asked.served.asked[1].respond(body=b"first")
            return
        await asked.whole.wait()
        await asked.respond(body=b"again")

    balancer = start(1, **H2C)
    async with H2Endpoint(balancer.endpoints[0], script) as endpoint, await H2Client.connect(balancer.port) as client:
        one = await client.begin(asking("/1", "POST"))
        await endpoint.until(lambda: bool(endpoint.requests))
        two = await client.begin(asking("/2", "POST"))
        assert (await client.answer(one)).body == b"first"
        assert (await client.answer(two)).body == b"again"
    assert len(endpoint.connections) == 2


async def test_more_streams_than_an_endpoint_allows_open_another_connection(start: Start) -> None:
    release = asyncio.Event()

    async def script(asked: Asked) -> None:
        await release.wait()
        await asked.respond()

    balancer = start(1, **H2C)
    async with H2Endpoint(balancer.endpoints[0], script, max_streams=4) as endpoint:
        async with await H2Client.connect(balancer.port) as client:
            assert await client.begin(asking())
            await endpoint.until(lambda: bool(endpoint.requests))
            streams = [await client.begin(asking()) for _ in range(9)]
            await endpoint.until(lambda: len(endpoint.requests) == 10)
            release.set()
            answers = [await client.answer(stream) for stream in streams]
            assert [answer.status for answer in answers] == [200] * 9
        assert 3 <= len(endpoint.connections) <= 4


@pytest.mark.parametrize("ends", [True, False], ids=["closed", "silent"])
async def test_a_connection_carries_nothing_before_the_endpoints_settings(start: Start, ends: bool) -> None:
    """A server that is closing its port, or hangs: the kernel accepts, and whatever is sent there is lost."""

    async def accepts(connection: Accepted) -> None:
        await connection.until(b"SM\r\n\r\n")
        if not ends:
            lost.append(await connection.to_end())

    lost: list[bytes] = []
    balancer = start(2, connect_timeout=0.3, retry_budget=1, **H2C)
    async with (
        Endpoint(balancer.endpoints[0], accepts),
        H2Endpoint(balancer.endpoints[1]) as well,
        await H2Client.connect(balancer.port) as client,
    ):
        asked = [await client.begin(asking("/", "POST")) for _ in range(4)]
        assert [(await client.answer(stream)).status for stream in asked] == [200] * 4
        assert len(well.requests) == 4
    kinds = {sent[3] for part in lost for sent in [part[at:] for at in frame_starts(part)]}
    assert kinds <= {4, 7, 8}, "SETTINGS, WINDOW_UPDATE, and GOAWAY at its end"


def frame_starts(data: bytes) -> Iterator[int]:
    """Where each frame begins."""
    at = 0
    while at < len(data):
        yield at
        at += 9 + int.from_bytes(data[at : at + 3], "big")


@pytest.mark.parametrize(("allowed", "connections"), [(1000, 1), (150, 2)])
async def test_a_burst_on_a_cold_start_opens_as_many_connections_as_it_needs(
    start: Start, allowed: int, connections: int
) -> None:
    balancer = start(1, fresh=True, **H2C)
    async with (
        H2Endpoint(balancer.endpoints[0], max_streams=allowed) as endpoint,
        await H2Client.connect(balancer.port) as one,
        await H2Client.connect(balancer.port) as other,
    ):
        asked = [(client, await client.begin(asking())) for _ in range(100) for client in (one, other)]
        assert {(await client.answer(stream)).status for client, stream in asked} == {200}
        assert len(endpoint.connections) <= connections


async def test_idle_connections_to_endpoints_make_room_for_others(start: Start) -> None:
    """Where descriptors run short, an endpoint that is not in use keeps none from the one that is."""
    together = asyncio.Barrier(30)

    async def script(asked: Asked) -> None:
        if asked.field(":path") == "/full":
            await asked.respond(503, extra=[("retry-after", "60")])
            return
        await together.wait()
        await asked.respond()

    balancer = start(2, open_files=114, strategy="n-to-one", retries=0, **H2C)
    async with (
        H2Endpoint(balancer.endpoints[0], script, max_streams=1),
        H2Endpoint(balancer.endpoints[1], script, max_streams=1),
        await H2Client.connect(balancer.port) as client,
    ):
        for _ in range(2):
            streams = [await client.begin(asking()) for _ in range(30)]
            assert [(await client.answer(stream)).status for stream in streams] == [200] * 30
            assert (await client.get("/full")).status == 503


async def test_calls_now_and_then_share_one_connection(start: Start) -> None:
    """POSTs too, though they cannot be sent twice: one connection for each would pile up as long as they are kept."""
    balancer = start(1, **H2C)
    async with H2Endpoint(balancer.endpoints[0]) as endpoint, await H2Client.connect(balancer.port) as client:
        for _ in range(3):
            assert (await client.get("/", method="POST")).status == 200
            await asyncio.sleep(0.7)  # longer than a connection of HTTP/1 is known fresh
        assert len(endpoint.connections) == 1


async def test_an_endpoint_that_speaks_no_http_2_is_a_bad_response(start: Start) -> None:
    balancer = start(1, **H2C)
    async with Endpoint(balancer.endpoints[0], answering(lambda _: "HTTP/1.1 400 Bad Request\r\n\r\n")) as endpoint:
        endpoint.script = lambda connection: connection.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        async with await H2Client.connect(balancer.port) as client:
            assert (await client.get()).status == 502


async def test_a_hung_endpoint_times_out(start: Start) -> None:
    async def hangs(asked: Asked) -> None:
        await asyncio.Event().wait()

    balancer = start(1, response_timeout=0.3, **H2C)
    async with H2Endpoint(balancer.endpoints[0], hangs) as endpoint, await H2Client.connect(balancer.port) as client:
        assert (await client.get()).status == 504
        assert endpoint.requests[0].reset == 8


async def test_tls_to_endpoints_agrees_on_h2(start: Start, authority: Authority) -> None:
    context = authority.server("127.0.0.1")
    context.set_alpn_protocols(["h2"])
    balancer = start(1, upstream_protocol="h2", upstream_tls="on", upstream_tls_ca=authority.file)
    async with (
        H2Endpoint(balancer.endpoints[0], tls=context) as endpoint,
        await H2Client.connect(balancer.port) as client,
    ):
        assert (await client.get()).status == 200
    assert endpoint.requests[0].field(":scheme") == "https"


# Leaving.


async def test_a_drain_serves_what_comes_in_time_and_loses_nothing(start: Start) -> None:
    release = asyncio.Event()

    async def script(asked: Asked) -> None:
        if asked.field(":path") == "/slow":
            await release.wait()
        await asked.respond()

    balancer = start(1, fresh=True, drain_delay=0.5, **H2C)
    async with H2Endpoint(balancer.endpoints[0], script) as endpoint, await Frames.connect(balancer.port) as client:
        encoder = hpack.Encoder()
        await client.send(headers(1, encoder.encode(asking("/slow"))))
        await endpoint.until(lambda: bool(endpoint.requests))
        balancer.signal(signal.SIGTERM)
        notice = await client.until(GoAwayFrame)
        assert (notice.error_code, notice.last_stream_id) == (0, 2**31 - 1)
        # It had not heard of it yet: served, not refused.
        await client.send(headers(3, encoder.encode(asking("/quick"))))
        while (frame := await client.until(HeadersFrame)).stream_id != 3:
            pass
        while not isinstance(frame := await client.until((PingFrame, GoAwayFrame)), PingFrame):
            pass
        await client.send(b"\x00\x00\x08\x06\x01\x00\x00\x00\x00" + frame.opaque_data)
        last = await client.until(GoAwayFrame)
        assert (last.error_code, last.last_stream_id) == (0, 3)
        release.set()
        assert (await client.until(HeadersFrame)).stream_id == 1
        while await client.next() is not None:
            pass
    assert balancer.wait() == 0


async def test_a_stream_ends_with_its_last_data(start: Start) -> None:
    """No empty frame follows, where the end has come with the data, and trailers take its place where there are any."""

    async def script(asked: Asked) -> None:
        if asked.field(":path") == "/trailers":
            await asked.respond(body=b"hello", trailers=[("x-sum", "1")])
        else:
            await asked.respond(body=b"hello")

    balancer = start(1, **H2C)
    async with H2Endpoint(balancer.endpoints[0], script), await Frames.connect(balancer.port) as client:
        encoder = hpack.Encoder()
        for stream, path in ((1, "/"), (3, "/trailers")):
            await client.send(headers(stream, encoder.encode(asking(path))))
            while "END_STREAM" not in (await client.until((HeadersFrame, DataFrame))).flags:
                pass
    sent = [frame for frame in client.frames if isinstance(frame, HeadersFrame | DataFrame)]
    assert [(frame.stream_id, type(frame), "END_STREAM" in frame.flags) for frame in sent] == [
        (1, HeadersFrame, False),
        (1, DataFrame, True),
        (3, HeadersFrame, False),
        (3, DataFrame, False),
        (3, HeadersFrame, True),
    ]


async def test_requests_that_differ_by_their_path_alone_keep_what_is_their_own(start: Start) -> None:
    """Half of a head is taken from the one before: each request still says what its client said, to the last field."""
    asked: list[tuple[str, str, list[tuple[str, str]]]] = [
        *((f"/path/{number}", "GET", [("x-own", "same"), ("accept", "text/plain")]) for number in range(150)),
        *((f"/path/{number % 3}", "GET", [("x-own", str(number)), ("cookie", "a=1")]) for number in range(30)),
        *((f"/{number}", method, [("x-own", "same")]) for number in range(20) for method in ("GET", "DELETE")),
        *(("/again", "GET", [("x-own", "same")]) for _ in range(5)),
        ("/again", "GET", [("x-own", "same"), ("x-own", "twice")]),
    ]
    balancer = start(1, **H2C)
    async with H2Endpoint(balancer.endpoints[0]) as endpoint, await H2Client.connect(balancer.port) as client:
        for path, method, extra in asked:
            stream = await client.begin(asking(path, method, extra), ended=True)
            assert (await client.answer(stream)).status == 200

    assert len(endpoint.requests) == len(asked)
    for request, (path, method, extra) in zip(endpoint.requests, asked, strict=True):
        said = request.fields
        assert [value for name, value in said if name == ":path"] == [path]
        assert [value for name, value in said if name == ":method"] == [method]
        names = {name for name, _ in extra}
        assert sorted((name, value) for name, value in said if name in names) == sorted(extra)


async def test_requests_of_other_traces_keep_what_is_their_own(start: Start) -> None:
    """What differs by fields of tracing shares the rest of its head with an earlier one, and nothing more."""
    alike = [("accept", "*/*"), ("x-own", "same")]
    kinds = [
        [("traceparent", "00-{0}-1-01"), *alike],
        [*alike, ("traceparent", "00-{0}-2-01"), ("tracestate", "a={1}")],
        [("traceparent", "00-{0}-3-01"), ("traceparent", "00-same-3-01"), *alike],
        [("traceparent", "00-same-4-01"), ("traceparent", "00-{0}-4-01"), *alike],
        [("b3", "{0}"), *alike, ("x-other", "{0}")],
    ]
    asked = [
        (f"/{number % 7}", [(name, value.format(number, number // 3)) for name, value in kinds[kind]])
        for turns in (12, 1)
        for number in range(60)
        for kind in [number // turns % len(kinds)]
    ]
    balancer = start(1, **H2C)
    async with H2Endpoint(balancer.endpoints[0]) as endpoint, await H2Client.connect(balancer.port) as client:
        for path, own in asked:
            stream = await client.begin(asking(path, "GET", own), ended=True)
            assert (await client.answer(stream)).status == 200

    assert len(endpoint.requests) == len(asked)
    for request, (path, own) in zip(endpoint.requests, asked, strict=True):
        assert [value for name, value in request.fields if name == ":path"] == [path]
        names = {name for name, _ in own} | {"traceparent", "tracestate", "b3"}
        assert sorted(pair for pair in request.fields if pair[0] in names) == sorted(own)


async def test_a_bad_path_behind_a_good_one_is_refused(start: Start) -> None:
    balancer = start(1, **H2C, max_uri_bytes=1024)
    async with H2Endpoint(balancer.endpoints[0]) as endpoint, await H2Client.connect(balancer.port) as client:
        assert (await client.get("/good")).status == 200
        assert (await client.get("/" + "a" * 2000)).status == 414
        assert (await client.get("/good/too")).status == 200
        stream = await client.begin(asking("/b#d"), ended=True)
        assert (await client.answer(stream)).reset is not None
        assert (await client.get("/still")).status == 200
    assert [request.field(":path") for request in endpoint.requests] == ["/good", "/good/too", "/still"]
