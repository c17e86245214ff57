"""The endpoint's side: connections to endpoints, kept for the next request, and what comes back on them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.outcome import Kind
from balancer.counters import Counters
from balancer.proxy.flow import HIGH_WATER, PEER_FULL, Intake
from balancer.proxy.http.framing import BARE_LF, BadMessage, ChunkedReader
from balancer.proxy.http.headers import ResponseHead, response_head
from balancer.proxy.timers import Timed, TimerWheel

if TYPE_CHECKING:
    from balancer.proxy.http.exchange import Exchange

MAX_INTERIM: Final = 32
"""1xx responses to one request: an endpoint that sends more never means to answer."""

_IDLE: Final = 0
_HEAD: Final = 1
_LENGTH: Final = 2
_CHUNKED: Final = 3
_UNTIL_CLOSE: Final = 4


class UpstreamRules:
    """What holds for every connection to an endpoint, as plain values (times in seconds, sizes in bytes)."""

    __slots__ = (
        "connect_timeout",
        "idle_timeout",
        "keepalive_timeout",
        "max_header_bytes",
        "max_headers",
        "response_timeout",
        "tls",
    )

    def __init__(
        self, *, connect: float, response: float, idle: float, keepalive: float, max_header_bytes: int, max_headers: int
    ) -> None:
        self.connect_timeout = connect
        self.response_timeout = response
        self.idle_timeout = idle
        self.keepalive_timeout = keepalive
        self.max_header_bytes = max_header_bytes
        self.max_headers = max_headers
        self.tls: ssl.SSLContext | None = None


class Upstream(Timed):
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
        "carried",
        "endpoint",
        "exchange",
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
        self.idle_since = 0.0
        self.transport: asyncio.Transport | None = None
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
            self._owner.wheel.arm(self, now + self._owner.rules.response_timeout)
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
            self._owner.wheel.arm(self, now + self._owner.rules.response_timeout)

    def abort(self) -> None:
        """Close at once, and tell no exchange."""
        self.exchange = None
        self._reading = _IDLE
        if self.transport is not None:
            self.transport.abort()

    def hand_over(self) -> tuple[asyncio.Transport | None, bytes]:
        """Let go of the transport, for a tunnel; and of the bytes that came behind the response head."""
        self.exchange = None
        self._reading = _IDLE
        held, self._held = self._held, b""
        self._owner.wheel.forget(self)
        return self.transport, held

    # What the event loop calls.

    def connection_made(self, transport: asyncio.Transport) -> None:
        transport.set_write_buffer_limits(HIGH_WATER)
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
            self._read_heads(exchange, data)
        else:
            self._owner.wheel.arm(self, self._owner.clock() + self._owner.rules.idle_timeout)
            self._read_body(exchange, data)

    def eof_received(self) -> bool:
        exchange = self.exchange
        if exchange is not None and self._reading == _UNTIL_CLOSE:
            self._finished(exchange, reusable=False)
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        self.endpoint.connections_open -= 1
        self._owner.lost(self)
        exchange, self.exchange = self.exchange, None
        self.transport = None
        if exchange is not None:
            nothing_came = self._reading == _HEAD and not self._held and self._interim == 0
            exchange.attempt_failed(Kind.RESET, stale=nothing_came and self.carried > 1, began=not nothing_came)

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.downstream.intake.stop(PEER_FULL)
            # The endpoint takes nothing of the body: that is silence in mid-message too.
            self._owner.wheel.arm(self, self._owner.clock() + self._owner.rules.idle_timeout)

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
            self._owner.wheel.arm(self, now + self._owner.rules.idle_timeout)
        else:
            self.abort()
            exchange.attempt_failed(Kind.TIMED_OUT)

    # Reading the response.

    def _read_heads(self, exchange: Exchange, data: bytes) -> None:
        """Interim responses, then the head of the final one, then what of its body has come with it."""
        if self._held:
            data = self._held + data
            self._held = b""
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                if len(data) > self._owner.rules.max_header_bytes:
                    self._refuse(exchange, "header fields too large")
                elif BARE_LF.search(data) is not None:
                    self._refuse(exchange, "line ended by a bare LF")
                else:
                    self._held = data
                return
            head_bytes = data[:end]
            if head_bytes == self._head_bytes and self._head is not None:
                head = self._head
            else:
                try:
                    head = response_head(head_bytes, self._owner.rules.max_headers)
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
        self._begin_body(exchange, head, data[end:] if len(data) > end else b"")

    def _begin_body(self, exchange: Exchange, head: ResponseHead, rest: bytes) -> None:
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
            self._release(exchange, reusable)
            exchange.answered(head, rest[:length] if len(rest) > length else rest, True)
            return
        self._owner.wheel.arm(self, self._owner.clock() + self._owner.rules.idle_timeout)
        if length >= 0:
            self._reading = _LENGTH
            self._left = length - len(rest)
            exchange.answered(head, rest, False)
            return
        if length == -1:
            self._reading = _CHUNKED
            self._reader = ChunkedReader(self._owner.rules.max_header_bytes, self._owner.rules.max_headers)
        else:
            self._reading = _UNTIL_CLOSE
        exchange.answered(head, b"", False)
        if rest and self.exchange is exchange:
            self._read_body(exchange, rest)

    def _read_body(self, exchange: Exchange, data: bytes) -> None:
        if self._reading == _LENGTH:
            left = self._left - len(data)
            self._left = left
            if left > 0:
                exchange.response_body(data)
                return
            exchange.response_body(data[:left] if left < 0 else data)
            self._finished(exchange, reusable=left == 0)
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
                self._finished(exchange, reusable=position == len(data))
        else:
            exchange.response_body(data)

    def _finished(self, exchange: Exchange, reusable: bool) -> None:
        """The response's last byte has been passed on."""
        head = self._head
        self._release(exchange, reusable and head is not None and head.keep_alive)
        exchange.response_ended()

    def _release(self, exchange: Exchange, reusable: bool) -> None:
        """Part from the exchange: to the idle ones, if another may follow on this connection."""
        self.exchange = None
        self._reading = _IDLE
        self._reader = None
        if self.intake is not None:
            self.intake.go(PEER_FULL)
        if reusable and exchange.received_whole:
            self._owner.give_back(self)
        else:
            self.deadline = 0.0
            if self.transport is not None:
                self.transport.close()

    def _refuse(self, exchange: Exchange, fault: str) -> None:
        self.abort()
        exchange.attempt_failed(Kind.BAD_RESPONSE, fault=fault)


class Upstreams:
    """All connections to endpoints: the idle ones are kept by endpoint, the one used last is used first."""

    __slots__ = ("_closed", "_connecting", "_counters", "_idle", "_loop", "clock", "rules", "wheel")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        wheel: TimerWheel,
        clock: Callable[[], float],
        counters: Counters,
        rules: UpstreamRules,
    ) -> None:
        self._loop = loop
        self.wheel = wheel
        self.clock = clock
        self.rules = rules
        self._counters = counters
        self._idle: dict[Endpoint, dict[Upstream, None]] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._closed = False

    def take(self, endpoint: Endpoint, idle_since: float) -> Upstream | None:
        """The idle connection to `endpoint` that was used last, if that was not before `idle_since` (s)."""
        idle = self._idle.get(endpoint)
        if not idle:
            return None
        upstream, _ = idle.popitem()
        if upstream.idle_since < idle_since:
            idle[upstream] = None
            return None
        endpoint.connections_reused += 1
        return upstream

    def connect(self, endpoint: Endpoint, exchange: Exchange) -> asyncio.Task[None]:
        """Open a connection for `exchange`, which is told `connected` or `attempt_failed` unless it cancels."""
        task = self._loop.create_task(self._connect(endpoint, exchange))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return task

    def give_back(self, upstream: Upstream) -> None:
        """Keep a connection whose exchange has ended for the next one."""
        if self._closed:
            self._close(upstream)
            return
        now = self.clock()
        upstream.idle_since = now
        idle = self._idle.get(upstream.endpoint)
        if idle is None:
            idle = self._idle[upstream.endpoint] = {}
        idle[upstream] = None
        self.wheel.arm(upstream, now + self.rules.keepalive_timeout)

    def lost(self, upstream: Upstream) -> None:
        """A connection is closed or closing: use it no more."""
        self.wheel.forget(upstream)
        idle = self._idle.get(upstream.endpoint)
        if idle is not None:
            idle.pop(upstream, None)
            if not idle:
                del self._idle[upstream.endpoint]

    def idle_to(self, endpoint: Endpoint) -> int:
        """How many idle connections to `endpoint` there are."""
        return len(self._idle.get(endpoint, ()))

    def close_idle(self, endpoint: Endpoint) -> None:
        """Close the idle connections to an endpoint that has left."""
        for upstream in list(self._idle.pop(endpoint, ())):
            self._close(upstream)

    def close(self) -> None:
        """Close every idle connection, and from now on each that becomes idle."""
        self._closed = True
        for endpoint in list(self._idle):
            self.close_idle(endpoint)
        for task in self._connecting:
            task.cancel()

    def _close(self, upstream: Upstream) -> None:
        self.wheel.forget(upstream)
        if upstream.transport is not None:
            upstream.transport.close()

    async def _connect(self, endpoint: Endpoint, exchange: Exchange) -> None:
        began = self.clock()
        tls = self.rules.tls
        upstream = Upstream(self, endpoint)
        try:
            await self._loop.create_connection(  # type: ignore[type-var]  # a protocol by its methods
                lambda: upstream,
                endpoint.spec.host,
                endpoint.spec.port,
                ssl=tls,
                server_hostname=endpoint.spec.host if tls is not None else None,
            )
        except OSError as error:
            exchange.attempt_failed(Kind.REFUSED, fault=str(error))
            return
        if upstream.transport is None:
            # Accepted and closed in one: nothing was sent, so that this is as safe to repeat as a refusal.
            exchange.attempt_failed(Kind.REFUSED, fault="closed at once")
            return
        took = self.clock() - began
        self._counters.connect_seconds.observe(took)
        exchange.connected(upstream, took)
