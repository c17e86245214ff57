"""What all connections of the HTTP proxy share: the rules from the settings, the pool, the clock, the counts."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from balancer.balancing.pool import Pool
from balancer.balancing.retry import RetryBudget
from balancer.counters import Counters
from balancer.log import AccessEntry, AccessLog
from balancer.proxy.clients import Clients
from balancer.proxy.http.headers import Peer
from balancer.proxy.http.upstream import Upstreams
from balancer.proxy.timers import TimerWheel

if TYPE_CHECKING:
    from balancer.proxy.http.downstream import Downstream
    from balancer.proxy.http.exchange import Exchange
    from balancer.proxy.http.responses import Error
    from balancer.proxy.tunnel import Tunnel

LINGER: Final = 2.0
"""Seconds for which reads are discarded after our half-close, so that no answer is lost to a reset."""


class HttpRules:
    """What the client's side and an exchange go by, as plain values (seconds and bytes; None: no limit)."""

    __slots__ = (
        "admin_token",
        "idle_timeout",
        "keepalive_timeout",
        "max_body_bytes",
        "max_header_bytes",
        "max_headers",
        "max_uri_bytes",
        "queue_timeout",
        "request_timeout",
        "retries",
        "retry_buffer",
        "retry_statuses",
        "total_timeout",
        "tunnel_idle_timeout",
    )

    def __init__(self) -> None:
        self.admin_token = ""
        self.idle_timeout = 60.0
        self.keepalive_timeout = 75.0
        self.request_timeout = 15.0
        self.total_timeout = 0.0
        self.tunnel_idle_timeout = 3600.0
        self.queue_timeout = 5.0
        self.max_body_bytes: int | None = None
        self.max_header_bytes = 64 << 10
        self.max_headers = 128
        self.max_uri_bytes = 16 << 10
        self.retries = 2
        self.retry_buffer = 64 << 10
        self.retry_statuses: frozenset[int] = frozenset({503})


class HttpService:
    """The HTTP proxy as its connections see it."""

    __slots__ = (
        "_entry",
        "_next_id",
        "_request_prefix",
        "access_log",
        "budget",
        "clients",
        "clock",
        "connections",
        "counters",
        "discovered",
        "draining",
        "pool",
        "rules",
        "tunnels",
        "upstreams",
        "wheel",
    )

    def __init__(
        self,
        pool: Pool,
        rules: HttpRules,
        upstreams: Upstreams,
        counters: Counters,
        budget: RetryBudget,
        clients: Clients,
        access_log: AccessLog | None,
    ) -> None:
        self.clients = clients
        self.pool = pool
        self.rules = rules
        self.upstreams = upstreams
        self.counters = counters
        self.budget = budget
        self.access_log = access_log
        self.wheel: TimerWheel = upstreams.wheel
        self.clock: Callable[[], float] = upstreams.clock
        self.connections: set[Downstream] = set()
        self.tunnels: set[Tunnel] = set()
        self.discovered = False
        """Whether the first complete snapshot has come."""
        self.draining = False
        """From SIGTERM on every response says that its connection closes."""
        self._request_prefix = os.urandom(6).hex().encode()
        self._next_id = 0
        self._entry = AccessEntry()

    def request_id(self) -> bytes:
        """A new request id: unique, not secret."""
        self._next_id += 1
        return b"%b%010x" % (self._request_prefix, self._next_id)

    def may_explain(self, peer: Peer, asked: bytes) -> bool:
        """Whether X-LB-Explain has this value from somebody who may see the answer."""
        if asked == b"1":
            return peer.trusted
        token = self.rules.admin_token
        return bool(token) and hmac.compare_digest(asked, b"Bearer " + token.encode())

    def log(self, exchange: Exchange, took: float) -> None:
        """Tell the access log of an exchange that has ended after `took` seconds."""
        entry = self._entry
        info = exchange.info
        entry.request_id = exchange.request_id.decode("latin-1")
        entry.client = info.client
        entry.method = info.method
        entry.path = info.path
        entry.status = exchange.status
        entry.bytes_received = exchange.bytes_received
        entry.bytes_sent = exchange.bytes_sent
        entry.queue = exchange.queue_took if exchange.queue_took >= 0.0 else None
        entry.connect = exchange.connect_took if exchange.connect_took >= 0.0 else None
        entry.first_byte = exchange.first_byte_took if exchange.first_byte_took >= 0.0 else None
        entry.total = took
        entry.endpoint = exchange.endpoint.address if exchange.endpoint is not None else ""
        entry.attempts = exchange.attempts
        entry.strategy = self.pool.strategy_name
        entry.reason = exchange.reason
        if self.access_log is not None:
            self.access_log.write(entry)

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
