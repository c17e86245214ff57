"""What is sent of a head: its header block, of which most is known from another message.

An encoder knows again what has been said by the same object; the rest of a block is literals that no table is worth.
"""

from __future__ import annotations

from typing import Final

from balancer.balancing.endpoint import Endpoint
from balancer.proxy.http2 import fields
from balancer.proxy.http2.fields import Pair
from balancer.proxy.http2.hpack import Encoder, length_of, literal
from balancer.proxy.messages import Headers, RequestFields, RequestHead, ResponseHead
from balancer.proxy.websocket import without_handshake

MAX_LITERALS: Final = 16
"""Literals of a connection's responses that are known again."""

_REQUEST_ID: Final = literal(b"x-request-id", b"")[:-1]
"""The field's name, as a literal without indexing."""
_VARYING: Final = {name: literal(name, b"")[:-1] for name in fields.VARYING}
"""The same of fields of tracing."""
_STATUS: Final = [(b":status", b"%d" % status) for status in range(1000)]


class RequestBlocks:
    """Header blocks of the requests to one endpoint on one connection."""

    __slots__ = ("_encoder", "_endpoint", "_scheme")

    def __init__(self, encoder: Encoder, endpoint: Endpoint, scheme: bytes) -> None:
        self._encoder = encoder
        self._endpoint = endpoint
        self._scheme = scheme

    def encode(self, head: RequestHead, request_id: bytes, extra: Headers) -> bytes:
        """The block of one request."""
        block = self._encoder.known(head)
        if block is None:
            block = self._block_of(head)
        block = b"%b%b%b%b" % (block, _REQUEST_ID, length_of(request_id), request_id)
        for name, value in extra:
            block += literal(name.lower(), value)
        return block

    def _block_of(self, head: RequestHead) -> bytes:
        """A request's path, and behind that what other requests have said alike."""
        encoder = self._encoder
        generation = encoder.generation
        path = encoder.encode_one((b":path", head.target))
        of = head.fields
        if of.varied is not None:
            return self._varied(head, of.varied, of.varying, path)
        alike = (of, head.method)
        rest = encoder.known(alike)
        if rest is None:
            rest = encoder.encode(self._pairs_of(head), alike)
        block = path + rest
        if head.written:
            encoder.keep(head, block, generation)
        head.written = True
        return block

    def _varied(self, head: RequestHead, varied: RequestFields, varying: Headers, path: bytes) -> bytes:
        """The same where requests differ by fields of tracing too, which no table is worth."""
        encoder = self._encoder
        names = [name for name, _ in varying]
        alike = (varied, head.method, b" ".join(names))
        rest = encoder.known(alike)
        if rest is None:
            pairs = [pair for pair in self._pairs_of(head) if pair[0] not in names]
            rest = encoder.encode(pairs, alike)
        block = path + rest
        for name, value in varying:
            block += _VARYING[name] + length_of(value) + value
        return block

    def _pairs_of(self, head: RequestHead) -> list[Pair]:
        """The fields of a request as they are sent, but for its path."""
        authority = head.authority or self._endpoint.address.encode()
        of = head.fields
        pairs: list[Pair] = [(b":method", b"CONNECT" if of.upgrade else head.method.encode())]
        if of.upgrade:
            pairs.append((b":protocol", of.upgrade))
        pairs.append((b":scheme", self._scheme))
        pairs.append((b":authority", authority))
        for name, value in without_handshake(of.fields) if of.upgrade else of.fields:
            lowered = name.lower()
            if lowered != b"host":
                pairs.append((lowered, value))
        return pairs


class ResponseBlocks:
    """Header blocks of the responses on one connection."""

    __slots__ = ("_encoder", "_literals")

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._literals: dict[Pair, bytes] = {}

    def encode(self, head: ResponseHead, request_id: bytes, extra: Headers) -> bytes:
        """The block of one response; `request_id`: empty for none."""
        encoder = self._encoder
        block = encoder.known(head)
        if block is None:
            pairs: list[Pair] = [_STATUS[head.status]]
            pairs += [(name.lower(), value) for name, value in head.fields]
            block = encoder.encode(pairs, head)
        if request_id:
            block = b"%b%b%b%b" % (block, _REQUEST_ID, length_of(request_id), request_id)
        for pair in extra:
            block += self._literal(pair)
        return block

    def encode_own(self, head: ResponseHead, request_id: bytes, date: Pair) -> bytes:
        """The block of an answer of ours, which is made once."""
        pairs: list[Pair] = [_STATUS[head.status], (b"x-request-id", request_id), date]
        pairs += [(name.lower(), value) for name, value in head.fields]
        return self._encoder.encode(pairs)

    def _literal(self, pair: Pair) -> bytes:
        """A field as a literal; what was sent of late (a Date) is known."""
        known = self._literals.get(pair)
        if known is None:
            if len(self._literals) >= MAX_LITERALS:
                self._literals.clear()
            known = self._literals[pair] = literal(pair[0].lower(), pair[1])
        return known
