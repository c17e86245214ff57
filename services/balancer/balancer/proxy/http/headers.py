"""Which header fields travel on, which end here, and which we add: pure rules from parsed fields to bytes.

A keep-alive client repeats its fields to the byte, and so does an endpoint; so all that follows from a block of fields
is worked out once into one object, which the connection keeps and uses again for an equal block.
"""

from __future__ import annotations

from typing import Final

from balancer.proxy.http import framing
from balancer.proxy.http.framing import BadMessage, Framing, Headers, RequestLine

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields for one hop alone (RFC 9110 §7.6.1), and those that older standards made so."""

NEVER_NOMINATED: Final = frozenset({b"content-length", b"host", b"transfer-encoding"})
"""Without these a message means another thing: a Connection field that names one is an attack."""

FORBIDDEN_TRAILERS: Final = HOP_BY_HOP | {
    b"authorization",
    b"content-encoding",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"max-forwards",
    b"set-cookie",
    b"trailer",
    b"x-lb-explain",
}
"""Nothing in a trailer section may route, authenticate or describe the body that came before (RFC 9110 §6.5.1)."""

TRACE_CONTEXT: Final = frozenset({b"traceparent", b"tracestate"})
"""Fields by which a client says whose child its request is (W3C Trace Context)."""

VIA: Final = b"lb"
MAX_REQUEST_ID: Final = 128


class Peer:
    """What is known of a client before its first byte: said to endpoints, the same for all its requests."""

    __slots__ = ("address", "scheme", "trusted")

    def __init__(self, address: str, scheme: bytes, trusted: bool) -> None:
        self.address = address
        """Its IP address."""
        self.scheme = scheme
        """`http` or `https`."""
        self.trusted = trusted
        """Whether it is in LB_TRUSTED_PROXIES: what it says of others is believed."""


class RequestStart:
    """All that follows from a request line."""

    __slots__ = ("authority", "is_head", "method", "minor", "path", "target", "verb", "wire")

    def __init__(self, line: RequestLine) -> None:
        """Raises BadMessage for a target that is none of its method."""
        self.verb = line.method
        self.method = line.method.decode()
        self.is_head = line.method == b"HEAD"
        self.minor = line.minor
        self.authority, self.target = split_target(line.target, line.method)
        """The host of an absolute-form target (empty for the usual form), and the target in origin form."""
        self.path = self.target.partition(b"?")[0].decode()
        self.wire = b"%b %b HTTP/1.1\r\n" % (line.method, self.target)
        """The request line for the endpoint."""


class RequestFields:
    """All that follows from a request's header fields."""

    __slots__ = (
        "expects_continue",
        "explain",
        "forward",
        "framing",
        "headers",
        "keep_alive",
        "names_host",
        "request_id",
        "trace_context",
        "upgrade",
    )

    def __init__(self, headers: Headers) -> None:
        self.headers = headers
        self.framing = Framing(framing.NO_BODY)
        self.keep_alive = True
        self.expects_continue = False
        self.upgrade = b""
        """The protocol that the client would switch to; empty for none."""
        self.request_id = b""
        """The client's own X-Request-Id, where it is to be believed."""
        self.explain = b""
        """The value of X-LB-Explain, which never reaches an endpoint."""
        self.forward = b""
        """Field lines for the endpoint, all but X-Request-Id and what a tracer says, each with its line end."""
        self.trace_context: Headers = []
        """The client's traceparent and tracestate, where a tracer of ours takes their place."""
        self.names_host = True
        """Whether Host is among them: an HTTP/1.0 client may have sent none."""


class ResponseHead:
    """The head of an endpoint's response, and all that follows from it."""

    __slots__ = ("chunked", "forward", "keep_alive", "length", "retry_after", "status", "upgrade")

    def __init__(self, status: int) -> None:
        self.status = status
        self.keep_alive = True
        """Whether the endpoint lets its connection be used again."""
        self.length = -1
        """Content-Length; -1 when there is none."""
        self.chunked = False
        self.retry_after: float | None = None
        """Retry-After in seconds; None when there is none, or it is a date."""
        self.upgrade = b""
        self.forward = b""
        """Status line and field lines for the client, all but the framing of a chunked body, each with its line end."""


def request_fields(block: bytes, minor: int, peer: Peer, authority: bytes = b"", traced: bool = False) -> RequestFields:
    """Read the field lines of a request of version 1.`minor`, the empty line at the end included.

    `authority` is the host of an absolute-form target, which overrides Host (RFC 9112 §3.2.2); `traced`: the trace
    context is ours to pass on. Raises BadMessage.
    """
    headers = framing.header_fields(block)
    fields = RequestFields(headers)
    found = framing.framing_of(headers, minor)
    if found is not None:
        fields.framing = found
    options = _connection_options(headers)
    if not NEVER_NOMINATED.isdisjoint(options):
        raise BadMessage("Connection names a field that every recipient needs")
    fields.keep_alive = b"close" not in options if minor else b"keep-alive" in options and b"close" not in options
    host = _host(headers, minor)
    lines: list[bytes] = []
    told = _Forwarded(peer, authority or host)
    for name, value in headers:
        lowered = name.lower()
        if lowered in HOP_BY_HOP or lowered in options:
            if lowered == b"upgrade":
                fields.upgrade = value
            elif lowered == b"te" and b"trailers" in value.lower():
                lines.append(b"TE: trailers\r\nConnection: TE\r\n")
        elif lowered == b"x-lb-explain":
            fields.explain = value
        elif _speaks_of_the_client(lowered):
            if not peer.trusted or told.takes(lowered, value):
                pass  # we say it anew, or nobody does
            elif lowered != b"x-request-id":
                lines.append(b"%b: %b\r\n" % (name, value))
            elif value and len(value) <= MAX_REQUEST_ID:
                fields.request_id = value
        elif traced and lowered in TRACE_CONTEXT:
            fields.trace_context.append((lowered, value))
        else:
            if lowered == b"expect":
                if minor == 0:
                    continue  # a 1.0 client's is to be ignored (RFC 9110 §10.1.1)
                if value.lower() != b"100-continue":
                    raise BadMessage("unknown expectation", 417)
                fields.expects_continue = True
            if lowered == b"host" and authority:
                value = authority
            lines.append(b"%b: %b\r\n" % (name, value))
    if host is None and authority:
        lines.append(b"Host: %b\r\n" % authority)
    fields.names_host = host is not None or bool(authority)
    if fields.framing.kind == framing.CHUNKED:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    _note_upgrade(fields, options, minor, lines)
    lines.append(told.lines())
    lines.append(b"Via: 1.%d %b\r\n" % (minor, VIA))
    fields.forward = b"".join(lines)
    return fields


class _Forwarded:
    """Who asked, and for what: our own word, and before it that of the proxies that are believed."""

    __slots__ = ("_chain", "_host", "_scheme")

    def __init__(self, peer: Peer, host: bytes | None) -> None:
        self._chain = [peer.address.encode()]
        self._scheme = peer.scheme
        self._host = host

    def takes(self, lowered: bytes, value: bytes) -> bool:
        """Believe what a trusted proxy says; False for a field that says none of this."""
        if lowered == b"x-forwarded-for":
            self._chain.insert(-1, value)
        elif lowered == b"x-forwarded-proto":
            self._scheme = value
        elif lowered == b"x-forwarded-host":
            self._host = value
        else:
            return False
        return True

    def lines(self) -> bytes:
        """The field lines for the endpoint."""
        lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (b", ".join(self._chain), self._scheme)
        return lines + b"X-Forwarded-Host: %b\r\n" % self._host if self._host else lines


def response_head(head: bytes, max_fields: int) -> ResponseHead:
    """Read an endpoint's response head, from the status line to the empty line. Raises BadMessage.

    `max_fields` is the most header fields that it may have.
    """
    line_end = head.find(b"\r\n")
    minor, status = framing.status_line(head[:line_end])
    headers = framing.header_fields(head[line_end + 2 :])
    if len(headers) > max_fields:
        raise BadMessage("too many header fields", 502)
    response = ResponseHead(status)
    found = framing.framing_of(headers, minor)
    if found is not None:
        response.chunked = found.kind == framing.CHUNKED
        response.length = -1 if response.chunked else found.length
    options = _connection_options(headers)
    response.keep_alive = b"close" not in options and (minor == 1 or b"keep-alive" in options)
    # The blank behind the code is no option, even where no reason follows (RFC 9112 §4).
    lines = [b"HTTP/1.1", head[8:line_end], b"\r\n" if line_end > 12 else b" \r\n"]
    bodiless = status < 200 or status == 204
    for name, value in headers:
        lowered = name.lower()
        if lowered == b"upgrade":
            response.upgrade = value
        elif (
            lowered in HOP_BY_HOP
            or (lowered in options and lowered not in NEVER_NOMINATED)
            or lowered == b"x-request-id"
            or (bodiless and lowered == b"content-length")
        ):
            continue
        else:
            if lowered == b"retry-after" and value.isdigit() and len(value) < 10:
                response.retry_after = float(value)
            lines.append(b"%b: %b\r\n" % (name, value))
    response.forward = b"".join(lines)
    return response


def last_lines(minor: int, closes: bool, chunked: bool) -> bytes:
    """How a response's head ends for a client of version 1.`minor`: what is said of this one hop, and the empty line.

    To HTTP/1.0, which knows no chunks, the end of the connection says what `chunked` would.
    """
    if minor == 0:
        return b"Connection: close\r\n\r\n" if closes else b"Connection: keep-alive\r\n\r\n"
    if chunked:
        return b"Transfer-Encoding: chunked\r\n" + (b"Connection: close\r\n\r\n" if closes else b"\r\n")
    return b"Connection: close\r\n\r\n" if closes else b"\r\n"


def trailers_to_pass_on(trailers: Headers) -> Headers:
    """The trailer fields that may travel on, in either direction."""
    return [
        (name, value)
        for name, value in trailers
        if name.lower() not in FORBIDDEN_TRAILERS and not _speaks_of_the_client(name.lower())
    ]


def split_target(target: bytes, method: bytes) -> tuple[bytes, bytes]:
    """The authority and origin-form of a request target: `http://a/b` is (`a`, `/b`), `/b` is (nothing, `/b`).

    Raises BadMessage for what is no target of `method` (RFC 9112 §3.2).
    """
    if target.startswith(b"/"):
        return b"", target
    if target == b"*":
        if method != b"OPTIONS":
            raise BadMessage("target * with a method other than OPTIONS")
        return b"", target
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        raise BadMessage("malformed request target")
    for at, byte in enumerate(rest):
        if byte in b"/?":
            authority, path = rest[:at], rest[at:]
            break
    else:
        authority, path = rest, b""
    if not authority or framing.HOST.fullmatch(authority) is None:
        raise BadMessage("malformed authority in the request target")
    if not path:
        path = b"*" if method == b"OPTIONS" else b"/"
    return authority, path if path[:1] in b"/*" else b"/" + path


def prefers_json(headers: Headers) -> bool:
    """Whether an error should be told as problem+json: the client names a JSON type in Accept."""
    return any(name.lower() == b"accept" and b"json" in value.lower() for name, value in headers)


def _connection_options(headers: Headers) -> frozenset[bytes]:
    options: list[bytes] = []
    for name, value in headers:
        if name.lower() == b"connection":
            options += [option.strip(b" \t").lower() for option in value.split(b",")]
    return frozenset(options)


def _host(headers: Headers, minor: int) -> bytes | None:
    """The one Host there must be (RFC 9112 §3.2)."""
    hosts = [value for name, value in headers if name.lower() == b"host"]
    if len(hosts) > 1:
        raise BadMessage("more than one Host")
    if not hosts:
        if minor:
            raise BadMessage("no Host")
        return None
    if framing.HOST.fullmatch(hosts[0]) is None:
        raise BadMessage("malformed Host")
    return hosts[0]


def _speaks_of_the_client(lowered: bytes) -> bool:
    """Fields that only a trusted proxy may set; `_` is read as `-`, as CGI and WSGI do."""
    spelled = lowered.replace(b"_", b"-")
    return spelled.startswith(b"x-forwarded-") or spelled in (b"forwarded", b"x-request-id", b"x-real-ip")


def _note_upgrade(fields: RequestFields, options: frozenset[bytes], minor: int, lines: list[bytes]) -> None:
    """Pass an upgrade on, but not one to h2c, which would carry requests past us, and none with a body."""
    protocols = [protocol.strip(b" \t").lower() for protocol in fields.upgrade.split(b",")]
    body = fields.framing.kind == framing.CHUNKED or fields.framing.length > 0
    if not fields.upgrade or b"upgrade" not in options or minor == 0 or body or b"h2c" in protocols:
        fields.upgrade = b""
    else:
        lines.append(b"Connection: Upgrade\r\nUpgrade: %b\r\n" % fields.upgrade)
