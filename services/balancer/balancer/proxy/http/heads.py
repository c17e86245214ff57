"""The heads of one connection's requests: read with care once, and known again when they repeat.

A keep-alive client sends the same field lines with each request, to the byte, and often the same request line. What
follows from either is kept, so that one comparison takes the place of parsing, checking and building lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from balancer.proxy.http import framing, headers, responses
from balancer.proxy.http.framing import BadMessage
from balancer.proxy.http.headers import Peer, RequestFields, RequestStart

if TYPE_CHECKING:
    from balancer.proxy.http.service import HttpService

REFUSED_METHODS: Final = frozenset({b"CONNECT", b"TRACE"})
"""CONNECT would make us an open proxy; TRACE shows a client what others added to its request."""


class Refused(Exception):
    """A request that is well-formed and not taken; `error` is what the client is told."""

    def __init__(self, error: responses.Error) -> None:
        super().__init__(error.reason)
        self.error = error


class Heads:
    """What is known of the last head on one connection."""

    __slots__ = ("_block", "_line", "_minor", "_peer", "_service", "_start", "_tail", "fields")

    def __init__(self, service: HttpService, peer: Peer) -> None:
        self._service = service
        self._peer = peer
        self._line = b""
        self._start: RequestStart | None = None
        self._block = b""
        self._tail = b""
        """The end of a request line and `_block`: how a head ends whose fields are those of the one before."""
        self._minor = -1
        self.fields: RequestFields | None = None
        """What follows from the last fields that may come again; None before the first."""

    def again(self, data: bytes) -> RequestStart | None:
        """The request line of a head, alone and whole, with `fields` once more; None: read it with care."""
        if self.fields is None or not data.endswith(self._tail) or len(data) > self._service.max_header_bytes:
            return None
        try:
            # More than one line is no request line.
            asked = self.start_of(data[: len(data) - len(self._tail)])
        except (BadMessage, Refused):
            return None
        return None if asked.authority or asked.minor != self._minor else asked

    def start_of(self, line: bytes) -> RequestStart:
        """What follows from a request line, without its line end. Raises BadMessage or Refused."""
        known = self._start
        if known is not None and line == self._line:
            return known
        read = framing.request_line(line)
        if len(read.target) > self._service.max_uri_bytes:
            raise Refused(responses.URI_TOO_LONG)
        if read.method in REFUSED_METHODS:
            raise Refused(responses.METHOD_REFUSED)
        self._start = RequestStart(read)
        self._line = line
        return self._start

    def fields_of(self, block: bytes, asked: RequestStart) -> RequestFields:
        """What follows from field lines, the empty line at their end included. Raises BadMessage."""
        known, minor = self.fields, asked.minor
        traced = self._service.tracer is not None
        if asked.authority:
            return headers.request_fields(block, minor, self._peer, asked.authority, traced)
        if known is None:
            fields = self._service.first_fields(block, minor, self._peer)
        elif block == self._block and minor == self._minor:
            return known
        else:
            fields = headers.request_fields(block, minor, self._peer, b"", traced)
        self._block = block
        self._tail = b"\r\n" + block
        self._minor = minor
        self.fields = fields
        return fields
