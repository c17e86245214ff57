"""What the header block of a request or a response on HTTP/2 says, and which are refused for it.

A peer that repeats a block costs no reading, nor does a client that sends the last one with another path.
"""

from __future__ import annotations

from typing import Final

from balancer.proxy import responses
from balancer.proxy.fields import BadMessage, fill_request, fill_response
from balancer.proxy.http2 import fields
from balancer.proxy.http2.fields import Malformed
from balancer.proxy.http2.hpack import Block
from balancer.proxy.http_service import HttpService
from balancer.proxy.messages import HTTP_2, UNKNOWN_LENGTH, Peer, RequestFields, RequestHead, ResponseHead
from balancer.proxy.websocket import without_handshake

USUALLY_WITH_BODY: Final = frozenset({b"POST", b"PUT", b"PATCH"})
"""Without a body, these have to say so to HTTP/1.1 (RFC 9110 §8.6): many a server answers 411 else."""


class RequestHeads:
    """Reads the heads of one connection's requests."""

    __slots__ = ("_last", "_peer", "_service")

    def __init__(self, service: HttpService, peer: Peer) -> None:
        self._service = service
        self._peer = peer
        self._last: Block | None = None
        """The block of the last request that was read whole."""

    def read(self, block: Block, end: bool) -> RequestHead:
        """What a request's header block says; known again with the block.

        `end`: it has no body. Raises Malformed or Refused.
        """
        known = block.meaning
        if isinstance(known, RequestHead) and block.ended == end:
            return known
        head = self._by_difference(block, end)
        if head is None:
            head = self._read_head(block, end)
            self._last = block
        block.meaning = head
        block.ended = end
        return head

    def _by_difference(self, block: Block, end: bool) -> RequestHead | None:
        """An earlier request, for another path or in another trace, where that is all that differs."""
        last = self._last
        if last is None or last.ended != end or block.too_large:
            return None
        found = fields.difference(block.fields, last.fields)
        before = last.meaning
        if found is None or len(found.path) > self._service.max_uri_bytes or not isinstance(before, RequestHead):
            return None
        of = before.fields
        if found.varying:
            if self._service.tracer is not None:
                return None  # It reads them itself.
            of = of.with_varying(found.varying)
        return RequestHead(before.method, before.scheme, found.path or before.target, HTTP_2, of)

    def _read_head(self, block: Block, end: bool) -> RequestHead:
        service = self._service
        if block.too_large:
            raise responses.Refused(responses.HEADER_TOO_LARGE)
        read = fields.request(block.fields)
        if len(read.fields) > service.max_headers:
            raise responses.Refused(responses.TOO_MANY_FIELDS)
        if len(read.path) > service.max_uri_bytes:
            raise responses.Refused(responses.URI_TOO_LONG)
        if read.method in responses.REFUSED_METHODS and read.protocol != b"websocket":
            raise responses.Refused(responses.METHOD_REFUSED)
        if read.length > 0 and (end or read.protocol):
            raise Malformed("body is not as long as Content-Length says")
        named = without_handshake(read.fields) if read.protocol else read.fields
        if end and read.length < 0 and read.method in USUALLY_WITH_BODY:
            named.append((b"content-length", b"0"))
        of = RequestFields([(b"host", read.authority), *named] if read.authority else named)
        of.length = read.length if read.length >= 0 else 0 if end or read.protocol else UNKNOWN_LENGTH
        if service.max_body_bytes is not None and of.length > service.max_body_bytes:
            raise responses.Refused(responses.BODY_TOO_LARGE)
        try:
            fill_request(of, HTTP_2, self._peer, b"", frozenset(), service.tracer is not None, service.asks_load)
        except BadMessage as bad:
            raise responses.Refused(responses.bad_request(bad.status, bad.fault)) from None
        method = "GET" if read.protocol else read.method.decode()
        of.upgrade = read.protocol
        return RequestHead(method, read.scheme, read.path, HTTP_2, of)


class ResponseHeads:
    """Reads the heads of responses, of all connections of one cluster."""

    __slots__ = ("_max_headers", "_reads_load")

    def __init__(self, max_headers: int, reads_load: bool) -> None:
        """`reads_load`: whether endpoints are asked how loaded they are."""
        self._max_headers = max_headers
        self._reads_load = reads_load

    def read(self, block: Block) -> ResponseHead:
        """What a response's header block says; known again with the block. Raises Malformed."""
        known = block.meaning
        if isinstance(known, ResponseHead):
            return known
        if block.too_large:
            raise Malformed("header fields too large", 502)
        read = fields.response(block.fields)
        if len(read.fields) > self._max_headers:
            raise Malformed("too many header fields", 502)
        head = ResponseHead(read.status)
        head.length = read.length if read.length >= 0 else UNKNOWN_LENGTH
        fill_response(head, read.fields, frozenset(), self._reads_load)
        block.meaning = head
        return head
