"""What all connections of the HTTP proxy share."""

from __future__ import annotations

import hmac
import os
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from balancer.counters import count
from balancer.log import AccessEntry
from balancer.proxy.clients import Clients
from balancer.proxy.cluster import Router
from balancer.proxy.interfaces import Leaving
from balancer.proxy.messages import Networks, Peer
from balancer.proxy.responses import Error
from balancer.proxy.service import Context, Service
from balancer.proxy.timers import Timed

if TYPE_CHECKING:
    from balancer.settings import Settings
    from balancer.tracing import Span, Tracer

LINGER: Final = 2.0
"""Seconds for which reads are discarded after our half-close, so that no answer is lost to a reset."""

_LAST_DIGITS: Final = [b"%02x" % number for number in range(256)]


class HttpService(Service):
    """The HTTP proxy as its connections see it; the settings as plain values (seconds and bytes; None: no limit)."""

    __slots__ = (
        "_admin_token",
        "_date",
        "_dated_at",
        "_next_id",
        "_request_block",
        "_request_prefix",
        "asks_load",
        "clients",
        "connections",
        "crowded",
        "draining",
        "entry",
        "idle_timeout",
        "keepalive_timeout",
        "max_body_bytes",
        "max_header_bytes",
        "max_headers",
        "max_uri_bytes",
        "mirroring",
        "request_timeout",
        "requests",
        "responses",
        "router",
        "stopped",
        "tracer",
        "trusted_proxies",
        "tunnel_idle_timeout",
    )

    def __init__(self, settings: Settings, context: Context, router: Router) -> None:
        super().__init__(settings, context)
        self.router = router
        self.connections: set[Leaving] = set()
        self.requests = 0
        """Requests begun at this listener alone."""
        self.responses = [0, 0, 0, 0, 0, 0]
        """Final responses of this listener alone, by the first digit of the status."""
        self.mirroring: set[Timed] = set()
        """Mirrored requests under way: no client's connection waits for them."""
        self.clients: Clients | None = None
        """Connections by client; None: they are not limited."""
        self.draining = False
        """From SIGTERM on every response says that its connection closes."""
        self.crowded = False
        """Nearly as many connections are open as may be: each response says that its own closes."""
        self.stopped = False
        """Whether nobody connects any more: connections end as they idle."""
        self.idle_timeout: float = settings.idle_timeout
        self.keepalive_timeout: float = settings.keepalive_timeout
        self.request_timeout: float = settings.request_timeout
        self.tunnel_idle_timeout: float = settings.tunnel_idle_timeout
        self.max_body_bytes: int | None = settings.max_body_bytes
        self.max_header_bytes: int = settings.max_header_bytes
        self.max_headers: int = settings.max_headers
        self.max_uri_bytes: int = settings.max_uri_bytes
        self.trusted_proxies: Networks = settings.trusted_proxies
        self.asks_load: bool = settings.endpoint_load
        """Whether each request asks the endpoint for a report of its load."""
        self.tracer: Tracer | None = None
        """What makes spans of requests; None: nobody asked for any, and trace context passes through untouched."""
        self.entry = AccessEntry()
        """For an exchange to describe itself in; good until the next one does."""
        self._admin_token = (settings.admin_token or "").encode()
        self._request_prefix = os.urandom(6).hex().encode()
        self._request_block = b""
        self._next_id = 0
        self._date = b""
        self._dated_at = -2.0

    def request_id(self) -> bytes:
        """A new request id: unique, not secret. All but its last two digits is made once for 256 of them."""
        number = self._next_id
        self._next_id = number + 1
        if number & 255 == 0:
            self._request_block = b"%b%08x" % (self._request_prefix, number >> 8)
        return self._request_block + _LAST_DIGITS[number & 255]

    def date(self, now: float) -> bytes:
        """The value of a Date field, right to a second."""
        if now - self._dated_at >= 1.0:
            self._dated_at = now
            self._date = formatdate(time.time(), usegmt=True).encode()
        return self._date

    def may_explain(self, peer: Peer, wanted: bytes) -> bool:
        """Whether X-LB-Explain has this value from somebody who may see the answer."""
        if wanted == b"1":
            return peer.trusted
        token = self._admin_token
        return bool(token) and hmac.compare_digest(wanted, b"Bearer " + token)

    def log(self, entry: AccessEntry) -> None:
        """Pass a request that has ended to the access log."""
        if self.access_log is not None:
            self.access_log.write(entry)

    def end_span(self, span: Span, entry: AccessEntry, cut: bool) -> None:
        """End the span of a request; `cut`: its response breaks off, by no fault of the client's."""
        if span.recorded:
            span.end(entry, cut)

    def refused(self, client: str, request_id: bytes, error: Error) -> None:
        """Count and log a request that was refused before it had a method and a path that can be printed."""
        count(self.counters.client_faults, error.reason)
        count(self.counters.errors, error.reason)
        digit = error.status // 100
        self.counters.responses[digit] += 1
        self.responses[digit] += 1
        if self.access_log is None or not self.access_log.wants(0.0):
            return
        entry = AccessEntry()
        entry.client = client
        entry.request_id = request_id.decode("latin-1")
        entry.status = error.status
        entry.reason = error.reason
        entry.strategy = self.router.only.pool.strategy_name
        self.access_log.write(entry)
