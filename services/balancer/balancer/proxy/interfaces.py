"""What the exchange knows of a protocol: heads as values, and a stream on each side.

    server connection ──creates──> Exchange ──calls──> ServerStream   (the same server connection, or its stream)
                                      │
                                      └─ cluster.upstreams.take / connect ──> ClientStream ──tells──> Receiver
                                                                                                 (the exchange)

`http1/` and `http2/` implement the streams and do not know each other. What passes between them is payload and fields:
framing, serialising and what is remembered of it (the memo slots of the heads) belong to the connection that writes.

A request's life, as these calls:

1. A server connection reads a head, creates `Exchange(service, stream, peer, head, now)` and calls
   `exchange.start(ended, now)`; then `request_data` and `request_ended` as the body comes, or `client_left`, or
   `broken_off` when the body turns out bad.
2. The exchange leases an endpoint, asks `upstreams.take` for a stream that can carry the request at once, else
   `upstreams.connect` for one later, and calls `ClientStream.send`.
3. The client stream tells the exchange, as its Receiver, what comes back. Each attempt ends by exactly one of:
   `response_ended`, `response(…, ended=True)`, `attempt_failed`; or by the exchange's own `ClientStream.reset`, after
   which the stream tells nothing more.
4. The exchange calls `respond`, `data`, `end` on the server stream, or `reset`; at last `finished`, exactly once.

Plain base classes with virtual methods, no `Protocol`s: mypyc calls them through a table, at the price of a C call.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import mypyc_attr, trait

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.outcome import Kind
from balancer.proxy.timers import Timed

Headers = list[tuple[bytes, bytes]]
"""Field names and values in the order received."""

UNKNOWN_LENGTH: Final = -1
"""A body as long as its sender makes it: chunked, framed by DATA, or ended by the connection's end."""

HTTP_1_0: Final = 10
HTTP_1_1: Final = 11
HTTP_2: Final = 20

# How far an attempt came before it failed: what decides whether it may be made again (balancing/retry.py).
NOT_PROCESSED: Final = 0
"""The endpoint has surely not acted on it: connecting failed, REFUSED_STREAM, above GOAWAY's last id. Any method."""
STALE: Final = 1
"""A connection that had served before closed with nothing come back: the endpoint had most likely closed it as idle."""
SENT: Final = 2
"""The request, or part of it, was sent, and nothing of a response came."""
BEGAN: Final = 3
"""Part of a response came, an interim one included: never again."""


class Peer:
    """What is known of a client before its first byte: the same for all requests of its connection."""

    __slots__ = ("address", "scheme", "trusted")

    def __init__(self, address: str, scheme: bytes, trusted: bool) -> None:
        self.address = address
        """Its IP address."""
        self.scheme = scheme
        """`http` or `https`."""
        self.trusted = trusted
        """Whether it is in LB_TRUSTED_PROXIES: what it says of others is believed."""


class RequestFields:
    """All that follows from a request's header fields, whatever carried them.

    Read once and used again for as long as a client repeats its fields, so nothing here changes after it is made; only
    the memo slots are filled later.
    """

    __slots__ = (
        "client",
        "expects_continue",
        "explain",
        "fields",
        "http1",
        "http2",
        "length",
        "names_host",
        "received",
        "request_id",
        "trace_context",
        "upgrade",
    )

    def __init__(self, received: Headers) -> None:
        self.received = received
        """The fields as they came, Host (or :authority) among them: what strategies and routes look at."""
        self.fields: Headers = []
        """The fields for the endpoint, names in lower case: without those of one hop, Host, X-Request-Id and what a
        tracer says; with X-Forwarded-* and Via."""
        self.client = ""
        """The client's address: the peer's, or the one that trusted proxies name."""
        self.length = 0
        """Bytes of the body: 0 for none, UNKNOWN_LENGTH where the head does not say."""
        self.expects_continue = False
        """Whether the client waits for 100 (Continue) before it sends the body."""
        self.upgrade = b""
        """The protocol that the client would switch to (an Upgrade field, or :protocol of RFC 8441); empty: none."""
        self.names_host = True
        """Whether the client named a host: one of HTTP/1.0 need not."""
        self.request_id = b""
        """The client's own X-Request-Id, where it is to be believed."""
        self.explain = b""
        """The value of X-LB-Explain, which never reaches an endpoint."""
        self.trace_context: Headers = []
        """The client's traceparent and tracestate, where a tracer of ours takes their place."""
        self.http1 = b""
        """Memo of the HTTP/1 writer: the field lines, Host included, each with its line end; empty: not made yet."""
        self.http2: object | None = None
        """Memo of the HTTP/2 writer."""


class RequestHead:
    """A request without its body: what a request line or pseudo-fields say, and the fields."""

    __slots__ = ("authority", "fields", "http1", "http2", "is_head", "method", "path", "scheme", "target", "version")

    def __init__(
        self, method: str, scheme: bytes, authority: bytes, target: bytes, version: int, fields: RequestFields
    ) -> None:
        self.method = method
        """GET for an extended CONNECT (RFC 8441), with `fields.upgrade` set: what it means in HTTP/1.1."""
        self.is_head = method == "HEAD"
        self.scheme = scheme
        """As the client asked: `http` or `https`."""
        self.authority = authority
        """Host and port as the client named them; empty where it named none (HTTP/1.0)."""
        self.target = target
        """Path and query, or `*`."""
        self.path = target.partition(b"?")[0].decode("latin-1")
        """Without the query, which may carry secrets."""
        self.version = version
        """One of HTTP_1_0, HTTP_1_1, HTTP_2."""
        self.fields = fields
        self.http1 = b""
        """Memo of the HTTP/1 writer: the request line with its line end; empty: not made yet."""
        self.http2: object | None = None
        """Memo of the HTTP/2 writer."""


class ResponseHead:
    """A response without its body, interim ones included. Repeated heads are one object, as with requests."""

    __slots__ = ("fields", "http1", "http2", "length", "retry_after", "status", "upgrade")

    def __init__(self, status: int) -> None:
        self.status = status
        self.fields: Headers = []
        """The fields for the client, names in lower case: without those of one hop and X-Request-Id."""
        self.length = UNKNOWN_LENGTH
        """Content-Length. Of a response to HEAD, and of 304, it is no length of a body."""
        self.retry_after: float | None = None
        """Retry-After in seconds; None when there is none."""
        self.upgrade = b""
        """The protocol that a 101 switches to."""
        self.http1 = b""
        """Memo of the HTTP/1 writer: status line and field lines, each with its line end; empty: not made yet."""
        self.http2: object | None = None
        """Memo of the HTTP/2 writer."""


class ServerStream(Timed):
    """One request as the client's side offers it: what an exchange calls.

    Backpressure: when the client takes its response slower than it comes, the stream calls `exchange.client_full()`,
    and `exchange.client_ready()` when it reads again.
    """

    __slots__ = ()

    def informational(self, head: ResponseHead) -> None:
        """Pass an interim response on (1xx, not 101), if the client's version knows any."""
        raise NotImplementedError

    def respond(self, head: ResponseHead, extra: Headers, body: bytes, ended: bool, now: float) -> None:
        """Send the final response's head with `extra` fields behind its own, and what there is of its body.

        `ended` when that is all. HTTP/1 sends it in one write; it says `Connection: close` by its own rules.
        """
        raise NotImplementedError

    def data(self, data: bytes) -> None:
        """Send more of the body: payload, never empty."""
        raise NotImplementedError

    def end(self, trailers: Headers) -> None:
        """The body has come to its end; in a tunnel: nothing more comes from the endpoint (half-close)."""
        raise NotImplementedError

    def switch(self, head: ResponseHead, extra: Headers) -> None:
        """Answer an upgrade (101, or 200 to an extended CONNECT); from here `data` carries what both sides like."""
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


class ClientStream(Timed):
    """One request towards an endpoint: what an exchange calls.

    Backpressure: when the endpoint takes the body slower than it comes, the stream calls `receiver.endpoint_full()`,
    and `receiver.endpoint_ready()` when it reads again.
    """

    __slots__ = ()

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
        """Give the request up, and tell its receiver nothing more (HTTP/1: close; HTTP/2: RST_STREAM CANCEL)."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        """The client is full: let the endpoint send no more until `resume_reading`."""
        raise NotImplementedError

    def resume_reading(self) -> None:
        """The client reads again; nothing happens where reading was not paused."""
        raise NotImplementedError


@trait
class Receiver:
    """What a client stream, or the connecting to one, tells: implemented by the exchange."""

    __slots__ = ()

    def connected(self, stream: ClientStream, took: float) -> None:
        """The stream asked of `connect` is there; connecting took `took` seconds (below 0: it was open already)."""
        raise NotImplementedError

    def attempt_failed(self, kind: Kind, progress: int, fault: str = "") -> None:
        """The attempt has come to nothing, having come as far as `progress` (one of the constants above) says.

        `fault` is what the log tells beyond `kind`. The stream is of no more use.
        """
        raise NotImplementedError

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
        """Nobody wants it any more: its receiver is told nothing."""
        raise NotImplementedError


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

        `receiver` is told `connected` or `attempt_failed` later, never within this call, unless it cancels.
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
