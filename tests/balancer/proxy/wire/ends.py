"""The two ends of the wire: a client that writes raw bytes, an endpoint that answers by script."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from tests.balancer.proxy.wire.messages import (
    PATIENCE,
    Closed,
    Message,
    read_exactly,
    read_head,
    read_request,
    read_response,
    read_to_end,
    read_until,
)

LIMIT = 1 << 24
ACCEPTING = 5
"""Turns of the event loop from a connection accepted to the call of `Endpoint._accept`, and to its transport's end."""


def encoded(data: str | bytes) -> bytes:
    return data.encode("latin-1") if isinstance(data, str) else data


_open: set[End] = set()
_listening: set[Endpoint] = set()


async def close_all() -> None:
    """Close what a failed test has left open, so that it fails for its own reason alone."""
    for endpoint in list(_listening):
        await endpoint.stop()
    for end in list(_open):
        end.writer.transport.abort()
    await let_accepted_begin()
    _open.clear()


async def let_accepted_begin() -> None:
    """Let asyncio, some turns of the loop, begin with the connections that it has accepted: else nobody closes them."""
    for _ in range(ACCEPTING):
        await asyncio.sleep(0)


def still_open(server: asyncio.Server) -> bool:
    """Whether asyncio has connections that it accepted for `server`, one amid a TLS handshake too."""
    return bool(getattr(server, "_active_count", 0))


class End:
    """One open connection, seen from either side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        _open.add(self)

    async def send(self, data: str | bytes) -> None:
        """Write, and wait until the kernel has it."""
        self.writer.write(encoded(data))
        async with asyncio.timeout(PATIENCE):
            await self.writer.drain()

    async def dribble(self, data: str | bytes, step: int = 1) -> None:
        """Write in pieces of `step` bytes, each in a segment of its own."""
        whole = encoded(data)
        for start in range(0, len(whole), step):
            await self.send(whole[start : start + step])
            await asyncio.sleep(0.0005)

    async def exactly(self, size: int) -> bytes:
        return await read_exactly(self.reader, size)

    async def until(self, mark: str | bytes) -> bytes:
        return await read_until(self.reader, encoded(mark))

    async def to_end(self) -> bytes:
        """Everything until the other side closes; fails when it does not."""
        return await read_to_end(self.reader)

    async def some(self, within: float) -> bytes:
        """What comes next within so many seconds; nothing (b"") when all is silent. The end is told as Closed."""
        try:
            async with asyncio.timeout(within):
                data = await self.reader.read(65536)
        except TimeoutError:
            return b""
        except ConnectionError:
            raise Closed(b"(reset)") from None
        if not data:
            raise Closed(b"")
        return data

    def half_close(self) -> None:
        self.writer.write_eof()

    def reset(self) -> None:
        """Close with RST, as a killed peer behind a firewall would."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        closed = False
        try:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                async with asyncio.timeout(1):
                    await self.writer.wait_closed()
            closed = True
        except TimeoutError:
            pass
        finally:
            _open.discard(self)
            if not closed:
                self.writer.transport.abort()  # else it waits on for a side that does not read


class Client(End):
    """A client's connection to the balancer."""

    @classmethod
    async def connect(
        cls, port: int, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None, receive_buffer: int = 0
    ) -> Client:
        """`receive_buffer` (bytes) makes the kernel's buffer small, for a client that reads slowly."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        async with asyncio.timeout(PATIENCE):
            try:
                await asyncio.get_running_loop().sock_connect(sock, (host, port))
            except OSError:
                sock.close()
                raise
            limit = receive_buffer or LIMIT
            name = "lb.test" if tls else None
            reader, writer = await asyncio.open_connection(sock=sock, limit=limit, ssl=tls, server_hostname=name)
        return cls(reader, writer)

    async def response(self, method: str = "GET") -> Message:
        return await read_response(self.reader, method)

    async def head(self) -> Message:
        return await read_head(self.reader)

    async def ask(self, request: str | bytes, method: str = "GET") -> Message:
        """Send one request, get its response."""
        await self.send(request)
        return await self.response(method)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Accepted(End):
    """A connection that the balancer opened to an endpoint."""

    number = 0
    """Which of the endpoint's connections it is, from 1."""

    async def request(self) -> Message:
        return await read_request(self.reader)

    async def head(self) -> Message:
        return await read_head(self.reader)


Answer = Callable[[Message], bytes | str]
Script = Callable[[Accepted], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def always(answer: str | bytes) -> Script:
    """A script that gives every whole request the same answer."""
    return answering(lambda _request: answer)


def answering(answer: Answer) -> Script:
    """A script that answers each whole request by a function."""

    async def script(connection: Accepted) -> None:
        while True:
            await connection.send(answer(await connection.request()))

    return script


POLITE = always(OK)


class Endpoint:
    """An endpoint on a port of its own. By default it answers every request with `ok`; a script plays anything else.

    With `script=None` it only accepts: the test takes each connection with `accept` and acts itself.
    """

    def __init__(
        self,
        port: int,
        script: Script | None = POLITE,
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        remembers: bool = True,
    ) -> None:
        """`remembers`: whether `requests` keeps every request, whole."""
        self.remembers = remembers
        self.port = port
        self.host = host
        self.script = script
        self.tls = tls
        self.accepted = 0
        self.requests: list[Message] = []
        self.broken: list[BaseException] = []
        self._waiting: asyncio.Queue[Accepted] = asyncio.Queue()
        self._open: set[Accepted] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # stopped in the turn in which this one came
            writer.transport.abort()
            return
        connection = Accepted(reader, writer)
        self.accepted += 1
        connection.number = self.accepted
        self._open.add(connection)
        if self.script is None:
            self._waiting.put_nowait(connection)
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._play(connection)
        except asyncio.CancelledError:
            pass
        finally:
            try:
                await connection.close()
            finally:
                self._tasks.discard(task)
                self._open.discard(connection)

    async def _play(self, connection: Accepted) -> None:
        assert self.script is not None
        heard = connection.request

        async def request() -> Message:
            message = await heard()
            if self.remembers:
                self.requests.append(message)
            return message

        connection.request = request  # type: ignore[method-assign]
        try:
            await self.script(connection)
        except (Closed, ConnectionError, TimeoutError, ssl.SSLError):
            pass
        except Exception as error:  # noqa: BLE001  (told by the test's end, not lost in a task)
            self.broken.append(error)

    async def accept(self) -> Accepted:
        """The next connection that the balancer opens."""
        async with asyncio.timeout(PATIENCE):
            return await self._waiting.get()

    async def start(self) -> None:
        _listening.add(self)
        self._server = await asyncio.start_server(
            self._accept, self.host, self.port, limit=LIMIT, ssl=self.tls, backlog=4096, reuse_address=True
        )

    async def stop(self) -> None:
        """Stop listening and cut what is open."""
        _listening.discard(self)
        if self._server is None:
            return
        self._server.close()
        self._server = None
        await let_accepted_begin()
        for task in list(self._tasks):
            task.cancel()
        for connection in list(self._open):
            _open.discard(connection)
            connection.writer.transport.abort()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=2)
        await asyncio.sleep(0)  # An aborted transport closes its socket in the next turn.
        self._open.clear()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if kind is None and self.broken:
            raise self.broken[0]
