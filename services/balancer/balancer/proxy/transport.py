"""One connection's bytes, either side: read in pieces, sent at once or kept until the peer takes them, closed for sure.

It speaks to its protocol as an asyncio transport does, by the same names, and differs where that matters here:
`abort` is a reset, so that nobody takes what came for the whole; a close with bytes unsent has a deadline; what came
before a reset is still read, where it may be an answer; memory is taken from one account for all (buffers.py).

Above 300 lines because reading, writing and closing of a connection are one state.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from socket import SocketType
from typing import Final

from mypy_extensions import mypyc_attr, trait

from balancer.proxy.buffers import Buffers
from balancer.proxy.poller import FAILED, READ, SAID_ALL, WRITE, Poller, Watched

CLOSE_PATIENCE: Final = 5.0
"""Seconds that a close waits for a peer that takes nothing of what is unsent."""
NOT_BEGUN: Final = 0.0
"""Idle since it was accepted."""
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: on, 0 seconds."""


class Guard:
    """What is given back when a connection is gone."""

    __slots__ = ()

    def release(self) -> None:
        """The connection is gone."""
        raise NotImplementedError


@trait
class Protocol:
    """What a connection's bytes mean: called by its transport for all that happens, under asyncio's names."""

    def connection_made(self, transport: Transport) -> None:
        """The connection is open."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        raise NotImplementedError

    def eof_received(self) -> bool:
        """The peer has said all; False lets the transport close."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is closed: the last call."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        """Too much is unsent."""

    def resume_writing(self) -> None:
        """Most of that has been sent."""

    def said_all_unread(self) -> None:
        """Reading is paused, and what waits to be read is the last that the peer has said."""

    def unused_since(self) -> float:
        """Since when (s) nothing is under way, so that the connection may be closed for a newcomer; below 0: busy."""
        return -1.0

    def unfinished_since(self) -> float:
        """Since when (s) the client has been sending what must be whole before anything is done; below 0: it is not."""
        return -1.0

    def evicted(self) -> None:
        """The connection is about to be closed for a newcomer: say so to a client that has begun to ask."""


class Nobody(Protocol):
    """Called for a connection that has no protocol yet, or no more."""

    __slots__ = ()

    def connection_made(self, transport: Transport) -> None:
        """Ignore it."""

    def data_received(self, data: bytes) -> None:
        """What comes is dropped."""

    def connection_lost(self, error: Exception | None) -> None:
        """Ignore it."""

    def unused_since(self) -> float:
        """It shakes hands, or is on its way."""
        return NOT_BEGUN


NOBODY: Final = Nobody()


@mypyc_attr(allow_interpreted_subclasses=False)
class Transport(Watched):
    """A plain connection; tls.py makes a secured one of it. `protocol` may change at any time."""

    __slots__ = (
        "_at_rest",
        "_error",
        "_events",
        "_full",
        "_out",
        "_paused",
        "_poller",
        "_read_all",
        "_shut",
        "_unsent",
        "_written_all",
        "closing",
        "gone",
        "patience",
        "patient",
        "place",
        "protocol",
        "sock",
    )

    def __init__(self, poller: Poller, sock: SocketType, patient: bool = False) -> None:
        """`sock` is connected and does not block. `patient`: what came before a reset is still worth reading."""
        super().__init__()
        self._poller = poller
        self.sock = sock
        self.protocol: Protocol = NOBODY
        self.place: Guard | None = None
        """The client's place (place.py), given back when this connection is gone."""
        self.patient = patient
        self.patience = CLOSE_PATIENCE
        """Seconds that `close` waits without anything being taken."""
        self.closing = False
        """Whether no more is read or accepted to be written."""
        self.gone = False
        """Whether it is over: `connection_lost` is about to be called, or has been."""
        self._events = READ
        """What the poller watches for."""
        self._at_rest = False
        """Whether the poller reports nothing at all."""
        self._out: list[bytes] = []
        self._unsent = 0
        self._full = False
        self._paused = False
        self._read_all = False
        """Whether the peer has said all."""
        self._written_all = False
        """Whether we have: nothing more is taken to be written."""
        self._shut = False
        """Whether we have ended our direction (FIN)."""
        self._error: Exception | None = None

    def watch(self) -> None:
        """Ask the poller for the socket's events; bytes go to the protocol that `attach` set."""
        self._poller.add(self, self.sock.fileno(), READ)

    def take_over(self, waiting: Watched) -> None:
        """Begin with a socket that `waiting` has watched until it could be written to."""
        self._events = WRITE
        self._poller.replace(waiting, self)
        self._ask(READ)

    def attach(self, protocol: Protocol) -> None:
        """Pass what happens to `protocol` from now on: `connection_made` first."""
        self.protocol = protocol
        protocol.connection_made(self)

    # What a protocol calls.

    def write(self, data: bytes) -> None:
        """Send, at once what the kernel takes, the rest as soon as it takes more."""
        if not self.closing and not self._written_all:
            self._send(data)

    def write_eof(self) -> None:
        """Half-close, once all has been sent."""
        if not self.closing and not self._written_all:
            self._written_all = True
            self._say_all()
            if not self._out:
                self._shut_down()

    def can_write_eof(self) -> bool:
        """Whether one direction can end before the other."""
        return True

    def close(self) -> None:
        """Close, once what is unsent has been sent, or a while after the peer has ceased to take it."""
        if self.closing:
            return
        if not self._written_all:
            self._written_all = True
            self._say_all()
        self.closing = True
        if self.gone:
            return
        if self._out:
            self._ask(WRITE)
            self._poller.wheel.arm(self, self._poller.clock() + self.patience)
        else:
            self._lose(None)

    def abort(self) -> None:
        """Reset the connection: what is unsent is lost, and the peer learns that something is missing."""
        if not self.gone:
            self._say_reset()
            self._lose(None)

    def pause_reading(self) -> None:
        """Let what comes wait."""
        self._paused = True

    def resume_reading(self) -> None:
        """Read on."""
        if self._paused:
            self._paused = False
            if not self.closing and not self._read_all:
                self._ask(self._events & ~SAID_ALL | READ)

    def is_reading(self) -> bool:
        """Whether what comes is read and passed on."""
        return not self._paused and not self.closing and not self._read_all

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self.closing

    @property
    def takes_nothing(self) -> bool:
        """Whether what is written is lost: the kernel has refused it, or the connection is closed or about to be."""
        return self.closing or self._error is not None

    def get_write_buffer_size(self) -> int:
        """Bytes unsent."""
        return self._unsent

    @property
    def buffers(self) -> Buffers:
        """The account of all that waits to be sent: a protocol that keeps bytes back of its own counts them there."""
        return self._poller.buffers

    def set_protocol(self, protocol: Protocol) -> None:
        """Call another from now on."""
        self.protocol = protocol

    def peer_address(self) -> tuple[str, int]:
        """Address and port of the far end; empty and 0 when it is gone."""
        try:
            name = self.sock.getpeername()
            return str(name[0]), int(name[1])
        except OSError:
            return "", 0

    def own_address(self) -> tuple[str, int]:
        """Address and port of our end; empty and 0 when it is gone."""
        try:
            name = self.sock.getsockname()
            return str(name[0]), int(name[1])
        except OSError:
            return "", 0

    # What the poller and the wheel call.

    def ready(self, events: int) -> None:
        try:
            if events & WRITE:
                self._flush()
            if events & ~WRITE and not self.gone:
                if self._paused or self._read_all or self.closing:
                    self._unwanted(events)
                else:
                    self._read()
        except Exception:  # noqa: BLE001 (`fault` logs and counts it)
            # A fault of ours in a callback: it costs this connection, and nothing else.
            self._poller.wheel.fault("a connection's callback failed", self)

    def expired(self, now: float) -> None:
        """The close has waited long enough."""
        self.abort()

    def crashed(self) -> None:
        self.abort()

    def fault(self, what: str) -> None:
        """Log and count an exception in a callback, and reset the connection; while the exception is handled."""
        self._poller.wheel.fault(what, self)

    def settle(self) -> None:
        self._poller.close(self, self.sock)
        protocol, self.protocol = self.protocol, NOBODY
        place, self.place = self.place, None
        error, self._error = self._error, None
        try:
            protocol.connection_lost(error)
        except Exception:  # noqa: BLE001 (`fault` logs and counts it)
            self.fault("a connection's end failed")
            # What it holds must be given back, and each step of that is done once: go through them again.
            protocol.connection_lost(error)
        finally:
            if place is not None:
                place.release()

    # Reading.

    def _read(self) -> None:
        try:
            data = self.sock.recv(self._poller.buffers.piece)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(self._error or error)
            return
        if data:
            self.protocol.data_received(data)
        else:
            self._ended()

    def _ended(self) -> None:
        """The peer has said all."""
        self._read_all = True
        if self._error is not None:
            self._lose(self._error)
            return
        stays = self.protocol.eof_received()
        if self.gone:
            return
        if not stays:
            self.close()
        elif self._shut:
            self._lose(None)
        else:
            self._ask(self._events & ~READ)

    def _unwanted(self, events: int) -> None:
        """Something has come while nobody reads."""
        if events & ~(READ | WRITE) == 0:
            self._ask(self._events & ~READ | SAID_ALL)
        elif events & ~(READ | WRITE) == SAID_ALL:
            self._ask(self._events & ~(READ | SAID_ALL))
            if not self._read_all and not self.closing:
                self.protocol.said_all_unread()
        elif self.patient and not self._read_all and not self.closing:
            # It failed, but what came before is still to be read; until then epoll would report it again and again.
            self._at_rest = True
            self._poller.rest(self)
        else:
            self._lose(ConnectionResetError("reset by the peer") if events & FAILED else None)

    # Writing.

    def _send(self, data: bytes) -> None:
        if not self._out:
            if self._error is not None or not data:
                return
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._broken(error)
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._ask(self._events | WRITE)
        self._out.append(data)
        self._account(len(data))
        buffers = self._poller.buffers
        if not self._full and (self._unsent > buffers.piece or buffers.unsent > buffers.limit):
            self._full = True
            self.protocol.pause_writing()

    def _flush(self) -> None:
        out = self._out
        if out and not self.gone:
            data = out[0] if len(out) == 1 else b"".join(out)
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._broken(error)
                return
            self._account(-sent)
            self._out = out = [data[sent:]] if sent < len(data) else []
            if out and sent and self.closing:
                self._poller.wheel.arm(self, self._poller.clock() + self.patience)
        if not out and not self.gone:
            self._ask(self._events & ~WRITE)
            if self.closing:
                self._lose(None)
                return
            if self._written_all and not self._shut:
                self._shut_down()
        if self._full and self._unsent * 4 <= self._poller.buffers.piece:
            self._full = False
            self.protocol.resume_writing()

    def _broken(self, error: OSError) -> None:
        """Nothing more can be sent."""
        self._account(-self._unsent)
        self._out = []
        if self.patient and not self._read_all and not self.closing:
            self._error = error
            self._ask(self._events & ~WRITE)
        else:
            self._lose(error)

    def _say_all(self) -> None:
        """Put behind what was written what marks its end: in TLS, an alert."""

    def _shut_down(self) -> None:
        self._shut = True
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._lose(error)
            return
        if self._read_all:
            self._lose(None)

    def _account(self, size: int) -> None:
        if size:
            self._unsent += size
            self._poller.buffers.add(size)

    # The end.

    def _say_reset(self) -> None:
        with contextlib.suppress(OSError):  # gone already
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _lose(self, error: Exception | None) -> None:
        """It is over; the protocol is called when the current callback has returned."""
        if self.gone:
            return
        self.gone = True
        self.closing = True
        self._error = error
        self._account(-self._unsent)
        self._out = []
        self._poller.wheel.forget(self)
        self._poller.forget(self)
        self._poller.later(self)

    def _ask(self, events: int) -> None:
        if self.gone:
            return
        if self._at_rest:
            self._at_rest = False
            self._events = events
            self._poller.wake(self, events)
        elif events != self._events:
            self._events = events
            self._poller.change(self, events)
