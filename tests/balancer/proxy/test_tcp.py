"""LB_MODE=tcp: any byte stream, chosen for at connect, untouched."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import time

import pytest
from tests.balancer.proxy.test_flow import swallow
from tests.balancer.proxy.wire.authority import Authority
from tests.balancer.proxy.wire.ends import Accepted, Client, Endpoint, Script
from tests.balancer.proxy.wire.messages import Closed
from tests.balancer.proxy.wire.process import Balancer, Start

MIB = 1 << 20


def says(what: str) -> Script:
    """Speaks first, as a mail server does, and then echoes."""

    async def script(connection: Accepted) -> None:
        await connection.send(what)
        while data := await connection.reader.read(65536):
            await connection.send(data)

    return script


async def pair(balancer: Balancer, endpoint: Endpoint) -> tuple[Client, Accepted]:
    client = await Client.connect(balancer.port)
    return client, await endpoint.accept()


async def test_bytes_pass_untouched_both_ways(start: Start) -> None:
    balancer = start(mode="tcp")
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client, connection = await pair(balancer, endpoint)
        for data in (b"\0", b"GET / HTTP/0.9\r\n\r\n", os.urandom(300_000)):
            await client.send(data)
            assert await connection.exactly(len(data)) == data
            await connection.send(data[::-1])
            assert await client.exactly(len(data)) == data[::-1]
        await client.close()
        assert await connection.to_end() == b""
        await connection.close()


async def test_an_endpoint_may_speak_first(start: Start) -> None:
    balancer = start(mode="tcp")
    async with Endpoint(balancer.endpoints[0], says("220 hello\r\n")), await Client.connect(balancer.port) as client:
        assert await client.until("\r\n") == b"220 hello\r\n"


async def test_connections_are_spread(start: Start) -> None:
    balancer = start(endpoints=3, mode="tcp")
    got = []
    endpoints = [Endpoint(port, says(str(number))) for number, port in enumerate(balancer.endpoints)]
    for endpoint in endpoints:
        await endpoint.start()
    for _ in range(6):
        async with await Client.connect(balancer.port) as client:
            got.append(await client.exactly(1))
    for endpoint in endpoints:
        await endpoint.stop()
    assert sorted(got) == [b"0", b"0", b"1", b"1", b"2", b"2"]


async def test_a_client_that_has_said_all_before_it_is_joined_gets_its_answer(start: Start) -> None:
    balancer = start(mode="tcp")

    async def reverses(connection: Accepted) -> None:
        await connection.send((await connection.to_end())[::-1])

    async with Endpoint(balancer.endpoints[0], reverses):
        for _ in range(20):
            async with await Client.connect(balancer.port) as client:
                client.writer.write(b"question")
                client.half_close()
                assert await client.to_end() == b"noitseuq"


async def test_an_endpoint_that_says_all_at_once_and_closes_is_heard(start: Start) -> None:
    balancer = start(mode="tcp")

    async def tells_the_time(connection: Accepted) -> None:
        connection.writer.write(b"noon")
        await connection.close()

    async with Endpoint(balancer.endpoints[0], tells_the_time) as endpoint:
        for _ in range(20):
            async with await Client.connect(balancer.port) as client:
                assert await client.to_end() == b"noon"
    assert endpoint.accepted == 20, "none is tried again"


async def test_what_a_client_sends_before_it_is_joined_is_left_with_it(start: Start) -> None:
    balancer = start(mode="tcp", endpoint_max_requests=1, queue_timeout=30)
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        first, connection = await pair(balancer, endpoint)
        waiting = await Client.connect(balancer.port)
        before = balancer.memory()
        waiting.writer.write(bytes(64 << 20))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await waiting.writer.drain()
        assert balancer.memory() - before < 8 << 20
        waiting.reset()
        await first.close()
        await connection.close()


@pytest.mark.parametrize("who", ["client", "endpoint"])
async def test_a_half_close_passes_and_the_other_direction_goes_on(who: str, start: Start) -> None:
    balancer = start(mode="tcp")
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client, connection = await pair(balancer, endpoint)
        one, other = (client, connection) if who == "client" else (connection, client)
        await one.send("last")
        one.half_close()
        assert await other.to_end() == b"last"
        for _ in range(3):
            await other.send("still")
            assert await one.exactly(5) == b"still"
        other.half_close()
        assert await one.to_end() == b""
        await client.close()
        await connection.close()


@pytest.mark.parametrize("who", ["client", "endpoint"])
async def test_a_reset_passes_as_a_reset(who: str, start: Start) -> None:
    balancer = start(mode="tcp")
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client, connection = await pair(balancer, endpoint)
        one, other = (client, connection) if who == "client" else (connection, client)
        await one.send("x")
        await other.exactly(1)
        one.reset()
        assert await other.to_end() == b"(reset)"
        await client.close()
        await connection.close()


async def test_latency_is_the_time_to_connect_however_long_a_connection_lasts(start: Start) -> None:
    balancer = start(mode="tcp", strategy="least-response-time", fresh=True)
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client, connection = await pair(balancer, endpoint)
        await asyncio.sleep(0.5)
        await connection.send("at last")
        assert await client.exactly(7) == b"at last"
        await client.close()
        await connection.close()
        assert 0 < balancer.metric("lb_endpoint_latency_seconds") < 0.25


async def test_connections_of_one_client_are_limited(start: Start) -> None:
    balancer = start(mode="tcp", max_connections_per_client=2)
    async with Endpoint(balancer.endpoints[0], says("hello")):
        clients = [await Client.connect(balancer.port) for _ in range(2)]
        for client in clients:
            assert await client.exactly(5) == b"hello"
        with contextlib.suppress(ConnectionResetError):  # it may come while the third still connects
            async with await Client.connect(balancer.port) as third:
                assert (await third.to_end()).removesuffix(b"(reset)") == b""
        assert balancer.metric("lb_downstream_connections_refused_total") == 1
        for client in clients:
            await client.close()


async def test_connections_beyond_the_endpoints_cap_wait_their_turn(start: Start) -> None:
    balancer = start(mode="tcp", endpoint_max_requests=1)
    async with Endpoint(balancer.endpoints[0], says("hello")):
        first, second = await Client.connect(balancer.port), await Client.connect(balancer.port)
        assert await first.exactly(5) == b"hello"
        assert await second.some(within=0.2) == b""
        assert balancer.metric("lb_queue_length") == 1
        await first.close()
        assert await second.exactly(5) == b"hello"
        await second.close()


async def test_a_silent_connection_is_closed_in_time(start: Start) -> None:
    balancer = start(mode="tcp", idle_timeout=0.5)
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client, connection = await pair(balancer, endpoint)
        for _ in range(4):
            await asyncio.sleep(0.3)
            await connection.send("x")
            assert await client.exactly(1) == b"x"
        begun = time.monotonic()
        assert (await client.to_end()).removesuffix(b"(reset)") == b""
        assert 0.4 < time.monotonic() - begun < 2
        await client.close()
        await connection.close()


async def test_connecting_is_tried_elsewhere_and_early_bytes_are_not_lost(start: Start) -> None:
    balancer = start(endpoints=2, mode="tcp", strategy="n-to-one")
    async with Endpoint(balancer.endpoints[1], None) as second:
        client = await Client.connect(balancer.port)
        await client.send("early")
        connection = await second.accept()
        assert await connection.exactly(5) == b"early"
        await client.close()
        await connection.close()
    assert balancer.metric("lb_retries_total", reason="connection refused") > 0


async def test_without_an_endpoint_the_client_is_closed_at_once(start: Start) -> None:
    balancer = start(endpoints=2, mode="tcp")
    client = await Client.connect(balancer.port)
    assert (await client.to_end()).removesuffix(b"(reset)") == b""
    await client.close()
    assert balancer.metric("lb_errors_total") > 0


async def test_a_client_that_does_not_wait_is_no_fault_of_the_endpoint(start: Start) -> None:
    balancer = start(mode="tcp")
    async with Endpoint(balancer.endpoints[0], says("hello")):
        for _ in range(50):
            client = await Client.connect(balancer.port)
            client.reset()
        async with await Client.connect(balancer.port) as client:
            assert await client.exactly(5) == b"hello"


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_slow_reader_holds_back_the_sender_and_memory_stays_small(direction: str, start: Start) -> None:
    balancer = start(mode="tcp", access_log="off")
    size = 256 * MIB
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client, connection = await pair(balancer, endpoint)
        source, sink = (client, connection) if direction == "up" else (connection, client)
        before = peak = balancer.memory()
        reading = asyncio.create_task(swallow(sink, size, pauses=True))
        block = os.urandom(MIB)
        for _ in range(size // MIB):
            await source.send(block)
            peak = max(peak, balancer.memory())
        await reading
        await client.close()
        await connection.close()
    assert peak - before < 20 * MIB, f"{(peak - before) / MIB:.1f} MiB"


async def test_bytes_and_connections_are_counted(start: Start) -> None:
    balancer = start(mode="tcp", fresh=True)
    async with Endpoint(balancer.endpoints[0], says("hello")), await Client.connect(balancer.port) as client:
        await client.exactly(5)
        await client.send("x" * 1000)
        await client.exactly(1000)
        assert balancer.metric("lb_requests_in_flight") == 1
        assert balancer.metric("lb_endpoint_in_flight") == 1
    assert balancer.metric("lb_requests_total") == 1
    assert balancer.metric("lb_received_bytes_total") == 1000
    assert balancer.metric("lb_sent_bytes_total") == 1005


async def test_connections_are_drained_and_cut_at_the_limit(start: Start) -> None:
    balancer = start(mode="tcp", fresh=True, drain_timeout=0.6)
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client, connection = await pair(balancer, endpoint)
        balancer.signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        await client.send("still")
        assert await connection.exactly(5) == b"still"
        assert (await client.to_end()).removesuffix(b"(reset)") == b""
        await client.close()
        await connection.close()
        deadline = time.monotonic() + 5
        while balancer.alive:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert balancer.wait() == 0


async def test_tls_passes_through_unopened(start: Start, authority: Authority) -> None:
    balancer = start(mode="tcp")
    async with Endpoint(balancer.endpoints[0], says("secret"), tls=authority.server("lb.test")):
        async with await Client.connect(balancer.port, tls=authority.client()) as client:
            assert await client.exactly(6) == b"secret"


# The PROXY protocol.

V2 = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(source: str, target: str, source_port: int, target_port: int) -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!HH", source_port, target_port)
    return V2 + struct.pack("!BBH", 0x21, 0x11, len(addresses)) + addresses


async def test_proxy_protocol_v1_is_told_to_endpoints(start: Start) -> None:
    balancer = start(mode="tcp", upstream_proxy_protocol="v1")
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client, connection = await pair(balancer, endpoint)
        port = client.writer.get_extra_info("sockname")[1]
        await client.send("hello")
        assert await connection.until("\r\n") == f"PROXY TCP4 127.0.0.1 127.0.0.1 {port} {balancer.port}\r\n".encode()
        assert await connection.exactly(5) == b"hello"
        await client.close()
        await connection.close()


async def test_proxy_protocol_v2_is_told_to_endpoints(start: Start) -> None:
    balancer = start(mode="tcp", upstream_proxy_protocol="v2")
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client, connection = await pair(balancer, endpoint)
        port = client.writer.get_extra_info("sockname")[1]
        await client.send("hello")
        expected = v2("127.0.0.1", "127.0.0.1", port, balancer.port)
        assert await connection.exactly(len(expected)) == expected
        assert await connection.exactly(5) == b"hello"
        await client.close()
        await connection.close()


@pytest.mark.parametrize(
    "header",
    [b"PROXY TCP4 10.1.2.3 10.0.0.1 4321 80\r\n", v2("10.1.2.3", "10.0.0.1", 4321, 80)],
    ids=["v1", "v2"],
)
@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
async def test_a_trusted_client_may_say_whom_it_speaks_for(header: bytes, split: bool, start: Start) -> None:
    balancer = start(mode="tcp", proxy_protocol="on", trusted_proxies="127.0.0.0/8", upstream_proxy_protocol="v1")
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client = await Client.connect(balancer.port)
        await (client.dribble(header + b"hello", 5) if split else client.send(header + b"hello"))
        connection = await endpoint.accept()
        told = await connection.until("\r\n")
        assert told.startswith(b"PROXY TCP4 10.1.2.3 "), told
        assert await connection.exactly(5) == b"hello"
        await client.close()
        await connection.close()


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 10.1.2.3\r\n",
        b"PROXY TCP9 10.1.2.3 10.0.0.1 4321 80\r\n",
        b"PROXY TCP4 10.1.2.3 10.0.0.1 99999 80\r\n",
        b"PROXY TCP4 10.1.2.300 10.0.0.1 1 80\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        V2 + b"\x31\x11\x00\x0c" + b"x" * 12,
        V2 + b"\x21\x11\x00\x02ab",
    ],
)
async def test_a_bad_proxy_header_closes_the_connection(header: bytes, start: Start) -> None:
    balancer = start(mode="tcp", proxy_protocol="on", trusted_proxies="127.0.0.0/8", upstream_proxy_protocol="v1")
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client = await Client.connect(balancer.port)
        await client.send(header)
        assert (await client.to_end()).removesuffix(b"(reset)") == b""
        assert endpoint.accepted == 0
        await client.close()


async def test_in_http_mode_the_proxy_header_tells_the_client(start: Start) -> None:
    balancer = start(proxy_protocol="on", trusted_proxies="127.0.0.0/8")
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(b"PROXY TCP4 10.1.2.3 10.0.0.1 4321 80\r\nGET / HTTP/1.1\r\nHost: lb.test\r\n\r\n")
        assert (await client.response()).status == 200
    assert endpoint.requests[0].get("x-forwarded-for") == "10.1.2.3"


async def test_a_proxy_header_that_was_not_agreed_on_is_a_bad_request(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(b"PROXY TCP4 10.1.2.3 10.0.0.1 4321 80\r\nGET / HTTP/1.1\r\nHost: lb.test\r\n\r\n")
        assert (await client.response()).status == 400
        with pytest.raises(Closed):
            await client.response()
    assert endpoint.accepted == 0
