"""TLS as a transport of ours: OpenSSL works on bytes in memory, and the socket stays with the plain transport.

One piece read is decrypted and passed on in one call, one write is encrypted and sent in one call; a record at a time
goes through OpenSSL's buffers, so that an idle connection holds little. The session tickets that follow a handshake
leave with the first response where its request came with the handshake's end, which saves a packet. Otherwise they
leave at once: many clients send no request before that end is acknowledged (Nagle), and an acknowledgement by itself
takes 40 ms.
"""

from __future__ import annotations

import contextlib
import ssl
from socket import SocketType
from typing import Final

from mypy_extensions import trait

from balancer.proxy.buffers import LARGE, SMALL
from balancer.proxy.poller import Poller
from balancer.proxy.transport import NOBODY, Transport

RECORD: Final = 16384
"""Bytes of the longest TLS record's content."""
STRETCH: Final = 4 * RECORD
"""Bytes that go through OpenSSL's buffers at once: they keep as many, and a third more, for the connection's life. It
saves an eighth of the time that 64 KB take to encrypt, so that only a few connections may: with more than FEW sockets
open, or as soon as pieces are of middling size, it is a record; with more than MANY, or small pieces, a SHORT one."""
SHORT: Final = 4096
FEW: Final = 256
MANY: Final = 2048
HANDSHAKE: Final = 22
"""The first byte of a TLS connection."""


@trait
class Secured:
    """Called with the end of a handshake."""

    def secured(self, transport: TlsTransport) -> None:
        """The handshake is done: `attach` what goes on."""
        raise NotImplementedError

    def not_secured(self, transport: TlsTransport, error: Exception | None) -> None:
        """The connection ended before the handshake did; None: it was only closed, or took too long."""
        raise NotImplementedError

    def not_tls(self, transport: TlsTransport, data: bytes) -> bytes:
        """A client does not speak TLS: what to say to it in plain text before the end; empty: nothing."""
        return b""


class TlsTransport(Transport):
    """A connection secured by TLS, client's or endpoint's."""

    __slots__ = (
        "_discarding",
        "_failed",
        "_fresh",
        "_incoming",
        "_notified",
        "_outgoing",
        "_secured",
        "_server_side",
        "_shaking",
        "_ssl",
        "_timed_out",
        "_withheld",
    )

    def __init__(
        self,
        poller: Poller,
        sock: SocketType,
        context: ssl.SSLContext,
        secured: Secured,
        name: str | None = None,
        patient: bool = False,
    ) -> None:
        """`name`: the server's, for SNI and verification, when we are the client; None: we are the server."""
        super().__init__(poller, sock, patient)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._server_side = name is None
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, self._server_side, name)
        self._secured: Secured | None = secured
        self._shaking = True
        self._fresh = True
        self._timed_out = False
        self._discarding = False
        """Whether what comes is read and dropped: the client does not speak TLS, and has had its answer."""
        self._notified = False
        """Whether the peer has said, by close_notify, that this was all."""
        self._withheld = 0
        """Bytes of session tickets that wait for the first response."""
        self._failed: ssl.SSLError | None = None

    @property
    def alpn(self) -> str:
        """The protocol agreed on; empty: none."""
        return self._ssl.selected_alpn_protocol() or ""

    @property
    def ssl_object(self) -> ssl.SSLObject:
        """What OpenSSL knows of the connection."""
        return self._ssl

    def begin(self, timeout: float) -> None:
        """Shake hands, within `timeout` (s), on a socket that is watched already."""
        self._begin(timeout, b"")

    def go_on_from(self, plain: Transport, timeout: float, rest: bytes) -> None:
        """Shake hands on the socket of `plain`, which is used no more; `rest` has been read of it already."""
        self._out, self._unsent = plain._out, plain._unsent
        plain._out, plain._unsent = [], 0
        self._events, self._at_rest = plain._events, plain._at_rest
        self.place, plain.place = plain.place, None
        plain.gone = plain.closing = True
        plain.protocol = NOBODY
        self._poller.wheel.forget(plain)
        self._poller.replace(plain, self)
        self._begin(timeout, rest)

    def _begin(self, timeout: float, rest: bytes) -> None:
        self._poller.wheel.arm(self, self._poller.clock() + timeout)
        if rest:
            self._take(rest)
        elif not self._server_side:
            self._shake()

    def write_plain(self, data: bytes) -> None:
        """Send before the handshake, and outside it."""
        self._send(data)

    def write(self, data: bytes) -> None:
        if self.closing or self._written_all or self._error is not None or not data:
            return
        self._send(self._encrypted(data))

    def expired(self, now: float) -> None:
        if self._shaking and not self.closing:
            self._timed_out = True
        self.abort()

    def settle(self) -> None:
        secured, self._secured = self._secured, None
        if self._shaking and secured is not None:
            error = TimeoutError("handshake timed out") if self._timed_out else self._failed or self._error
            try:
                secured.not_secured(self, error)
            finally:
                self._failed = None
                super().settle()
            return
        self._failed = None
        super().settle()

    # Records.

    def _stretch(self) -> int:
        """Bytes to send through OpenSSL's buffers at once."""
        piece = self._poller.buffers.piece
        sockets = self._poller.open_files
        if piece == SMALL or sockets > MANY:
            return SHORT
        return STRETCH if piece == LARGE and sockets <= FEW else RECORD

    def _encrypted(self, data: bytes) -> bytes:
        if len(data) <= SHORT:
            self._ssl.write(data)
            return self._outgoing.read()
        stretch = self._stretch()
        pieces = []
        view = memoryview(data)
        position = 0
        end = len(data)
        while position < end:
            stop = min(position + stretch, end)
            while position < stop:  # one record a call
                position += self._ssl.write(view[position:stop])
            pieces.append(self._outgoing.read())
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read(self) -> None:
        try:
            data = self.sock.recv(self._poller.buffers.piece)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(self._error or error)
            return
        if not data:
            # Without close_notify somebody else may have ended it: what came may not be all.
            self._lose(self._error or ConnectionAbortedError("closed without close_notify"))
        elif not self._discarding:
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Bytes have come from the socket."""
        if self._shaking and self._fresh:
            self._fresh = False
            if self._server_side and data[0] != HANDSHAKE:
                self._not_tls(data)
                return
        pieces: list[bytes] = []
        if len(data) <= SHORT:
            self._decrypt(data, pieces)
        else:
            stretch = min(self._stretch(), RECORD)
            view = memoryview(data)
            for position in range(0, len(data), stretch):
                self._decrypt(view[position : position + stretch], pieces)
        if pieces and not self.gone:
            self.protocol.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._notified and not self.gone and not self._read_all:
            self._ended()
        pending = self._outgoing.pending
        if pending and (pending > self._withheld or not pieces):
            self._withheld = 0
            self._send(self._outgoing.read())
            if self._unsent > LARGE:
                self.abort()  # it asks for answers of TLS itself, and reads none

    def _decrypt(self, data: bytes | memoryview, pieces: list[bytes]) -> None:
        """Add to `pieces` what OpenSSL makes of `data`; shake hands first."""
        incoming = self._incoming
        if self._notified or self.closing:
            return
        incoming.write(data)
        if self._shaking:
            self._shake()
        try:
            while incoming.pending and not self.closing and not self._shaking:
                piece = self._ssl.read(RECORD)
                if not piece:
                    self._notified = True
                    return
                pieces.append(piece)
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            self._fail(error)

    def _shake(self) -> None:
        """Go on with the handshake, by what has come."""
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._send(self._outgoing.read())
            return
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._shaking = False
        self._poller.wheel.forget(self)
        secured, self._secured = self._secured, None
        if self._server_side:
            self._withheld = self._outgoing.pending
        else:
            self._send(self._outgoing.read())
        if secured is not None and not self.gone:
            secured.secured(self)

    def _fail(self, error: ssl.SSLError) -> None:
        """Send the peer an alert, and end."""
        self._send(self._outgoing.read())
        self._written_all = True
        self._failed = error
        if not self._out:
            self._lose(error)
        else:
            self.close()

    def _not_tls(self, data: bytes) -> None:
        """Say so in plain text, if there is something to say, and read on for a while: no answer is lost to a reset."""
        answer = self._secured.not_tls(self, data) if self._secured is not None else b""
        if not answer:
            self.abort()
            return
        self._discarding = True
        self._send(answer)
        self._written_all = True
        if not self._out and not self.gone:
            self._shut_down()

    def _say_all(self) -> None:
        if self._shaking or self.gone or self._failed is not None:
            return
        with contextlib.suppress(ssl.SSLError):  # the peer's part of it has not come: nobody waits for that
            self._ssl.unwrap()
        self._withheld = 0
        self._send(self._outgoing.read())
