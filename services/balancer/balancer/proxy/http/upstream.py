"""The endpoint's side: one connection, the requests it carries one after the other, and what comes back on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.outcome import Kind
from balancer.proxy.flow import PEER_FULL, Intake
from balancer.proxy.http.framing import BARE_LF, BadMessage, ChunkedReader
from balancer.proxy.http.headers import ResponseHead, response_head
from balancer.proxy.timers import Timed
from balancer.proxy.transport import Protocol, Transport

if TYPE_CHECKING:
    from balancer.proxy.http.exchange import Exchange
    from balancer.proxy.http.upstreams import Upstreams

MAX_INTERIM: Final = 32
"""1xx responses to one request: an endpoint that sends more never means to answer."""

_IDLE: Final = 0
_HEAD: Final = 1
_LENGTH: Final = 2
_CHUNKED: Final = 3
_UNTIL_CLOSE: Final = 4


class Upstream(Timed, Protocol):
    """One connection to one endpoint: carries one exchange at a time, and waits among the idle ones in between."""

    __slots__ = (
        "_head",
        "_head_bytes",
        "_held",
        "_interim",
        "_left",
        "_owner",
        "_reader",
        "_reading",
        "above",
        "below",
        "carried",
        "endpoint",
        "exchange",
        "idle",
        "idle_since",
        "intake",
        "transport",
    )

    def __init__(self, owner: Upstreams, endpoint: Endpoint) -> None:
        super().__init__()
        self._owner = owner
        self.endpoint = endpoint
        self.exchange: Exchange | None = None
        self.carried = 0
        """Exchanges begun on this connection."""
        self.idle = False
        """Whether it waits among the idle ones, between its neighbours there."""
        self.above: Upstream | None = None
        self.below: Upstream | None = None
        self.idle_since = 0.0
        self.transport: Transport | None = None
        self.intake: Intake | None = None
        self._reading = _IDLE
        self._held = b""
        self._head_bytes = b""
        self._head: ResponseHead | None = None
        self._left = 0
        self._reader: ChunkedReader | None = None
        self._interim = 0

    # What an exchange calls.

    def begin(self, exchange: Exchange, wire: bytes, whole: bool, now: float) -> None:
        """Send a request's head and what there is of its body; `whole` when that is all of it."""
        self.exchange = exchange
        self.carried += 1
        self._reading = _HEAD
        self._interim = 0
        self.write(wire)
        if whole:
            self._owner.wheel.arm(self, now + self._owner.response_timeout)
        else:
            self.deadline = 0.0

    def write(self, data: bytes) -> None:
        """Send more of the request."""
        self.endpoint.bytes_sent += len(data)
        transport = self.transport
        if transport is not None:
            transport.write(data)

    def sent_whole(self, now: float) -> None:
        """The request's body has been sent: from here the response is waited for."""
        if self._reading == _HEAD:
            self._owner.wheel.arm(self, now + self._owner.response_timeout)

    def abort(self) -> None:
        """Close at once, and tell no exchange."""
        self.exchange = None
        self._reading = _IDLE
        if self.transport is not None:
            self.transport.abort()

    def hand_over(self) -> tuple[Transport | None, bytes]:
        """Let go of the transport, for a tunnel; and of the bytes that came behind the response head."""
        self.exchange = None
        self._reading = _IDLE
        held, self._held = self._held, b""
        self._owner.wheel.forget(self)
        return self.transport, held

    # What the event loop calls.

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport
        self.intake = Intake(transport)
        self.endpoint.connections_opened += 1
        self.endpoint.connections_open += 1

    def data_received(self, data: bytes) -> None:
        self.endpoint.bytes_received += len(data)
        exchange = self.exchange
        if exchange is None:
            # Bytes that nobody asked for must never be read as the answer to the next request.
            self.abort()
        elif self._reading == _HEAD:
            self._read_heads(exchange, data, self._owner.clock())
        else:
            now = self._owner.clock()
            self._owner.wheel.arm(self, now + self._owner.idle_timeout)
            self._read_body(exchange, data, now)

    def eof_received(self) -> bool:
        exchange = self.exchange
        if exchange is not None and self._reading == _UNTIL_CLOSE:
            self._finished(exchange, False, self._owner.clock())
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.endpoint.connections_open -= 1
        self._owner.lost(self)
        exchange, self.exchange = self.exchange, None
        self.transport = None
        self.intake = None
        if exchange is not None:
            nothing_came = self._reading == _HEAD and not self._held and self._interim == 0
            exchange.attempt_failed(Kind.RESET, stale=nothing_came and self.carried > 1, began=not nothing_came)

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.downstream.intake.stop(PEER_FULL)
            # The endpoint takes nothing of the body: that is silence in mid-message too.
            self._owner.wheel.arm(self, self._owner.clock() + self._owner.idle_timeout)

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.downstream.intake.go(PEER_FULL)
            if not self.exchange.received_whole and self._reading == _HEAD:
                self.deadline = 0.0

    def expired(self, now: float) -> None:
        exchange = self.exchange
        if exchange is None:
            self._owner.lost(self)
            if self.transport is not None:
                self.transport.close()
        elif self.intake is not None and self.intake.stopped:
            # It is the client that does not read: its own timer looks after that.
            self._owner.wheel.arm(self, now + self._owner.idle_timeout)
        else:
            self.abort()
            exchange.attempt_failed(Kind.TIMED_OUT)

    # Reading the response.

    def _read_heads(self, exchange: Exchange, data: bytes, now: float) -> None:
        """Interim responses, then the head of the final one, then what of its body has come with it."""
        if self._held:
            data = self._held + data
            self._held = b""
        known = self._head
        if known is not None and known.status >= 200 and data.startswith(self._head_bytes):
            # To the byte the head of the response before: endpoints repeat theirs.
            self._begin_body(exchange, known, data[len(self._head_bytes) :], now)
            return
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                if len(data) > self._owner.max_header_bytes:
                    self._refuse(exchange, "header fields too large")
                elif BARE_LF.search(data) is not None:
                    self._refuse(exchange, "line ended by a bare LF")
                else:
                    self._held = data
                return
            head_bytes = data[:end]
            try:
                head = response_head(head_bytes, self._owner.max_headers)
            except BadMessage as bad:
                self._refuse(exchange, bad.fault)
                return
            self._head_bytes = head_bytes
            self._head = head
            if head.status >= 200:
                break
            data = data[end:]
            if head.status == 101:
                self._held = data
                exchange.switched(head)
                return
            self._interim += 1
            if self._interim > MAX_INTERIM:
                self._refuse(exchange, "too many interim responses")
                return
            exchange.interim(head)
            if not data or self.exchange is not exchange:
                return
        self._begin_body(exchange, head, data[end:], now)

    def _begin_body(self, exchange: Exchange, head: ResponseHead, rest: bytes, now: float) -> None:
        status = head.status
        if exchange.is_head or status in (204, 304):
            length = 0
        elif head.chunked:
            length = -1
        elif head.length >= 0:
            length = head.length
        else:
            length = -2
        if length >= 0 and len(rest) >= length:
            # The whole response is here: the common case, told in one call so that it goes out in one write.
            reusable = head.keep_alive and len(rest) == length
            self._release(exchange, reusable, now)
            exchange.answered(head, rest[:length] if len(rest) > length else rest, True, now)
            return
        self._owner.wheel.arm(self, now + self._owner.idle_timeout)
        if length >= 0:
            self._reading = _LENGTH
            self._left = length - len(rest)
            exchange.answered(head, rest, False, now)
            return
        if length == -1:
            self._reading = _CHUNKED
            self._reader = ChunkedReader(self._owner.max_header_bytes, self._owner.max_headers)
        else:
            self._reading = _UNTIL_CLOSE
        exchange.answered(head, b"", False, now)
        if rest and self.exchange is exchange:
            self._read_body(exchange, rest, now)

    def _read_body(self, exchange: Exchange, data: bytes, now: float) -> None:
        if self._reading == _LENGTH:
            left = self._left - len(data)
            self._left = left
            if left > 0:
                exchange.response_body(data)
                return
            exchange.response_body(data[:left] if left < 0 else data)
            self._finished(exchange, left == 0, now)
        elif self._reading == _CHUNKED and self._reader is not None:
            reader = self._reader
            try:
                position = reader.feed(data)
            except BadMessage as bad:
                self._refuse(exchange, bad.fault)
                return
            if reader.out:
                exchange.response_chunks(reader.out)
                reader.out = []
            if reader.done:
                exchange.response_trailers(reader.trailers)
                self._finished(exchange, position == len(data), now)
        else:
            exchange.response_body(data)

    def _finished(self, exchange: Exchange, reusable: bool, now: float) -> None:
        """The response's last byte has been passed on."""
        head = self._head
        self._release(exchange, reusable and head is not None and head.keep_alive, now)
        exchange.response_ended(now)

    def _release(self, exchange: Exchange, reusable: bool, now: float) -> None:
        """Part from the exchange: to the idle ones, if another may follow on this connection."""
        self.exchange = None
        self._reading = _IDLE
        self._reader = None
        if self.intake is not None:
            self.intake.go(PEER_FULL)
        if reusable and exchange.received_whole:
            self._owner.give_back(self, now)
        else:
            self.deadline = 0.0
            if self.transport is not None:
                self.transport.close()

    def _refuse(self, exchange: Exchange, fault: str) -> None:
        self.abort()
        exchange.attempt_failed(Kind.BAD_RESPONSE, fault=fault)
