"""One open connection between two replicas, from either end.

Compiled, so these are protocols of asyncio in all but their base class: `protocol` says so to the type checker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from balancer.peers.frames import (
    ABNORMAL,
    CLOSE,
    PING,
    PONG,
    TEXT,
    BadFrame,
    Frames,
    close_code,
    close_frame,
    frame,
    opened,
    opening,
)

UNSENT: Final = 1 << 20
"""Bytes that may wait for the other to read them; what would come after them is left out."""
LONGEST_HEAD: Final = 16_384
UNREADABLE: Final = 4001
"""Close code: what was sent is no report of this version."""
SWITCHING: Final = 101


class RefusedError(Exception):
    """The other does not open a WebSocket; `status` is what it answers instead, 0 where that is no HTTP."""

    def __init__(self, status: int) -> None:
        super().__init__(f"refused with status {status}" if status else "what answers there speaks no WebSocket")
        self.status = status


class Connection:
    """Speaks WebSocket on a transport: text goes to `read`, a ping is answered, and a close ends it."""

    def __init__(self, most: int, masks: bool) -> None:
        """`most`: bytes of the longest message that is read; `masks`: this end has opened it."""
        self.masks = masks
        self._frames = Frames(most, not masks)
        self._transport: asyncio.Transport | None = None
        self._code = ABNORMAL
        self.full = False
        """Whether the other reads too slowly for any more."""
        self.closed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Done, with the other's close code, once the connection has ended."""

    @property
    def protocol(self) -> asyncio.Protocol:
        """What asyncio is given."""
        return cast("asyncio.Protocol", self)

    def read(self, text: bytes) -> None:
        """A message has come."""

    def use(self, transport: asyncio.Transport) -> None:
        """Speak on `transport`."""
        self._transport = transport
        transport.set_write_buffer_limits(UNSENT)

    def write(self, data: bytes) -> None:
        """Send a frame, unless the connection has ended or the other does not read."""
        if self._transport is not None and not self.full and not self._transport.is_closing():
            self._transport.write(data)

    def close(self, code: int, reason: str) -> None:
        """Say why, and end it; at once where the other does not read."""
        if self.full:
            self.abort()
            return
        self.write(close_frame(code, reason, self.masks))
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Frames, or parts of them."""
        try:
            for opcode, payload in self._frames.feed(data):
                if opcode == TEXT:
                    self.read(payload)
                elif opcode == PING:
                    self.write(frame(PONG, payload, self.masks))
                elif opcode == CLOSE:
                    self._code = close_code(payload)
                    self.close(self._code if self._code != ABNORMAL else 1000, "")
                    return
        except BadFrame as bad:
            self.close(UNREADABLE, str(bad))

    def eof_received(self) -> bool:
        """The other has hung up without a word: so does this end."""
        return False

    def pause_writing(self) -> None:
        """The other does not read."""
        self.full = True

    def resume_writing(self) -> None:
        """It does again."""
        self.full = False

    def connection_lost(self, error: Exception | None) -> None:
        """The connection has ended."""
        if not self.closed.done():
            self.closed.set_result(self._code)


class Incoming(Connection):
    """One that another replica has opened, taken over from the admin port's server."""

    def __init__(self, server: asyncio.BaseProtocol, take: Callable[[Incoming, bytes], None], most: int) -> None:
        super().__init__(most, False)
        self._take = take
        self._server = server
        self.name = ""
        """The replica's, once it has said it."""
        self.is_ours = True
        """Whether it may be this process that has opened it."""
        self.heard_at = 0.0
        """When it said something last (s)."""

    def read(self, text: bytes) -> None:
        """A report has come."""
        self._take(self, text)

    def connection_lost(self, error: Exception | None) -> None:
        """The server, which counts its connections, must know of it too."""
        super().connection_lost(error)
        self._server.connection_lost(error)


class Outgoing(Connection):
    """One that this replica opens."""

    def __init__(
        self, address: str, path: str, token: str, take: Callable[[bytes], None], most: int, resumed: Callable[[], None]
    ) -> None:
        """`resumed` is called once the other reads again."""
        super().__init__(most, True)
        self._take = take
        self._request, self._accept = opening(address, path, token)
        self._resumed = resumed
        self._head = b""
        self._is_open = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once reports may be sent. Raises RefusedError and ConnectionError."""

    def read(self, text: bytes) -> None:
        """An answer has come."""
        self._take(text)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for a WebSocket."""
        self.use(cast("asyncio.Transport", transport))
        self.write(self._request)

    def data_received(self, data: bytes) -> None:
        """The head of the answer; then frames."""
        if self._is_open:
            super().data_received(data)
            return
        self._head += data
        head, ended, rest = self._head.partition(b"\r\n\r\n")
        if self.opened.done() or (not ended and len(head) < LONGEST_HEAD):
            return
        status = opened(head, self._accept) if ended else 0
        if status != SWITCHING:
            self.opened.set_exception(RefusedError(status))
            self.abort()
            return
        self._is_open = True
        self._head = b""
        self.opened.set_result(None)
        if rest:
            super().data_received(rest)

    def resume_writing(self) -> None:
        """What was left out meanwhile must be said."""
        super().resume_writing()
        self._resumed()

    def connection_lost(self, error: Exception | None) -> None:
        """It has ended, before it was open perhaps."""
        super().connection_lost(error)
        if not self.opened.done():
            self.opened.set_exception(
                error if isinstance(error, ConnectionError) else ConnectionResetError("it hung up")
            )
