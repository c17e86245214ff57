"""Which header fields HTTP/2 allows, and what a block of them says: pure rules (RFC 9113 §8).

A field is classified once, when it is read or enters a table: the characters of its name and value, and which rule
looks at it. A block of fields is then a walk over classes. What is malformed never becomes a message, so nothing that
an HTTP/1.1 parser could read in two ways is passed on.
"""

from __future__ import annotations

import re
from typing import Final

Pair = tuple[bytes, bytes]
"""A field's name, in lower case, and its value."""

PLAIN: Final = 0
METHOD: Final = 1
SCHEME: Final = 2
AUTHORITY: Final = 3
PATH: Final = 4
STATUS: Final = 5
PROTOCOL: Final = 6
HOST: Final = 7
CONTENT_LENGTH: Final = 8
COOKIE: Final = 9
TE: Final = 10
MALFORMED: Final = 11
"""No message may carry it: characters, connection-specific fields, pseudo-fields that do not exist."""

_PSEUDO: Final = {
    b":method": METHOD,
    b":scheme": SCHEME,
    b":authority": AUTHORITY,
    b":path": PATH,
    b":status": STATUS,
    b":protocol": PROTOCOL,
}
_SPECIAL: Final = {
    b"host": HOST,
    b"content-length": CONTENT_LENGTH,
    b"cookie": COOKIE,
    b"te": TE,
    b"connection": MALFORMED,
    b"keep-alive": MALFORMED,
    b"proxy-connection": MALFORMED,
    b"transfer-encoding": MALFORMED,
    b"upgrade": MALFORMED,
}
"""Fields that a rule looks at; those that speak of one connection make a message malformed (RFC 9113 §8.2.2)."""

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_VISIBLE: Final = bytes(range(0x21, 0x7F))
_OF_PATHS: Final = _VISIBLE.replace(b"#", b"")
_METHOD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")
_PATH: Final = re.compile(rb"/[\x21\x22\x24-\x7e]*")
_AUTHORITY: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=\-]+)(?::[0-9]*)?")
_KINDS: Final[dict[bytes, int]] = {}
"""The first names that came, and what kind each is."""
MAX_KINDS: Final = 1000
MAX_KIND: Final = 64
"""Bytes of the longest name that is kept."""
_STATUS: Final = re.compile(rb"[1-9][0-9][0-9]")
_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,17}")
_PADDED_LENGTHS: Final = re.compile(rb"0*([0-9]{1,18})(?:[ \t]*,[ \t]*0*\1)*")
"""One Content-Length, or a list of equal ones: what has one reading only."""


class Malformed(Exception):
    """The message must not be used (RFC 9113 §8.1.1): `fault` says why in the words of log and metric.

    `status` is what an HTTP/1.1 client would get for the same.
    """

    def __init__(self, fault: str, status: int = 400) -> None:
        super().__init__(fault)
        self.fault = fault
        self.status = status


class Field:
    """A header field, classified."""

    __slots__ = ("kind", "pair", "secret", "size")

    def __init__(self, name: bytes, value: bytes, kind: int, secret: bool = False) -> None:
        self.pair: Pair = (name, value)
        self.kind = kind
        self.size = len(name) + len(value) + 32
        """What it counts in a table and in a list (RFC 7541 §4.1)."""
        self.secret = secret
        """Whether its sender wants it in no table, on no hop (RFC 7541 §6.2.3)."""


def classify(name: bytes, value: bytes) -> int:
    """What kind of field this is; MALFORMED for one that no message may carry."""
    known = _KINDS.get(name)
    kind = _kind_of(name) if known is None else known
    if kind == MALFORMED:
        return MALFORMED
    # For a value without a space, as most are, a table is faster than an expression.
    if value.translate(None, _VISIBLE) and _VALUE.fullmatch(value) is None:
        return MALFORMED
    if kind == TE and value.lower() != b"trailers":
        return MALFORMED
    return kind


def _kind_of(name: bytes) -> int:
    if name[:1] == b":":
        kind = _PSEUDO.get(name, MALFORMED)
    elif _NAME.fullmatch(name) is None:
        return MALFORMED
    else:
        kind = _SPECIAL.get(name, PLAIN)
    if len(_KINDS) < MAX_KINDS and len(name) <= MAX_KIND:
        _KINDS[name] = kind
    return kind


class Request:
    """What the header block of a request says."""

    __slots__ = ("authority", "fields", "length", "method", "path", "protocol", "scheme")

    def __init__(self) -> None:
        self.method = b""
        self.scheme = b""
        self.authority = b""
        """Empty where neither :authority nor Host was sent."""
        self.path = b""
        self.protocol = b""
        """What an extended CONNECT asks for (RFC 8441)."""
        self.length = -1
        """Content-Length; -1 when there is none."""
        self.fields: list[Pair] = []
        """The fields behind the pseudo-fields, without Host; cookies joined into one (RFC 9113 §8.2.3)."""


class Response:
    """What the header block of a response says."""

    __slots__ = ("fields", "length", "status")

    def __init__(self) -> None:
        self.status = 0
        self.length = -1
        """Content-Length; -1 when there is none."""
        self.fields: list[Pair] = []


def request(block: list[Field]) -> Request:
    """Read a request's header block. Raises Malformed."""
    made = Request()
    fields = made.fields
    cookies: list[bytes] = []
    host: bytes | None = None
    seen = 0
    pseudo = True
    for field in block:
        kind = field.kind
        if kind in (PLAIN, TE):
            pseudo = False
            fields.append(field.pair)
            continue
        name, value = field.pair
        if kind >= HOST:
            pseudo = False
            if kind == HOST:
                if host is not None:
                    raise Malformed("more than one Host")
                host = value
            elif kind == CONTENT_LENGTH:
                made.length = _length(value, made.length)
                fields.append(field.pair)
            elif kind == COOKIE:
                cookies.append(value)
            else:
                raise Malformed(_fault_of(name))
            continue
        if not pseudo:
            raise Malformed("pseudo-field behind a field")
        if seen & (1 << kind) or kind == STATUS:
            raise Malformed("repeated pseudo-field" if kind != STATUS else ":status in a request")
        seen |= 1 << kind
        if kind == METHOD:
            made.method = value
        elif kind == SCHEME:
            made.scheme = value
        elif kind == AUTHORITY:
            made.authority = value
        elif kind == PATH:
            made.path = value
        else:
            made.protocol = value
    if cookies:
        fields.append((b"cookie", b"; ".join(cookies)))
    _check_target(made, host, seen & (1 << AUTHORITY) != 0)
    return made


def _check_target(made: Request, host: bytes | None, named: bool) -> None:
    """Whether the pseudo-fields make one request, that every recipient reads alike (RFC 9113 §8.3.1).

    `named`: there is an :authority, which must not be empty, as Host must not (RFC 9110 §4.2.1).
    """
    if _METHOD.fullmatch(made.method) is None:
        raise Malformed("malformed :method")
    if made.method == b"CONNECT" and not made.protocol:
        if made.path or made.scheme or not made.authority:
            raise Malformed("malformed CONNECT")
    else:
        if made.scheme not in (b"http", b"https"):
            raise Malformed("malformed :scheme")
        if _PATH.fullmatch(made.path) is None and not (made.path == b"*" and made.method == b"OPTIONS"):
            raise Malformed("malformed :path")
        if made.protocol and made.method != b"CONNECT":
            raise Malformed(":protocol without CONNECT")
    if host == b"" or (named and not made.authority):
        raise Malformed("empty Host" if host == b"" else "empty :authority")
    if host is not None:
        if made.authority and _entity(made.authority, made.scheme) != _entity(host, made.scheme):
            raise Malformed("Host is not :authority")
        made.authority = made.authority or host
    if made.authority and _AUTHORITY.fullmatch(made.authority) is None:
        raise Malformed("malformed :authority")


def _entity(authority: bytes, scheme: bytes) -> bytes:
    """What an authority stands for: the port that the scheme has anyway says nothing more (RFC 9110 §4.2.3)."""
    return authority.lower().removesuffix(b":443" if scheme == b"https" else b":80").removesuffix(b":")


VARYING: Final = frozenset(
    {b"traceparent", b"tracestate", b"b3", b"x-b3-traceid", b"x-b3-spanid", b"grpc-trace-bin", b"x-cloud-trace-context"}
)
"""Fields that differ in each request of a traced client, and nothing of ours reads but its own tracer."""


def _repeats(name: bytes, block: list[Field]) -> bool:
    times = 0
    for field in block:
        if field.pair[0] == name:
            times += 1
    return times > 1


class Difference:
    """In what a request's block differs from an earlier one."""

    __slots__ = ("path", "varying")

    def __init__(self) -> None:
        self.path = b""
        """Its path; empty: the same."""
        self.varying: list[Pair] = []
        """Its fields of VARYING that are others."""


def difference(block: list[Field], before: list[Field]) -> Difference | None:
    """In what a block differs from `before`, which was well-formed; None where that is more than path and VARYING."""
    if len(block) != len(before):
        return None
    found = Difference()
    for at, known in enumerate(before):
        field = block[at]
        if field is known:
            continue
        pair = field.pair
        if field.kind == PATH and known.kind == PATH:
            found.path = pair[1]
            if found.path[:1] != b"/" or found.path.translate(None, _OF_PATHS):
                return None
        elif pair != known.pair or field.secret != known.secret:
            name = pair[0]
            if field.secret or known.secret or name != known.pair[0] or name not in VARYING or _repeats(name, block):
                return None
            if field.kind != PLAIN:
                return None
            found.varying.append(pair)
    return found


def response(block: list[Field]) -> Response:
    """Read a response's header block. Raises Malformed."""
    made = Response()
    fields = made.fields
    pseudo = True
    for field in block:
        kind = field.kind
        if kind == STATUS:
            status = field.pair[1]
            if not pseudo or made.status or _STATUS.fullmatch(status) is None or status == b"101":
                raise Malformed("malformed :status", 502)
            made.status = int(status)
            continue
        pseudo = False
        if kind == CONTENT_LENGTH:
            before = made.length
            made.length = _length_of_response(field.pair[1], before)
            if before < 0:
                fields.append((field.pair[0], b"%d" % made.length))
            continue
        if kind == MALFORMED or METHOD <= kind <= PROTOCOL:
            raise Malformed(_fault_of(field.pair[0]), 502)
        fields.append(field.pair)
    if not made.status:
        raise Malformed("no :status", 502)
    return made


def trailers(block: list[Field]) -> list[Pair]:
    """Read a trailer section. Raises Malformed."""
    fields: list[Pair] = []
    for field in block:
        kind = field.kind
        if kind == MALFORMED or METHOD <= kind <= PROTOCOL:
            raise Malformed(_fault_of(field.pair[0]))
        fields.append(field.pair)
    return fields


def _length(value: bytes, before: int) -> int:
    if before >= 0:
        raise Malformed("more than one Content-Length")
    if _LENGTH.fullmatch(value) is None:
        raise Malformed("malformed Content-Length")
    return int(value)


def _length_of_response(value: bytes, before: int) -> int:
    match = _PADDED_LENGTHS.fullmatch(value)
    if match is None:
        raise Malformed("malformed Content-Length", 502)
    length = int(match.group(1))
    if before >= 0 and length != before:
        raise Malformed("more than one Content-Length", 502)
    return length


def _fault_of(name: bytes) -> str:
    if name[:1] == b":":
        return "pseudo-field where it must not be"
    return "connection-specific field" if name in _SPECIAL else "malformed header field"
