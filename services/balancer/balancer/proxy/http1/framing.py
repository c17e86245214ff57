"""Where a message begins and ends: strict, pure functions from bytes to values.

One reading or none: what two parsers could frame in two ways is refused here, so that nothing behind us can be made to
see another message than we saw (RFC 9112 §11.2, request smuggling). httptools (llhttp) reads the field lines; the rest
of the rules stand below, each with its source.

Above 300 lines because it is all that may be read of a message, in the order of RFC 9112.
"""

from __future__ import annotations

import re
from typing import Final

import httptools

from balancer.proxy.fields import FRAMING_FIELDS, HOST, BadMessage
from balancer.proxy.messages import NOT_SAID, UNKNOWN_LENGTH, Headers

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}) ([\x21\x22\x24-\x7e]+) HTTP/([0-9])\.([0-9])")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?")
ODD_STATUS_LINE: Final = re.compile(rb"HTTP/([12])\.([0-9]) +([1-9][0-9][0-9])(?: ([^\0\r\n]*))?")
"""As some endpoints write it: more than one blank, 2.0 for 1.1 in HTTP/1's own form, any character in the reason."""
_HEAD_END: Final = re.compile(rb"\n\r?\n")
_LOOKS_LIKE_HTTP_09: Final = re.compile(rb"(?:" + _TOKEN + rb") [\x21-\x7e]+")
_NUMBER: Final = re.compile(rb"0|[1-9][0-9]{0,17}")
_QUOTED: Final = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_CHUNK_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,16})((?:[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*)"
)
_PADDED_CHUNK_LINE: Final = re.compile(rb"0*([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
"""As endpoints write it: padded with zeros and blanks, and with extensions of any form, which end here anyway."""
_DIGITS: Final = re.compile(rb"[0-9]+")
BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_LINE_END: Final = re.compile(rb"\r?\n")
_CONTROLS: Final = bytes(32 if (at < 32 and at not in (0, 9, 13)) or at == 127 else at for at in range(256))
"""Turns control characters into blanks; but NUL and CR, which have more than one reading, stay, and are refused."""

MAX_CHUNK_LINE: Final = 1024
"""Bytes of a chunk's size and extensions."""
MAX_CHUNK: Final = 1 << 50
"""Bytes of one chunk: beyond any body, and far below where integers of other parsers overflow."""


class RequestLine:
    """Method, target and minor version (0 or 1) of an HTTP/1 request."""

    __slots__ = ("method", "minor", "target")

    def __init__(self, method: bytes, target: bytes, minor: int) -> None:
        self.method = method
        self.target = target
        self.minor = minor


def request_line(line: bytes) -> RequestLine:
    """Read a request line, without its line end. Raises BadMessage (400, or 505 for another version)."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        if line.find(b"#") >= 0:
            raise BadMessage("malformed request line, or a fragment in its target")
        if _LOOKS_LIKE_HTTP_09.fullmatch(line) and line.find(b" HTTP/") < 0:
            raise BadMessage("HTTP/0.9 is not supported", 505)
        raise BadMessage("malformed request line")
    method, target, major, minor = match.groups()
    if major != b"1" or minor not in (b"0", b"1"):
        raise BadMessage("only HTTP/1.0 and HTTP/1.1 are supported", 505)
    return RequestLine(method, target, 1 if minor == b"1" else 0)


def status_line(line: bytes) -> tuple[int, int]:
    """Minor version and status code of a status line, without its line end. Raises BadMessage.

    A later minor version is read as 1.1 (RFC 9110 §2.5); statuses of 600 and more have one reading, and pass.
    """
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise BadMessage("malformed status line", 502)
    return (0 if match.group(1) == b"0" else 1), int(match.group(2))


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
    if not authority or HOST.fullmatch(authority) is None:
        raise BadMessage("malformed authority in the request target")
    if not path:
        path = b"*" if method == b"OPTIONS" else b"/"
    return authority, path if path[:1] in b"/*" else b"/" + path


class _Collector:
    """What httptools calls back."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: Headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        # llhttp leaves the white space behind a value, which is no part of it (RFC 9110 §5.5).
        self.fields.append((name, value.rstrip(b" \t")))


def header_fields(block: bytes) -> Headers:
    """Read header or trailer field lines, each ended by CRLF, and the empty line after them.

    Refused by llhttp: obsolete folding, bare CR or LF, white space before the colon, control characters, both
    Content-Length and Transfer-Encoding, a malformed or repeated Content-Length. Raises BadMessage.
    """
    collector = _Collector()
    parser = httptools.HttpRequestParser(collector)
    try:
        # Only the fields are asked of it: a neutral request line keeps out what it makes of methods and versions.
        parser.feed_data(b"POST / HTTP/1.1\r\n" + block)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise BadMessage(f"malformed header fields: {error}") from None
    return collector.fields


def response_head_end(data: bytes) -> int:
    """Where a response's head ends, if its lines may end by LF alone (RFC 9112 §2.2); 0 where it does not yet."""
    found = _HEAD_END.search(data)
    return 0 if found is None else found.end()


def one_head(head: bytes) -> bytes:
    """A response's whole head as every reader takes it. Raises BadMessage.

    In the status line blanks are made one, 2.0 becomes 1.1, and a reason with control characters goes: it is for people
    (RFC 9112 §4). For the fields see `one_reading`.
    """
    line, block = _LINE_END.split(head, 1)
    match = ODD_STATUS_LINE.fullmatch(line)
    if match is None:
        raise BadMessage("malformed status line", 502)
    major, minor, status, reason = match.groups(b"")
    if reason != reason.translate(_CONTROLS):
        reason = b""
    version = b"HTTP/1.1" if major == b"2" else b"HTTP/1." + minor
    return b"%b %b %b\r\n%b" % (version, status, reason, one_reading(block))


def one_reading(block: bytes) -> bytes:
    """A response's field lines as every reader takes them, where endpoints write what has one reading only.

    Lines end by CRLF, blanks before a colon go (RFC 9112 §5.1 asks that of a proxy), and Content-Lengths that are
    equal become one, without leading zeros (RFC 9110 §8.6). Folded lines become one (RFC 9112 §5.2), and control
    characters in values become blanks (RFC 9110 §5.5), but in fields that frame the message. All else stays as it is,
    to be refused. Raises BadMessage.
    """
    kept: list[bytes] = []
    length = b""
    framing = False
    for line in _LINE_END.split(block):
        name, colon, value = line.partition(b":")
        if line[:1] in (b" ", b"\t") and kept and not framing:
            kept[-1] += b" " + line.translate(_CONTROLS).strip(b" \t")
            continue
        if not colon or name[:1] in (b"", b" ", b"\t"):
            kept.append(line)
            continue
        name = name.rstrip(b" \t")
        framing = name.lower() in FRAMING_FIELDS
        if name.lower() != b"content-length":
            if not framing:
                value = value.translate(_CONTROLS)
            kept.append(b"%b:%b" % (name, value))
            continue
        for word in value.split(b","):
            number = word.strip(b" \t")
            if _DIGITS.fullmatch(number) is None:
                raise BadMessage("malformed Content-Length", 502)
            number = number.lstrip(b"0") or b"0"
            if length and number != length:
                raise BadMessage("more than one Content-Length", 502)
            if not length:
                length = number
                kept.append(b"%b: %b" % (name, number))
    return b"\r\n".join(kept)


def body_length(fields: Headers, minor: int) -> int:
    """Bytes of the body of a message of version 1.`minor`: UNKNOWN_LENGTH when it is chunked, NOT_SAID if nothing says.

    Raises BadMessage. Source: RFC 9112 §6.1 to 6.3, of which everything optional is read as a refusal.
    """
    length: bytes | None = None
    coding: bytes | None = None
    for name, value in fields:
        lowered = name.lower()
        if lowered == b"content-length":
            if length is not None:
                raise BadMessage("more than one Content-Length")
            length = value
        elif lowered == b"transfer-encoding":
            if coding is not None:
                raise BadMessage("more than one Transfer-Encoding")
            coding = value
    if coding is not None:
        if length is not None:
            raise BadMessage("both Content-Length and Transfer-Encoding")
        if minor == 0:
            raise BadMessage("Transfer-Encoding in HTTP/1.0")
        if coding.lower() != b"chunked":
            final = coding.lower().rpartition(b",")[2].strip(b" \t")
            if final != b"chunked" or coding.lower().count(b"chunked") > 1:
                raise BadMessage("Transfer-Encoding does not end in a single chunked")
            raise BadMessage("a transfer coding other than chunked is not supported", 501)
        return UNKNOWN_LENGTH
    if length is None:
        return NOT_SAID
    if _NUMBER.fullmatch(length) is None:
        raise BadMessage("malformed Content-Length")
    return int(length)


_SIZE_LINE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILERS: Final = 3
_DONE: Final = 4


class ChunkedReader:
    """Takes the payload out of a chunked body as it comes; lines.py puts it in again.

    A body that is passed on is framed again, so that no chunk extension and no odd spelling of a size gets through.
    """

    __slots__ = ("_held", "_left", "_max_fields", "_max_trailers", "_of_response", "_state", "out", "trailers")

    def __init__(self, max_trailers: int, max_fields: int, of_response: bool = False) -> None:
        """`max_trailers` bytes and `max_fields` fields are the most that the trailer section may have.

        `of_response`: what endpoints write in an odd way is taken where it has one reading only.
        """
        self._of_response = of_response
        self.out: list[bytes] = []
        """Payload read and not yet taken by the caller."""
        self.trailers: Headers = []
        """The trailer fields, once `done`: headers.py knows which of them travel on."""
        self._max_trailers = max_trailers
        self._max_fields = max_fields
        self._state = _SIZE_LINE
        self._left = 0
        self._held = b""

    @property
    def done(self) -> bool:
        """Whether the last chunk and the trailers have been read."""
        return self._state == _DONE

    def feed(self, data: bytes, start: int = 0) -> int:
        """Read `data` from `start`; the position behind what was read: the end, unless the body ended before.

        Raises BadMessage.
        """
        if not self._held:
            return self._read(data, start)
        # Positions count in the caller's data, of which what was kept is no part.
        held = self._held
        self._held = b""
        return self._read(held + data[start:], 0) - len(held) + start

    def _read(self, data: bytes, position: int) -> int:
        end = len(data)
        while self._state != _DONE:
            if self._state == _DATA:
                piece = data[position : position + self._left]
                if piece:
                    self.out.append(piece)
                    self._left -= len(piece)
                    position += len(piece)
                after = position if self._left == 0 else -1
            elif self._state == _DATA_END:
                after = self._line_end(data, position)
            elif self._state == _SIZE_LINE:
                after = self._size_line(data, position)
            else:
                after = self._trailer_section(data, position)
            if after < 0:
                self._held = data[position:end]
                return end
            position = after
            self._state = _NEXT[self._state] if self._state != _SIZE_LINE or self._left else _TRAILERS
        return position

    def _line_end(self, data: bytes, position: int) -> int:
        found = data[position : position + 2]
        if found == b"\r\n":
            return position + 2
        if found in (b"", b"\r"):
            return -1
        raise BadMessage("chunk data not followed by CRLF")

    def _size_line(self, data: bytes, position: int) -> int:
        line_end = data.find(b"\r\n", position, position + MAX_CHUNK_LINE)
        if line_end < 0:
            if len(data) - position >= MAX_CHUNK_LINE or BARE_LF.search(data, position):
                raise BadMessage("malformed chunk size")
            return -1
        pattern = _PADDED_CHUNK_LINE if self._of_response else _CHUNK_LINE
        match = pattern.fullmatch(data, position, line_end)
        if match is None:
            raise BadMessage("malformed chunk size or extension")
        self._left = int(match.group(1), 16)
        if self._left > MAX_CHUNK:
            raise BadMessage("chunk size too large")
        return line_end + 2

    def _trailer_section(self, data: bytes, position: int) -> int:
        if data.startswith(b"\r\n", position):
            return position + 2
        section_end = data.find(b"\r\n\r\n", position)
        if section_end - position > self._max_trailers or (
            section_end < 0 and len(data) - position > self._max_trailers
        ):
            raise BadMessage("trailer section too large", 431)
        if section_end < 0:
            if BARE_LF.search(data, position):
                raise BadMessage("malformed trailer fields")
            return -1
        section = data[position : section_end + 4]
        for name, value in header_fields(one_reading(section) if self._of_response else section):
            if name.lower() not in FRAMING_FIELDS:
                self.trailers.append((name, value))
            elif not self._of_response:  # behind a response's body they say nothing any more (RFC 9110 §6.5.1)
                raise BadMessage("framing field in the trailers")
        if len(self.trailers) > self._max_fields:
            raise BadMessage("too many trailer fields", 431)
        return section_end + 4


_NEXT: Final = {_SIZE_LINE: _DATA, _DATA: _DATA_END, _DATA_END: _SIZE_LINE, _TRAILERS: _DONE}
