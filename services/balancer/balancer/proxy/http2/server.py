"""The client's side of HTTP/2: one connection, from the client's preface to the end; its streams are `request`'s.

Above 300 lines because it is one state: when streams begin and end decides when the connection idles, drains and ends.
"""

from __future__ import annotations

from typing import Final

from balancer.balancing.endpoint import Endpoint
from balancer.counters import count
from balancer.proxy import responses
from balancer.proxy.exchange import Exchange
from balancer.proxy.fields import client_of, prefers_json
from balancer.proxy.flow import NOT_SWITCHED, PEER_FULL, Intake
from balancer.proxy.http2 import frames
from balancer.proxy.http2.connection import CONNECTION_WINDOW
from balancer.proxy.http2.fields import Malformed, Pair
from balancer.proxy.http2.frames import ConnectionFault
from balancer.proxy.http2.heads import RequestHeads
from balancer.proxy.http2.hpack import Block
from balancer.proxy.http2.request import Request, Serving
from balancer.proxy.http2.sending import CONTROL, Stream
from balancer.proxy.http_service import LINGER, HttpService
from balancer.proxy.interfaces import ClientStream, Leaving
from balancer.proxy.messages import Peer
from balancer.proxy.place import Place
from balancer.proxy.transport import NOT_BEGUN, Transport

MAX_STREAMS: Final = 1000
"""Requests that a client may have under way on one connection."""
SWEEP: Final = 0.2
"""Seconds between two looks at a connection's streams, at least: the next is when the first of them can be late."""
NOTICE: Final = 1.0
"""Seconds that a connection idles, once its client has been asked to use another, before it is closed."""
_DRAINING: Final = b"draining"
_ALIVE: Final = b"stillup?"


class ServerConnection(Serving, Leaving):
    """One client's connection."""

    __slots__ = (
        "_allowed",
        "_began",
        "_final",
        "_heads",
        "_intake",
        "_pinged",
        "_read_at",
        "_said_goaway",
        "_stopping",
        "bound",
        "idle_since",
        "peer",
    )

    def __init__(self, service: HttpService, place: Place) -> None:
        super().__init__(service)
        self.peer = Peer(place.address, place.scheme, place.trusted, service.trusted_proxies)
        self._heads = RequestHeads(service, self.peer)
        self._allowed = place.allowed
        self._began = False
        """Whether the client's preface has come."""
        self._final = -1
        """The last stream that is served; -1: no end is in sight."""
        self._said_goaway = False
        self._stopping = False
        """Whether the balancer listens no more."""
        self.idle_since = 0.0
        self._pinged = False
        self._read_at = 0.0
        self._intake: Intake | None = None
        self.bound: list[ClientStream] = []
        """Connections to endpoints that authentication has bound to this client (NTLM), and that are free."""

    # What the transport calls.

    def connection_made(self, transport: Transport) -> None:
        service = self.service
        super().connection_made(transport)
        self._intake = Intake(transport)
        service.connections.add(self)
        self.now = self._read_at = service.clock()
        self.write(
            frames.settings(
                [
                    (frames.MAX_CONCURRENT_STREAMS, MAX_STREAMS),
                    (frames.MAX_HEADER_LIST_SIZE, service.max_header_bytes),
                    (frames.ENABLE_CONNECT_PROTOCOL, 1),
                ]
            )
            + frames.window_update(CONTROL, CONNECTION_WINDOW - frames.WINDOW)
        )
        if self._allowed:
            service.wheel.arm(self, self.now + service.request_timeout)
        else:
            self.go_away(frames.ENHANCE_YOUR_CALM, responses.TOO_MANY_CONNECTIONS.reason)

    def data_received(self, data: bytes) -> None:
        self.service.counters.bytes_received += len(data)
        if not self._began:
            data = self._preface(data)
            if not data:
                return
        super().data_received(data)
        self._read_at = self.now
        self._pinged = False

    def _preface(self, data: bytes) -> bytes:
        """What follows the client's preface; empty while that is not whole."""
        data = self._held + data
        size = len(frames.PREFACE)
        if not data.startswith(frames.PREFACE[: len(data)]):
            self.fault("malformed preface", frames.PROTOCOL_ERROR)
            self.go_away(frames.PROTOCOL_ERROR, "malformed preface")
            return b""
        if len(data) < size:
            self._held = data
            return b""
        self._began = True
        self._held = b""
        return data[size:]

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        # What cannot fail comes first.
        self.ended = True
        self.service.wheel.forget(self)
        self.service.connections.discard(self)
        bound, self.bound = self.bound, []
        for pinned in bound:
            pinned.reset()
        for stream in list(self.streams.values()):
            exchange = stream.exchange if isinstance(stream, Request) else None
            try:
                self.forget(stream)
                stream.was_reset(frames.CANCEL)
            except Exception:
                if exchange is None:
                    raise
                self.service.wheel.fault("a stream's end failed", exchange)
        self.transport = None

    def unused_since(self) -> float:
        if self.streams or self.deadline == 0.0:
            return -1.0
        return self.idle_since if self.newest else NOT_BEGUN

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._intake is not None:
            self._intake.pause(PEER_FULL)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._intake is not None:
            self._intake.resume(PEER_FULL)

    def wrote(self, size: int) -> None:
        self.service.counters.bytes_sent += size

    def expired(self, now: float) -> None:
        service = self.service
        if self.ended:
            if self.transport is not None:
                self.transport.abort()
            return
        if self.streams:
            self.now = now
            due = self._ask_whether_alive(now)
            for stream in list(self.streams.values()):
                due = min(due, stream.look(now))
            if self.streams and not self.ended:
                service.wheel.arm(self, max(due, now + SWEEP))
        elif not self._settled:
            self.go_away(frames.SETTINGS_TIMEOUT, "no SETTINGS in time")
        else:
            self._finish()

    def _ask_whether_alive(self, now: float) -> float:
        """Ping a client that says nothing while requests of its own are under way, and give it up in the end.

        Returns when (s) to look again.
        """
        patience = self.service.idle_timeout
        silent = now - self._read_at
        if self.full:
            return now + patience
        if silent < patience:
            return self._read_at + patience
        if not self._pinged:
            self._pinged = True
            self.write(frames.ping(_ALIVE, False))
        elif silent >= 2 * patience:
            count(self.service.counters.client_faults, "client silent")
            self.abort()
        return self._read_at + 2 * patience

    def time(self) -> float:
        return self.service.clock()

    # Streams.

    def is_idle(self, number: int) -> bool:
        return number > self.newest or number & 1 == 0

    def last_stream(self) -> int:
        return self.newest if self._final < 0 else self._final

    def fault(self, fault: str, code: int) -> None:
        count(self.service.counters.client_faults, fault)

    def stream_opened(self, number: int, block: Block, end: bool) -> None:
        if number & 1 == 0:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "HEADERS on an even stream")
        if number <= self.newest:
            raise ConnectionFault(frames.STREAM_CLOSED, "HEADERS on a closed stream")
        self.newest = number
        if self._final >= 0:
            return  # The client knows by GOAWAY that nobody serves it, and sends it again elsewhere.
        self.use()
        if len(self.streams) >= MAX_STREAMS:
            self.fault("too many streams", frames.REFUSED_STREAM)
            self.reject(number, frames.REFUSED_STREAM)
            return
        stream = Request(self, number)
        stream.received = end
        try:
            head = self._heads.read(block, end)
        except Malformed as bad:
            self.fault(bad.fault, frames.PROTOCOL_ERROR)
            self.reject(number, frames.PROTOCOL_ERROR)
            self.made_us_reset()
            return
        except responses.Refused as refused:
            self._refuse(stream, refused.error, [field.pair for field in block.fields])
            return
        if not self.streams:
            self.service.wheel.arm(self, self.now + self.service.idle_timeout)
        self.streams[number] = stream
        if not end:
            self._recent = stream
        if head.fields.upgrade:
            stream.early = []
        else:
            stream.expected = -1 if end else head.fields.length
        stream.patient = head.fields.grpc
        if (self.service.draining or self.service.crowded) and not self._said_goaway:
            self.drain()
        if self.bound:
            stream.pinned = self.bound.pop()
        exchange = Exchange(self.service, stream, self.peer, head, self.now)
        stream.exchange = exchange
        if stream.early is not None:
            stream.pause_reading(NOT_SWITCHED)
            end = True  # Of the request nothing more is to come; what follows is the tunnel's.
        exchange.start(end, self.now)

    def _refuse(self, stream: Request, error: responses.Error, said: list[Pair]) -> None:
        """Answer a request that never became an exchange."""
        service = self.service
        request_id = service.request_id()
        head, body = responses.render(error, request_id, prefers_json(said))
        block = self.blocks.encode_own(head, request_id, (b"date", service.date(self.now)))
        self.streams[stream.id] = stream
        stream.over = True
        is_head = (b":method", b"HEAD") in said
        self.send_headers(stream, block, is_head)
        if not is_head:
            self.send_data(stream, body, True)
        service.refused(client_of(self.peer, said), request_id, error)

    def refuse(self, stream: Stream, fault: str) -> None:
        self.reset_for(stream, frames.PROTOCOL_ERROR, fault)

    def left(self, stream: Stream) -> None:
        super().left(stream)
        if isinstance(stream, Request) and stream.pinned is not None:
            stream.give_back()
        if self.streams or self.ended:
            return
        if self._final >= 0:
            self._loop.call_soon(self._close_if_done)
        else:
            self.now = self.time()  # It is an endpoint's event that has ended the last request.
            self.idle_since = self.now
            # Who was asked to send no more here has a moment for what was on its way.
            patience = NOTICE if self._said_goaway else self.service.keepalive_timeout
            self.service.wheel.arm(self, self.now + patience)

    def keep_bound(self, stream: ClientStream) -> None:
        if self.ended:
            stream.reset()
        else:
            self.bound.append(stream)

    def ended_early(self, stream: Stream) -> None:
        if isinstance(stream, Request) and stream.over and not stream.received:
            # It need not send the rest of its request (RFC 9113 §8.1).
            self.reset(stream, frames.NO_ERROR)

    # The end.

    def drain(self) -> None:
        """Ask the client to send no more requests on this connection; those that come in time are served."""
        if not self._said_goaway and not self.ended:
            self._said_goaway = True
            self.write(frames.goaway(frames.MAX_STREAM_ID, frames.NO_ERROR))

    def stop(self) -> None:
        """Serve what is on its way, and close: the balancer stops."""
        self._stopping = True
        if self.ended:
            return
        if not self._settled:
            self._finish()
            return
        # When this ping comes back, so has all that the client sent before it knew (RFC 9113 §6.8).
        self.drain()
        self.write(frames.ping(_DRAINING, False))
        if not self.streams:
            self.service.wheel.arm(self, self.service.clock() + LINGER)

    def pong_received(self, payload: bytes) -> None:
        if payload == _DRAINING and self._stopping:
            self._finish()

    def _finish(self) -> None:
        """Take no more requests, and close when those under way have ended."""
        if self._final < 0 and not self.ended:
            self._final = self.newest
            self.write(frames.goaway(self.newest, frames.NO_ERROR))
        self._close_if_done()

    def _close_if_done(self) -> None:
        if not self.streams and not self.ended:
            self.ended = True
            self.flush()
            self.part()

    def part(self) -> None:
        """Half-close, and discard what comes until the client has closed too: no answer is lost to a reset."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self._intake is not None:
            self._intake.resume(PEER_FULL)
        if transport.can_write_eof():
            transport.write_eof()
            self.service.wheel.arm(self, self.service.clock() + LINGER)
        else:
            transport.close()

    def cut_tunnels(self, endpoint: Endpoint) -> int:
        exchanges = [stream.exchange for stream in self.streams.values() if isinstance(stream, Request)]
        number = sum([each.cut_tunnel(endpoint) for each in exchanges if each is not None])
        if number:
            self.flush()
        return number

    def under_way(self) -> int:
        """Requests that are under way."""
        return len(self.streams)

    def abort(self) -> None:
        """Cut whatever is under way: the time to drain is over."""
        if self.transport is not None:
            self.transport.abort()
