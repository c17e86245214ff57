"""The endpoint's side of HTTP/2: one connection, from opening to its end; its streams are `call`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mypy_extensions import trait

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.outcome import Kind
from balancer.proxy.connector import is_about_certificates
from balancer.proxy.http2 import frames
from balancer.proxy.http2.call import Asking, Call
from balancer.proxy.http2.connection import CONNECTION_WINDOW
from balancer.proxy.http2.frames import ConnectionFault
from balancer.proxy.http2.heads import ResponseHeads
from balancer.proxy.http2.hpack import Block
from balancer.proxy.http2.limits import Limits
from balancer.proxy.http2.sending import CONTROL, Stream
from balancer.proxy.interfaces import NOT_PROCESSED, SENT, STALE, Receiver, Upstreams
from balancer.proxy.transport import Transport

if TYPE_CHECKING:
    from balancer.proxy.service import Context
    from balancer.settings import Settings

MOST_STREAMS: Final = 1000
"""Streams on one connection, however many the endpoint allows."""
SWEEP: Final = 0.1
"""Seconds between two looks at a connection's streams, at least: the next is when the first of them can be late."""
RENEW: Final = frames.MAX_STREAM_ID - (1 << 16)
"""The stream from which on a connection is replaced, before its numbers run out."""


class Owner(Upstreams):
    """Where the connections of one cluster are kept."""

    __slots__ = ("heads", "limits", "most", "poller")

    def __init__(self, settings: Settings, context: Context) -> None:
        self.poller = context.poller
        self.limits = Limits(settings, context.wheel, context.clock)
        self.heads = ResponseHeads(settings.max_headers, settings.endpoint_load)
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


class ClientConnection(Asking):
    """One connection to one endpoint.

    It carries nothing before the endpoint's SETTINGS have come: the kernel accepts connections for a server that is
    closing its port, and what is sent on them is lost. grpc-go waits for the same.
    """

    __slots__ = ("bound", "closing", "idle_since", "owner", "served", "starter", "streams_max")

    def __init__(self, owner: Owner, endpoint: Endpoint, scheme: bytes, starter: Starter) -> None:
        super().__init__(owner.poller, owner.limits, owner.heads, endpoint, scheme)
        self.owner = owner
        self.streams_max = 0
        """Streams that the endpoint allows at once: none before its SETTINGS."""
        self.starter: Starter | None = starter
        """Called when it first has room for a stream; None after that."""
        self.closing = False
        """Whether no more requests may be sent on it."""
        self.bound = False
        """Whether it has been authenticated for one client, whose requests alone may follow."""
        self.idle_since = 0.0
        self.served = 0
        """Streams that have ended."""
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
            self.now = self.limits.clock()
            self.limits.wheel.arm(self, self.now + self.limits.shortest_timeout)
        stream = Call(self, number, receiver)
        self.streams[number] = stream
        return stream

    def reuse(self, receiver: Receiver) -> Call | None:
        if not self.may_open:
            return None
        call = self.open(receiver)
        call.bound = True
        return call

    def bind(self) -> None:
        self.bound = True
        self.owner.leaves(self)

    # What the transport calls.

    def connection_made(self, transport: Transport) -> None:
        super().connection_made(transport)
        self.endpoint.stats.connections_opened += 1
        self.endpoint.stats.connections_open += 1
        self.now = self.limits.clock()
        self.write(
            frames.PREFACE
            + frames.settings([(frames.ENABLE_PUSH, 0), (frames.MAX_HEADER_LIST_SIZE, self.limits.max_header_bytes)])
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
        return self.limits.clock()

    def expired(self, now: float) -> None:
        if self.streams:
            self.now = now
            due = now + self.limits.shortest_timeout
            for stream in list(self.streams.values()):
                due = min(due, stream.look(now))
            if self.streams:
                self.limits.wheel.arm(self, max(due, now + SWEEP))
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
        self.limits.wheel.arm(self, now + self.limits.keepalive_timeout)

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
        self.closing = True
        self.close()
