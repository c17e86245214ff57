"""The endpoint's side: one connection, the requests it carries one after the other, and what comes back on it.

Above 300 lines because a connection is one state machine, and its own stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.outcome import Kind
from balancer.proxy import fields as rules
from balancer.proxy import websocket
from balancer.proxy.connector import is_about_certificates
from balancer.proxy.fields import BadMessage
from balancer.proxy.flow import PEER_FULL, Intake
from balancer.proxy.http1 import framing, lines
from balancer.proxy.http1.framing import ChunkedReader
from balancer.proxy.interfaces import BEGAN, MAX_INTERIM, NOT_PROCESSED, SENT, STALE, ClientStream, Receiver
from balancer.proxy.messages import HTTP_2, NO_FIELDS, NOT_SAID, UNKNOWN_LENGTH, Headers, RequestHead, ResponseHead
from balancer.proxy.timers import Timed, TimerWheel
from balancer.proxy.transport import Protocol, Transport

_IDLE: Final = 0
_HEAD: Final = 1
_LENGTH: Final = 2
_CHUNKED: Final = 3
_UNTIL_CLOSE: Final = 4
_TUNNEL: Final = 5


class Owner:
    """Where the connections of one fleet idle, and the limits that hold for them (seconds and bytes)."""

    __slots__ = ("clock", "idle_timeout", "max_header_bytes", "max_headers", "reads_load", "response_timeout", "wheel")

    def __init__(self, wheel: TimerWheel, clock: Callable[[], float]) -> None:
        self.wheel = wheel
        self.clock = clock
        self.response_timeout = 0.0
        self.idle_timeout = 0.0
        self.max_header_bytes = 0
        self.max_headers = 0
        self.reads_load = False
        """Whether endpoints are asked how loaded they are."""

    def give_back(self, connection: ClientConnection, now: float) -> None:
        """Keep a connection whose request has been answered for the next one."""
        raise NotImplementedError

    def keep(self, connection: ClientConnection, now: float) -> None:
        """Let a connection that is bound to one client wait for that client's next request."""
        raise NotImplementedError

    def lost(self, connection: ClientConnection) -> None:
        """A connection is closed or closing: use it no more."""
        raise NotImplementedError


class Head(ResponseHead):
    """A response's head, and what it says of its connection."""

    __slots__ = ("keep_alive",)

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.keep_alive = True
        """Whether the endpoint lets its connection be used again."""


class ClientConnection(Timed, ClientStream, Protocol):
    """One connection to one endpoint: carries one request at a time, and waits among the idle ones in between."""

    __slots__ = (
        "_accept",
        "_awaits_continue",
        "_chunks",
        "_head",
        "_head_bytes",
        "_held",
        "_interim",
        "_is_head",
        "_left",
        "_owner",
        "_reader",
        "_reading",
        "_response_over",
        "_sent_whole",
        "_untaken",
        "above",
        "below",
        "bound",
        "carried",
        "endpoint",
        "idle",
        "idle_since",
        "intake",
        "receiver",
        "transport",
    )

    def __init__(self, owner: Owner, endpoint: Endpoint) -> None:
        super().__init__()
        self.endpoint = endpoint
        self.bound = False
        self._owner = owner
        self.receiver: Receiver | None = None
        """Whose request it carries."""
        self.carried = 0
        """Requests begun on this connection."""
        self.idle = False
        """Whether it waits among the idle ones, between its neighbours there."""
        self.above: ClientConnection | None = None
        self.below: ClientConnection | None = None
        self.idle_since = 0.0
        self.transport: Transport | None = None
        self.intake: Intake | None = None
        self._reading = _IDLE
        self._held = b""
        self._head_bytes = b""
        self._head: Head | None = None
        self._left = 0
        self._reader: ChunkedReader | None = None
        self._interim = 0
        self._is_head = False
        self._chunks = False
        """Whether the request's body goes out in chunks."""
        self._sent_whole = False
        self._untaken = False
        """Whether the kernel took nothing of the request: the endpoint had closed before."""
        self._awaits_continue = False
        """Whether the client waits for the endpoint's 100 (Continue), and so do we, before any of the body is sent."""
        self._response_over = False
        """In a tunnel: whether the endpoint has half-closed."""
        self._accept = b""
        """What has to confirm a key of ours (websocket.py)."""

    # What an exchange calls.

    def send(self, head: RequestHead, request_id: bytes, extra: Headers, body: bytes, ended: bool, now: float) -> None:
        self.carried += 1
        self._reading = _HEAD
        self._interim = 0
        fields = head.fields
        self._is_head = head.is_head
        if fields.bound:
            self.bound = True
        self._sent_whole = ended
        own = b""
        if not fields.authority:
            own = b"Host: %b\r\n" % self.endpoint.address.encode()
        if extra:
            own += lines.field_lines(extra)
        if fields.upgrade:
            own += self._handshake(head)
        wire = b"%b%b%bX-Request-Id: %b\r\n\r\n" % (
            head.http1 or lines.request_line(head),
            own,
            fields.http1 or lines.request_fields(fields),
            request_id,
        )
        if fields.length:
            self._chunks = fields.length == UNKNOWN_LENGTH
            if self._chunks:
                if body:
                    wire += lines.chunk(body)
                if ended:
                    wire += lines.last_chunk(NO_FIELDS)
            else:
                wire += body
        self._awaits_continue = not ended and not body and fields.expects_continue
        self._write(wire)
        self._untaken = self.transport is None or self.transport.takes_nothing
        if ended or self._awaits_continue:
            self._owner.wheel.arm(self, now + self._owner.response_timeout)
        else:
            self.deadline = 0.0

    def _handshake(self, head: RequestHead) -> bytes:
        """The key that an HTTP/2 client does not send, and HTTP/1.1 needs."""
        self._accept = b""
        if head.version != HTTP_2 or head.fields.upgrade != websocket.WEBSOCKET:
            return b""
        key = websocket.new_key()
        self._accept = websocket.accept_for(key)
        return b"Sec-WebSocket-Key: %b\r\n" % key

    def bind(self) -> None:
        self.bound = True

    def reuse(self, receiver: Receiver) -> ClientStream | None:
        if self.transport is None or self.transport.is_closing():
            return None
        self.receiver = receiver
        return self

    def data(self, data: bytes, now: float) -> None:
        if self._awaits_continue:
            self._awaits_continue = False
            self.deadline = 0.0
        if self._reading == _TUNNEL or not self._chunks:
            self._write(data)
        else:
            self._write(lines.chunk(data))

    def end(self, trailers: Headers, now: float) -> None:
        self._sent_whole = True
        self._awaits_continue = False
        transport = self.transport
        if self._reading == _TUNNEL:
            if transport is None or transport.is_closing():
                return
            if self._response_over:
                self.receiver = None
                transport.close()
            else:
                transport.write_eof()
            return
        if self._chunks:
            self._write(lines.last_chunk(trailers))
        if self._reading == _HEAD:
            self._owner.wheel.arm(self, now + self._owner.response_timeout)

    def reset(self) -> None:
        self.receiver = None
        self._reading = _IDLE
        if self.transport is not None:
            self.transport.abort()

    def pause_reading(self) -> None:
        if self.intake is not None:
            self.intake.pause(PEER_FULL)

    def resume_reading(self) -> None:
        if self.intake is not None:
            self.intake.resume(PEER_FULL)

    def _write(self, data: bytes) -> None:
        self.endpoint.stats.bytes_sent += len(data)
        transport = self.transport
        if transport is not None:
            transport.write(data)

    # What the event loop calls.

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport
        self.endpoint.stats.connections_opened += 1
        self.endpoint.stats.connections_open += 1
        self.intake = Intake(transport)

    def data_received(self, data: bytes) -> None:
        self.endpoint.stats.bytes_received += len(data)
        receiver = self.receiver
        if receiver is None:
            # Bytes that nobody asked for must never be read as the answer to the next request.
            self.reset()
            return
        try:
            now = self._owner.clock()
            if self._reading == _HEAD:
                self._read_heads(receiver, data, now)
            elif self._reading == _TUNNEL:
                receiver.response_data(data, now)
            else:
                self._owner.wheel.arm(self, now + self._owner.idle_timeout)
                self._read_body(receiver, data, now)
        except Exception:
            receiver.crashed()  # which may have parted from this connection already
            raise

    def eof_received(self) -> bool:
        receiver = self.receiver
        if receiver is None:
            return False
        try:
            if self._reading == _UNTIL_CLOSE:
                self._finished(receiver, False, self._owner.clock())
            elif self._reading == _TUNNEL:
                return self._half_closed(receiver)
        except Exception:
            receiver.crashed()
            raise
        return False

    def _half_closed(self, receiver: Receiver) -> bool:
        """Nothing more comes from the endpoint; whether it may still be sent to."""
        self._response_over = True
        stays = not self._sent_whole
        if not stays:
            self.receiver = None
        receiver.response_ended(NO_FIELDS, self._owner.clock())
        return stays

    def connection_lost(self, error: Exception | None) -> None:
        if self.transport is not None:  # else it was never counted
            self.transport = None
            self.endpoint.stats.connections_open -= 1
        self._owner.lost(self)
        self.intake = None
        receiver, self.receiver = self.receiver, None
        if receiver is None:
            return
        try:
            if self._reading == _TUNNEL and error is None and not self._response_over:
                # Closed in order: what came is all there was.
                self._response_over = True
                receiver.response_ended(NO_FIELDS, self._owner.clock())
            nothing_came = self._reading == _HEAD and not self._held and self._interim == 0
            if nothing_came and self._untaken:
                # As nginx has it: with no byte sent, it is safe to ask again, whatever the method.
                receiver.attempt_failed(Kind.UNUSED if self.carried > 1 else Kind.REFUSED, NOT_PROCESSED)
                return
            if nothing_came and self.carried == 1 and is_about_certificates(error):
                # In TLS 1.3 the endpoint looks at our certificate behind the handshake, and before any request.
                receiver.attempt_failed(Kind.CERTIFICATE, NOT_PROCESSED, str(error))
                return
            progress = BEGAN if not nothing_came else STALE if self.carried > 1 else SENT
            receiver.attempt_failed(Kind.RESET, progress)
        except Exception:
            receiver.crashed()
            raise

    def pause_writing(self) -> None:
        if self.receiver is not None:
            self.receiver.endpoint_full()
            if self._reading != _TUNNEL:
                # The endpoint takes nothing of the body: that is silence in mid-message too.
                self._owner.wheel.arm(self, self._owner.clock() + self._owner.idle_timeout)

    def resume_writing(self) -> None:
        if self.receiver is not None:
            self.receiver.endpoint_ready()
            if not self._sent_whole and self._reading == _HEAD:
                self.deadline = 0.0

    def crashed(self) -> None:
        receiver = self.receiver
        self.reset()
        if receiver is not None:
            receiver.crashed()

    def expired(self, now: float) -> None:
        receiver = self.receiver
        if receiver is None:
            self._owner.lost(self)
            if self.transport is not None:
                self.transport.close()
        elif self.intake is not None and self.intake.paused:
            # It is the client that does not read: its own timer looks after that.
            self._owner.wheel.arm(self, now + self._owner.idle_timeout)
        else:
            kind, progress = Kind.STALLED, BEGAN
            if self._reading == _HEAD:
                kind = Kind.TIMED_OUT
                if not self._interim:
                    # Without its body the request was none yet: it is safe to ask another endpoint.
                    progress = NOT_PROCESSED if self._awaits_continue else SENT
            self.reset()
            try:
                receiver.attempt_failed(kind, progress)
            except Exception:
                receiver.crashed()
                raise

    # Reading the response.

    def _read_heads(self, receiver: Receiver, data: bytes, now: float) -> None:
        """Interim responses, then the head of the final one, then what of its body has come with it."""
        if self._held:
            data = self._held + data
            self._held = b""
        known = self._head
        if known is not None and known.status >= 200 and data.startswith(self._head_bytes):
            # To the byte the head of the response before: endpoints repeat theirs.
            self._begin_body(receiver, known, data[len(self._head_bytes) :], now)
            return
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                end = framing.response_head_end(data)
            if end == 0:
                if len(data) > self._owner.max_header_bytes:
                    self._refuse(receiver, "header fields too large")
                else:
                    self._held = data
                return
            try:
                head, end = response_head(data, end, self._owner.max_headers, self._owner.reads_load)
            except BadMessage as bad:
                self._refuse(receiver, bad.fault)
                return
            self._head_bytes = data[:end]
            self._head = head
            if head.status >= 200:
                break
            data = data[end:]
            if head.status == 101:
                self._switch(receiver, head, data, now)
                return
            self._interim += 1
            if self._awaits_continue:
                self._awaits_continue = False
                self.deadline = 0.0
            if self._interim > MAX_INTERIM:
                self._refuse(receiver, "too many interim responses")
                return
            receiver.interim(head)
            if not data or self.receiver is not receiver:
                return
        self._begin_body(receiver, head, data[end:], now)

    def _switch(self, receiver: Receiver, head: Head, rest: bytes, now: float) -> None:
        """101: from here on bytes go both ways, unless nobody asked for that."""
        if self._accept and websocket.value_of(head.fields, websocket.ACCEPT) != self._accept:
            self._refuse(receiver, "Sec-WebSocket-Accept does not confirm the key")
            return
        self._reading = _TUNNEL
        self._chunks = False
        self._sent_whole = False
        self._response_over = False
        self._owner.wheel.forget(self)
        receiver.switched(head)
        if rest and self.receiver is receiver:
            receiver.response_data(rest, now)

    def _begin_body(self, receiver: Receiver, head: Head, rest: bytes, now: float) -> None:
        status = head.status
        if status == 408 and self.carried > 1 and not head.keep_alive and receiver.may_repeat():
            # It was the idle connection that had taken too long: our request only crossed that (RFC 9110 §15.5.9).
            self.reset()
            receiver.attempt_failed(Kind.RESET, STALE)
            return
        length = 0 if self._is_head or status in (204, 304) else head.length
        if length >= 0 and len(rest) >= length:
            # The whole response is here: the common case, passed on in one call so that it goes out in one write.
            reusable = head.keep_alive and len(rest) == length
            if status == 204 and head.length != 0 and head.length != NOT_SAID:
                reusable = False  # what it says that it sends would be read as the next response
            self._release(reusable, now)
            receiver.response(head, rest[:length] if len(rest) > length else rest, True, now)
            return
        self._owner.wheel.arm(self, now + self._owner.idle_timeout)
        if length >= 0:
            self._reading = _LENGTH
            self._left = length - len(rest)
            receiver.response(head, rest, False, now)
            return
        if length == UNKNOWN_LENGTH:
            self._reading = _CHUNKED
            self._reader = ChunkedReader(self._owner.max_header_bytes, self._owner.max_headers, True)
        else:
            self._reading = _UNTIL_CLOSE
        receiver.response(head, b"", False, now)
        if rest and self.receiver is receiver:
            self._read_body(receiver, rest, now)

    def _read_body(self, receiver: Receiver, data: bytes, now: float) -> None:
        if self._reading == _LENGTH:
            left = self._left - len(data)
            self._left = left
            if left > 0:
                receiver.response_data(data, now)
                return
            receiver.response_data(data[:left] if left < 0 else data, now)
            self._finished(receiver, left == 0, now)
        elif self._reading == _CHUNKED and self._reader is not None:
            reader = self._reader
            try:
                position = reader.feed(data)
            except BadMessage as bad:
                self._refuse(receiver, bad.fault)
                return
            if reader.out:
                payload = b"".join(reader.out)
                reader.out = []
                receiver.response_data(payload, now)
            if reader.done:
                self._finished(receiver, position == len(data), now, rules.trailers_to_pass_on(reader.trailers))
        else:
            receiver.response_data(data, now)

    def _finished(self, receiver: Receiver, reusable: bool, now: float, trailers: Headers = NO_FIELDS) -> None:
        """The response's last byte has been passed on."""
        head = self._head
        self._release(reusable and head is not None and head.keep_alive, now)
        receiver.response_ended(trailers, now)

    def _release(self, reusable: bool, now: float) -> None:
        """Part from the exchange: to the idle ones, if another request may follow on this connection."""
        self.receiver = None
        self._reading = _IDLE
        self._reader = None
        if self.intake is not None:
            self.intake.resume(PEER_FULL)
        head = self._head
        if head is not None and head.bound:
            self.bound = True
        if reusable and self._sent_whole and self.bound:
            self._owner.keep(self, now)
        elif reusable and self._sent_whole:
            self._owner.give_back(self, now)
        else:
            self.deadline = 0.0
            if self.transport is not None:
                self.transport.close()

    def _refuse(self, receiver: Receiver, fault: str) -> None:
        self.reset()
        receiver.attempt_failed(Kind.BAD_RESPONSE, BEGAN, fault)


def response_head(data: bytes, end: int, max_fields: int, reads_load: bool = False) -> tuple[Head, int]:
    """Read an endpoint's response head, and say where it ends: at `end`, or sooner if lines end by LF alone.

    `max_fields` is the most header fields that it may have; `reads_load`: a report of load is for us.

    Raises BadMessage.
    """
    try:
        return _strict_head(data[:end], max_fields, reads_load), end
    except BadMessage:
        end = framing.response_head_end(data)
        return _strict_head(framing.one_head(data[:end]), max_fields, reads_load), end


def _strict_head(head: bytes, max_fields: int, reads_load: bool) -> Head:
    line_end = head.find(b"\r\n")
    minor, status = framing.status_line(head[:line_end])
    received = framing.header_fields(head[line_end + 2 :])
    length = framing.body_length(received, 1)
    if len(received) > max_fields:
        raise BadMessage("too many header fields", 502)
    response = Head(status)
    response.length = length
    options = rules.connection_options(received)
    response.keep_alive = b"close" not in options and (minor == 1 or b"keep-alive" in options)
    if minor == 0 and length == UNKNOWN_LENGTH:
        response.keep_alive = False  # a 1.0 sender knows no chunks: its framing may be an accident (RFC 9112 §6.1)
    rules.fill_response(response, received, options, reads_load)
    # A status line without a reason may end before the blank: compiled, bytes know no slice that ends before it begins.
    lines.response_lines(response, head[13:line_end] if line_end > 13 else b"")
    return response
