"""The client's side: one connection, its requests one after the other, and what goes back on it.

Above 300 lines because a connection is one state machine, and its own stream.
"""

from __future__ import annotations

import re
from typing import Final

from balancer.balancing.endpoint import Endpoint
from balancer.counters import count
from balancer.proxy import fields as rules
from balancer.proxy import responses
from balancer.proxy.exchange import Exchange
from balancer.proxy.fields import BadMessage
from balancer.proxy.flow import NOT_CONNECTED, PEER_FULL, PIPELINED, Intake
from balancer.proxy.http1 import framing, lines
from balancer.proxy.http1.framing import ChunkedReader
from balancer.proxy.http1.heads import Block, Heads, KnownBlocks
from balancer.proxy.http_service import LINGER, HttpService
from balancer.proxy.interfaces import ClientStream, Leaving, ServerStream
from balancer.proxy.messages import HTTP_1_0, NO_FIELDS, UNKNOWN_LENGTH, Headers, Peer, RequestHead, ResponseHead
from balancer.proxy.place import Place
from balancer.proxy.timers import Timed
from balancer.proxy.transport import NOT_BEGUN, Protocol, Transport

_HEAD: Final = 0
"""A request's head is awaited, or has begun to come."""
_LENGTH: Final = 1
_CHUNKED: Final = 2
_RESPONSE: Final = 3
"""The request is whole: its response is awaited."""
_TUNNEL: Final = 4
"""Upgraded: whatever comes is passed on."""
_LINGER: Final = 5
"""Everything has been said; what still comes is discarded until the client closes too."""
_CLOSED: Final = 6

MALFORMED_LINE: Final = responses.bad_request(400, "malformed request line")
MAX_EMPTY_LINES: Final = 8
"""Bytes of empty lines before a request line that are skipped (RFC 9112 §2.2)."""

NOTICE: Final = 1.0
"""Seconds that a connection idles, once nobody connects any more, before it is closed without notice."""

_SAID: Final = re.compile(rb"(?i)\n(accept|x-forwarded-for):([^\n]*)")
"""The fields of a refused head that its answer and the log look at."""


class ServerConnection(Timed, ServerStream, Leaving, Protocol):
    """One client connection; as HTTP/1 has one request at a time on it, it is its own stream."""

    __slots__ = (
        "_chunked_out",
        "_closes",
        "_heads",
        "_held",
        "_idle_since",
        "_keep_alive",
        "_left",
        "_minor",
        "_reader",
        "_received",
        "_state",
        "_unsent",
        "exchange",
        "full",
        "intake",
        "peer",
        "pinned",
        "place",
        "service",
        "transport",
    )

    def __init__(self, service: HttpService, known: KnownBlocks, place: Place) -> None:
        super().__init__()
        self.pinned: ClientStream | None = None
        self.full = False
        self.service = service
        self.place = place
        self.peer = Peer(place.address, place.scheme, place.trusted, service.trusted_proxies)
        self.exchange: Exchange | None = None
        self._state = _CLOSED
        self._held = b""
        """Bytes received and not yet read: the beginning of a head, or requests sent ahead."""
        self._heads = Heads(service, known, self.peer)
        self._left = 0
        self._received = 0
        self._unsent = 0
        self._idle_since = 0.0
        self._reader: ChunkedReader | None = None
        self._minor = 1
        self._keep_alive = True
        """Whether the request under way lets its connection be kept."""
        self._closes = False
        """Whether the response under way has said that the connection closes."""
        self._chunked_out = False

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
        state = self._state
        if state == _LINGER:
            return
        if state == _TUNNEL:
            if self.exchange is not None:
                self.exchange.request_data(data, self.service.clock())
            return
        if self._held:
            data = self._held + data
            self._held = b""
        self._read(data)

    def eof_received(self) -> bool:
        exchange = self.exchange
        if self._state == _TUNNEL and exchange is not None:
            exchange.request_ended(NO_FIELDS, self.service.clock())
            return not self.transport.is_closing()  # which it is where both directions have ended
        if self._state == _RESPONSE or self._state == _LENGTH or self._state == _CHUNKED:
            self._leave()
        self.transport.close()
        return False

    def said_all_unread(self) -> None:
        if self._state == _LENGTH or self._state == _CHUNKED:
            # It uploads faster than an endpoint takes it, and has left: nobody waits until that takes the rest.
            self._leave()
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        # What cannot fail comes first.
        self._state = _CLOSED
        self._held = b""
        self.service.wheel.forget(self)
        self.service.connections.discard(self)
        pinned, self.pinned = self.pinned, None
        if pinned is not None:
            pinned.reset()
        exchange = self.exchange
        try:
            self._leave()
        except Exception:
            if exchange is not None:
                exchange.crashed()
            raise

    def unused_since(self) -> float:
        if self._state != _HEAD or self._held or self.deadline == 0.0:
            return -1.0
        return NOT_BEGUN if self._received == 0 else self._idle_since

    def unfinished_since(self) -> float:
        if self._state != _HEAD or not self._held or self.deadline == 0.0:
            return -1.0
        return self.deadline - self.service.request_timeout

    def evicted(self) -> None:
        if self._state == _HEAD and self._held:
            self._refuse(responses.REQUEST_TIMEOUT, self._held)

    def pause_writing(self) -> None:
        self.full = True
        if self.exchange is not None:
            self.exchange.client_full()
        if self._state != _TUNNEL:
            self._unsent = self.transport.get_write_buffer_size()
            self.service.wheel.arm(self, self.service.clock() + self.service.idle_timeout)

    def resume_writing(self) -> None:
        self.full = False
        if self.exchange is not None:
            self.exchange.client_ready()
        if self._state == _RESPONSE:
            self.deadline = 0.0

    def crashed(self) -> None:
        self.transport.abort()

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
            if self.intake.paused or (self.exchange is not None and self.exchange.awaits_continue()):
                # It is not the client that is waited for.
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
            elif state == _RESPONSE:
                # Sent ahead (pipelined): it waits its turn.
                self._held = data[position:]
                self.intake.pause(PIPELINED)
                return
            else:
                return

    def _read_head(self, data: bytes, position: int) -> int:
        """Read a request's head; the position behind it, or -1 when it is not whole (it is held) or was refused."""
        service = self.service
        heads = self._heads
        if position == 0:
            again = heads.again(data)
            if again is not None:
                self._begin(again)
                return len(data)
        start = position
        while start - position < MAX_EMPTY_LINES:
            if data.startswith(b"\r\n", start):
                start += 2
            elif data.startswith(b"\n", start):
                start += 1
            else:
                break
        end = data.find(b"\r\n\r\n", start)
        if end < 0 or end - start > service.max_header_bytes:
            self._hold_head(data, start)
            return -1
        line_end = data.find(b"\r\n", start)
        try:
            head = heads.read(data[start:line_end], data[line_end + 2 : end + 4])
        except responses.Refused as refused:
            self._refuse(refused.error, data[start:end])
            return -1
        except BadMessage as bad:
            self._refuse(responses.bad_request(bad.status, bad.fault), data[start:end])
            return -1
        if len(head.fields.received) > service.max_headers:
            self._refuse(responses.TOO_MANY_FIELDS, data[start:end])
        elif service.max_body_bytes is not None and head.fields.length > service.max_body_bytes:
            self._refuse(responses.BODY_TOO_LARGE, data[start:end])
        else:
            self._begin(head)
            return end + 4
        return -1

    def _hold_head(self, data: bytes, start: int) -> None:
        """A head that is not whole: wait for the rest, unless it can only come to a refusal."""
        service = self.service
        line_end = data.find(b"\r\n", start)
        if (line_end if line_end >= 0 else len(data)) - start > service.max_uri_bytes + 64:
            named = 0 <= data.find(b" ", start) - start <= 64
            self._refuse(responses.URI_TOO_LONG if named else MALFORMED_LINE, data[start:])
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

    def _begin(self, head: RequestHead) -> None:
        service = self.service
        now = service.clock()
        self._received = 0
        self._minor = 0 if head.version == HTTP_1_0 else 1
        fields = head.fields
        self._keep_alive = not isinstance(fields, Block) or fields.keep_alive
        exchange = Exchange(service, self, self.peer, head, now)
        self.exchange = exchange
        length = fields.length
        if length == 0:
            self._state = _RESPONSE
            self.deadline = 0.0
        else:
            service.wheel.arm(self, now + service.idle_timeout)
            if length == UNKNOWN_LENGTH:
                self._state = _CHUNKED
                self._reader = ChunkedReader(service.max_header_bytes, service.max_headers)
            else:
                self._state = _LENGTH
                self._left = length
        exchange.start(length == 0, now)

    def _read_body(self, data: bytes, position: int) -> int:
        """Pass on what `data` has of the request's body; the position behind it."""
        exchange = self.exchange
        if exchange is None:
            return len(data)
        trailers = NO_FIELDS
        if self._state == _LENGTH:
            payload = data[position : position + self._left] if position or len(data) > self._left else data
            position += len(payload)
            self._left -= len(payload)
            ended = self._left == 0
        else:
            reader = self._reader
            if reader is None:
                return len(data)
            try:
                position = reader.feed(data, position)
            except BadMessage as bad:
                self._break_off(responses.bad_request(bad.status, bad.fault))
                return len(data)
            payload = b"".join(reader.out)
            reader.out = []
            limit = exchange.body_limit
            if limit is not None and exchange.bytes_received + len(payload) > limit:
                self._break_off(responses.BODY_TOO_LARGE)
                return len(data)
            ended = reader.done
            if ended:
                trailers = rules.trailers_to_pass_on(reader.trailers)
        now = self.service.clock()
        if ended:
            self._state = _RESPONSE
            self._reader = None
            self.deadline = 0.0
        else:
            self.service.wheel.arm(self, now + self.service.idle_timeout)
        if payload:
            exchange.request_data(payload, now)
        if ended:
            exchange.request_ended(trailers, now)
        return position

    # What an exchange calls.

    def pin(self, stream: ClientStream | None) -> None:
        before, self.pinned = self.pinned, stream
        if before is not None and stream is not None:
            before.reset()

    def informational(self, head: ResponseHead) -> None:
        if self._minor:  # HTTP/1.0 knows none (RFC 9110 §15.2).
            self._write((head.http1 or lines.response_lines(head)) + b"\r\n")

    def respond(self, head: ResponseHead, extra: Headers, body: bytes, ended: bool, now: float) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        minor = self._minor
        framed = ended or head.length >= 0 or exchange.head.is_head or head.status in (204, 304)
        service = self.service
        closes = not self._keep_alive or service.draining or service.crowded or (not framed and not minor)
        if not exchange.request_whole and (ended or exchange.head.fields.expects_continue):
            # The rest of the body may never come, or would be taken for the next request.
            closes = True
        self._closes = closes
        self._chunked_out = not framed and minor == 1
        end = lines.last_lines(
            minor, closes, self._chunked_out or (exchange.head.is_head and head.length == UNKNOWN_LENGTH)
        )
        if extra:
            end = lines.field_lines(extra) + end
        if head.status == 426 and head.upgrade and minor:
            end = b"Connection: Upgrade\r\nUpgrade: %b\r\n%b" % (head.upgrade, end)  # RFC 9110 §15.5.22
        if ended and head.length < 0 and not exchange.head.is_head and head.status not in (204, 304):
            end = b"Content-Length: %d\r\n%b" % (len(body), end)  # it was HTTP/2 that said where it ends
        self._write(
            b"%bX-Request-Id: %b\r\n%b%b" % (head.http1 or lines.response_lines(head), exchange.request_id, end, body)
        )

    def data(self, data: bytes) -> None:
        self._write(lines.chunk(data) if self._chunked_out else data)

    def end(self, trailers: Headers) -> None:
        if self._chunked_out:
            self._write(lines.last_chunk(trailers))
        elif self._state == _TUNNEL and not self.transport.is_closing():
            self.transport.write_eof()

    def switch(self, head: ResponseHead, extra: Headers) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        self._state = _TUNNEL
        self._closes = True
        self._chunked_out = False
        self.service.wheel.forget(self)
        self._write(
            b"%bConnection: Upgrade\r\nUpgrade: %b\r\nX-Request-Id: %b\r\n%b\r\n"
            % (
                head.http1 or lines.response_lines(head),
                head.upgrade or exchange.head.fields.upgrade,
                exchange.request_id,
                lines.field_lines(extra),
            )
        )
        held, self._held = self._held, b""
        self.intake.resume(PIPELINED)
        if held:
            exchange.request_data(held, self.service.clock())

    def reset(self) -> None:
        self.exchange = None
        self.transport.abort()

    def finished(self, now: float) -> None:
        self.exchange = None
        service = self.service
        if self._state == _TUNNEL:
            self._close_after_what_is_unsent(now)
            return
        whole = self._state == _RESPONSE
        if self._closes or not whole:
            if whole and not self._keep_alive and not self._held:
                # A client that asked to close sends nothing more that a reset could cross (RFC 9112 §9.6).
                self._close_after_what_is_unsent(now)
            else:
                self._linger()
            return
        self._state = _HEAD
        self._idle_since = now
        service.wheel.arm(self, now + (NOTICE if service.stopped else service.keepalive_timeout))
        self._received = 1
        if self._held:
            held, self._held = self._held, b""
            self.intake.resume(PIPELINED)
            self._read(held)

    def pause_reading(self, reason: int) -> None:
        self.intake.pause(reason)

    def resume_reading(self, reason: int) -> None:
        if not self.intake.paused:
            return
        self.intake.resume(reason)
        if not self.intake.paused and self._state in (_LENGTH, _CHUNKED):
            # It was we who did not read: the client's time begins here.
            self.service.wheel.arm(self, self.service.clock() + self.service.idle_timeout)

    def _write(self, data: bytes) -> None:
        self.service.counters.bytes_sent += len(data)
        self.transport.write(data)

    # Leaving.

    def drain(self) -> None:
        """`service.draining` says it: the next response's head says it to the client."""

    def stop(self) -> None:
        if self._state == _HEAD and not self._held:
            now = self.service.clock()
            if now - self._idle_since >= NOTICE:
                self._linger()
            else:
                # It may be asking just now: wait for that answer, or for a moment's silence.
                self.service.wheel.arm(self, self._idle_since + NOTICE)

    def cut_tunnels(self, endpoint: Endpoint) -> int:
        return int(self.exchange is not None and self.exchange.cut_tunnel(endpoint))

    def under_way(self) -> int:
        return 0 if self.exchange is None else 1

    def abort(self) -> None:
        self.transport.abort()

    # Closing.

    def _break_off(self, error: responses.Error) -> None:
        """The body of the request under way turned out bad, or does not come."""
        self._held = b""
        if self.exchange is not None:
            self.exchange.broken_off(error)

    def _leave(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_left()

    def _close_after_what_is_unsent(self, now: float) -> None:
        self._state = _LINGER
        self._unsent = self.transport.get_write_buffer_size()
        if self._unsent:
            self.service.wheel.arm(self, now + self.service.idle_timeout)
        self.transport.close()

    def _linger(self) -> None:
        """Half-close, and discard what comes until the client has closed too: no answer is lost to a reset."""
        self._state = _LINGER
        self._held = b""
        if self.transport.is_closing():
            return
        self.intake.resume(PIPELINED | NOT_CONNECTED | PEER_FULL)
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
        request_id = service.request_id()
        self._write(refusal(service, error, request_id, head))
        service.refused(rules.client_of(self.peer, _SAID.findall(head)), request_id, error)
        self._linger()


def refusal(service: HttpService, error: responses.Error, request_id: bytes, head: bytes = b"") -> bytes:
    """What a client gets for bytes that never became a request (`head` is what is known of it)."""
    made, body = responses.render(error, request_id, rules.prefers_json(_SAID.findall(head)))
    extra = [(b"X-Request-Id", request_id), (b"Date", service.date(service.clock())), (b"Connection", b"close")]
    body = b"" if head.startswith(b"HEAD ") else body
    return lines.response_lines(made) + lines.field_lines(extra) + b"\r\n" + body
