"""All connections to endpoints: opened when needed, kept for the next request, closed when nobody will need them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.outcome import Kind
from balancer.proxy import certificates
from balancer.proxy.connector import Connector, Opener
from balancer.proxy.http.idle import Idle
from balancer.proxy.http.upstream import Upstream
from balancer.proxy.names import Names
from balancer.proxy.transport import Transport

if TYPE_CHECKING:
    from balancer.proxy.http.exchange import Exchange
    from balancer.proxy.service import Means
    from balancer.settings import Settings


class Upstreams:
    """All connections to endpoints: the idle ones are kept by endpoint, the one used last is used first."""

    __slots__ = (
        "_closed",
        "_idle",
        "clock",
        "connect_timeout",
        "connector",
        "counters",
        "idle_timeout",
        "keepalive_timeout",
        "max_header_bytes",
        "max_headers",
        "response_timeout",
        "wheel",
    )

    def __init__(self, settings: Settings, means: Means) -> None:
        self.wheel = means.wheel
        self.clock = means.clock
        self.counters = means.counters
        self.connect_timeout: float = settings.connect_timeout
        self.response_timeout: float = settings.response_timeout
        self.idle_timeout: float = settings.idle_timeout
        self.keepalive_timeout: float = settings.upstream_keepalive_timeout
        self.max_header_bytes: int = settings.max_header_bytes
        self.max_headers: int = settings.max_headers
        self.connector = Connector(means.poller, Names(means.clock), settings.connect_timeout)
        if settings.upstream_tls:
            self.connector.context = certificates.to_endpoints(settings.upstream_tls_ca)
        self._idle: dict[Endpoint, Idle] = {}
        self._closed = False

    def take(self, endpoint: Endpoint, idle_since: float) -> Upstream | None:
        """The idle connection to `endpoint` that was used last, if that was not before `idle_since` (s)."""
        idle = self._idle.get(endpoint)
        upstream = idle.top if idle is not None else None
        if idle is None or upstream is None or upstream.idle_since < idle_since:
            return None
        idle.remove(upstream)
        endpoint.connections_reused += 1
        return upstream

    def connect(self, endpoint: Endpoint, exchange: Exchange) -> Connecting:
        """Open a connection for `exchange`, which is told `connected` or `attempt_failed` unless it cancels."""
        return Connecting(self, endpoint, exchange)

    def give_back(self, upstream: Upstream, now: float) -> None:
        """Keep a connection whose exchange has ended for the next one."""
        endpoint = upstream.endpoint
        if self._closed or not endpoint.member:
            self._close(upstream)
            return
        upstream.idle_since = now
        idle = self._idle.get(endpoint)
        if idle is None:
            idle = self._idle[endpoint] = Idle()
        idle.push(upstream)
        self.wheel.arm(upstream, now + self.keepalive_timeout)

    def lost(self, upstream: Upstream) -> None:
        """A connection is closed or closing: use it no more."""
        self.wheel.forget(upstream)
        if upstream.idle:
            self._idle[upstream.endpoint].remove(upstream)

    def idle_to(self, endpoint: Endpoint) -> int:
        """How many idle connections to `endpoint` there are."""
        idle = self._idle.get(endpoint)
        return 0 if idle is None else idle.count

    def close_idle(self, endpoint: Endpoint) -> None:
        """Close the idle connections to an endpoint that has left."""
        idle = self._idle.pop(endpoint, None)
        while idle is not None and idle.top is not None:
            upstream = idle.top
            idle.remove(upstream)
            self._close(upstream)

    def close(self) -> None:
        """Close every idle connection, and from now on each that becomes idle."""
        self._closed = True
        for endpoint in list(self._idle):
            self.close_idle(endpoint)

    def _close(self, upstream: Upstream) -> None:
        self.wheel.forget(upstream)
        if upstream.transport is not None:
            upstream.transport.close()


class Connecting(Opener):
    """A connection on its way to an endpoint, for an exchange."""

    __slots__ = ("_began", "_endpoint", "_exchange", "_owner", "_way")

    def __init__(self, owner: Upstreams, endpoint: Endpoint, exchange: Exchange) -> None:
        self._owner = owner
        self._endpoint = endpoint
        self._exchange = exchange
        self._began = owner.clock()
        self._way = owner.connector.connect(endpoint.spec.host, endpoint.spec.port, self)

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self._way.cancel()

    def opened(self, transport: Transport) -> None:
        """It is open."""
        owner = self._owner
        upstream = Upstream(owner, self._endpoint)
        transport.attach(upstream)
        took = owner.clock() - self._began
        owner.counters.connect_seconds.observe(took)
        self._exchange.connected(upstream, took)

    def not_opened(self, error: Exception) -> None:
        """It could not be had."""
        self._exchange.attempt_failed(Kind.REFUSED, fault=str(error))
