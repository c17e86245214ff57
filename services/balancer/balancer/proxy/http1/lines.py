"""How HTTP/1 writes: heads to lines, payload to chunks. What a head serialises to is kept in its memo slot."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from balancer.proxy.fields import TE_TRAILERS
from balancer.proxy.messages import UNKNOWN_LENGTH, Headers, RequestFields, RequestHead, ResponseHead


def field_lines(fields: Headers) -> bytes:
    """Field lines, each with its line end."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])


def request_line(head: RequestHead) -> bytes:
    """The request line for an endpoint, with its line end."""
    head.http1 = line = b"%b %b HTTP/1.1\r\n" % (head.method.encode(), head.target)
    return line


def request_fields(fields: RequestFields) -> bytes:
    """The field lines for an endpoint, those that speak of this one hop included."""
    lines = field_lines(fields.fields)
    options = [b"TE"] if TE_TRAILERS in fields.fields else []
    if fields.length == UNKNOWN_LENGTH:
        lines += b"Transfer-Encoding: chunked\r\n"
    if fields.upgrade:
        options.append(b"Upgrade")
    if options:
        lines += b"Connection: %b\r\n" % b", ".join(options)
    if fields.upgrade:
        lines += b"Upgrade: %b\r\n" % fields.upgrade
    fields.http1 = lines
    return lines


_PHRASES: Final = {int(status): status.phrase.encode() for status in HTTPStatus}


def response_lines(head: ResponseHead, phrase: bytes | None = None) -> bytes:
    """Status line and field lines for a client, all but what is said of this one hop; `phrase` if not the usual one."""
    if phrase is None:
        phrase = _PHRASES.get(head.status, b"")
    # The blank behind the code is no option, even where no phrase follows (RFC 9112 §4).
    head.http1 = lines = b"HTTP/1.1 %d %b\r\n%b" % (head.status, phrase, field_lines(head.fields))
    return lines


def last_lines(minor: int, closes: bool, chunked: bool) -> bytes:
    """How a response's head ends for a client of version 1.`minor`: what is said of this one hop, and the empty line.

    To HTTP/1.0, which knows no chunks, the end of the connection says what `chunked` would.
    """
    if minor == 0:
        return b"Connection: close\r\n\r\n" if closes else b"Connection: keep-alive\r\n\r\n"
    if chunked:
        return b"Transfer-Encoding: chunked\r\n" + (b"Connection: close\r\n\r\n" if closes else b"\r\n")
    return b"Connection: close\r\n\r\n" if closes else b"\r\n"


def chunk(payload: bytes) -> bytes:
    """One chunk; `payload` is not empty, which would end the body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def last_chunk(trailers: Headers) -> bytes:
    """The end of a chunked body."""
    return b"0\r\n%b\r\n" % field_lines(trailers) if trailers else b"0\r\n\r\n"
