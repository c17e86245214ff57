"""The heads of one connection's requests: read with care once, and known again when they repeat.

A keep-alive client sends the same field lines with each request, to the byte, and often the same request line. What
follows from either is kept, so that one comparison takes the place of parsing, checking and building lines.
"""

from __future__ import annotations

from typing import Final

from balancer.proxy import fields as rules
from balancer.proxy import responses
from balancer.proxy.fields import BadMessage
from balancer.proxy.http1 import framing
from balancer.proxy.http_service import HttpService
from balancer.proxy.messages import HTTP_1_0, HTTP_1_1, NOT_SAID, Peer, RequestFields, RequestHead

MAX_KNOWN: Final = 256
"""Blocks of header fields, with what follows from each, that are kept for connections to come."""
MAX_KNOWN_BLOCK: Final = 2048
"""Bytes of the longest that is kept."""


class Block(RequestFields):
    """What follows from a block of field lines, and what it says of its connection."""

    __slots__ = ("keep_alive",)

    def __init__(self, received: list[tuple[bytes, bytes]]) -> None:
        super().__init__(received)
        self.keep_alive = True


class KnownBlocks:
    """Blocks that begin connections: short ones are kept, as a client repeats them on its next connection."""

    __slots__ = ("_known", "_service")

    def __init__(self, service: HttpService) -> None:
        self._service = service
        self._known: dict[tuple[bytes, int, str], Block] = {}

    def read(self, block: bytes, minor: int, peer: Peer) -> Block:
        """What follows from a connection's first block. Raises BadMessage."""
        key = (block, minor, peer.address)
        fields = self._known.get(key)
        if fields is None:
            fields = _of_service(self._service, block, minor, peer)
            if len(block) > MAX_KNOWN_BLOCK:
                return fields
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[key] = fields
        return fields


class Heads:
    """What is known of the last head on one connection."""

    __slots__ = ("_block", "_head", "_known", "_line", "_minor", "_peer", "_service", "_tail", "_whole", "fields")

    def __init__(self, service: HttpService, known: KnownBlocks, peer: Peer) -> None:
        self._service = service
        self._known = known
        self._peer = peer
        self._whole = b""
        """The last head that may come again, to the byte."""
        self._head: RequestHead | None = None
        """What follows from it."""
        self._line = b""
        self._block = b""
        self._tail = b""
        """The end of a request line and `_block`: how a head ends whose fields are those of the one before."""
        self._minor = -1
        self.fields: Block | None = None
        """What follows from the last fields that may come again; None before the first."""

    def again(self, data: bytes) -> RequestHead | None:
        """A head, alone and whole, that repeats the one before, or its fields; None: read it with care."""
        if data == self._whole:
            return self._head
        if self.fields is None or not data.endswith(self._tail) or len(data) > self._service.max_header_bytes:
            return None
        line = data[: len(data) - len(self._tail)]
        try:
            # More than one line is no request line.
            read = self._read_line(line)
            authority, target = framing.split_target(read.target, read.method)
        except (BadMessage, responses.Refused):
            return None
        if authority or read.minor != self._minor:
            return None
        return self._keep(line, read, target, self.fields)

    def read(self, line: bytes, block: bytes) -> RequestHead:
        """What follows from a request line and field lines, the empty line at the end included.

        Raises BadMessage or Refused.
        """
        head = self._head
        if head is not None and line == self._line and block == self._block:
            return head
        read = self._read_line(line)
        authority, target = framing.split_target(read.target, read.method)
        minor = read.minor
        if authority:
            fields = _of_service(self._service, block, minor, self._peer, authority)
            return _head(read, self._peer.scheme, target, fields)
        known = self.fields
        if known is None:
            fields = self._known.read(block, minor, self._peer)
        elif block == self._block and minor == self._minor:
            return self._keep(line, read, target, known)
        else:
            fields = _of_service(self._service, block, minor, self._peer)
        self._block = block
        self._tail = b"\r\n" + block
        self._minor = minor
        self.fields = fields
        return self._keep(line, read, target, fields)

    def _read_line(self, line: bytes) -> framing.RequestLine:
        read = framing.request_line(line)
        if len(read.target) > self._service.max_uri_bytes:
            raise responses.Refused(responses.URI_TOO_LONG)
        if read.method in responses.REFUSED_METHODS:
            raise responses.Refused(responses.METHOD_REFUSED)
        return read

    def _keep(self, line: bytes, read: framing.RequestLine, target: bytes, fields: Block) -> RequestHead:
        self._line = line
        self._whole = line + self._tail
        self._head = head = _head(read, self._peer.scheme, target, fields)
        return head


def _head(read: framing.RequestLine, scheme: bytes, target: bytes, fields: Block) -> RequestHead:
    version = HTTP_1_1 if read.minor else HTTP_1_0
    return RequestHead(read.method.decode(), scheme, target, version, fields)


def _of_service(service: HttpService, block: bytes, minor: int, peer: Peer, authority: bytes = b"") -> Block:
    return request_fields(block, minor, peer, authority, service.tracer is not None, service.asks_load)


def request_fields(
    block: bytes, minor: int, peer: Peer, authority: bytes = b"", traced: bool = False, asks_load: bool = False
) -> Block:
    """Read the field lines of a request of version 1.`minor`, the empty line at the end included.

    `authority` is the host of an absolute-form target, which overrides Host (RFC 9112 §3.2.2); `traced` and
    `asks_load`: as in `fill_request`. Raises BadMessage.
    """
    received = framing.header_fields(block)
    fields = Block(received)
    length = framing.body_length(received, minor)
    fields.length = 0 if length == NOT_SAID else length
    options = rules.connection_options(received)
    fields.keep_alive = b"close" not in options and (minor == 1 or b"keep-alive" in options)
    rules.fill_request(fields, HTTP_1_1 if minor else HTTP_1_0, peer, authority, options, traced, asks_load)
    return fields
