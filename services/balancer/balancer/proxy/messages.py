"""Requests and responses without their bodies, as values that belong to no protocol.

Peers repeat their heads. One that repeats is one object, and each protocol's writer keeps in its memo slot what it has
serialised, so that it is done once.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from balancer.balancing.request import RequestInfo

Headers = list[tuple[bytes, bytes]]
"""Field names and values in the order received, names in the case received: HTTP/2 lowers them where it serialises."""

NO_FIELDS: Final[Headers] = []
"""Nothing to add: never changed."""

UNKNOWN_LENGTH: Final = -1
"""A body as long as its sender makes it: chunked, framed by DATA, or ended by the connection's end."""

NOT_SAID: Final = -2
"""The head says nothing of a body: a response that the connection's end ends, or one without a body."""

HTTP_1_0: Final = 10
HTTP_1_1: Final = 11
HTTP_2: Final = 20


Networks = Sequence[IPv4Network | IPv6Network]


class Peer:
    """What is known of a client before its first byte: the same for all requests of its connection."""

    __slots__ = ("address", "proxies", "scheme", "trusted")

    def __init__(self, address: str, scheme: bytes, trusted: bool, proxies: Networks = ()) -> None:
        self.address = address
        """Its IP address."""
        self.scheme = scheme
        """`http` or `https`."""
        self.trusted = trusted
        """Whether it is in LB_TRUSTED_PROXIES: what it says of others is believed."""
        self.proxies = proxies
        """LB_TRUSTED_PROXIES: among the addresses that it names, the client is the last that is none of these."""


class RequestFields:
    """All that follows from a request's header fields, whatever carried them.

    Read once and used again for as long as a client repeats its fields, so nothing here changes after it is made; only
    the memo slots are filled later.
    """

    __slots__ = (
        "authority",
        "bound",
        "client",
        "expects_continue",
        "explain",
        "fields",
        "grpc",
        "http1",
        "length",
        "max_forwards",
        "received",
        "request_id",
        "timeout",
        "trace_context",
        "upgrade",
        "varied",
        "varying",
    )

    def __init__(self, received: Headers) -> None:
        self.received = received
        """The fields as they came, Host (or :authority) among them: what strategies and routes look at."""
        self.fields: Headers = []
        """The fields for the endpoint: without those of one hop (but TE: trailers), X-Request-Id and a tracer's; with
        Host in its place, X-Forwarded-* and Via. HTTP/2's writer leaves Host out, for :authority."""
        self.client = ""
        """The client's address: the peer's, or the one that trusted proxies name."""
        self.length = 0
        """Bytes of the body: 0 for none, UNKNOWN_LENGTH where the head does not say."""
        self.bound = False
        """Whether it authenticates its connection, not itself (NTLM, Negotiate)."""
        self.max_forwards = -1
        """Max-Forwards, which OPTIONS obeys; below 0: there is none."""
        self.expects_continue = False
        """Whether the client waits for 100 (Continue) before it sends the body."""
        self.upgrade = b""
        """The protocol that the client would switch to (an Upgrade field, or :protocol of RFC 8441); empty: none."""
        self.authority = b""
        """Host and port as the client named them; empty where it named none (HTTP/1.0)."""
        self.request_id = b""
        """The client's own X-Request-Id, where it is to be believed."""
        self.grpc = False
        """Whether it is a gRPC call."""
        self.timeout = 0.0
        """Seconds that the client waits, by grpc-timeout; 0: it does not say."""
        self.explain = b""
        """The value of X-LB-Explain, which never reaches an endpoint."""
        self.trace_context: Headers = []
        """The client's traceparent and tracestate, where a tracer of ours takes their place."""
        self.varied: RequestFields | None = None
        """Those of an earlier request, from which these differ by `varying` alone; None: they stand for themselves."""
        self.varying: Headers = NO_FIELDS
        """Fields of tracing, in lower case, as this request has them: nothing else here depends on them."""
        self.http1 = b""
        """Memo of the HTTP/1 writer: the field lines, each with its line end; empty: not made yet."""

    def with_varying(self, varying: Headers) -> RequestFields:
        """The same, but for the values of fields of these names."""
        other = self.with_fields(_replaced(self.fields, varying), self.authority)
        other.received = _replaced(self.received, varying)
        other.varied = self
        other.varying = varying
        return other

    def with_fields(self, fields: Headers, authority: bytes) -> RequestFields:
        """The same with other fields for the endpoint, and another host named."""
        other = RequestFields(self.received)
        other.fields = fields
        other.authority = authority
        other.client = self.client
        other.length = self.length
        other.bound = self.bound
        other.expects_continue = self.expects_continue
        other.upgrade = self.upgrade
        other.request_id = self.request_id
        other.grpc = self.grpc
        other.timeout = self.timeout
        other.max_forwards = self.max_forwards
        other.explain = self.explain
        other.trace_context = self.trace_context
        return other


def _replaced(fields: Headers, varying: Headers) -> Headers:
    replaced = fields.copy()
    for name, value in varying:
        for at, (before, _) in enumerate(fields):
            if before == name:
                replaced[at] = (name, value)
    return replaced


class RequestHead:
    """A request without its body: what a request line or pseudo-fields say, and the fields."""

    __slots__ = (
        "authority",
        "fields",
        "http1",
        "info",
        "is_head",
        "method",
        "routes",
        "scheme",
        "target",
        "version",
        "written",
    )

    def __init__(self, method: str, scheme: bytes, target: bytes, version: int, fields: RequestFields) -> None:
        self.method = method
        """GET for an extended CONNECT (RFC 8441), with `fields.upgrade` set: what it means in HTTP/1.1."""
        self.is_head = method == "HEAD"
        self.scheme = scheme
        """As the client asked: `http` or `https`."""
        self.authority = fields.authority
        self.target = target
        """Path and query, or `*`."""
        self.version = version
        """One of HTTP_1_0, HTTP_1_1, HTTP_2."""
        self.fields = fields
        self.info = RequestInfo(fields.client, method, target.partition(b"?")[0].decode("latin-1"), fields.received)
        """What strategies see; its path is without the query, which may carry secrets. Shared by all requests with this
        head."""
        self.http1 = b""
        """Memo of the HTTP/1 writer: the request line with its line end; empty: not made yet."""
        self.written = False
        """Whether HTTP/2's writer has written it before: what comes again is worth remembering."""
        self.routes: object | None = None
        """Memo of the router: what becomes of requests with this head."""


class ResponseHead:
    """A response without its body, interim ones included. Repeated heads are one object, as with requests."""

    __slots__ = (
        "bound",
        "dated",
        "fields",
        "http1",
        "length",
        "load",
        "load_field",
        "retry_after",
        "retry_at",
        "status",
        "upgrade",
    )

    def __init__(self, status: int) -> None:
        self.status = status
        self.fields: Headers = []
        """The fields for the client: without those of one hop and X-Request-Id."""
        self.bound = False
        """Whether it asks for authentication that binds its connection to the client (NTLM, Negotiate)."""
        self.retry_at = 0.0
        """Retry-After as a date, in seconds since the epoch; 0: it is none."""
        self.dated = False
        """Whether Date is among them."""
        self.load = b""
        """What the endpoint says of its load, where that is asked for; it is none of `fields` then."""
        self.load_field = b""
        """The field that said it, in lower case."""
        self.length = NOT_SAID
        """Content-Length, UNKNOWN_LENGTH or NOT_SAID. Of a response to HEAD, and of 304, it is no length of a body."""
        self.retry_after: float | None = None
        """Retry-After in seconds; None when there is none, or a date (`retry_at`)."""
        self.upgrade = b""
        """The protocol that a 101 switches to."""
        self.http1 = b""
        """Memo of the HTTP/1 writer: status line and field lines, each with its line end; empty: not made yet."""

    def with_fields(self, fields: Headers) -> ResponseHead:
        """The same with other fields for the client."""
        other = ResponseHead(self.status)
        other.fields = fields
        other.bound = self.bound
        other.retry_at = self.retry_at
        other.dated = any(name.lower() == b"date" for name, _ in fields)
        other.length = self.length
        other.retry_after = self.retry_after
        other.upgrade = self.upgrade
        return other
