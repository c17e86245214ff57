"""What was reported of other balancers, and tried on this one: small rules, each seen broken before."""

from __future__ import annotations

import struct

import pytest
from tests.balancer.proxy.wire.ends import OK, Accepted, Client, Endpoint, always
from tests.balancer.proxy.wire.http2 import Asked, H2Client, H2Endpoint, asking
from tests.balancer.proxy.wire.messages import Closed
from tests.balancer.proxy.wire.process import Start

from balancer.balancing.endpoint import Endpoint as Target
from balancer.balancing.endpoint import EndpointSpec
from balancer.probes.ask import Ask
from balancer.proxy import proxy_protocol
from balancer.proxy.fields import trailers_to_pass_on
from balancer.settings import Settings

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n"
TIMED_OUT = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


async def test_a_408_that_ends_an_idle_connection_is_no_answer(start: Start) -> None:
    # envoyproxy/envoy, golang/go#32310: an endpoint that closes an idle connection may say so.
    balancer = start(retries=1)

    async def script(connection: Accepted) -> None:
        await connection.request()
        await connection.send(OK)
        await connection.request()
        await connection.send(TIMED_OUT)

    async with Endpoint(balancer.endpoints[0], script) as endpoint, await Client.connect(balancer.port) as client:
        for _ in range(2):
            assert (await client.ask(GET)).status == 200
    assert endpoint.accepted == 2
    assert balancer.metric("lb_endpoint_failures_total") == 0


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_408_of_a_fresh_connection_or_to_what_may_have_acted_passes(method: str, start: Start) -> None:
    balancer = start(retries=1)
    request = f"{method} / HTTP/1.1\r\nHost: lb.test\r\nContent-Length: 0\r\n\r\n"

    async def script(connection: Accepted) -> None:
        for _ in range(2 if method == "POST" else 1):
            await connection.send(OK if (await connection.request()).target == "/first" else TIMED_OUT)

    async with Endpoint(balancer.endpoints[0], script), await Client.connect(balancer.port) as client:
        if method == "POST":
            await client.ask("GET /first HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.ask(request)).status == 408


async def test_426_says_what_to_upgrade_to(start: Start) -> None:
    balancer = start()
    needed = "HTTP/1.1 426 No\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n"
    async with Endpoint(balancer.endpoints[0], always(needed)):
        async with await Client.connect(balancer.port) as client:
            response = await client.ask(GET)
            assert (response.get("upgrade"), response.get("connection")) == ("websocket", "Upgrade")
        async with await H2Client.connect(balancer.port) as by_http2:
            answer = await by_http2.get()
            assert (answer.status, answer.field("upgrade")) == (426, None)


@pytest.mark.parametrize(("method", "length"), [("POST", "0"), ("PUT", "0"), ("PATCH", "0"), ("GET", None)])
async def test_a_request_of_http_2_without_a_body_says_so_in_http_1(
    method: str, length: str | None, start: Start
) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await H2Client.connect(balancer.port) as client:
        assert (await client.get(method=method)).status == 200
        assert (await client.get("/0", [("content-length", "0")], method=method)).status == 200
    assert [request.get("content-length") for request in endpoint.requests] == [length, "0"]


@pytest.mark.parametrize("protocol", ["http1", "h2c"])
async def test_trailers_of_http_2_frame_nothing(protocol: str, start: Start) -> None:
    balancer = start(upstream_protocol=protocol)
    seen: list[list[tuple[str, str]]] = []

    async def script(asked: Asked) -> None:
        await asked.whole.wait()
        seen.append(asked.trailers)
        await asked.respond(trailers=[("content-length", "3"), ("x-t", "2")])

    served = Endpoint(balancer.endpoints[0]) if protocol == "http1" else H2Endpoint(balancer.endpoints[0], script)
    async with served, await H2Client.connect(balancer.port) as client:
        stream = await client.begin(asking(method="POST"), ended=False)
        await client.send(stream, b"abc")
        client.h2.send_headers(stream, [("content-length", "3"), ("host", "a"), ("x-t", "1")], end_stream=True)
        await client.flush()
        answer = await client.answer(stream)
        assert answer.status == 200
    if isinstance(served, Endpoint):
        assert [request.trailers for request in served.requests] == [[(b"x-t", b"1")]]
    else:
        assert (seen, answer.trailers) == ([[("x-t", "1")]], [("x-t", "2")])
    assert trailers_to_pass_on([(b"Transfer-Encoding", b"chunked"), (b"Host", b"a")]) == []


@pytest.mark.parametrize(
    ("authority", "host", "status"),
    [("lb.test:80", "lb.test", 200), ("lb.test", "LB.test:80", 200), ("lb.test:443", "lb.test", 0), ("a", "b", 0)],
)
async def test_the_schemes_own_port_makes_no_other_host(authority: str, host: str, status: int, start: Start) -> None:
    balancer = start()
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", "/"), ("host", host)]
    async with Endpoint(balancer.endpoints[0]), await H2Client.connect(balancer.port) as client:
        assert (await client.answer(await client.begin(fields))).status == status


MAPPED = b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.1 1000 80\r\n"
HALF_MAPPED = b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1000 80\r\n"


def version_2(extensions: bytes) -> bytes:
    body = bytes([192, 0, 2, 7, 192, 0, 2, 1]) + struct.pack("!HH", 1000, 80) + extensions
    return proxy_protocol.SIGNATURE + b"\x21\x11" + struct.pack("!H", len(body)) + body


def checked(change: int = 0) -> bytes:
    """A header with its checksum, CRC-32C as RFC 3309 has it; a change of it makes it wrong."""
    blank = version_2(b"\x03\x00\x04" + bytes(4))
    rest = 0xFFFFFFFF
    for byte in blank:
        rest ^= byte
        for _ in range(8):
            rest = (rest >> 1) ^ (0x82F63B78 if rest & 1 else 0)
    return blank[:-4] + struct.pack("!I", (rest ^ 0xFFFFFFFF) ^ change)


@pytest.mark.parametrize("header", [MAPPED, HALF_MAPPED, version_2(b"\x04\x00\x01x"), checked()])
async def test_a_client_behind_a_proxy_for_both_families_is_known_by_its_ipv4_address(
    header: bytes, start: Start
) -> None:
    balancer = start(proxy_protocol="on", trusted_proxies="127.0.0.1/32")
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.ask(header + GET.encode())
    assert endpoint.requests[0].get("x-forwarded-for") == "192.0.2.7"


@pytest.mark.parametrize(
    "header",
    [checked(1), version_2(b"\x03\x00\x02ab"), version_2(b"\x04\x00\x09x"), version_2(b"\x04\x00")],
    ids=["wrong checksum", "short checksum", "beyond the end", "half an extension"],
)
async def test_a_proxy_header_whose_extensions_are_damaged_ends_its_connection(header: bytes, start: Start) -> None:
    balancer = start(proxy_protocol="on", trusted_proxies="127.0.0.1/32")
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        with pytest.raises((Closed, ConnectionError)):
            await client.ask(header + GET.encode())
    assert endpoint.requests == []


def test_the_checksum_is_that_of_rfc_3720() -> None:
    assert proxy_protocol._crc32c(bytes(32)) == 0x8A9136AA  # its appendix B.4, as a number
    assert proxy_protocol._crc32c(bytes(range(32))) == 0x46DD794E


@pytest.mark.parametrize(
    ("answer", "healthy"),
    [
        ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", True),
        ("HTTP/1.1  200 OK\r\n\r\n", True),
        ("HTTP/1.2 200 OK\r\n\r\n", True),
        ("HTTP/1.1 103 Early\nA: b\n\nHTTP/1.1 204\r\n\r\n", True),
        ("HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 503 No\r\n\r\n", False),
        ("HTTP/1.1 20 OK\r\n\r\n", False),
        ("ICY 200 OK\r\n\r\n", False),
    ],
)
async def test_a_health_check_reads_what_requests_would_be_given(answer: str, healthy: bool) -> None:
    async with Endpoint(0, always(answer)) as endpoint:
        assert endpoint._server is not None
        port = endpoint._server.sockets[0].getsockname()[1]
        spec = EndpointSpec("127.0.0.1", port)
        ask = Ask(Settings(health_path="/", health_timeout=0.5, backends=(spec,)))
        assert ((await ask(Target(spec))) is None) == healthy
