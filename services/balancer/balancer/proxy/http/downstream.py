"""The client's side: one connection, its requests one after the other, and what goes back on it."""

from __future__ import annotations

import re
from typing import Final

from balancer.counters import count
from balancer.proxy import tunnel
from balancer.proxy.flow import NOT_CONNECTED, PEER_FULL, PIPELINED, Intake
from balancer.proxy.http import framing, headers, responses
from balancer.proxy.http.exchange import Exchange
from balancer.proxy.http.framing import BadMessage, ChunkedReader
from balancer.proxy.http.headers import Peer, RequestFields, RequestStart
from balancer.proxy.http.heads import Heads, Refused
from balancer.proxy.http.service import LINGER, HttpService
from balancer.proxy.http.upstream import Upstream
from balancer.proxy.place import Place
from balancer.proxy.timers import Timed
from balancer.proxy.transport import NOT_BEGUN, Protocol, Transport

_HEAD: Final = 0
"""A request's head is awaited, or has begun to come."""
_LENGTH: Final = 1
_CHUNKED: Final = 2
_ANSWER: Final = 3
"""The request is whole: its response is awaited."""
_LINGER: Final = 4
"""Everything has been said; what still comes is discarded until the client closes too."""
_CLOSED: Final = 5

MAX_EMPTY_LINES: Final = 8
"""Bytes of empty lines before a request line that are skipped (RFC 9112 §2.2)."""


_ACCEPTS_JSON: Final = re.compile(rb"(?i)\naccept:[^\n]*json")


class Downstream(Timed, Protocol):
    """One client connection."""

    __slots__ = (
        "_heads",
        "_held",
        "_left",
        "_reader",
        "_received",
        "_state",
        "_unsent",
        "exchange",
        "full",
        "intake",
        "peer",
        "place",
        "service",
        "transport",
    )

    def __init__(self, service: HttpService, place: Place) -> None:
        super().__init__()
        self.service = service
        self.place = place
        self.peer = Peer(place.address, place.scheme, place.trusted)
        self.exchange: Exchange | None = None
        self.full = False
        """Whether the client takes its response slower than it comes."""
        self._state = _CLOSED
        self._held = b""
        """Bytes received and not yet read: the beginning of a head, or requests sent ahead."""
        self._heads = Heads(service, self.peer)
        self._left = 0
        self._received = 0
        self._unsent = 0
        self._reader: ChunkedReader | None = None

    # What the event loop calls.

    def connection_made(self, transport: Transport) -> None:
        service = self.service
        self.transport = transport
        self.intake = Intake(transport)
        self._state = _HEAD
        transport.patience = service.idle_timeout
        service.connections.add(self)
        if self.place.allowed:
            service.wheel.arm(self, service.clock() + service.request_timeout)
        else:
            self._refuse(responses.TOO_MANY_CONNECTIONS)

    def data_received(self, data: bytes) -> None:
        self.service.counters.bytes_received += len(data)
        if self._state == _LINGER:
            return
        if self._held:
            data = self._held + data
            self._held = b""
        self._read(data)

    def eof_received(self) -> bool:
        if self._state == _ANSWER or self._state == _LENGTH or self._state == _CHUNKED:
            self._leave()
        self.transport.close()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._leave()
        self._state = _CLOSED
        self._held = b""
        self.service.wheel.forget(self)
        self.service.connections.discard(self)

    def unused_since(self) -> float:
        if self._state != _HEAD or self._held or self.deadline == 0.0:
            return -1.0
        if self._received == 0:
            return NOT_BEGUN
        return self.deadline - self.service.keepalive_timeout

    def pause_writing(self) -> None:
        self.full = True
        upstream = self.exchange.upstream if self.exchange is not None else None
        if upstream is not None and upstream.intake is not None:
            upstream.intake.stop(PEER_FULL)
        self._unsent = self.transport.get_write_buffer_size()
        self.service.wheel.arm(self, self.service.clock() + self.service.idle_timeout)

    def resume_writing(self) -> None:
        self.full = False
        upstream = self.exchange.upstream if self.exchange is not None else None
        if upstream is not None and upstream.intake is not None:
            upstream.intake.go(PEER_FULL)
        if self._state == _ANSWER:
            self.deadline = 0.0

    def expired(self, now: float) -> None:
        service = self.service
        if 0 < self.transport.get_write_buffer_size() < self._unsent:
            # Slow, but it reads.
            self._unsent = self.transport.get_write_buffer_size()
            self.service.wheel.arm(self, now + service.idle_timeout)
        elif self._state == _LINGER and self._unsent and not self.transport.get_write_buffer_size():
            # The last of the response has gone out: from here the client has its time to close.
            self._unsent = 0
            self.service.wheel.arm(self, now + LINGER)
        elif self._state == _LINGER or self.full:
            if self._unsent:
                count(self.service.counters.client_faults, "response not read")
            self.transport.abort()
        elif self._state == _HEAD and not self._held:
            # Nothing has come yet: an unused connection is closed without a word, as others do.
            self._linger()
        elif self._state == _HEAD:
            self._refuse(responses.REQUEST_TIMEOUT, self._held)
        elif self._state in (_LENGTH, _CHUNKED):
            if self.intake.stopped:
                self.service.wheel.arm(self, now + service.idle_timeout)
            else:
                self._break_off(responses.REQUEST_TIMEOUT)

    # Reading requests.

    def _read(self, data: bytes) -> None:
        """Read on, from the state we are in, until `data` is used up or a response has to come first."""
        position = 0
        end = len(data)
        while position < end:
            state = self._state
            if state == _HEAD:
                position = self._read_head(data, position)
                if position < 0:
                    return
            elif state in (_LENGTH, _CHUNKED):
                position = self._read_body(data, position)
            elif state == _ANSWER:
                # Sent ahead (pipelined): it waits its turn.
                self._held = data[position:]
                self.intake.stop(PIPELINED)
                return
            else:
                return

    def _read_head(self, data: bytes, position: int) -> int:
        """Read a request's head; the position behind it, or -1 when it is not whole (it is held) or was refused."""
        service = self.service
        heads = self._heads
        if position == 0:
            again = heads.again(data)
            if again is not None and heads.fields is not None:
                self._begin(again, heads.fields)
                return len(data)
        start = position
        while data.startswith(b"\r\n", start) and start - position < MAX_EMPTY_LINES:
            start += 2
        end = data.find(b"\r\n\r\n", start)
        if end < 0 or end - start > service.max_header_bytes:
            self._hold_head(data, start)
            return -1
        line_end = data.find(b"\r\n", start)
        try:
            asked = heads.start_of(data[start:line_end])
            fields = heads.fields_of(data[line_end + 2 : end + 4], asked)
        except Refused as refused:
            self._refuse(refused.error, data[start:end])
            return -1
        except BadMessage as bad:
            self._refuse(responses.bad_request(bad.status, bad.fault), data[start:end])
            return -1
        if len(fields.headers) > service.max_headers:
            self._refuse(responses.TOO_MANY_FIELDS, data[start:end])
        elif service.max_body_bytes is not None and fields.framing.length > service.max_body_bytes:
            self._refuse(responses.BODY_TOO_LARGE, data[start:end])
        else:
            self._begin(asked, fields)
            return end + 4
        return -1

    def _hold_head(self, data: bytes, start: int) -> None:
        """A head that is not whole: wait for the rest, unless it can only come to a refusal."""
        service = self.service
        line_end = data.find(b"\r\n", start)
        if (line_end if line_end >= 0 else len(data)) - start > service.max_uri_bytes + 64:
            self._refuse(responses.URI_TOO_LONG, data[start:])
        elif len(data) - start > service.max_header_bytes:
            self._refuse(responses.HEADER_TOO_LARGE, data[start:])
        elif framing.BARE_LF.search(data, start) is not None:
            self._refuse(responses.bad_request(400, "line ended by a bare LF"), data[start:])
        else:
            if not self._held and self._received:
                # The first bytes after a response: from here the header has its own time.
                self.service.wheel.arm(self, self.service.clock() + service.request_timeout)
            self._received = 0
            self._held = data[start:] if start else data

    def _begin(self, asked: RequestStart, fields: RequestFields) -> None:
        service = self.service
        now = service.clock()
        self._received = 0
        exchange = Exchange(self, asked, fields, now)
        self.exchange = exchange
        body = fields.framing
        if body.kind == framing.CHUNKED:
            self._state = _CHUNKED
            self._reader = ChunkedReader(service.max_header_bytes, service.max_headers)
            service.wheel.arm(self, now + service.idle_timeout)
        elif body.length:
            self._state = _LENGTH
            self._left = body.length
            service.wheel.arm(self, now + service.idle_timeout)
        else:
            self._state = _ANSWER
            self.deadline = 0.0
            exchange.received_whole = True
        exchange.start(now)

    def _read_body(self, data: bytes, position: int) -> int:
        """Pass on what `data` has of the request's body; the position behind it."""
        exchange = self.exchange
        if exchange is None:
            return len(data)
        if self._state == _LENGTH:
            piece = data[position : position + self._left] if position or len(data) > self._left else data
            position += len(piece)
            self._left -= len(piece)
            exchange.bytes_received += len(piece)
            wire, whole = piece, self._left == 0
        else:
            reader = self._reader
            if reader is None:
                return len(data)
            try:
                position = reader.feed(data, position)
            except BadMessage as bad:
                self._break_off(responses.bad_request(bad.status, bad.fault))
                return len(data)
            exchange.bytes_received += sum(map(len, reader.out))
            limit = self.service.max_body_bytes
            if limit is not None and exchange.bytes_received > limit:
                self._break_off(responses.BODY_TOO_LARGE)
                return len(data)
            whole = reader.done
            wire = framing.chunk(reader.out) if reader.out else b""
            reader.out = []
            if whole:
                wire += framing.last_chunk(headers.trailers_to_pass_on(reader.trailers))
        now = self.service.clock()
        if whole:
            self._state = _ANSWER
            self._reader = None
            self.deadline = 0.0
        else:
            self.service.wheel.arm(self, now + self.service.idle_timeout)
        if wire:
            exchange.request_body(wire, now)
        if whole:
            exchange.request_ended(now)
        return position

    # What an exchange calls.

    def write(self, data: bytes) -> None:
        """Send to the client."""
        self.service.counters.bytes_sent += len(data)
        self.transport.write(data)

    def answered(self, exchange: Exchange, now: float) -> None:
        """The response has been written whole: on to the next request, or close."""
        if self.exchange is not exchange:
            return
        self.exchange = None
        if exchange.closes or not exchange.received_whole or self.service.draining:
            if not exchange.fields.keep_alive and exchange.received_whole and not self._held:
                # A client that asked to close sends nothing more that a reset could cross (RFC 9112 §9.6).
                self._state = _LINGER
                self._unsent = self.transport.get_write_buffer_size()
                if self._unsent:
                    self.service.wheel.arm(self, now + self.service.idle_timeout)
                self.transport.close()
            else:
                self._linger()
            return
        self._state = _HEAD
        self.service.wheel.arm(self, now + self.service.keepalive_timeout)
        self._received = 1
        if self._held:
            held, self._held = self._held, b""
            self.intake.go(PIPELINED)
            self._read(held)

    def cut(self) -> None:
        """Break the connection off: the client must not take what it has for a whole response."""
        self.exchange = None
        self.transport.abort()

    def become_tunnel(self, exchange: Exchange, upstream: Upstream) -> None:
        """Hand both connections over to a tunnel, which ends the exchange when it ends."""
        held, self._held = self._held, b""
        self.exchange = None
        self.service.wheel.forget(self)
        self.service.connections.discard(self)
        self.intake.go(PIPELINED | NOT_CONNECTED | PEER_FULL)
        tunnel.join_upgraded(self.service, exchange, self.transport, held, upstream)

    # Closing.

    def close_if_idle(self) -> None:
        """Close unless a request is under way: the balancer stops."""
        if self._state == _HEAD and not self._held:
            self._linger()

    def abort(self) -> None:
        """Cut whatever is under way: the time to drain is over."""
        self.transport.abort()

    def _break_off(self, error: responses.Error) -> None:
        """The body of the request under way turned out bad, or does not come."""
        self._held = b""
        if self.exchange is not None:
            self.exchange.broken_off(error)

    def _leave(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_left()

    def _linger(self) -> None:
        """Half-close, and discard what comes until the client has closed too: no answer is lost to a reset."""
        self._state = _LINGER
        self._held = b""
        if self.transport.is_closing():
            return
        self.intake.go(PIPELINED | NOT_CONNECTED | PEER_FULL)
        if self.transport.can_write_eof():
            self._unsent = self.transport.get_write_buffer_size()
            self.transport.write_eof()
            patience = self.service.idle_timeout if self._unsent else LINGER
            self.service.wheel.arm(self, self.service.clock() + patience)
        else:
            self.transport.close()

    def _refuse(self, error: responses.Error, head: bytes = b"") -> None:
        """Answer a request that never became an exchange (`head` is what is known of it), and close."""
        service = self.service
        count(service.counters.client_faults, error.reason)
        count(service.counters.errors, error.reason)
        service.counters.responses[error.status // 100] += 1
        request_id = service.request_id()
        as_json = _ACCEPTS_JSON.search(head) is not None
        self.write(responses.render(error, request_id, as_json, head.startswith(b"HEAD "), close=True))
        service.log_refusal(self.peer.address, request_id, error)
        self._linger()
