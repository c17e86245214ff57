"""What a connection sends: one joined write for each batch of events, and DATA as far as windows allow.

Frames are collected and written together when all that came in this batch has been read: with many streams to a
connection, that is what the speed of HTTP/2 comes from (one write a frame: an eighth of it).

Above 300 lines because frames, windows and what waits for them are one state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from balancer.proxy.buffers import Buffers
from balancer.proxy.http2 import frames
from balancer.proxy.http2.fields import Pair
from balancer.proxy.http2.hpack import Block, Encoder
from balancer.proxy.poller import Poller, Writer
from balancer.proxy.timers import Timed
from balancer.proxy.transport import Protocol, Transport

CONTROL: Final = b"\x00\x00\x00\x00"
"""The identifier of the connection itself, which is no stream."""
ENOUGH: Final = 1 << 16
"""Bytes of DATA collected that are written at once: the kernel may take no more, and what waits is to be counted."""
_BYTES: Final = [bytes([number]) for number in range(256)]
NOTHING: Final[list[bytes]] = []
"""What nearly all streams have unsent: never changed."""


class Stream:
    """One stream: what both sides of it may still send, and what waits for a window to open.

    Subclasses say what is to be done with what comes; connections call them.
    """

    __slots__ = (
        "connection",
        "credit",
        "expected",
        "gone",
        "id",
        "last",
        "moved_at",
        "paused",
        "received",
        "room",
        "sent_end",
        "size",
        "taken",
        "total",
        "unsent",
        "unsent_end",
        "wire",
    )

    def __init__(self, connection: Sending, number: int) -> None:
        self.connection = connection
        self.id = number
        self.wire = connection.wire_of(number)
        """The identifier's bytes."""
        self.credit = 0
        """Bytes that it may send beyond the initial window that the peer gives to each; below 0: that many fewer."""
        self.unsent = NOTHING
        """Data that waits for a window."""
        self.unsent_end = False
        """Whether the stream ends with `unsent`."""
        self.last: Sequence[Pair] | None = None
        """Trailers that follow `unsent`."""
        self.gone = False
        """Whether it has ended on both sides, or was reset: it is none of its connection's streams any more."""
        self.sent_end = False
        self.received = False
        """Whether the peer has ended its side."""
        self.expected = -1
        """Bytes of body that are still to come by Content-Length; -1: unknown."""
        self.size = frames.WINDOW
        """Bytes of the window that we give."""
        self.room = frames.WINDOW
        """Bytes that the peer may still send."""
        self.taken = 0
        """Bytes that came and have not been given back to its window."""
        self.total = 0
        """Bytes that came since its window was last made larger."""
        self.paused = False
        """Whether what comes is not wanted now: its window stays closed."""
        self.moved_at = connection.now
        """When something last came, or could be sent (s)."""

    def headers_received(self, block: Block, end: bool) -> None:
        """A header block has come whole: a server's is never the first. Raises Malformed."""
        raise NotImplementedError

    def data_received(self, data: bytes, end: bool) -> None:
        """Data has come."""
        raise NotImplementedError

    def was_reset(self, code: int) -> None:
        """The peer ended the stream, or it had to be ended for the peer's fault."""
        raise NotImplementedError

    def drained(self) -> None:
        """What waited for a window has been sent."""
        raise NotImplementedError

    def look(self, now: float) -> float:
        """Time has passed: look whether something takes too long; when (s) to look again at the latest.

        Whatever begins to be waited for later sets `moved_at`, so that it cannot be late before a timeout from then.
        """
        raise NotImplementedError


class Sending(Timed, Protocol, Writer):
    """The sending half of a connection."""

    __slots__ = (
        "_blocked",
        "_buffers",
        "_dirty",
        "_loop",
        "_out",
        "_poller",
        "_prefix",
        "_prefix_of",
        "_tail",
        "encoder",
        "frame_size",
        "full",
        "now",
        "peer_window",
        "send_window",
        "streams",
        "transport",
        "written",
    )

    def __init__(self, poller: Poller) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._poller = poller
        self.transport: Transport | None = None
        self._buffers: Buffers | None = None
        self.encoder = Encoder()
        self.streams: dict[int, Stream] = {}
        """The streams that neither side has ended for good."""
        self.now = 0.0
        """The time (s) of the last read."""
        self.send_window = frames.WINDOW
        """Bytes of DATA that the peer takes from all streams together."""
        self.peer_window = frames.WINDOW
        """Bytes that it takes from a stream at first."""
        self.frame_size = frames.FRAME_SIZE
        """Bytes of the longest frame that it takes."""
        self.full = False
        """Whether the kernel's buffer and ours are full: no DATA until they are emptier."""
        self.written = 0
        """Pieces of frames sent since somebody last counted: three for DATA and HEADERS, one for the small ones."""
        self._prefix = b""
        """The first three bytes of the last stream's identifier, which the next ones share."""
        self._prefix_of = -1
        self._out: list[bytes] = []
        self._tail: Stream | None = None
        """The stream of the last frame of `_out`, where that is DATA."""
        self._dirty = False
        self._blocked: dict[Stream, None] = {}
        """Streams with data that waits, the next first."""

    def time(self) -> float:
        """The time (s)."""
        raise NotImplementedError

    # Frames.

    def wire_of(self, number: int) -> bytes:
        """A stream's identifier as its frames carry it."""
        high = number >> 8
        if high != self._prefix_of:
            self._prefix_of = high
            self._prefix = frames.four(number)[:3]
        return self._prefix + _BYTES[number & 0xFF]

    def write(self, data: bytes) -> None:
        """Send bytes with all else of this batch."""
        self._out.append(data)
        self._tail = None
        if not self._dirty:
            self._dirty = True
            self._poller.write_later(self)

    def crashed(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def write_collected(self) -> None:
        try:
            self.flush()
        except Exception:  # noqa: BLE001 (`fault` logs and counts it)
            self._poller.wheel.fault("a connection's writing failed", self)

    def flush(self) -> None:
        """Write what has been collected."""
        self._dirty = False
        out = self._out
        if not out:
            return
        self._out = []
        self._tail = None
        self.written += len(out)
        transport = self.transport
        if transport is not None and not transport.is_closing():
            data = b"".join(out)
            self.wrote(len(data))
            transport.write(data)

    def wrote(self, size: int) -> None:
        """Count bytes sent."""

    def send_headers(self, stream: Stream, block: bytes, end: bool) -> None:
        """Send a header block, in as many frames as it takes."""
        flags = frames.END_STREAM if end else 0
        size = len(block)
        limit = self.frame_size
        if size <= limit:
            self.write(frames.head(frames.HEADERS, flags | frames.END_HEADERS, size))
            self._out.append(stream.wire)
            self._out.append(block)
        else:
            self.write(frames.head(frames.HEADERS, flags, limit) + stream.wire + block[:limit])
            for at in range(limit, size, limit):
                piece = block[at : at + limit]
                flags = frames.END_HEADERS if at + limit >= size else 0
                self.write(frames.head(frames.CONTINUATION, flags, len(piece)) + stream.wire + piece)
        if end:
            self._sent_end(stream)

    def send_data(self, stream: Stream, data: bytes, end: bool) -> None:
        """Send data, or keep it until windows open."""
        size = len(data)
        if size == 0 and end and self._tail is stream and not stream.unsent:
            self._end_with_tail(stream)
            return
        if not stream.unsent and (
            size == 0
            or (
                size <= self.send_window
                and size <= self.peer_window + stream.credit
                and size <= self.frame_size
                and not self.full
            )
        ):
            self._send_frame(stream, data, end)
            if end:
                self._sent_end(stream)
            return
        if data:
            self._wait(size)
            if stream.unsent:
                stream.unsent.append(data)
            else:
                stream.unsent = [data]
                stream.moved_at = self.time()  # from here on the peer is waited for
        stream.unsent_end = end
        self.opened(stream)

    def _send_frame(self, stream: Stream, data: bytes, end: bool) -> None:
        """Send one frame of DATA, which all windows allow."""
        size = len(data)
        self.send_window -= size
        stream.credit -= size
        self.write(frames.head(frames.DATA, frames.END_STREAM if end else 0, size))
        self._out.append(stream.wire)
        self._out.append(data)
        if not end:
            self._tail = stream

    def _end_with_tail(self, stream: Stream) -> None:
        """End a stream by the DATA that has not been written yet: an empty frame is spared, on both sides."""
        out = self._out
        out[-3] = frames.head(frames.DATA, frames.END_STREAM, len(out[-1]))
        self._tail = None
        self._sent_end(stream)

    def send_trailers(self, stream: Stream, trailers: Sequence[Pair]) -> None:
        """End a stream with trailers, behind all data."""
        if stream.unsent:
            stream.last = trailers
        else:
            self._send_last(stream, trailers)

    def _send_last(self, stream: Stream, trailers: Sequence[Pair]) -> None:
        key = tuple(trailers)
        block = self.encoder.known(key)
        if block is None:
            block = self.encoder.encode([(name.lower(), value) for name, value in trailers], key)
        self.send_headers(stream, block, True)

    def reset(self, stream: Stream, code: int) -> None:
        """End a stream at once, by RST_STREAM."""
        self.write(frames.rst_stream(stream.wire, code))
        self.forget(stream)

    def forget(self, stream: Stream) -> None:
        """A stream has ended on both sides, or is to be."""
        if stream.unsent:
            for data in stream.unsent:
                self._wait(-len(data))
            self._blocked.pop(stream, None)
            stream.unsent = NOTHING
        stream.sent_end = True
        if not stream.gone:
            stream.gone = True
            del self.streams[stream.id]
        self.left(stream)

    def left(self, stream: Stream) -> None:
        """A stream is gone from `streams`."""

    def _sent_end(self, stream: Stream) -> None:
        stream.sent_end = True
        if stream.received:
            self.forget(stream)
        else:
            self.ended_early(stream)

    def ended_early(self, stream: Stream) -> None:
        """We have ended our side of a stream, and the peer has not."""

    # Windows.

    def opened(self, stream: Stream) -> None:
        """A stream's window has opened."""
        if stream.unsent:
            self._blocked[stream] = None
            self._pump()

    def _pump(self) -> None:
        """Send what windows allow: a frame of each stream in turn, so that none waits for another."""
        blocked = self._blocked
        collected = 0
        while blocked and self.send_window > 0 and not self.full:
            stream = next(iter(blocked))
            del blocked[stream]
            room = min(self.peer_window + stream.credit, self.send_window, self.frame_size)
            if room <= 0:
                continue  # It comes back when its own window opens.
            piece = self._piece(stream, room)
            end = stream.unsent_end and not stream.unsent
            stream.moved_at = self.time()
            self._send_frame(stream, piece, end)
            collected += len(piece)
            if collected >= ENOUGH:
                collected = 0
                self.flush()
            if stream.unsent:
                blocked[stream] = None
                continue
            if end:
                self._sent_end(stream)
            elif stream.last is not None:
                last, stream.last = stream.last, None
                self._send_last(stream, last)
            stream.drained()

    def _piece(self, stream: Stream, room: int) -> bytes:
        """Take at most `room` bytes of what waits."""
        unsent = stream.unsent
        first = unsent[0]
        if len(first) > room:
            unsent[0] = first[room:]
            first = first[:room]
        else:
            del unsent[0]
        self._wait(-len(first))
        return first

    def _wait(self, size: int) -> None:
        """`size` bytes more wait for a window, or fewer: what waits on all connections makes the pieces smaller."""
        if self._buffers is not None:
            self._buffers.add(size)

    # What the transport calls.

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport
        self._buffers = transport.buffers

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        self._pump()
