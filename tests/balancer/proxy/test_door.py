"""The door: whoever comes is counted from the first moment, leaves nothing behind, and keeps nobody else out.

What every test here and elsewhere shows besides, by `conftest.py`: descriptors, counts, timers and tasks of a balancer
are afterwards what they were at its start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import time

import pytest
from tests.balancer.proxy.wire.authority import Authority
from tests.balancer.proxy.wire.ends import Accepted, Client, Endpoint
from tests.balancer.proxy.wire.http2 import PREFACE, frame
from tests.balancer.proxy.wire.process import Balancer, Start

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n"
PROXY_V1 = b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 443\r\n"
PROXY_V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x08\x12\x67\x01\xbb"


def connect(port: int) -> socket.socket:
    """A blocking connection."""
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def reset(sock: socket.socket) -> None:
    """Close with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def until(condition: object, seconds: float = 5.0) -> None:
    """Wait until `condition()` holds."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "settings",
    [
        {"trusted_proxies": "10.0.0.0/8"},
        {"trusted_proxies": "127.0.0.0/8", "proxy_protocol": "on"},
        {"trusted_proxies": "127.0.0.0/8", "proxy_protocol": "on", "mode": "tcp"},
        {"max_connections_per_client": 1000},
    ],
)
async def test_clients_that_reset_at_once_leave_nothing(settings: dict[str, object], start: Start) -> None:
    balancer = start(**settings)
    for _ in range(400):
        reset(connect(balancer.port))
    await until(lambda: balancer.metric("lb_downstream_connections_open") == 0)


async def test_tls_clients_that_reset_at_any_moment_leave_nothing(start: Start, authority: Authority) -> None:
    balancer = start(tls_cert=authority.certificate, tls_key=authority.key)
    hello = client_hello(authority)
    for length in range(0, len(hello), 7):
        sock = connect(balancer.port)
        sock.sendall(hello[:length])
        reset(sock)
    await until(lambda: balancer.metric("lb_downstream_connections_open") == 0)


def client_hello(authority: Authority) -> bytes:
    """What a TLS client says first."""
    outgoing = ssl.MemoryBIO()
    client = authority.client().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="lb.test")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


async def test_tls_clients_count_before_they_shake_hands(start: Start, authority: Authority) -> None:
    balancer = start(
        tls_cert=authority.certificate, tls_key=authority.key, request_timeout=3, max_connections_per_client=10
    )
    silent = [connect(balancer.port) for _ in range(10)]
    await until(lambda: balancer.metric("lb_downstream_connections_open") == 10)
    with contextlib.suppress(ConnectionError), connect(balancer.port) as beyond:  # closed, or reset
        assert beyond.recv(1) == b""
    assert balancer.metric("lb_downstream_connections_refused_total") >= 1
    for sock in silent:
        sock.close()


async def test_silent_tls_clients_make_room_for_one_who_asks(start: Start, authority: Authority) -> None:
    balancer = start(tls_cert=authority.certificate, tls_key=authority.key, max_connections=20)
    silent = [connect(balancer.port) for _ in range(40)]
    async with Endpoint(balancer.endpoints[0]):
        began = time.monotonic()
        async with await Client.connect(balancer.port, tls=authority.client()) as client:
            assert (await client.ask(GET)).status == 200
        assert time.monotonic() - began < 4
        assert balancer.admin("/healthz")[0] == 200
    assert balancer.metric("lb_downstream_connections_evicted_total") > 0
    for sock in silent:
        sock.close()


@pytest.mark.parametrize("header", [PROXY_V1, PROXY_V2], ids=["v1", "v2"])
@pytest.mark.parametrize("pieces", ["at once", "apart"])
async def test_a_proxy_header_comes_before_tls(header: bytes, pieces: str, start: Start, authority: Authority) -> None:
    balancer = start(
        tls_cert=authority.certificate, tls_key=authority.key, trusted_proxies="127.0.0.0/8", proxy_protocol="on"
    )
    async with Endpoint(balancer.endpoints[0]) as endpoint:
        answer = await asyncio.to_thread(ask_behind_proxy, balancer, header, authority.client(), pieces == "apart")
        assert answer.startswith(b"HTTP/1.1 200 OK")
    assert endpoint.requests[0].get("x-forwarded-for") == "192.0.2.7"
    assert endpoint.requests[0].get("x-forwarded-proto") == "https"


def ask_behind_proxy(balancer: Balancer, header: bytes, context: ssl.SSLContext, apart: bool) -> bytes:
    """Send a PROXY header, shake hands, and ask."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="lb.test")
    with connect(balancer.port) as sock:
        waiting = header
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                for piece in [waiting[:9], waiting[9:], outgoing.read()] if apart else [waiting + outgoing.read()]:
                    sock.sendall(piece)
                waiting = b""
                incoming.write(sock.recv(65536))
        client.write(GET.encode())
        sock.sendall(outgoing.read())
        while True:
            incoming.write(sock.recv(65536))
            try:
                return client.read(65536)
            except ssl.SSLWantReadError:
                continue


async def test_a_stranger_needs_no_proxy_header_before_tls(start: Start, authority: Authority) -> None:
    balancer = start(
        tls_cert=authority.certificate, tls_key=authority.key, trusted_proxies="10.0.0.0/8", proxy_protocol="on"
    )
    async with Endpoint(balancer.endpoints[0]):
        async with await Client.connect(balancer.port, tls=authority.client()) as client:
            assert (await client.ask(GET)).status == 200


async def test_a_proxy_header_that_does_not_come_is_not_waited_for_in_vain(start: Start) -> None:
    balancer = start(trusted_proxies="127.0.0.0/8", proxy_protocol="on", max_connections=10)
    silent = [connect(balancer.port) for _ in range(15)]
    async with Endpoint(balancer.endpoints[0]):
        async with await Client.connect(balancer.port) as client:
            await client.send(PROXY_V1)
            assert (await client.ask(GET)).status == 200
    for sock in silent:
        sock.close()


async def test_the_client_idle_longest_makes_room_for_a_new_one(start: Start) -> None:
    balancer = start(max_connections=8)
    async with Endpoint(balancer.endpoints[0]):
        old = []
        for _ in range(8):
            client = await Client.connect(balancer.port)
            await client.send(GET)
            await client.response()
            old.append(client)
            await asyncio.sleep(0.02)
        began = time.monotonic()
        async with await Client.connect(balancer.port) as new:
            assert (await new.ask(GET)).status == 200
        assert time.monotonic() - began < 2
        assert await old[0].reader.read(1) == b""
        assert balancer.metric("lb_downstream_connections_evicted_total") >= 1
        for client in old:
            await client.close()


BEGINNINGS = {
    "a head": b"GET / HTTP/1.1\r\nHost: lb.test\r\nX-Slow: ",
    "a first byte": b"G",
    "a preface": b"PRI * HTTP/2.0\r\n\r\nS",
    "no settings": PREFACE,
    "a header block": PREFACE + frame(4, 0, 0) + frame(1, 1, 1, b"\x82\x86"),
    "a handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("beginning", list(BEGINNINGS))
async def test_clients_that_never_finish_their_head_make_room(
    beginning: str, start: Start, authority: Authority
) -> None:
    """A client of ours waited until their LB_REQUEST_TIMEOUT, a quarter of a minute."""
    tls = {"tls_cert": authority.certificate, "tls_key": authority.key} if beginning == "a handshake" else {}
    balancer = start(max_connections=8, **tls)
    slow = [connect(balancer.port) for _ in range(8)]
    for sock in slow:
        sock.sendall(BEGINNINGS[beginning])
    await until(lambda: balancer.metric("lb_downstream_connections_open") == 8)
    async with Endpoint(balancer.endpoints[0]):
        began = time.monotonic()
        async with await Client.connect(balancer.port, tls=authority.client() if tls else None) as new:
            assert (await new.ask(GET)).status == 200
        assert time.monotonic() - began < 6
    assert balancer.metric("lb_downstream_connections_evicted_total") >= 1
    closed = []
    for sock in slow:
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            closed.append(sock.recv(4096))
        sock.close()
    if beginning in ("a head", "a first byte"):
        assert sum(answer.startswith(b"HTTP/1.1 408 ") for answer in closed) >= 1


async def test_a_head_that_has_only_just_begun_is_not_closed_for_a_new_client(start: Start) -> None:
    balancer = start(max_connections=2)
    before = balancer.metric("lb_downstream_connections_evicted_total")
    async with Endpoint(balancer.endpoints[0]):
        first = [await Client.connect(balancer.port) for _ in range(2)]
        for client in first:
            await client.send(GET[:-2])
        await until(lambda: balancer.metric("lb_downstream_connections_open") == 2)
        new = await Client.connect(balancer.port)
        await new.send(GET)
        await asyncio.sleep(0.5)
        assert balancer.metric("lb_downstream_connections_evicted_total") == before
        for client in first:
            await client.send(GET[-2:])
        for client in [*first, new]:
            assert (await client.response()).status == 200
            await client.close()


async def test_a_response_near_the_limit_says_close(start: Start) -> None:
    balancer = start(max_connections=4)
    async with Endpoint(balancer.endpoints[0]):
        async with await Client.connect(balancer.port) as first:
            assert (await first.ask(GET)).get("connection") != "close"
            others = [await Client.connect(balancer.port) for _ in range(3)]
            await until(lambda: balancer.metric("lb_downstream_connections_open") == 4)
            assert (await first.ask(GET)).get("connection") == "close"
            for other in others:
                await other.close()


async def test_busy_clients_are_not_closed_for_a_new_one(start: Start) -> None:
    balancer = start(max_connections=2)
    before = balancer.metric("lb_downstream_connections_evicted_total")
    answer = asyncio.Event()

    async def script(connection: Accepted) -> None:
        while True:
            await connection.request()
            await answer.wait()
            await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with Endpoint(balancer.endpoints[0], script) as endpoint:
        busy = [await Client.connect(balancer.port) for _ in range(2)]
        for client in busy:
            await client.send(GET)
        await until(lambda: endpoint.accepted == 2)
        new = await Client.connect(balancer.port)
        await new.send(GET)
        assert await new.some(0.4) == b""
        answer.set()
        for client in [*busy, new]:
            assert (await client.response()).status == 200
            await client.close()
    assert balancer.metric("lb_downstream_connections_evicted_total") == before


@pytest.mark.skipif("LB_TEST_PYTHON" in os.environ, reason="compiled classes cannot be patched")
async def test_a_busy_balancer_at_its_limit_does_not_search_for_each_who_leaves(start: Start) -> None:
    """A search looks at every connection; each that ended and was followed by another began one."""
    balancer = start(max_connections=4, test_counted="door:Door._to_spare")

    async def holds(connection: Accepted) -> None:
        await connection.to_end()

    async with Endpoint(balancer.endpoints[0], holds) as endpoint:
        clients = [await Client.connect(balancer.port) for _ in range(4)]
        for client in clients:
            await client.send(GET)
        await until(lambda: endpoint.accepted == 4)
        balancer.inside()
        calls, began = balancer.calls, time.monotonic()
        for number in range(40):
            clients += [await Client.connect(balancer.port), await Client.connect(balancer.port)]
            for client in clients[-2:]:
                await client.send(GET)
            for client in clients[2 * number : 2 * number + 2]:
                await client.close()
            await until(lambda more=number: endpoint.accepted >= 4 + 2 * more)
        balancer.inside()
        assert balancer.calls - calls <= 2 + (time.monotonic() - began) / 0.1
        for client in clients:
            await client.close()


def test_the_limit_of_open_files_lowers_the_default_in_silence_and_what_was_asked_for_with_a_word(start: Start) -> None:
    """Twice the default and 64 is more than many a pod's hard limit: no first line of every pod is about that."""
    assert "warning" not in start(open_files=10_000).log()
    told = start(open_files=10_000, max_connections=10_000).log()
    assert "fewer connections than LB_MAX_CONNECTIONS" in told
    assert '"allowed":4968' in told.replace(" ", "")
    assert "few connections allowed" in start(open_files=1000).log()


async def test_the_admin_port_answers_while_the_data_port_is_flooded(start: Start) -> None:
    balancer = start(open_files=150, max_connections=10000)
    crowd = [connect(balancer.port) for _ in range(300)]
    for _ in range(20):
        assert balancer.admin("/healthz")[0] == 200
        assert balancer.admin("/metrics")[0] == 200
    for sock in crowd:
        reset(sock)


@pytest.mark.parametrize("mode", ["tcp", "http"])
async def test_a_tunnel_that_has_been_silent_is_closed_though_its_client_does_not_read(mode: str, start: Start) -> None:
    balancer = start(mode=mode, idle_timeout=1, tunnel_idle_timeout=1)
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client = await Client.connect(balancer.port, receive_buffer=4096)
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        if mode == "http":
            await client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
        else:
            await client.send(b"hello")
        connection = await endpoint.accept()
        if mode == "http":
            await connection.head()
            await connection.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
        connection.writer.write(b"x" * 20_000_000)
        began = time.monotonic()
        await until(lambda: balancer.metric("lb_endpoint_connections_open") == 0, 10)
        assert time.monotonic() - began < 8
        await until(lambda: balancer.metric("lb_downstream_connections_open") == 0)
        await client.close()
        await connection.close()


async def test_connections_to_endpoints_that_do_not_read_end_with_their_clients(start: Start) -> None:
    balancer = start(idle_timeout=60)
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        clients, taken = [], []
        for _ in range(10):
            client = await Client.connect(balancer.port)
            client.writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n" + b"x" * 20_000_000)
            connection = await endpoint.accept()
            connection.reader._transport.pause_reading()  # type: ignore[attr-defined]
            clients.append(client)
            taken.append(connection)
        for client in clients:
            client.reset()
        await until(lambda: balancer.metric("lb_endpoint_connections_open") == 0)
        for connection in taken:
            connection.reset()


async def test_random_aborts_leave_nothing(start: Start) -> None:
    balancer = start(endpoints=2, retries=2)
    first = Endpoint(balancer.endpoints[0])
    whole = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n" + b"x" * 4000 + GET.encode() * 3
    async with first:
        for number in range(300):
            sock = connect(balancer.port)
            sock.sendall(whole[: number * 17 % len(whole)])
            if number % 3 == 0:
                sock.close()
            elif number % 3 == 1:
                sock.shutdown(socket.SHUT_WR)
                reset(sock)
            else:
                reset(sock)
            if number % 20 == 0:
                await asyncio.sleep(0.01)
        await until(lambda: balancer.metric("lb_downstream_connections_open") == 0)


async def test_http_on_the_tls_port_is_told_so(start: Start, authority: Authority) -> None:
    balancer = start(tls_cert=authority.certificate, tls_key=authority.key)
    async with await Client.connect(balancer.port) as client:
        await client.send(GET)
        answer = await client.response()
        assert answer.status == 400
        assert b"https" in answer.body
        assert await client.to_end() == b""


def test_sockets_are_asked_whether_their_peer_still_is() -> None:
    from balancer.proxy.listening import listen

    sock = listen("127.0.0.1", 0)
    with sock, connect(sock.getsockname()[1]):
        sock.setblocking(True)
        accepted, _ = sock.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 120
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_idle_endpoint_connections_make_room_for_others(start: Start) -> None:
    balancer = start(endpoints=1, open_files=120, max_connections=10000)
    async with Endpoint(balancer.endpoints[0]):
        for _ in range(3):
            clients = [await Client.connect(balancer.port) for _ in range(25)]
            answers = await asyncio.gather(*[client.ask(GET) for client in clients])
            assert [answer.status for answer in answers] == [200] * 25
            for client in clients:
                client.reset()
