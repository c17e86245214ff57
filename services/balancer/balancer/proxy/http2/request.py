"""One request's stream from a client: passes to its exchange what comes, and is what that answers on."""

from __future__ import annotations

from balancer.proxy import responses
from balancer.proxy.exchange import Exchange
from balancer.proxy.flow import NOT_SWITCHED
from balancer.proxy.http2 import frames
from balancer.proxy.http2.blocks import ResponseBlocks
from balancer.proxy.http2.connection import Connection, trailers_of
from balancer.proxy.http2.fields import Malformed
from balancer.proxy.http2.hpack import Block
from balancer.proxy.http2.sending import Stream
from balancer.proxy.http_service import HttpService
from balancer.proxy.interfaces import ClientStream, ServerStream
from balancer.proxy.messages import NO_FIELDS, Headers, ResponseHead
from balancer.proxy.websocket import without_handshake


class Serving(Connection):
    """A client's connection, as far as its requests know it."""

    __slots__ = ("blocks", "service")

    def __init__(self, service: HttpService) -> None:
        super().__init__(service.poller, service.max_header_bytes, 2 * service.max_header_bytes)
        self.service = service
        self.blocks = ResponseBlocks(self.encoder)

    def keep_bound(self, stream: ClientStream) -> None:
        """Keep what is bound to this client for another of its requests."""
        raise NotImplementedError


class Request(Stream, ServerStream):
    """One request's stream: passes to its exchange what comes, and is what that answers on."""

    __slots__ = (
        "body",
        "early",
        "exchange",
        "full",
        "over",
        "own",
        "patient",
        "pauses",
        "pinned",
        "tunnel",
    )

    def __init__(self, connection: Serving, number: int) -> None:
        super().__init__(connection, number)
        self.own = connection
        self.exchange: Exchange | None = None
        self.pinned: ClientStream | None = None
        self.full = False
        self.body = 0
        """Bytes of body that came."""
        self.over = False
        """Whether the exchange has ended: what the client still sends is of no use."""
        self.pauses = 0
        """Reasons not to read (flow.py)."""
        self.patient = False
        """Whether it may be silent for as long as it likes: a gRPC stream, or a tunnel."""
        self.tunnel = False
        """Whether it has become one, by an extended CONNECT (RFC 8441)."""
        self.early: list[bytes] | None = None
        """What has come for a tunnel to which the endpoint has not agreed yet; None where nothing is held back."""

    def headers_received(self, block: Block, end: bool) -> None:
        if not end:
            raise Malformed("trailers that are not the end")
        trailers = trailers_of(block)
        exchange = self.exchange
        if exchange is not None:
            exchange.request_ended(trailers, self.own.now)

    def data_received(self, data: bytes, end: bool) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        own = self.own
        if self.early is not None:
            # An endpoint that answers as to an ordinary request would read it as the next one.
            self.early.append(data)
            return
        if data:
            self.body += len(data)
            limit = exchange.body_limit
            if limit is not None and self.body > limit and not self.patient:
                self.exchange = None
                exchange.broken_off(responses.BODY_TOO_LARGE)
                return
            exchange.request_data(data, own.now)
        if end and self.exchange is not None:
            exchange.request_ended(NO_FIELDS, own.now)

    def was_reset(self, code: int) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_left()

    def drained(self) -> None:
        if self.full:
            self.full = False
            if self.exchange is not None:
                self.exchange.client_ready()

    def look(self, now: float) -> float:
        own = self.own
        patience = own.service.idle_timeout
        if now - self.moved_at < patience:
            return self.moved_at + patience
        if self.unsent:
            if self.peer_closed_window():
                own.reset_for(self, frames.CANCEL, "response not read")
            else:
                return now
        elif self.exchange is not None and not self.received and not self.paused and not self.patient:
            if self.exchange.awaits_continue():
                return now + patience  # It is not the client that is waited for.
            exchange, self.exchange = self.exchange, None
            exchange.broken_off(responses.REQUEST_TIMEOUT)
        return now + patience

    def peer_closed_window(self) -> bool:
        """Whether it is the client who does not let us send, and not its neighbours' data."""
        own = self.own
        return own.full or own.send_window <= 0 or own.peer_window + self.credit <= 0

    # What an exchange calls.

    def pin(self, stream: ClientStream | None) -> None:
        if stream is None:
            self.pinned = None
        else:
            self.own.keep_bound(stream)  # another request of the client's may need it before this stream is gone

    def informational(self, head: ResponseHead) -> None:
        if not self.sent_end:
            self.moved_at = self.own.time()  # from here on it is the client's turn, where it waited for this
            self.own.send_headers(self, self._block(head, []), False)

    def respond(self, head: ResponseHead, extra: Headers, body: bytes, ended: bool, now: float) -> None:
        if self.sent_end:
            return
        own = self.own
        self.moved_at = now
        if body:
            own.send_headers(self, self._block(head, extra), False)
            self._send(body, ended)
        else:
            own.send_headers(self, self._block(head, extra), ended)

    def data(self, data: bytes) -> None:
        if not self.sent_end:
            self._send(data, False)

    def end(self, trailers: Headers) -> None:
        if self.sent_end:
            return
        if trailers:
            self.own.send_trailers(self, trailers)
        else:
            self.own.send_data(self, b"", True)

    def switch(self, head: ResponseHead, extra: Headers) -> None:
        if self.sent_end:
            return
        own = self.own
        self.patient = self.tunnel = True
        accepted = ResponseHead(200)
        accepted.fields = without_handshake(head.fields)
        if not any(name.lower() == b"date" for name, _ in accepted.fields):
            accepted.fields.append((b"date", own.service.date(own.now)))
        own.send_headers(self, self._block(accepted, extra), False)
        early, self.early = self.early, None
        self.resume_reading(NOT_SWITCHED)
        exchange = self.exchange
        if exchange is None:
            return
        for data in early or ():
            if data:
                exchange.request_data(data, own.now)
        if self.received:
            exchange.request_ended(NO_FIELDS, own.now)

    def reset(self) -> None:
        self.exchange = None
        if not self.gone:
            self.own.reset(self, frames.CANCEL if self.tunnel else frames.INTERNAL_ERROR)

    def finished(self, now: float) -> None:
        self.exchange = None
        self.over = True
        if self.pinned is not None:
            self.give_back()
        if self.tunnel:
            self.end([])
        if self.sent_end and not self.received:
            self.own.ended_early(self)

    def give_back(self) -> None:
        """What is bound to this client may carry another of its requests."""
        pinned, self.pinned = self.pinned, None
        if pinned is not None:
            self.own.keep_bound(pinned)

    def pause_reading(self, reason: int) -> None:
        self.pauses |= reason
        self.own.pause(self)

    def resume_reading(self, reason: int) -> None:
        if self.pauses & reason:
            self.pauses &= ~reason
            if not self.pauses:
                self.own.resume(self)

    def _send(self, data: bytes, ended: bool) -> None:
        own = self.own
        own.send_data(self, data, ended)
        if self.unsent and not self.full:
            self.full = True
            if self.exchange is not None:
                self.exchange.client_full()

    def _block(self, head: ResponseHead, extra: Headers) -> bytes:
        exchange = self.exchange
        return self.own.blocks.encode(head, b"" if exchange is None else exchange.request_id, extra)
