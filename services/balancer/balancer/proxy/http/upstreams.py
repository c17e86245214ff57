"""All connections to endpoints: opened when needed, kept for the next request, closed when nobody will need them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.outcome import Kind
from balancer.counters import Counters
from balancer.proxy import tls
from balancer.proxy.http.idle import Idle
from balancer.proxy.http.upstream import Upstream
from balancer.proxy.timers import TimerWheel

if TYPE_CHECKING:
    from balancer.proxy.http.exchange import Exchange
    from balancer.settings import Settings


class Upstreams:
    """All connections to endpoints: the idle ones are kept by endpoint, the one used last is used first."""

    __slots__ = (
        "_closed",
        "_connecting",
        "_counters",
        "_idle",
        "_loop",
        "_tls",
        "clock",
        "connect_timeout",
        "idle_timeout",
        "keepalive_timeout",
        "max_header_bytes",
        "max_headers",
        "response_timeout",
        "wheel",
    )

    def __init__(self, settings: Settings, wheel: TimerWheel, clock: Callable[[], float], counters: Counters) -> None:
        self._loop = asyncio.get_running_loop()
        self.wheel = wheel
        self.clock = clock
        self._counters = counters
        self.connect_timeout: float = settings.connect_timeout
        self.response_timeout: float = settings.response_timeout
        self.idle_timeout: float = settings.idle_timeout
        self.keepalive_timeout: float = settings.upstream_keepalive_timeout
        self.max_header_bytes: int = settings.max_header_bytes
        self.max_headers: int = settings.max_headers
        self._tls: ssl.SSLContext | None = None
        if settings.upstream_tls:
            self._tls = tls.to_endpoints(settings.upstream_tls_ca)
        self._idle: dict[Endpoint, Idle] = {}
        self._connecting: set[asyncio.Task[None]] = set()
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

    def connect(self, endpoint: Endpoint, exchange: Exchange) -> asyncio.Task[None]:
        """Open a connection for `exchange`, which is told `connected` or `attempt_failed` unless it cancels."""
        task = self._loop.create_task(self._connect(endpoint, exchange))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return task

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
        for task in self._connecting:
            task.cancel()

    def _close(self, upstream: Upstream) -> None:
        self.wheel.forget(upstream)
        if upstream.transport is not None:
            upstream.transport.close()

    async def _connect(self, endpoint: Endpoint, exchange: Exchange) -> None:
        began = self.clock()
        context = self._tls
        upstream = Upstream(self, endpoint)
        try:
            await self._loop.create_connection(  # type: ignore[type-var]  # a protocol by its methods
                lambda: upstream,
                endpoint.spec.host,
                endpoint.spec.port,
                ssl=context,
                server_hostname=endpoint.spec.host if context is not None else None,
            )
        except OSError as error:
            exchange.attempt_failed(Kind.REFUSED, fault=str(error))
            return
        except asyncio.CancelledError:
            # Opened in the very turn in which nobody wanted it any more: uvloop closes it, but does not say so.
            if upstream.transport is not None:
                upstream.connection_lost(None)
            raise
        if upstream.transport is None:
            # Accepted and closed in one: nothing was sent, so that this is as safe to repeat as a refusal.
            exchange.attempt_failed(Kind.REFUSED, fault="closed at once")
            return
        took = self.clock() - began
        self._counters.connect_seconds.observe(took)
        exchange.connected(upstream, took)
