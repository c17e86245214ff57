"""Which header fields travel on, which end here, and which we add: pure rules from fields to fields, for any protocol.

A client repeats its fields on a connection, and so does an endpoint; so all that follows from them is worked out once
into one object, which the connection keeps and uses again for equal fields.

Above 300 lines because it is the table of fields that a rule looks at, for both directions.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from balancer import accept
from balancer.balancing.load_report import FIELD, FIELD_BINARY
from balancer.proxy.grpc import is_grpc, timeout_of
from balancer.proxy.messages import HTTP_1_0, HTTP_2, Headers, Peer, RequestFields, RequestHead, ResponseHead

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields for one hop alone (RFC 9110 §7.6.1), and some that older standards made so.

Proxy-Authenticate and Proxy-Authorization are none (§11.7): we ask nobody, so they are between the client and who does.
"""

CREDENTIALS: Final = frozenset({b"authorization", b"proxy-authorization"})
CHALLENGES: Final = frozenset({b"www-authenticate", b"proxy-authenticate"})

NEVER_NOMINATED: Final = frozenset({b"content-length", b"host", b"transfer-encoding"})
"""Without these a message means another thing: a Connection field that names one is an attack."""

FRAMING_FIELDS: Final = frozenset({b"content-length", b"transfer-encoding", b"host"})
"""In a trailer section these can only be an attack."""

FORBIDDEN_TRAILERS: Final = (
    HOP_BY_HOP
    | FRAMING_FIELDS
    | CREDENTIALS
    | {
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"cookie",
        b"expect",
        b"max-forwards",
        b"proxy-authenticate",
        b"set-cookie",
        b"trailer",
        b"x-lb-explain",
    }
)
"""Nothing in a trailer section may route, authenticate or describe the body that came before (RFC 9110 §6.5.1)."""

TRACE_CONTEXT: Final = frozenset({b"traceparent", b"tracestate"})
"""Fields by which a client says whose child its request is (W3C Trace Context)."""

HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=\-]*)(?::[0-9]*)?")
TE_TRAILERS: Final = (b"TE", b"trailers")
FRAMING_TWINS: Final = frozenset({b"content_length", b"transfer_encoding"})
"""Spelled with underscores: read as the fields that frame a message by CGI and WSGI."""
LOAD_FIELDS: Final = frozenset({FIELD, FIELD_BINARY})
"""By which an endpoint says how loaded it is (ORCA)."""
LOAD_FORMAT: Final = b"endpoint-load-metrics-format"
"""By which a request asks for that: vLLM and Triton report only to one that has it."""
LOAD_ASKED: Final = (b"Endpoint-Load-Metrics-Format", b"text")
"""In lower case, since Triton compares it by case (vLLM does not); neither has the binary form."""
_CONNECTION_BOUND: Final = re.compile(rb"(?i)(?:^|,)[ \t]*(?:ntlm|nego|kerberos)")
"""A scheme of authentication at the beginning of a field, or of one of its challenges."""
_QUOTED: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_VIA: Final = {10: b"1.0 lb", 11: b"1.1 lb", 20: b"2 lb"}
MAX_REQUEST_ID: Final = 128


class BadMessage(Exception):
    """The message must not be forwarded; `fault` says why in the words that the client, log and metric get.

    `status` answers a request; for a response it is always 502.
    """

    def __init__(self, fault: str, status: int = 400) -> None:
        super().__init__(fault)
        self.fault = fault
        self.status = status


def fill_request(
    fields: RequestFields,
    version: int,
    peer: Peer,
    authority: bytes,
    options: frozenset[bytes],
    traced: bool,
    asks_load: bool = False,
) -> None:
    """Work out what follows from `fields.received`, whose body's length is known already.

    `authority` is the host of an absolute-form target or :authority, which overrides Host (RFC 9112 §3.2.2); empty:
    Host says. `options` are the fields that Connection names; `traced`: the trace context is ours to pass on;
    `asks_load`: so is the request for a load report, and a client's own goes no farther, as the report would not.
    Raises BadMessage.
    """
    if not NEVER_NOMINATED.isdisjoint(options):
        raise BadMessage("Connection names a field that every recipient needs")
    host = _host(fields.received, version)
    fields.authority = authority or host or b""
    forwarded = _Forwarded(peer, fields.authority)
    kept: Headers = []
    for name, value in fields.received:
        lowered = name.lower()
        if lowered in HOP_BY_HOP or lowered in options:
            if lowered == b"upgrade":
                fields.upgrade = _both(fields.upgrade, value)
            elif lowered == b"te" and _takes_trailers(value) and TE_TRAILERS not in kept:
                kept.append(TE_TRAILERS)
        elif lowered in FRAMING_TWINS:
            continue  # CGI and WSGI would read it as the field that it is not
        elif lowered == b"x-lb-explain":
            fields.explain = value
        elif lowered == b"content-type":
            fields.grpc = version == HTTP_2 and is_grpc(value)
            kept.append((name, value))
        elif lowered == b"grpc-timeout":
            fields.timeout = timeout_of(value)
            kept.append((name, value))
        elif _speaks_of_the_client(lowered):
            if not peer.trusted or forwarded.takes(lowered, value):
                pass  # we write it again, or nobody does
            elif lowered != b"x-request-id":
                kept.append((name, value))
            elif value and len(value) <= MAX_REQUEST_ID:
                fields.request_id = value
        elif asks_load and lowered == LOAD_FORMAT:
            continue
        elif traced and lowered in TRACE_CONTEXT:
            fields.trace_context.append((lowered, value))
        elif lowered == b"expect":
            if version == HTTP_1_0 or not value:
                continue  # a 1.0 client's is to be ignored (RFC 9110 §10.1.1), and an empty one expects nothing
            if value.lower() != b"100-continue":
                raise BadMessage("unknown expectation", 417)
            fields.expects_continue = True
            kept.append((name, value))
        else:
            if lowered in CREDENTIALS and binds_connection(value):
                fields.bound = True
            elif lowered == b"max-forwards" and value.isdigit() and len(value) < 10:
                fields.max_forwards = int(value)
            kept.append((name, authority if lowered == b"host" and authority else value))
    if host is None and authority:
        kept.append((b"Host", authority))
    _note_upgrade(fields, options, version)
    kept += forwarded.fields()
    kept.append((b"Via", _VIA[version]))
    if asks_load:
        kept.append(LOAD_ASKED)
    fields.fields = kept
    fields.client = forwarded.client()


def forwarded_once(head: RequestHead, hops: int) -> RequestHead:
    """The same request with `hops` left in its Max-Forwards (RFC 9110 §7.6.2)."""
    fields = head.fields
    said = b"%d" % hops
    less = [(name, said if name.lower() == b"max-forwards" else value) for name, value in fields.fields]
    return RequestHead(head.method, head.scheme, head.target, head.version, fields.with_fields(less, head.authority))


class _Forwarded:
    """Who asked, and for what: our own word, and before it that of the proxies that are believed."""

    __slots__ = ("_chain", "_host", "_peer", "_scheme")

    def __init__(self, peer: Peer, host: bytes) -> None:
        self._peer = peer
        self._chain = [peer.address.encode()]
        self._scheme = peer.scheme
        self._host = host

    def takes(self, lowered: bytes, value: bytes) -> bool:
        """Believe what a trusted proxy says; False for a field that says none of this."""
        if lowered == b"x-forwarded-for":
            words = [word.strip(b" \t") for word in value.split(b",")]
            if not all(words):  # empty elements say nothing (RFC 9110 §5.6.1)
                value = b", ".join([word for word in words if word])
            if value:
                self._chain.insert(-1, value)
        elif lowered == b"x-forwarded-proto":
            self._scheme = value or self._scheme
        elif lowered == b"x-forwarded-host":
            self._host = value or self._host
        else:
            return False
        return True

    def client(self) -> str:
        """Who asks: of the addresses that trusted proxies have passed on, the last that is none of theirs."""
        peer = self._peer
        client = peer.address
        if not peer.trusted:
            return client
        for word in reversed(b",".join(self._chain[:-1]).split(b",")):
            named = address_of(word.strip(b' \t"').decode("latin-1"))
            if named is None:
                break
            client = str(named)
            if not any(named in network for network in peer.proxies):
                break
        return client

    def fields(self) -> Headers:
        """The fields for the endpoint."""
        said = [(b"X-Forwarded-For", b", ".join(self._chain)), (b"X-Forwarded-Proto", self._scheme)]
        return [*said, (b"X-Forwarded-Host", self._host)] if self._host else said


def client_of(peer: Peer, headers: Headers) -> str:
    """Who sent a request that is refused before its fields are read."""
    forwarded = _Forwarded(peer, b"")
    if peer.trusted:
        for name, value in headers:
            if name.lower() == b"x-forwarded-for":
                forwarded.takes(b"x-forwarded-for", value.strip(b" \t\r"))
    return forwarded.client()


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """The address of `10.0.0.1`, `10.0.0.1:80`, `::1`, `[::1]` or `[::1]:80`; an IPv4 one mapped into IPv6 is IPv4.

    None for anything else: `unknown`, a name, nothing.
    """
    host = text[1:].partition("]")[0] if text.startswith("[") else text
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        found = ip_address(host)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return found if mapped is None else mapped


def fill_response(head: ResponseHead, received: Headers, options: frozenset[bytes], reads_load: bool = False) -> None:
    """Work out what follows from the fields `received` from an endpoint, whose body's length is known already.

    `options` are the fields that its Connection names; `reads_load`: what it says of its load is for us alone.
    """
    bodiless = head.status < 200 or head.status == 204
    kept = head.fields
    for name, value in received:
        lowered = name.lower()
        if lowered == b"upgrade":
            head.upgrade = _both(head.upgrade, value)
        elif (
            lowered in HOP_BY_HOP
            or (lowered in options and lowered not in NEVER_NOMINATED)
            or lowered == b"x-request-id"
            or (bodiless and lowered == b"content-length")
        ):
            continue
        elif reads_load and lowered in LOAD_FIELDS:
            head.load_field, head.load = lowered, value
        elif reads_load and lowered == b"trailer":
            if announced := _without_load(value):
                kept.append((name, announced))
        else:
            if lowered == b"retry-after":
                _note_retry_after(head, value)
            elif lowered in CHALLENGES and binds_connection(value):
                head.bound = True
            elif lowered == b"date":
                head.dated = True
            kept.append((name, value))


def _without_load(trailer: bytes) -> bytes:
    """The fields that a Trailer field announces and that then come: a load report goes no farther."""
    names = [name.strip(b" \t") for name in trailer.split(b",")]
    return b", ".join([name for name in names if name.lower() not in LOAD_FIELDS])


def _note_retry_after(head: ResponseHead, value: bytes) -> None:
    """Seconds, or a date (RFC 9110 §10.2.3); anything else says nothing."""
    if value.isdigit():
        head.retry_after = float(value[:10])
    else:
        try:
            head.retry_at = parsedate_to_datetime(value.decode("latin-1")).timestamp()
        except (ValueError, OverflowError):
            head.retry_at = 0.0


def binds_connection(value: bytes) -> bool:
    """Whether a scheme of authentication holds for a connection, not for a request (RFC 4559 §6, MS-NTHT).

    `value` is that of one of `CREDENTIALS` or `CHALLENGES`, which may name several.
    """
    return _CONNECTION_BOUND.search(_QUOTED.sub(b"", value)) is not None


def _takes_trailers(value: bytes) -> bool:
    """Whether TE names trailers with a weight above 0 (RFC 9110 §10.1.4)."""
    for word in value.lower().split(b","):
        name, _, weight = word.partition(b";")
        if name.strip(b" \t") == b"trailers":
            quality = weight.replace(b" ", b"").partition(b"q=")[2]
            return not quality or bool(quality.strip(b"0."))
    return False


def trailers_to_pass_on(trailers: Headers) -> Headers:
    """The trailer fields that may travel on, in either direction."""
    return [
        (name, value)
        for name, value in trailers
        if name.lower() not in FORBIDDEN_TRAILERS
        and name.lower() not in FRAMING_TWINS
        and not _speaks_of_the_client(name.lower())
    ]


def prefers_json(headers: Headers) -> bool:
    """Whether an error should be problem+json, by the weights of Accept."""
    said = b",".join([value for name, value in headers if name.lower() == b"accept"])
    return b"json" in said.lower() and accept.prefers_json(said.decode("latin-1"))


def connection_options(headers: Headers) -> frozenset[bytes]:
    """The names in all Connection fields, in lower case."""
    options: list[bytes] = []
    for name, value in headers:
        if name.lower() == b"connection":
            options += [option.strip(b" \t").lower() for option in value.split(b",")]
    return frozenset(options)


def _host(headers: Headers, version: int) -> bytes | None:
    """The one Host there must be (RFC 9112 §3.2); HTTP/2 may have :authority alone."""
    hosts = [value for name, value in headers if name.lower() == b"host"]
    if len(hosts) > 1:
        raise BadMessage("more than one Host")
    if not hosts:
        if version not in (HTTP_1_0, HTTP_2):
            raise BadMessage("no Host")
        return None
    if not hosts[0] or HOST.fullmatch(hosts[0]) is None:
        raise BadMessage("malformed Host")
    return hosts[0]


def _speaks_of_the_client(lowered: bytes) -> bool:
    """Fields that only a trusted proxy may set; `_` is read as `-`, as CGI and WSGI do."""
    spelled = lowered.replace(b"_", b"-")
    return spelled.startswith(b"x-forwarded-") or spelled in (b"forwarded", b"x-request-id", b"x-real-ip")


def _note_upgrade(fields: RequestFields, options: frozenset[bytes], version: int) -> None:
    """Pass an upgrade on, but not one to h2c, which would carry requests past us, and none with a body."""
    if version == HTTP_2:
        fields.upgrade = b""  # the server connection says it by :protocol, after this
        return
    if b"upgrade" not in options or version == HTTP_1_0 or fields.length:
        fields.upgrade = b""
        return
    protocols = [protocol.strip(b" \t") for protocol in fields.upgrade.split(b",")]
    fields.upgrade = b", ".join([protocol for protocol in protocols if protocol and _name_of(protocol) != b"h2c"])


def _name_of(protocol: bytes) -> bytes:
    return protocol.partition(b"/")[0].lower()


def _both(said: bytes, more: bytes) -> bytes:
    """Two lines of a field that is a list, as one."""
    return b"%b, %b" % (said, more) if said else more
