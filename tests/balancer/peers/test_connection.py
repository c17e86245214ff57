"""The connections between replicas, spoken with aiohttp's WebSocket at the other end, as an older replica has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from balancer.peers.connection import UNREADABLE, UNSENT, Incoming, Outgoing, RefusedError
from balancer.peers.frames import PING, TEXT, frame

pytestmark = pytest.mark.timeout(20)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(handler: Handler, patience: float = 60.0) -> AsyncIterator[str]:
    """The address at which `handler` answers; at the end its connections are waited for, so many seconds at most."""
    app = web.Application()
    app.add_routes([web.get("/peers", handler)])
    runner = web.AppRunner(app, shutdown_timeout=patience)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def reach(address: str) -> tuple[Outgoing, asyncio.Queue[bytes]]:
    """A connection to it, opened, and what it says."""
    said: asyncio.Queue[bytes] = asyncio.Queue()
    host, _, port = address.rpartition(":")
    connection = Outgoing(address, "/peers", "secret", said.put_nowait, 1000, lambda: None)
    await asyncio.get_running_loop().create_connection(lambda: connection.protocol, host, int(port))
    await connection.opened
    return connection, said


async def echo(request: web.Request) -> web.StreamResponse:
    """Send back what comes, until asked to go."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.data == "go":
            await socket.close(code=4000, message=b"went")
        else:
            await socket.send_str(message.data)
    return socket


async def hear(request: web.Request, taken: list[Incoming] | None = None) -> web.StreamResponse:
    """Take the connection over, as a replica does, and send back what comes."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    transport = request.transport
    assert transport is not None
    connection = Incoming(request.protocol, lambda me, data: me.write(frame(TEXT, data, masked=False)), 1000)
    if taken is not None:
        taken.append(connection)
    transport.set_protocol(connection.protocol)
    connection.use(transport)
    await connection.closed
    return socket


@pytest.mark.parametrize("server", [echo, hear])
async def test_text_goes_both_ways(server: Handler) -> None:
    async with served(server) as address:
        connection, said = await reach(address)
        for text in (b"a", "Gruß".encode(), b"b" * 700):
            connection.write(frame(TEXT, text, masked=True))
            assert await said.get() == text
        connection.close(1000, "")
        assert await connection.closed in (1000, 1006)


async def test_the_other_says_why_it_closes() -> None:
    async with served(echo) as address:
        connection, _ = await reach(address)
        connection.write(frame(TEXT, b"go", masked=True))
        assert await connection.closed == 4000


async def test_a_ping_is_answered_and_a_text_too_long_is_refused() -> None:
    async with served(hear) as address, aiohttp.ClientSession() as session:
        async with session.ws_connect(f"ws://{address}/peers", autoping=False) as socket:
            await socket.ping(b"there?")
            message = await socket.receive()
            assert (message.type, message.data) == (aiohttp.WSMsgType.PONG, b"there?")
            await socket.send_str("a" * 2000)
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            assert socket.close_code == UNREADABLE


async def test_a_client_that_does_not_mask_is_refused_and_told_why() -> None:
    async with served(hear) as address:
        connection, said = await reach(address)
        connection.write(frame(TEXT, b"a", masked=False))
        assert await connection.closed == UNREADABLE
    assert said.empty()


async def test_a_server_that_masks_is_refused() -> None:
    async def mask(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        request.transport.write(frame(TEXT, b"a", masked=True))
        await socket.receive()
        assert socket.close_code == UNREADABLE
        return socket

    async with served(mask) as address:
        connection, said = await reach(address)
        await connection.closed
    assert said.empty()


async def test_a_connection_that_is_cut_ends_and_the_server_has_forgotten_it() -> None:
    async with served(hear) as address:
        connection, said = await reach(address)
        connection.write(frame(PING, b"", masked=True))
        connection.write(frame(TEXT, b"a", masked=True))
        assert await said.get() == b"a"
        connection.abort()
        assert await connection.closed == 1006
    # `served` would wait here for one that it still counts.


@pytest.mark.parametrize(("opcode", "size"), [(PING, 125), (TEXT, 1000)])
async def test_one_that_asks_and_does_not_read_costs_little_memory(opcode: int, size: int) -> None:
    taken: list[Incoming] = []

    async def take(request: web.Request) -> web.StreamResponse:
        return await hear(request, taken)

    async with served(take) as address:
        connection, _ = await reach(address)
        connection._transport.pause_reading()  # type: ignore[union-attr]
        resumed = asyncio.Event()
        connection._resumed = resumed.set
        for _ in range(20):
            resumed.clear()
            connection.write(frame(opcode, b"a" * size, masked=True) * (1_000_000 // size))
            if connection.full:
                await asyncio.wait_for(resumed.wait(), 5.0)
        assert taken[0]._transport.get_write_buffer_size() < 2 * UNSENT  # type: ignore[union-attr]
        taken[0].pause_writing()
        taken[0].close(1000, "")
        assert await asyncio.wait_for(taken[0].closed, 5.0) == 1006  # At once: nobody will read what waits.
        connection.abort()


async def test_one_that_hangs_up_without_a_word_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    async with served(hear) as address:
        connection, said = await reach(address)
        connection.write(frame(TEXT, b"a", masked=True))
        assert await said.get() == b"a"
        connection._transport.write_eof()  # type: ignore[union-attr]
        assert await connection.closed == 1006
    assert not caplog.records


async def test_one_who_refuses_says_with_what_status() -> None:
    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.Response(status=401)

    async with served(refuse) as address:
        with pytest.raises(RefusedError, match="status 401"):
            await reach(address)


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.6\r\n\r\n", b"x" * 20_000, b""])
async def test_what_speaks_no_http_is_no_replica(answer: bytes) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        with pytest.raises((ConnectionError, RefusedError)):
            await reach(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
