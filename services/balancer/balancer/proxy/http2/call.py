"""One request's stream to an endpoint: what an exchange calls to ask, and what passes to it what comes back."""

from __future__ import annotations

import structlog

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.outcome import Kind
from balancer.proxy.http2 import frames
from balancer.proxy.http2.blocks import RequestBlocks
from balancer.proxy.http2.connection import Connection, trailers_of
from balancer.proxy.http2.fields import Malformed, Pair
from balancer.proxy.http2.heads import ResponseHeads
from balancer.proxy.http2.hpack import Block
from balancer.proxy.http2.limits import Limits
from balancer.proxy.http2.sending import Stream
from balancer.proxy.interfaces import BEGAN, MAX_INTERIM, NOT_PROCESSED, SENT, ClientStream, Receiver
from balancer.proxy.messages import NO_FIELDS, Headers, RequestHead, ResponseHead
from balancer.proxy.poller import Poller
from balancer.proxy.websocket import KEY, accept_for, value_of, without_handshake

log = structlog.get_logger()


class Asking(Connection):
    """A connection to an endpoint, as far as its calls know it."""

    __slots__ = ("blocks", "endpoint", "heads", "limits", "may_connect")

    def __init__(self, poller: Poller, limits: Limits, heads: ResponseHeads, endpoint: Endpoint, scheme: bytes) -> None:
        super().__init__(poller, limits.max_header_bytes, 2 * limits.max_header_bytes)
        self.limits = limits
        self.heads = heads
        self.endpoint = endpoint
        self.blocks = RequestBlocks(self.encoder, endpoint, scheme)
        self.may_connect = False
        """Whether the endpoint knows extended CONNECT."""

    def bind(self) -> None:
        """It is authenticated for one client from now on: it carries nobody else's requests."""
        raise NotImplementedError

    def reuse(self, receiver: Receiver) -> Call | None:
        """The next call of the client that it is bound to; None where it can carry no more."""
        raise NotImplementedError

    def close_when_done(self) -> None:
        """Send no more requests; close when those under way have ended."""
        raise NotImplementedError

    def not_taken(self, call: Call) -> None:
        """The endpoint knows no extended CONNECT: asking for one anyway may cost the whole connection (RFC 8441 §3)."""
        call.sent_end = True
        self.forget(call)
        self._loop.call_soon(call.fail, Kind.NOT_TAKEN, NOT_PROCESSED, "no extended CONNECT")


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

    def __init__(self, connection: Asking, number: int, receiver: Receiver) -> None:
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
        head = own.heads.read(block)
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
            self.own.limits.wheel.counters.faults += 1
            log.exception("an attempt's end failed")
            receiver.crashed()

    def drained(self) -> None:
        if self.told_full:
            self.told_full = False
            if self.receiver is not None:
                self.receiver.endpoint_ready()

    def look(self, now: float) -> float:
        own = self.own
        limits = own.limits
        if self.began:
            waits, patience = not self.paused and not self.patient, limits.idle_timeout
        elif self.unsent:
            waits, patience = True, limits.idle_timeout
        else:
            waits, patience = self.sent_whole or self.awaits_continue, limits.response_timeout
        if not waits:
            return now + limits.shortest_timeout
        if now - self.moved_at < patience:
            return self.moved_at + patience
        # Without its body the request was none yet: it is safe to ask another endpoint.
        progress = NOT_PROCESSED if self.awaits_continue and not self.interim else self.progress()
        own.reset(self, frames.CANCEL)
        self.fail(Kind.STALLED if self.began else Kind.TIMED_OUT, progress)
        return now + limits.shortest_timeout

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
        block = own.blocks.encode(head, request_id, extra)
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
        self.bound = True
        self.own.bind()

    def reuse(self, receiver: Receiver) -> ClientStream | None:
        return self.own.reuse(receiver)

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
