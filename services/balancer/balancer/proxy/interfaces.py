"""What the exchange knows of a protocol: a stream on each side, and heads as values (messages.py).

    server connection ──creates──> Exchange ──calls──> ServerStream   (the same server connection, or its stream)
                                      │
                                      └─ cluster.upstreams.take / connect ──> ClientStream ──calls──> Receiver
                                                                                                 (the exchange)

`http1/` and `http2/` implement the streams and do not know each other. What passes between them is payload and fields:
framing, serialising and what is remembered of it (the memo slots of the heads) belong to the connection that writes.

A request's life, as these calls:

1. A server connection reads a head, creates `Exchange(service, stream, peer, head, now)` and calls
   `exchange.start(ended, now)`; then `request_data` and `request_ended` as the body comes, or `client_left`, or
   `broken_off` when the body turns out bad.
2. The exchange leases an endpoint, asks `upstreams.take` for a stream that can carry the request at once, else
   `upstreams.connect` for one later, and calls `ClientStream.send`.
3. The client stream calls the exchange, as its Receiver, with what comes back. Each attempt ends by exactly one of:
   `response_ended`, `response(…, ended=True)`, `attempt_failed`; or by the exchange's own `ClientStream.reset`, after
   which the stream calls nothing more.
4. The exchange calls `respond`, `data`, `end` on the server stream, or `reset`; at last `finished`, exactly once.

Base classes and traits with virtual methods, no `Protocol`s: mypyc calls them through a table, at the price of a C
call. A stream is a trait: so it is one object in HTTP/2, with what its connection knows of it.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import mypyc_attr, trait

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.outcome import Kind
from balancer.proxy.messages import Headers, RequestHead, ResponseHead

FRESH: Final = 0.5
"""Seconds unused within which a connection is known fresh: a request that can't be sent twice takes no older one."""

MAX_INTERIM: Final = 32
"""1xx responses to one request: an endpoint that sends more never means to answer."""

# How far an attempt came before it failed: what decides whether it may be made again (balancing/retry.py).
NOT_PROCESSED: Final = 0
"""The endpoint has surely not acted on it: connecting failed, REFUSED_STREAM, above GOAWAY's last id. Any method."""
STALE: Final = 1
"""A connection that had served before closed with nothing come back: the endpoint had most likely closed it as idle."""
SENT: Final = 2
"""The request, or part of it, was sent, and nothing of a response came."""
BEGAN: Final = 3
"""Part of a response came, an interim one included: never again."""


@trait
class ServerStream:
    """One request as the client's side offers it: what an exchange calls.

    Backpressure: when the client takes its response slower than it comes, the stream calls `exchange.client_full()`,
    and `exchange.client_ready()` when it reads again; `full` says so in between.
    """

    __slots__ = ()

    pinned: ClientStream | None
    """What carries this client's requests alone, since authentication bound it (NTLM): closed with the client."""
    full: bool
    """Whether the client takes its response slower than it comes."""

    def pin(self, stream: ClientStream | None) -> None:
        """Set `pinned`."""
        raise NotImplementedError

    def informational(self, head: ResponseHead) -> None:
        """Pass an interim response on (1xx, not 101), if the client's version knows any."""
        raise NotImplementedError

    def respond(self, head: ResponseHead, extra: Headers, body: bytes, ended: bool, now: float) -> None:
        """Send the final response's head, X-Request-Id (`exchange.request_id`) and `extra` fields, and what there is of
        its body; `ended` when that is all.

        HTTP/1 sends it in one write; it says `Connection: close` by its own rules.
        """
        raise NotImplementedError

    def data(self, data: bytes) -> None:
        """Send more of the body: payload, never empty."""
        raise NotImplementedError

    def end(self, trailers: Headers) -> None:
        """The body has come to its end; in a tunnel: nothing more comes from the endpoint (half-close)."""
        raise NotImplementedError

    def switch(self, head: ResponseHead, extra: Headers) -> None:
        """Answer an upgrade (101, or 200 to an extended CONNECT); from here `data` carries what both sides like.

        What the client has sent behind its request is passed to the exchange before this returns.
        """
        raise NotImplementedError

    def reset(self) -> None:
        """Break off: the client must not take what it has for a whole response.

        HTTP/1: a TCP reset; HTTP/2: RST_STREAM. The exchange has ended, and `finished` does not follow.
        """
        raise NotImplementedError

    def finished(self, now: float) -> None:
        """The exchange has ended, its response is written whole: go on to the next request, or close."""
        raise NotImplementedError

    def pause_reading(self, reason: int) -> None:
        """Let the client send no more of the body until `resume_reading`; `reason` is one of flow.py's."""
        raise NotImplementedError

    def resume_reading(self, reason: int) -> None:
        """`reason` is gone; nothing happens where it did not stand."""
        raise NotImplementedError


@trait
class ClientStream:
    """One request towards an endpoint: what an exchange calls.

    Backpressure: when the endpoint takes the body slower than it comes, the stream calls `receiver.endpoint_full()`,
    and `receiver.endpoint_ready()` when it reads again.
    """

    __slots__ = ()

    endpoint: Endpoint
    bound: bool
    """Whether its connection has been authenticated for one client: it carries no other's requests any more."""

    def bind(self) -> None:
        """Its response demands an authentication that binds its connection: let it carry nobody else's requests."""
        raise NotImplementedError

    def reuse(self, receiver: Receiver) -> ClientStream | None:
        """What carries the next request of the client that its connection is bound to; None where that can't be."""
        raise NotImplementedError

    def send(self, head: RequestHead, request_id: bytes, extra: Headers, body: bytes, ended: bool, now: float) -> None:
        """Send a head, with X-Request-Id and `extra` fields behind its own, and what there is of the body.

        `ended` when that is all of it: from here the response is waited for.
        """
        raise NotImplementedError

    def data(self, data: bytes, now: float) -> None:
        """Send more of the body: payload, never empty."""
        raise NotImplementedError

    def end(self, trailers: Headers, now: float) -> None:
        """The body has come to its end; in a tunnel: nothing more comes from the client (half-close)."""
        raise NotImplementedError

    def reset(self) -> None:
        """Give the request up, and call its receiver no more (HTTP/1: close; HTTP/2: RST_STREAM CANCEL)."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        """The client is full: let the endpoint send no more until `resume_reading`."""
        raise NotImplementedError

    def resume_reading(self) -> None:
        """The client reads again; nothing happens where reading was not paused."""
        raise NotImplementedError


@trait
class Receiver:
    """What a client stream, or the connecting to one, reports to: implemented by the exchange."""

    __slots__ = ()

    def crashed(self) -> None:
        """One of the calls below has raised, a fault of ours: give back everything, and reset both sides."""
        raise NotImplementedError

    def connected(self, stream: ClientStream, took: float) -> None:
        """The stream asked of `connect` is there; connecting took `took` seconds (below 0: it was open already)."""
        raise NotImplementedError

    def attempt_failed(self, kind: Kind, progress: int, fault: str = "") -> None:
        """The attempt has come to nothing, having come as far as `progress` (one of the constants above) says.

        `fault` is what the log adds to `kind`. The stream is of no more use.
        """
        raise NotImplementedError

    def may_repeat(self) -> bool:
        """Whether the request may be sent once more, if its connection turns out to have been closing."""
        return False

    def interim(self, head: ResponseHead) -> None:
        """An interim response came (1xx, not 101)."""
        raise NotImplementedError

    def switched(self, head: ResponseHead) -> None:
        """The endpoint agreed to an upgrade: what follows on the stream is data of both sides' liking."""
        raise NotImplementedError

    def response(self, head: ResponseHead, body: bytes, ended: bool, now: float) -> None:
        """The final response's head, with what has come of its body; `ended` when that is all.

        When `ended`, the stream has parted already: its connection may carry the next request.
        """
        raise NotImplementedError

    def response_data(self, data: bytes, now: float) -> None:
        """More of the body: payload."""
        raise NotImplementedError

    def response_ended(self, trailers: Headers, now: float) -> None:
        """The body has come to its end; the stream has parted already. In a tunnel: the endpoint's half-close."""
        raise NotImplementedError

    def endpoint_full(self) -> None:
        """The endpoint takes the body slower than it comes."""
        raise NotImplementedError

    def endpoint_ready(self) -> None:
        """The endpoint reads again."""
        raise NotImplementedError


class Connecting:
    """A connection, or a stream on one, that is being opened."""

    __slots__ = ()

    def cancel(self) -> None:
        """Nobody wants it any more: its receiver is not called."""
        raise NotImplementedError

    def stands_at(self) -> str:
        """What is waited for, where it is not the connection itself (`TLS handshake`, `SETTINGS`); empty: that."""
        return ""


@mypyc_attr(allow_interpreted_subclasses=True)
class Upstreams:
    """Hands out client streams to the endpoints of one cluster: an idle HTTP/1 connection, or room on an HTTP/2 one."""

    __slots__ = ()

    def take(self, endpoint: Endpoint, receiver: Receiver, idle_since: float) -> ClientStream | None:
        """A stream that is open and free for `receiver` at once; None when `connect` has to be called.

        `idle_since` (s): no connection that was used last before that, for a request that cannot be sent twice; 0: any.
        """
        raise NotImplementedError

    def connect(self, endpoint: Endpoint, receiver: Receiver) -> Connecting:
        """Open a connection, or wait for room on one being opened.

        `receiver` gets `connected` or `attempt_failed` later, never within this call, unless it cancels.
        """
        raise NotImplementedError

    def close_idle(self, endpoint: Endpoint) -> None:
        """The endpoint has left: close what idles there, and what is busy as soon as it has ended."""
        raise NotImplementedError

    def close(self) -> None:
        """The balancer stops: close what idles, and from now on each connection that becomes idle."""
        raise NotImplementedError

    def idle_to(self, endpoint: Endpoint) -> int:
        """How many idle connections to `endpoint` there are."""
        raise NotImplementedError


@trait
class Leaving:
    """A client's connection, of any protocol, as the order of leaving sees it."""

    __slots__ = ()

    def drain(self) -> None:
        """SIGTERM has come: give notice with what is sent next (`Connection: close`, GOAWAY); close nothing yet."""
        raise NotImplementedError

    def stop(self) -> None:
        """Listening has stopped: close once the client has had notice and nothing is under way, or it has idled."""
        raise NotImplementedError

    def cut_tunnels(self, endpoint: Endpoint) -> int:
        """Reset what is tunnelled to an endpoint whose health has turned bad; how many tunnels those were."""
        raise NotImplementedError

    def under_way(self) -> int:
        """Requests and tunnels that are under way."""
        raise NotImplementedError

    def abort(self) -> None:
        """Cut whatever is under way: the time to drain is over."""
        raise NotImplementedError
