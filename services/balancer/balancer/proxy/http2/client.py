"""The endpoint's side of HTTP/2: a connection, its streams, and what an exchange calls to ask on one.

Above 300 lines because a connection and the two halves of its streams change one state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
from mypy_extensions import trait

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.outcome import Kind
from balancer.proxy.connector import is_about_certificates
from balancer.proxy.fields import fill_response
from balancer.proxy.http2 import fields, frames
from balancer.proxy.http2.connection import CONNECTION_WINDOW, Connection, trailers_of
from balancer.proxy.http2.fields import Malformed, Pair
from balancer.proxy.http2.frames import ConnectionFault
from balancer.proxy.http2.hpack import Block, Encoder, length_of, literal
from balancer.proxy.http2.sending import CONTROL, Stream
from balancer.proxy.interfaces import BEGAN, NOT_PROCESSED, SENT, STALE, ClientStream, Receiver, Upstreams
from balancer.proxy.messages import NO_FIELDS, UNKNOWN_LENGTH, Headers, RequestFields, RequestHead, ResponseHead
from balancer.proxy.transport import Transport
from balancer.proxy.websocket import KEY, accept_for, value_of, without_handshake

if TYPE_CHECKING:
    from balancer.proxy.service import Context
    from balancer.settings import Settings

MOST_STREAMS: Final = 1000
"""Streams on one connection, however many the endpoint allows."""
MAX_INTERIM: Final = 32
"""1xx responses to one request: an endpoint that sends more never means to answer."""
SWEEP: Final = 0.1
"""Seconds between two looks at a connection's streams, at least: the next is when the first of them can be late."""
RENEW: Final = frames.MAX_STREAM_ID - (1 << 16)
"""The stream from which on a connection is replaced, before its numbers run out."""

REQUEST_ID: Final = literal(b"x-request-id", b"")[:-1]
"""The field's name, as a literal without indexing."""
_LITERAL: Final = {name: literal(name, b"")[:-1] for name in fields.VARYING}
"""The same of fields of tracing."""


log = structlog.get_logger()


class Owner(Upstreams):
    """Where the connections of one cluster are kept, and the limits that hold for them (seconds and bytes)."""

    __slots__ = (
        "clock",
        "idle_timeout",
        "keepalive_timeout",
        "max_header_bytes",
        "max_headers",
        "most",
        "poller",
        "reads_load",
        "response_timeout",
        "shortest_timeout",
        "wheel",
    )

    def __init__(self, settings: Settings, context: Context) -> None:
        self.poller = context.poller
        self.wheel = context.wheel
        self.clock = context.clock
        self.response_timeout: float = settings.response_timeout
        self.idle_timeout: float = settings.idle_timeout
        self.shortest_timeout: float = min(self.response_timeout, self.idle_timeout)
        """What nothing can have waited for that is not waited for yet."""
        self.keepalive_timeout: float = settings.upstream_keepalive_timeout
        self.max_header_bytes: int = settings.max_header_bytes
        self.max_headers: int = settings.max_headers
        self.reads_load: bool = settings.endpoint_load
        self.most: dict[Endpoint, int] = {}
        """Streams on one connection, by what an endpoint last said."""

    def lost(self, connection: ClientConnection) -> None:
        """A connection is closed."""
        raise NotImplementedError

    def leaves(self, connection: ClientConnection) -> None:
        """No more requests may be sent on a connection."""
        raise NotImplementedError


@trait
class Starter:
    """Opens a connection, and learns by one call whether it carries anything."""

    def ready(self) -> None:
        """The endpoint's SETTINGS have come, and it takes streams."""
        raise NotImplementedError

    def not_ready(self, kind: Kind, fault: str) -> None:
        """The connection ends, or has ended, before that."""
        raise NotImplementedError


class Call(Stream, ClientStream):
    """One request's stream: what an exchange asks on, and what passes to it what comes back."""

    __slots__ = (
        "awaits_continue",
        "began",
        "bound",
        "endpoint",
        "interim",
        "is_head",
        "key",
        "own",
        "patient",
        "receiver",
        "sent_whole",
        "told_full",
        "tunnel",
    )

    def __init__(self, connection: ClientConnection, number: int, receiver: Receiver) -> None:
        super().__init__(connection, number)
        self.own = connection
        self.endpoint = connection.endpoint
        self.bound = False
        self.receiver: Receiver | None = receiver
        self.is_head = False
        self.began = False
        """Whether the final response's head has come."""
        self.interim = 0
        self.sent_whole = False
        """Whether the endpoint has been sent all of the request: it is what is waited for."""
        self.awaits_continue = False
        """Whether the client waits for the endpoint's 100 (Continue), and so do we, before any of the body is sent."""
        self.patient = False
        """Whether it may be silent for as long as it likes once it has begun: a gRPC stream, or a tunnel."""
        self.tunnel = False
        self.key = b""
        """What an HTTP/1.1 client wants confirmed (websocket.py)."""
        self.told_full = False

    def headers_received(self, block: Block, end: bool) -> None:
        receiver = self.receiver
        if receiver is None:
            return
        own = self.own
        if self.began:
            if not end:
                raise Malformed("trailers that are not the end", 502)
            self._ended(receiver, trailers_of(block))
            return
        head = own.head_of(block)
        if head.status < 200:
            self.interim += 1
            if end or self.interim > MAX_INTERIM:
                raise Malformed("interim response without a final one", 502)
            self.awaits_continue = False  # now it is the client that is waited for
            receiver.interim(head)
            return
        self.began = True
        if self.tunnel and 200 <= head.status < 300 and not end:
            self.patient = True
            receiver.switched(self._switch(head))
            return
        self.tunnel = False
        if self.is_head or head.status in (204, 304):
            # There is no body, whatever the fields say, or come behind them: see `data_received`.
            end = True
            self.patient = False
        elif not end:
            self.expected = head.length
        elif head.length > 0:
            raise Malformed("body is not as long as Content-Length says", 502)
        if end:
            self._part()
            try:
                receiver.response(head, b"", True, own.now)
            except Exception:
                receiver.crashed()
                raise
        else:
            receiver.response(head, b"", False, own.now)

    def _switch(self, head: ResponseHead) -> ResponseHead:
        """The same as HTTP/1.1 says it."""
        switch = ResponseHead(101)
        switch.fields = without_handshake(head.fields)
        if self.key:
            switch.fields.append((b"Sec-WebSocket-Accept", accept_for(self.key)))
        return switch

    def data_received(self, data: bytes, end: bool) -> None:
        receiver = self.receiver
        if receiver is None:
            if data and not end:
                self.own.reset(self, frames.CANCEL)  # a body where there is none
            return
        if not self.began:
            self.own.refuse(self, "DATA before the response")
            return
        if data:
            receiver.response_data(data, self.own.now)
        if end and self.receiver is receiver:
            self._ended(receiver, NO_FIELDS)

    def _ended(self, receiver: Receiver, trailers: list[Pair]) -> None:
        if not self.tunnel:
            self._part()
        try:
            receiver.response_ended(trailers, self.own.now)
        except Exception:
            receiver.crashed()
            raise

    def _part(self) -> None:
        """The response is whole: the endpoint need not have the rest of the request."""
        self.receiver = None
        if not self.sent_end:
            self.own.reset(self, frames.CANCEL)

    def was_reset(self, code: int) -> None:
        name = frames.CODES[code] if code < len(frames.CODES) else str(code)
        if code in (frames.REFUSED_STREAM, frames.HTTP_1_1_REQUIRED) and not self.began and not self.interim:
            self.fail(Kind.NOT_TAKEN, NOT_PROCESSED, name)
        elif self.tunnel and not self.began:
            # It knows no extended CONNECT, most likely: any client could ask for that, and the endpoint can't help it.
            self.fail(Kind.NOT_TAKEN, self.progress(), name)
        else:
            self.fail(Kind.RESET, self.progress(), name)

    def progress(self) -> int:
        """How far the attempt has come."""
        return BEGAN if self.began or self.interim else SENT

    def fail(self, kind: Kind, progress: int, fault: str = "") -> None:
        """The attempt has come to nothing, and the stream is gone already."""
        receiver, self.receiver = self.receiver, None
        if receiver is None:
            return
        try:
            receiver.attempt_failed(kind, progress, fault)
        except Exception:
            self.own.owner.wheel.counters.faults += 1
            log.exception("an attempt's end failed")
            receiver.crashed()

    def drained(self) -> None:
        if self.told_full:
            self.told_full = False
            if self.receiver is not None:
                self.receiver.endpoint_ready()

    def look(self, now: float) -> float:
        own = self.own
        owner = own.owner
        if self.began:
            waits, patience = not self.paused and not self.patient, owner.idle_timeout
        elif self.unsent:
            waits, patience = True, owner.idle_timeout
        else:
            waits, patience = self.sent_whole or self.awaits_continue, owner.response_timeout
        if not waits:
            return now + owner.shortest_timeout
        if now - self.moved_at < patience:
            return self.moved_at + patience
        # Without its body the request was none yet: it is safe to ask another endpoint.
        progress = NOT_PROCESSED if self.awaits_continue and not self.interim else self.progress()
        own.reset(self, frames.CANCEL)
        self.fail(Kind.STALLED if self.began else Kind.TIMED_OUT, progress)
        return now + owner.shortest_timeout

    # What an exchange calls.

    def send(self, head: RequestHead, request_id: bytes, extra: Headers, body: bytes, ended: bool, now: float) -> None:
        own = self.own
        if head.fields.bound:
            self.bind()
        self.is_head = head.is_head
        self.moved_at = now
        self.sent_whole = ended
        self.awaits_continue = not ended and not body and head.fields.expects_continue
        self.patient = head.fields.grpc
        if head.fields.upgrade:
            if not own.may_connect:
                own.not_taken(self)
                return
            self.tunnel = True
            self.key = value_of(head.fields.fields, KEY)
            ended = False
        encoder = own.encoder
        block = encoder.known(head)
        if block is None:
            block = own.block_of(head)
        block = b"%b%b%b%b" % (block, REQUEST_ID, length_of(request_id), request_id)
        for name, value in extra:
            block += literal(name.lower(), value)
        if body:
            own.send_headers(self, block, False)
            self._send(body, ended)
        else:
            own.send_headers(self, block, ended)

    def data(self, data: bytes, now: float) -> None:
        if not self.sent_end:
            self.awaits_continue = False
            self._send(data, False)

    def end(self, trailers: Headers, now: float) -> None:
        if self.sent_end:
            return
        self.sent_whole = True
        self.awaits_continue = False
        self.moved_at = now
        if trailers:
            self.own.send_trailers(self, trailers)
        else:
            self.own.send_data(self, b"", True)

    def reset(self) -> None:
        self.receiver = None
        if not self.gone:
            self.own.reset(self, frames.CANCEL)
        if self.bound:
            self.own.close_when_done()

    def bind(self) -> None:
        self.bound = self.own.bound = True
        self.own.owner.leaves(self.own)

    def reuse(self, receiver: Receiver) -> ClientStream | None:
        own = self.own
        if not own.may_open:
            return None
        call = own.open(receiver)
        call.bound = True
        return call

    def pause_reading(self) -> None:
        self.own.pause(self)

    def resume_reading(self) -> None:
        self.own.resume(self)

    def _send(self, data: bytes, ended: bool) -> None:
        self.own.send_data(self, data, ended)
        if self.unsent and not self.told_full:
            self.told_full = True
            if self.receiver is not None:
                self.receiver.endpoint_full()


class ClientConnection(Connection):
    """One connection to one endpoint.

    It carries nothing before the endpoint's SETTINGS have come: the kernel accepts connections for a server that is
    closing its port, and what is sent on them is lost. grpc-go waits for the same.
    """

    __slots__ = (
        "_scheme",
        "bound",
        "closing",
        "endpoint",
        "idle_since",
        "may_connect",
        "owner",
        "served",
        "starter",
        "streams_max",
    )

    def __init__(self, owner: Owner, endpoint: Endpoint, scheme: bytes, starter: Starter) -> None:
        super().__init__(owner.poller, owner.max_header_bytes, 2 * owner.max_header_bytes)
        self.owner = owner
        self.endpoint = endpoint
        self.streams_max = 0
        """Streams that the endpoint allows at once: none before its SETTINGS."""
        self.starter: Starter | None = starter
        """Called when it first has room for a stream; None after that."""
        self.may_connect = False
        """Whether the endpoint knows extended CONNECT."""
        self.closing = False
        """Whether no more requests may be sent on it."""
        self.bound = False
        """Whether it has been authenticated for one client, whose requests alone may follow."""
        self.idle_since = 0.0
        self.served = 0
        """Streams that have ended."""
        self._scheme = scheme
        self.newest = -1

    @property
    def has_room(self) -> bool:
        """Whether it can carry one request more, of any client."""
        return not self.bound and self.may_open

    @property
    def may_open(self) -> bool:
        """Whether it can carry one request more, of the client that it is bound to."""
        return not self.closing and not self.ended and len(self.streams) < self.streams_max

    def open(self, receiver: Receiver) -> Call:
        """A stream for `receiver`; only where there is room."""
        number = self.newest + 2
        self.newest = number
        if number > RENEW:
            self.closing = True
        if not self.streams:
            self.now = self.owner.clock()
            self.owner.wheel.arm(self, self.now + self.owner.shortest_timeout)
        stream = Call(self, number, receiver)
        self.streams[number] = stream
        return stream

    def block_of(self, head: RequestHead) -> bytes:
        """A request's header block: its path, and behind that what other requests have said alike."""
        encoder = self.encoder
        generation = encoder.generation
        path = encoder.encode_one((b":path", head.target))
        of = head.fields
        if of.varied is not None:
            return self._varied(encoder, head, of.varied, of.varying, path)
        alike = (of, head.method)
        rest = encoder.known(alike)
        if rest is None:
            rest = encoder.encode(self.pairs_of(head), alike)
        block = path + rest
        if head.written:
            encoder.keep(head, block, generation)
        head.written = True
        return block

    def _varied(
        self, encoder: Encoder, head: RequestHead, varied: RequestFields, varying: Headers, path: bytes
    ) -> bytes:
        """The same where requests differ by fields of tracing too, which no table is worth."""
        names = [name for name, _ in varying]
        alike = (varied, head.method, b" ".join(names))
        rest = encoder.known(alike)
        if rest is None:
            pairs = [pair for pair in self.pairs_of(head) if pair[0] not in names]
            rest = encoder.encode(pairs, alike)
        block = path + rest
        for name, value in varying:
            block += _LITERAL[name] + length_of(value) + value
        return block

    def pairs_of(self, head: RequestHead) -> list[Pair]:
        """The fields of a request as they are sent, but for its path."""
        authority = head.authority or self.endpoint.address.encode()
        of = head.fields
        pairs: list[Pair] = [(b":method", b"CONNECT" if of.upgrade else head.method.encode())]
        if of.upgrade:
            pairs.append((b":protocol", of.upgrade))
        pairs.append((b":scheme", self._scheme))
        pairs.append((b":authority", authority))
        for name, value in without_handshake(of.fields) if of.upgrade else of.fields:
            lowered = name.lower()
            if lowered != b"host":
                pairs.append((lowered, value))
        return pairs

    def head_of(self, block: Block) -> ResponseHead:
        """What a response's header block says; known again with the block. Raises Malformed."""
        known = block.meaning
        if isinstance(known, ResponseHead):
            return known
        if block.too_large:
            raise Malformed("header fields too large", 502)
        read = fields.response(block.fields)
        if len(read.fields) > self.owner.max_headers:
            raise Malformed("too many header fields", 502)
        head = ResponseHead(read.status)
        head.length = read.length if read.length >= 0 else UNKNOWN_LENGTH
        fill_response(head, read.fields, frozenset(), self.owner.reads_load)
        block.meaning = head
        return head

    # What the transport calls.

    def connection_made(self, transport: Transport) -> None:
        super().connection_made(transport)
        self.endpoint.stats.connections_opened += 1
        self.endpoint.stats.connections_open += 1
        self.now = self.owner.clock()
        self.write(
            frames.PREFACE
            + frames.settings([(frames.ENABLE_PUSH, 0), (frames.MAX_HEADER_LIST_SIZE, self.owner.max_header_bytes)])
            + frames.window_update(CONTROL, CONNECTION_WINDOW - frames.WINDOW)
        )

    def data_received(self, data: bytes) -> None:
        self.endpoint.stats.bytes_received += len(data)
        super().data_received(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = True
        if self.transport is not None:  # else it was never counted
            self.transport = None
            self.endpoint.stats.connections_open -= 1
        # In TLS 1.3 the endpoint looks at our certificate behind the handshake.
        kind = Kind.CERTIFICATE if is_about_certificates(error) else Kind.REFUSED
        self._not_ready(kind, "closed before its SETTINGS")
        self.owner.lost(self)
        streams = [stream for stream in self.streams.values() if isinstance(stream, Call)]
        stale = self.served > 0 and all(stream.progress() == SENT for stream in streams)
        for stream in streams:
            self.forget(stream)
        for stream in streams:
            progress = stream.progress()
            stream.fail(Kind.RESET, STALE if stale and progress == SENT else progress, "connection closed")

    def wrote(self, size: int) -> None:
        self.endpoint.stats.bytes_sent += size

    def time(self) -> float:
        return self.owner.clock()

    def expired(self, now: float) -> None:
        if self.streams:
            self.now = now
            due = now + self.owner.shortest_timeout
            for stream in list(self.streams.values()):
                due = min(due, stream.look(now))
            if self.streams:
                self.owner.wheel.arm(self, max(due, now + SWEEP))
        else:
            self.close()

    # Streams.

    def is_idle(self, number: int) -> bool:
        return number & 1 == 0 or number > self.newest

    def last_stream(self) -> int:
        return 0

    def stream_opened(self, number: int, block: Block, end: bool) -> None:
        raise ConnectionFault(frames.PROTOCOL_ERROR, "HEADERS on a stream that is not open")

    def settings_received(self, values: list[tuple[int, int]], first: bool) -> None:
        if first:  # Who does not say how many allows any number (RFC 9113 §6.5.2).
            self.streams_max = MOST_STREAMS
        for key, value in values:
            if key == frames.MAX_CONCURRENT_STREAMS:
                self.streams_max = min(value, MOST_STREAMS)
            elif key == frames.ENABLE_CONNECT_PROTOCOL:
                self.may_connect = value == 1
        self.owner.most[self.endpoint] = max(1, self.streams_max)
        if self.starter is not None and self.has_room:
            starter, self.starter = self.starter, None
            starter.ready()

    def not_taken(self, stream: Call) -> None:
        """The endpoint knows no extended CONNECT: asking for one anyway may cost the whole connection (RFC 8441 §3)."""
        stream.sent_end = True
        self.forget(stream)
        self._loop.call_soon(stream.fail, Kind.NOT_TAKEN, NOT_PROCESSED, "no extended CONNECT")

    def goaway_received(self, last: int, code: int) -> None:
        """No more requests here; those above `last` were not looked at, and go elsewhere."""
        self.closing = True
        self.owner.leaves(self)
        above = [s for s in self.streams.values() if s.id > last and isinstance(s, Call)]
        for stream in above:
            self.forget(stream)
        for stream in above:
            stream.fail(Kind.UNUSED, NOT_PROCESSED, "GOAWAY")
        self._not_ready(Kind.REFUSED, "GOAWAY at once")
        if not self.streams:
            self.close()

    def refuse(self, stream: Stream, fault: str) -> None:
        self.reset(stream, frames.PROTOCOL_ERROR)
        if isinstance(stream, Call):
            stream.fail(Kind.BAD_RESPONSE, stream.progress(), fault)

    def reset_for(self, stream: Stream, code: int, fault: str) -> None:
        self.reset(stream, code)
        if isinstance(stream, Call):
            stream.fail(Kind.BAD_RESPONSE, stream.progress(), fault)

    def left(self, stream: Stream) -> None:
        super().left(stream)
        self.served += 1
        if not self.ended:
            if self.streams:
                return
            if self.closing:
                self._loop.call_soon(self.close)
            else:
                self.rest(self.now)

    def rest(self, now: float) -> None:
        """Nothing is under way: wait for the next request, for a while."""
        self.idle_since = now
        self.owner.wheel.arm(self, now + self.owner.keepalive_timeout)

    def go_away(self, code: int, fault: str = "") -> None:
        """The endpoint broke the protocol: its requests fail for that."""
        if self.ended:
            return
        self.ended = True
        self.write(frames.goaway(0, code, fault.encode()))
        self.flush()
        streams = [stream for stream in self.streams.values() if isinstance(stream, Call)]
        for stream in streams:
            self.forget(stream)
        for stream in streams:
            stream.fail(Kind.BAD_RESPONSE, stream.progress(), fault)
        self._not_ready(Kind.BAD_RESPONSE, fault)
        self.part()

    def _not_ready(self, kind: Kind, fault: str) -> None:
        starter, self.starter = self.starter, None
        if starter is not None:
            starter.not_ready(kind, fault)

    def close(self) -> None:
        """Say goodbye, and close: nothing is under way."""
        if self.ended or self.streams:
            return
        self.ended = True
        self.write(frames.goaway(0, frames.NO_ERROR))
        self.flush()
        self.part()

    def close_when_done(self) -> None:
        """Send no more requests; close when those under way have ended."""
        self.closing = True
        self.close()
