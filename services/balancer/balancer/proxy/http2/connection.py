"""One HTTP/2 connection, either side of it: from bytes to frames to streams (RFC 9113 §4 to §6).

What a peer may do without end is paid for from a leaky bucket (`_noise`): a ping, a reset, an empty frame costs, time
and useful frames pay back. So an honest connection lives for ever, and a flood ends with ENHANCE_YOUR_CALM.

Above 300 lines because every kind of frame is read here, and each may end any other's stream.
"""

from __future__ import annotations

from typing import Final

from balancer.proxy.fields import trailers_to_pass_on
from balancer.proxy.http2 import fields, frames
from balancer.proxy.http2.fields import Malformed, Pair
from balancer.proxy.http2.frames import ConnectionFault
from balancer.proxy.http2.hpack import BadBlock, Block, Decoder
from balancer.proxy.http2.sending import CONTROL, Sending, Stream
from balancer.proxy.poller import Poller

CONNECTION_WINDOW: Final = 1 << 20
"""Bytes of DATA that a peer may send on all streams before we say that more may come."""
MAX_GROWN: Final = 1 << 20
"""Bytes to which the window of a stream grows that keeps sending."""
MEMORY: Final = 4 << 20
"""Bytes of a connection's streams that may wait for others to take them, and by which their windows may grow."""

NOISE: Final = 1000.0
"""Frames without use, more than useful ones, that a peer may send at once;"""
NOISE_PER_SECOND: Final = 50.0
"""and those of each second on top."""
SENT_PAYS: Final = 0.5
"""What each piece of a frame that we send pays back: more than the two updates of windows for each frame of DATA."""
MOST_SENT: Final = 12_000
"""Pieces that have not paid yet and still may: those of 64 MB, for which the peer has not opened windows so far."""
RESET_NOISE: Final = 5.0
"""A stream that is reset as soon as it is opened costs more than a ping: work was done for nothing. So does one that
the peer makes us reset (CVE-2025-8671)."""
SOON: Final = 0.1
"""Seconds."""
MAX_FRAGMENTS: Final = 64
"""Frames of one header block."""
KEPT_RESETS: Final = 256
"""Streams reset by us of which frames may still be on their way."""


class Connection(Sending):
    """The receiving half of a connection, on top of the sending half."""

    __slots__ = (
        "_block",
        "_block_flags",
        "_block_size",
        "_block_stream",
        "_fragments",
        "_gone",
        "_grown",
        "_held",
        "_noise",
        "_noise_at",
        "_recent",
        "_settled",
        "_taken",
        "_waiting",
        "decoder",
        "ended",
        "max_block",
        "newest",
    )

    def __init__(self, poller: Poller, max_list: int, max_block: int) -> None:
        """`max_list`: bytes of a header list, decoded; `max_block`: of a header block as it comes."""
        super().__init__(poller)
        self.decoder = Decoder(max_list)
        self.max_block = max_block
        self.ended = False
        """Whether the connection is over: nothing that comes is read."""
        self.newest = 0
        """The highest number of a stream that has been opened."""
        self._recent: Stream | None = None
        """The stream of the last header block: DATA most often follows."""
        self._held = b""
        """The beginning of a frame."""
        self._block: list[bytes] = []
        self._block_flags = 0
        self._block_size = 0
        self._block_stream = 0
        """The stream whose header block has begun and not ended; 0: none."""
        self._fragments = 0
        self._gone: dict[int, None] = {}
        """Streams that we have reset."""
        self._noise = 0.0
        self._noise_at = 0.0
        self._settled = False
        """Whether the peer's first SETTINGS have come."""
        self._taken = 0
        self._waiting = 0
        """Bytes that came on streams that are paused."""
        self._grown = 0

    # For the side to say.

    def stream_opened(self, number: int, block: Block, end: bool) -> None:
        """A header block has come for a stream that is not among `streams`. Raises ConnectionFault or Malformed."""
        raise NotImplementedError

    def is_idle(self, number: int) -> bool:
        """Whether no frame has ever been exchanged on the stream of this number."""
        raise NotImplementedError

    def settings_received(self, values: list[tuple[int, int]], first: bool) -> None:
        """The peer's settings, beyond those that sending needs; `first`: those that its side begins with."""

    def goaway_received(self, last: int, code: int) -> None:
        """The peer serves no stream above `last`."""

    def pong_received(self, payload: bytes) -> None:
        """A ping of ours has come back."""

    def last_stream(self) -> int:
        """The last stream of the peer's that we have served or will serve."""
        raise NotImplementedError

    def fault(self, fault: str, code: int) -> None:
        """Count and log that the peer broke the protocol."""

    def refuse(self, stream: Stream, fault: str) -> None:
        """What came on `stream` is malformed, or too late; it is reset."""

    # Ending.

    def go_away(self, code: int, fault: str = "") -> None:
        """End the connection at once, after saying why."""
        if self.ended:
            return
        self.ended = True
        self.write(frames.goaway(self.last_stream(), code, fault.encode()))
        self.flush()
        for stream in list(self.streams.values()):
            self.forget(stream)
            stream.was_reset(code)
        self.part()

    def part(self) -> None:
        """Close, now that everything is said."""
        if self.transport is not None:
            self.transport.close()

    def reset_for(self, stream: Stream, code: int, fault: str) -> None:
        """End a stream for the peer's fault."""
        self.fault(fault, code)
        self.reset(stream, code)
        stream.was_reset(code)

    def reset(self, stream: Stream, code: int) -> None:
        """End a stream at once; what is still on its way on it is ignored."""
        self._remember(stream.id)
        self.now = self.time()  # It may be another connection's event that ends it.
        super().reset(stream, code)

    def reject(self, number: int, code: int) -> None:
        """End a stream that never became one of `streams`."""
        self._remember(number)
        self.write(frames.rst_stream(frames.four(number), code))

    def left(self, stream: Stream) -> None:
        if self._recent is stream:
            self._recent = None
        self._grown -= stream.size - frames.WINDOW
        if stream.paused:
            stream.paused = False
            self._waiting -= stream.taken
            if self._taken > CONNECTION_WINDOW >> 1:
                self._open_connection()

    def _remember(self, number: int) -> None:
        gone = self._gone
        if len(gone) >= KEPT_RESETS:
            del gone[next(iter(gone))]
        gone[number] = None

    # Reading.

    def data_received(self, data: bytes) -> None:
        if self.ended:
            return
        self.now = self.time()
        if self._held:
            data = self._held + data
            self._held = b""
        try:
            self._read(data)
        except ConnectionFault as fault:
            self.fault(fault.fault, fault.code)
            self.go_away(fault.code, fault.fault)
        except BadBlock as bad:
            self.fault("malformed header block", frames.COMPRESSION_ERROR)
            self.go_away(frames.COMPRESSION_ERROR, str(bad))

    def _read(self, data: bytes) -> None:
        at = 0
        end = len(data)
        while end - at >= 9:
            size = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            if size > frames.FRAME_SIZE:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "frame too large")
            stop = at + 9 + size
            if stop > end:
                break
            kind = data[at + 3]
            flags = data[at + 4]
            number = (data[at + 5] & 0x7F) << 24 | data[at + 6] << 16 | data[at + 7] << 8 | data[at + 8]
            self._frame(kind, flags, number, data[at + 9 : stop])
            if self.ended:
                return
            at = stop
        if at < end:
            self._held = data[at:] if at else data

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block_stream:
            if kind != frames.CONTINUATION or number != self._block_stream:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "header block interrupted")
            self._continue(flags, payload)
        elif kind == frames.DATA:
            self._data(flags, number, payload)
        elif kind == frames.HEADERS:
            self._headers(flags, number, payload)
        elif kind == frames.WINDOW_UPDATE:
            self._window_update(number, payload)
        elif not self._settled and kind != frames.SETTINGS:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "no SETTINGS at first")
        elif kind == frames.SETTINGS:
            self._settings(flags, number, payload)
        elif kind == frames.PING:
            self._ping(flags, number, payload)
        elif kind == frames.RST_STREAM:
            self._rst_stream(number, payload)
        elif kind == frames.GOAWAY:
            if number or len(payload) < 8:
                raise ConnectionFault(frames.PROTOCOL_ERROR if number else frames.FRAME_SIZE_ERROR, "malformed GOAWAY")
            last = int.from_bytes(payload[:4], "big") & frames.MAX_STREAM_ID
            self.goaway_received(last, int.from_bytes(payload[4:8], "big"))
        elif kind == frames.PRIORITY:
            self._priority(number, payload)
        elif kind in (frames.PUSH_PROMISE, frames.CONTINUATION):
            raise ConnectionFault(frames.PROTOCOL_ERROR, "frame out of place")
        else:
            self.noise(1.0)  # unknown kinds are ignored (RFC 9113 §5.5), though not without end

    def noise(self, weight: float) -> None:
        """A frame came that is of no use by itself. Raises ConnectionFault when there are too many."""
        self._noise += weight
        if self._noise > NOISE:
            self._noise = max(0.0, self._noise - (self.now - self._noise_at) * NOISE_PER_SECOND)
            self._noise_at = self.now
            # A peer that we send a lot opens windows and measures round trips as much, once it has come there.
            paid = min(self._noise, self.written * SENT_PAYS)
            self._noise -= paid
            self.written = min(self.written - int(paid / SENT_PAYS), MOST_SENT)
            if self._noise > NOISE:
                raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "flood of frames")

    def made_us_reset(self) -> None:
        """The peer's own fault has ended a stream of its. Raises ConnectionFault when there are too many."""
        self.noise(RESET_NOISE)

    def use(self) -> None:
        """Something useful was done: it pays for some noise."""
        if self._noise > 0.0:
            self._noise -= 2.0

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._taken += size
        if self._taken > CONNECTION_WINDOW:
            raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "window exceeded")
        if number == 0:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "DATA on no stream")
        if flags & frames.PADDED:
            payload = _unpadded(payload)
        stream = self._recent
        if stream is None or stream.id != number:
            stream = self.streams.get(number)
        if stream is None:
            self._data_for_none(number)
        elif stream.received:
            self.reset_for(stream, frames.STREAM_CLOSED, "DATA behind the end")
            self.made_us_reset()
        else:
            end = flags & frames.END_STREAM != 0
            stream.room -= size
            if stream.room < 0:
                self.reset_for(stream, frames.FLOW_CONTROL_ERROR, "window exceeded")
                self.made_us_reset()
            elif stream.expected >= 0 and not self._as_expected(stream, len(payload), end):
                self.refuse(stream, "body is not as long as Content-Length says")
                self.made_us_reset()
            else:
                self._pass_on(stream, payload, size, end)
        if self._taken > CONNECTION_WINDOW >> 1:
            self._open_connection()

    def _pass_on(self, stream: Stream, payload: bytes, size: int, end: bool) -> None:
        if not payload and not end:
            self.noise(1.0)
        else:
            self.use()
        stream.moved_at = self.now
        stream.taken += size
        if stream.paused:
            self._waiting += size
        if end:
            stream.received = True
        if payload or end:
            stream.data_received(payload, end)
        if end:
            if stream.sent_end and not stream.gone:
                self.forget(stream)
        elif not stream.paused and stream.taken > stream.size >> 1:
            self._open(stream)

    def _as_expected(self, stream: Stream, size: int, end: bool) -> bool:
        stream.expected -= size
        return stream.expected == 0 if end else stream.expected >= 0

    def _data_for_none(self, number: int) -> None:
        if self.is_idle(number):
            raise ConnectionFault(frames.PROTOCOL_ERROR, "DATA on an idle stream")
        if number not in self._gone:
            raise ConnectionFault(frames.STREAM_CLOSED, "DATA on a closed stream")
        self.noise(1.0)

    def _open_connection(self) -> None:
        """Let all streams together send more, unless too much waits already."""
        if self._taken and self._waiting <= MEMORY:
            self.write(frames.window_update(CONTROL, self._taken))
            self._taken = 0

    def _open(self, stream: Stream) -> None:
        """Give back what has been taken of a stream's window, and more where it keeps sending."""
        size = stream.taken
        stream.total += size
        if stream.total > 4 * stream.size and stream.size < MAX_GROWN and self._grown + stream.size <= MEMORY:
            stream.total = 0
            self._grown += stream.size
            size += stream.size
            stream.size += stream.size
        stream.taken = 0
        stream.room += size
        self.write(frames.window_update(stream.wire, size))

    def pause(self, stream: Stream) -> None:
        """What comes on `stream` cannot be taken now: its window closes."""
        if not stream.paused:
            stream.paused = True
            self._waiting += stream.taken

    def resume(self, stream: Stream) -> None:
        """It can be taken again."""
        if not stream.paused:
            return
        stream.paused = False
        stream.moved_at = self.time()
        self._waiting -= stream.taken
        if not stream.received and stream.taken > stream.size >> 1:
            self._open(stream)
        if self._taken > CONNECTION_WINDOW >> 1:
            self._open_connection()

    # Header blocks.

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        if number == 0:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "HEADERS on no stream")
        if not self._settled:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "no SETTINGS at first")
        if flags & (frames.PADDED | frames.PRIORITISED):
            if flags & frames.PADDED:
                payload = _unpadded(payload)
            if flags & frames.PRIORITISED:
                if len(payload) < 5:
                    raise ConnectionFault(frames.FRAME_SIZE_ERROR, "malformed HEADERS")
                if int.from_bytes(payload[:4], "big") & frames.MAX_STREAM_ID == number:
                    raise ConnectionFault(frames.PROTOCOL_ERROR, "stream depends on itself")
                payload = payload[5:]
        if flags & frames.END_HEADERS:
            self._whole(number, payload, flags & frames.END_STREAM != 0)
        else:
            self._block_stream = number
            self._block_flags = flags
            self._block = [payload]
            self._block_size = len(payload)
            self._fragments = 1

    def _continue(self, flags: int, payload: bytes) -> None:
        self._block.append(payload)
        self._block_size += len(payload)
        self._fragments += 1
        if self._block_size > self.max_block or self._fragments > MAX_FRAGMENTS:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "header block too large")
        self.noise(1.0)
        if flags & frames.END_HEADERS:
            number, self._block_stream = self._block_stream, 0
            data = b"".join(self._block)
            self._block = []
            self._whole(number, data, self._block_flags & frames.END_STREAM != 0)

    def _whole(self, number: int, data: bytes, end: bool) -> None:
        """A header block has come whole. It is decoded whatever becomes of it: the tables must stay in step."""
        if len(data) > self.max_block:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "header block too large")
        block = self.decoder.decode(data)
        if number > self.newest:
            self.stream_opened(number, block, end)
            return
        stream = self.streams.get(number)
        if stream is None:
            if number in self._gone:
                self.noise(1.0)
            else:
                self.stream_opened(number, block, end)
            return
        if stream.received:
            self.fault("HEADERS behind the end", frames.STREAM_CLOSED)
            raise ConnectionFault(frames.STREAM_CLOSED, "HEADERS behind the end")
        stream.moved_at = self.now
        if end:
            if stream.expected > 0:
                self.refuse(stream, "body is not as long as Content-Length says")
                self.made_us_reset()
                return
            stream.received = True
        try:
            stream.headers_received(block, end)
        except Malformed as bad:
            self.refuse(stream, bad.fault)
            self.made_us_reset()
            return
        if not end:
            self._recent = None if stream.gone else stream
        elif stream.sent_end and not stream.gone:
            self.forget(stream)

    # The small frames.

    def _window_update(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "malformed WINDOW_UPDATE")
        size = int.from_bytes(payload, "big") & frames.MAX_WINDOW
        self.noise(0.5)
        if number == 0:
            self.send_window += size
            if size == 0:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "window opened by nothing")
            if self.send_window > frames.MAX_WINDOW:
                raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "window opened too far")
            self._pump()
            return
        stream = self.streams.get(number)
        if stream is None:
            if self.is_idle(number):
                raise ConnectionFault(frames.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream")
            return
        stream.credit += size
        if size == 0:
            self.reset_for(stream, frames.PROTOCOL_ERROR, "window opened by nothing")
            self.made_us_reset()
        elif self.peer_window + stream.credit > frames.MAX_WINDOW:
            self.reset_for(stream, frames.FLOW_CONTROL_ERROR, "window opened too far")
            self.made_us_reset()
        else:
            self.opened(stream)

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "malformed SETTINGS")
            return
        if len(payload) % 6:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "malformed SETTINGS")
        self.noise(1.0 + len(payload) / 60)
        first = not self._settled
        self._settled = True
        values = frames.settings_of(payload)
        window = -1
        for key, value in values:
            if key == frames.INITIAL_WINDOW_SIZE:
                window = value  # of several the last: each would be a walk over all streams
            elif key == frames.MAX_FRAME_SIZE:
                self.frame_size = min(value, 1 << 16)
            elif key == frames.HEADER_TABLE_SIZE:
                self.encoder.resize(value)
        if window >= 0:
            self._windows_changed(window)
        self.write(frames.SETTINGS_ACK)
        self.settings_received(values, first)

    def _windows_changed(self, size: int) -> None:
        self.peer_window = size
        for stream in list(self.streams.values()):
            if size + stream.credit > frames.MAX_WINDOW:
                raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "window opened too far")
            self.opened(stream)

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "malformed PING")
        if flags & frames.ACK:
            self.pong_received(payload)
        else:
            self.noise(1.0)
            self.write(frames.ping(payload, True))

    def _rst_stream(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "malformed RST_STREAM")
        if number == 0 or self.is_idle(number):
            raise ConnectionFault(frames.PROTOCOL_ERROR, "RST_STREAM on an idle stream")
        stream = self.streams.get(number)
        if stream is None:
            self.noise(1.0)
        else:
            self.forget(stream)
            stream.was_reset(int.from_bytes(payload, "big"))
            self.noise(RESET_NOISE if self.now - stream.moved_at < SOON else 0.5)

    def _priority(self, number: int, payload: bytes) -> None:
        self.noise(1.0)
        if number == 0:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "PRIORITY on no stream")
        if len(payload) != 5:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "malformed PRIORITY")
        if int.from_bytes(payload[:4], "big") & frames.MAX_STREAM_ID == number:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "stream depends on itself")


def trailers_of(block: Block) -> list[Pair]:
    """The trailer fields that a block says and that may travel on; known again with the block. Raises Malformed."""
    known = block.trailers
    if known is None:
        if block.too_large:
            raise Malformed("header fields too large", 431)
        known = block.trailers = trailers_to_pass_on(fields.trailers(block.fields))
    return known


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(frames.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]
