"""What all connections of the HTTP proxy share."""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING, Final

from balancer.log import AccessEntry
from balancer.proxy.http.headers import Peer, RequestFields, request_fields
from balancer.proxy.http.upstreams import Upstreams
from balancer.proxy.service import Means, Service

if TYPE_CHECKING:
    from balancer.proxy.http.downstream import Downstream
    from balancer.proxy.http.exchange import Exchange
    from balancer.proxy.http.responses import Error
    from balancer.proxy.tunnel import Tunnel
    from balancer.settings import Settings
    from balancer.tracing import Span, Tracer

LINGER: Final = 2.0
"""Seconds for which reads are discarded after our half-close, so that no answer is lost to a reset."""

_LAST_DIGITS: Final = [b"%02x" % number for number in range(256)]

MAX_KNOWN: Final = 256
"""Blocks of header fields, with what follows from each, that are kept for connections to come."""
MAX_KNOWN_BLOCK: Final = 2048
"""Bytes of the longest that is kept."""


class HttpService(Service):
    """The HTTP proxy as its connections see it; the settings as plain values (seconds and bytes; None: no limit)."""

    __slots__ = (
        "_admin_token",
        "_entry",
        "_known",
        "_next_id",
        "_request_block",
        "_request_prefix",
        "connections",
        "crowded",
        "discovered",
        "draining",
        "idle_timeout",
        "keepalive_timeout",
        "max_body_bytes",
        "max_header_bytes",
        "max_headers",
        "max_uri_bytes",
        "request_timeout",
        "retry_buffer",
        "retry_statuses",
        "total_timeout",
        "tracer",
        "tunnel_idle_timeout",
        "tunnels",
        "upstreams",
    )

    def __init__(self, settings: Settings, means: Means) -> None:
        super().__init__(settings, means)
        self.upstreams = Upstreams(settings, means)
        self.connections: set[Downstream] = set()
        self.tunnels: set[Tunnel] = set()
        self.discovered = False
        """Whether the first complete snapshot has come."""
        self.crowded = False
        """Whether nearly as many connections are open as may be: each response says that its connection closes."""
        self.draining = False
        """From SIGTERM on every response says that its connection closes."""
        self.idle_timeout: float = settings.idle_timeout
        self.keepalive_timeout: float = settings.keepalive_timeout
        self.request_timeout: float = settings.request_timeout
        self.total_timeout: float = settings.total_timeout
        self.tunnel_idle_timeout: float = settings.tunnel_idle_timeout
        self.max_body_bytes: int | None = settings.max_body_bytes
        self.max_header_bytes: int = settings.max_header_bytes
        self.max_headers: int = settings.max_headers
        self.max_uri_bytes: int = settings.max_uri_bytes
        self.retry_buffer: int = settings.retry_buffer
        self.retry_statuses: frozenset[int] = settings.retry_statuses
        self.tracer: Tracer | None = None
        """What makes spans of requests; None: nobody asked for any, and trace context passes through untouched."""
        self._admin_token = (settings.admin_token or "").encode()
        self._request_prefix = os.urandom(6).hex().encode()
        self._request_block = b""
        self._next_id = 0
        self._entry = AccessEntry()
        self._known: dict[tuple[bytes, int, str], RequestFields] = {}

    def request_id(self) -> bytes:
        """A new request id: unique, not secret. All but its last two digits is made once for 256 of them."""
        number = self._next_id
        self._next_id = number + 1
        if number & 255 == 0:
            self._request_block = b"%b%08x" % (self._request_prefix, number >> 8)
        return self._request_block + _LAST_DIGITS[number & 255]

    def first_fields(self, block: bytes, minor: int, peer: Peer) -> RequestFields:
        """What `request_fields` reads of a connection's first block; short ones are kept, as a client repeats them.

        Raises BadMessage.
        """
        key = (block, minor, peer.address)
        fields = self._known.get(key)
        if fields is None:
            fields = request_fields(block, minor, peer, b"", self.tracer is not None)
            if len(block) > MAX_KNOWN_BLOCK:
                return fields
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[key] = fields
        return fields

    def may_explain(self, peer: Peer, asked: bytes) -> bool:
        """Whether X-LB-Explain has this value from somebody who may see the answer."""
        if asked == b"1":
            return peer.trusted
        token = self._admin_token
        return bool(token) and hmac.compare_digest(asked, b"Bearer " + token)

    def log(self, exchange: Exchange, took: float) -> None:
        """Tell the access log of an exchange that has ended after `took` seconds."""
        if self.access_log is not None:
            self.access_log.write(self._described(exchange, took))

    def end_span(self, exchange: Exchange, span: Span, took: float, cut: bool) -> None:
        """End the span of an exchange; `cut`: its response breaks off, by no fault of the client's."""
        if span.recorded:
            span.end(self._described(exchange, took), cut)

    def _described(self, exchange: Exchange, took: float) -> AccessEntry:
        """What there is to say of an exchange that has ended after `took` seconds; good until the next call."""
        entry = self._entry
        exchange.describe(entry)
        entry.request_id = exchange.request_id.decode("latin-1")
        entry.method = exchange.info.method
        entry.path = exchange.info.path
        entry.status = exchange.status
        entry.bytes_received = exchange.bytes_received
        entry.bytes_sent = exchange.bytes_sent
        entry.first_byte = exchange.first_byte_took if exchange.first_byte_took >= 0.0 else None
        entry.total = took
        return entry

    def log_refusal(self, client: str, request_id: bytes, error: Error) -> None:
        """Tell the access log of a request that was refused before it had a method and a path that can be told."""
        if self.access_log is None or not self.access_log.wants(0.0):
            return
        entry = AccessEntry()
        entry.client = client
        entry.request_id = request_id.decode("latin-1")
        entry.status = error.status
        entry.reason = error.reason
        entry.strategy = self.pool.strategy_name
        self.access_log.write(entry)
