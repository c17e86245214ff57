"""Active health checks on real sockets: what endpoints of each kind are found to be, and what the pool learns."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
import trustme
import uvloop

from balancer.balancing import strategies
from balancer.balancing.endpoint import Endpoint, EndpointSpec
from balancer.balancing.events import Subscriber
from balancer.balancing.pool import Policy, Pool
from balancer.probes import MAX_AT_ONCE, Ask, Probes
from balancer.settings import Settings

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


# One check, on real sockets.


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[EndpointSpec]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield EndpointSpec("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()


def answering(response: bytes, heard: list[bytes] | None = None) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heard is not None:
            heard.append(head)
        writer.write(response)
        await writer.drain()

    return handle


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def settings_for(*specs: EndpointSpec, **fields: object) -> Settings:
    defaults: dict[str, object] = {"health_path": "/healthz", "health_timeout": 2.0, "health_interval": 0.05}
    return Settings(**{"backends": tuple(specs), **defaults, **fields})  # type: ignore[arg-type]


async def asked(spec: EndpointSpec, **fields: object) -> str | None:
    return await Ask(settings_for(spec, **fields))(Endpoint(spec))


async def test_an_endpoint_that_answers_as_expected_is_healthy_and_was_asked_for_the_path() -> None:
    heard: list[bytes] = []
    async with serving(answering(b"HTTP/1.1 204 No Content\r\n\r\n", heard)) as spec:
        assert await asked(spec) is None
    lines = heard[0].decode().split("\r\n")
    assert lines[0] == "GET /healthz HTTP/1.1"
    assert f"Host: {spec.address}" in lines
    assert "Connection: close" in lines


async def test_an_unexpected_status_is_told() -> None:
    async with serving(answering(b"HTTP/1.1 500 Oops\r\n\r\n")) as spec:
        assert await asked(spec) == "status 500"
        assert await asked(spec, health_status=((200, 299), (500, 500))) is None


async def test_an_interim_response_is_not_the_answer() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 503 Service Unavailable\r\n\r\n"
    async with serving(answering(early)) as spec:
        assert await asked(spec) == "status 503"


@pytest.mark.parametrize(
    ("response", "why"),
    [
        (b"220 mail ready\r\n\r\n", "its answer is not HTTP"),
        (b"HTTP/1.1 20\r\n\r\n", "its answer is not HTTP"),
        (b"", "closed before its answer"),
        (b"HTTP/1.1 200 OK\r\n", "closed before its answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "a response head of more than 65536 bytes"),
    ],
)
async def test_what_is_no_whole_response_is_unhealthy(response: bytes, why: str) -> None:
    async with serving(answering(response)) as spec:
        assert await asked(spec) == why


async def test_an_endpoint_that_hangs_is_unhealthy_after_the_timeout() -> None:
    async with serving(silent) as spec:
        assert await asked(spec, health_timeout=0.05) == "no answer within 0.05 s"


async def test_an_endpoint_that_refuses_is_unhealthy() -> None:
    async with serving(silent) as spec:
        pass
    assert await asked(spec) == "connection refused"
    assert await asked(spec, health_path="tcp") == "connection refused"


async def test_a_name_that_cannot_be_is_unhealthy() -> None:
    assert await asked(EndpointSpec("a" * 64 + ".invalid", 80)) is not None


async def test_tcp_asks_for_a_connection_alone() -> None:
    async with serving(silent) as spec:
        assert await asked(spec, health_path="tcp") is None


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_check_begins_with_the_proxy_header_that_the_endpoint_expects(version: str) -> None:
    heard: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readexactly(15 if version == "v1" else 16))
        await answering(b"HTTP/1.1 200 OK\r\n\r\n")(reader, writer)

    async with serving(handle) as spec:
        assert await asked(spec, mode="tcp", upstream_proxy_protocol=version) is None
    local = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
    assert heard == [b"PROXY UNKNOWN\r\n" if version == "v1" else local]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def test_a_certificate_is_verified(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    file = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    async with serving(answering(b"HTTP/1.1 200 OK\r\n\r\n"), context) as spec:
        assert await asked(spec, upstream_tls=True, upstream_tls_ca=file) is None
        assert await asked(spec, upstream_tls=True, upstream_tls_ca=file, health_path="tcp") is None
        assert "certificate" in str(await asked(spec, upstream_tls=True))


@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_tls_begins_after_the_proxy_header(
    authority: trustme.CA, tmp_path: Path, loop: Callable[[Coroutine[None, None, str | None]], str | None]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    def serve(listening: socket.socket) -> None:
        # By hand: asyncio's streams would have read the beginning of TLS together with the header.
        connection, _ = listening.accept()
        assert connection.recv(15, socket.MSG_WAITALL) == b"PROXY UNKNOWN\r\n"
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1000)
            secured.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        spec = EndpointSpec("127.0.0.1", listening.getsockname()[1])
        trusting = {"upstream_tls": True, "upstream_tls_ca": tmp_path / "ca.pem", "health_status": ((204, 204),)}
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        assert loop(asked(spec, mode="tcp", upstream_proxy_protocol="v1", **trusting)) is None
        thread.join()


# All of it.


def pool_of(*specs: EndpointSpec) -> Pool:
    pool = Pool(strategies.load("round-robin", Random(1)), "round-robin", Policy(), Random(1))
    pool.replace(specs, time.monotonic())
    return pool


@asynccontextmanager
async def probing(pool: Pool, settings: Settings) -> AsyncIterator[None]:
    task = asyncio.create_task(Probes(pool, settings, time.monotonic, Random(1)).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (what is awaited is another part's state)
            await asyncio.sleep(0.005)


def health(pool: Pool) -> dict[str, bool]:
    return {endpoint.address: endpoint.health.passing_probes for endpoint in pool.endpoints}


async def test_an_endpoint_falls_and_rises_as_its_answers_change() -> None:
    status = [200]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(f"HTTP/1.1 {status[0]} X\r\n\r\n".encode())(reader, writer)

    async with serving(handle) as spec, serving(answering(b"HTTP/1.1 200 OK\r\n\r\n")) as other:
        pool = pool_of(spec, other)
        async with probing(pool, settings_for(spec, other)):
            status[0] = 500
            await until(lambda: not health(pool)[spec.address])
            assert health(pool)[other.address]
            status[0] = 200
            await until(lambda: health(pool)[spec.address])


async def test_endpoints_that_join_later_are_checked_and_those_that_left_are_not() -> None:
    asked_for: Counter[str] = Counter()

    def counting(name: str, response: bytes) -> Handler:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked_for[name] += 1
            await answering(response)(reader, writer)

        return handle

    async with (
        serving(counting("first", b"HTTP/1.1 200 OK\r\n\r\n")) as first,
        serving(counting("second", b"HTTP/1.1 500 X\r\n\r\n")) as second,
    ):
        pool = pool_of(first)
        async with probing(pool, settings_for(first)):
            await until(lambda: asked_for["first"] > 1)
            pool.replace([second], time.monotonic())
            await until(lambda: health(pool) == {second.address: False})
            before = asked_for["first"]
            seen = asked_for["second"]
            await until(lambda: asked_for["second"] > seen + 5)
            assert asked_for["first"] <= before + 1  # one may have been under way


async def test_the_verdict_on_an_endpoint_that_left_meanwhile_is_dropped() -> None:
    asked_for, leave = asyncio.Event(), asyncio.Event()
    told: list[str] = []

    class Listening(Subscriber):
        def transition(self, endpoint: Endpoint | None, event: str, detail: str) -> None:
            told.append(event)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked_for.set()
        await leave.wait()
        await answering(b"HTTP/1.1 500 X\r\n\r\n")(reader, writer)
        await reader.read()

    async with serving(handle) as spec, serving(answering(b"HTTP/1.1 500 X\r\n\r\n")) as other:
        pool = pool_of(spec)
        [endpoint] = pool.endpoints
        pool.subscribe(Listening())
        async with probing(pool, settings_for(spec)):
            await asked_for.wait()
            pool.replace([other], time.monotonic())
            leave.set()
            await until(lambda: health(pool) == {other.address: False})
        assert endpoint.health.passing_probes
        assert told.count("unhealthy") == 1


async def test_no_more_checks_are_under_way_than_allowed_and_none_is_left_at_the_end() -> None:
    under_way = most = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            await reader.read()
        finally:
            under_way -= 1

    async with serving(handle) as spec:
        # The same address as if of many pods: each is an endpoint of its own.
        pool = pool_of(*[EndpointSpec(spec.host, spec.port, uid=str(number)) for number in range(300)])
        async with probing(pool, settings_for(spec, health_timeout=30.0, health_interval=1.0)):
            await until(lambda: under_way == MAX_AT_ONCE)
            await asyncio.sleep(0.05)
        assert most == MAX_AT_ONCE
        await until(lambda: under_way == 0)
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancel_right_after_an_endpoint_joins_ends_the_checks(turns: int) -> None:
    """asyncio.wait_for of Python 3.11 swallows a cancel in the turn in which what it waits for is there."""
    first, second = EndpointSpec("127.0.0.1", 9), EndpointSpec("127.0.0.1", 10)
    pool = Pool(strategies.load("round-robin", Random(1)), "round-robin", Policy(), Random(1))
    pool.replace([first], time.monotonic())
    probes = Probes(pool, settings_for(first, health_interval=3600.0), time.monotonic, Random(1))
    checks = asyncio.create_task(probes.run())
    await asyncio.sleep(0.01)
    pool.replace([first, second], time.monotonic())
    for _ in range(turns):
        await asyncio.sleep(0)
    checks.cancel()
    done, _ = await asyncio.wait({checks}, timeout=2)
    assert done == {checks}
