"""How connections end: half-closed first, so that no answer is lost to a reset."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

_LINGER_S = 2.0
"""How long a client may take to close its side once all has been sent, and how long sending may stand still."""


class Connections:
    """The open connections of an HTTP server: a protocol factory to listen with, in place of the server's own."""

    def __init__(self, server: Callable[[], asyncio.Protocol]) -> None:
        self._server = server
        self._open: set[_Connection] = set()
        self._none_open = asyncio.Event()
        self._none_open.set()

    def __call__(self) -> asyncio.Protocol:
        return _Connection(self._server(), self)

    async def wait_closed(self) -> None:
        """Return once no connection is open."""
        await self._none_open.wait()

    def abort(self) -> int:
        """Cut the connections that are still open. Returns how many."""
        for connection in self._open:
            connection.abort()
        return len(self._open)

    def opened(self, connection: _Connection) -> None:
        self._open.add(connection)
        self._none_open.clear()

    def closed(self, connection: _Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._none_open.set()


class _Connection(asyncio.Protocol):
    """Stands between a socket and the server's protocol, to which it passes everything until the server closes."""

    def __init__(self, protocol: asyncio.Protocol, connections: Connections) -> None:
        self._protocol = protocol
        self._connections = connections
        self._lingering: asyncio.TimerHandle | None = None
        self._unsent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.opened(self)
        self._protocol.connection_made(_Transport(self._transport, self))

    def data_received(self, data: bytes) -> None:
        if self._lingering is None:
            self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._lingering else self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
        self._connections.closed(self)
        self._protocol.connection_lost(exc)

    def abort(self) -> None:
        self._transport.abort()

    def linger(self) -> None:
        """Send what is left and the end of the stream, then discard what comes until the client ends its side too.

        Closing a socket at once, with unread bytes in it, makes the kernel send a reset, and that may destroy an answer
        which the client has not read yet (RFC 9112, section 9.6).
        """
        if self._lingering is not None or self._transport.is_closing():
            return
        self._wait_on()
        self._transport.resume_reading()
        self._transport.write_eof()

    def _wait_on(self) -> None:
        self._unsent = self._transport.get_write_buffer_size()
        self._lingering = asyncio.get_running_loop().call_later(_LINGER_S, self._waited)

    def _waited(self) -> None:
        if 0 < self._transport.get_write_buffer_size() < self._unsent:
            self._wait_on()
        else:
            self._transport.abort()


class _Transport(asyncio.Transport):
    """What the server's protocol sees of the socket: `close` lingers, the rest is passed on."""

    def __init__(self, transport: asyncio.Transport, connection: _Connection) -> None:
        super().__init__()
        self._transport = transport
        self._connection = connection
        self._closed = False
        self.write = transport.write  # type: ignore[method-assign]  # one call less for each write
        self.writelines = transport.writelines  # type: ignore[method-assign]

    def close(self) -> None:
        self._closed = True
        self._connection.linger()

    def is_closing(self) -> bool:
        return self._closed or self._transport.is_closing()

    def abort(self) -> None:
        self._transport.abort()

    def pause_reading(self) -> None:
        if not self._closed:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 (the interface's own)
        return self._transport.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)
