"""The HTTP proxy as the composition root sees it: built from settings, started, drained, stopped."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.pool import Pool
from balancer.balancing.retry import RetryBudget
from balancer.counters import Counters
from balancer.log import AccessLog
from balancer.proxy import tls
from balancer.proxy.clients import Clients
from balancer.proxy.http.downstream import Downstream
from balancer.proxy.http.service import HttpRules, HttpService
from balancer.proxy.http.upstream import UpstreamRules, Upstreams
from balancer.proxy.listener import Accepting, Listener
from balancer.proxy.proxy_protocol import Preface
from balancer.proxy.timers import TimerWheel

if TYPE_CHECKING:
    from balancer.settings import Settings


class HttpProxy:
    """HTTP/1 in, HTTP/1.1 out."""

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        counters: Counters,
        wheel: TimerWheel,
        clock: Callable[[], float],
        access_log: AccessLog | None,
    ) -> None:
        self._settings = settings
        self._counters = counters
        self._clients = Clients(counters, settings.trusted_proxies, settings.max_connections_per_client)
        upstreams = Upstreams(asyncio.get_running_loop(), wheel, clock, counters, _upstream_rules(settings))
        self._service = HttpService(
            pool, _rules(settings), upstreams, counters, RetryBudget(settings.retry_budget), self._clients, access_log
        )
        self._listener = Listener(settings.host, settings.port, self._accept, counters, settings.max_connections)
        self._clients.listener = self._listener
        self._scheme = b"https" if settings.tls_cert else b"http"

    @property
    def port(self) -> int:
        """Where it listens, once started."""
        return self._listener.port

    def _accept(self) -> Accepting:
        if self._settings.proxy_protocol:
            return Preface(self._clients, self._service.wheel, self._service.clock, self._make)
        return Downstream(self._service, self._scheme)

    def _make(self, address: str) -> Accepting:
        return Downstream(self._service, self._scheme, address)

    async def start(self, server_tls: ssl.SSLContext | None) -> None:
        """Listen. Raises OSError."""
        await self._listener.start(server_tls)

    def discovered(self) -> None:
        """The first complete snapshot has come."""
        self._service.discovered = True

    def endpoint_left(self, endpoint: Endpoint) -> None:
        """Close what idles at an endpoint that has left."""
        self._service.upstreams.close_idle(endpoint)

    def drain(self) -> None:
        """From now on every response says that its connection closes."""
        self._service.draining = True

    async def stop_listening(self) -> None:
        """Accept no more, and close what idles."""
        await self._listener.stop()
        for connection in list(self._service.connections):
            connection.close_if_idle()

    async def all_closed(self) -> None:
        """Wait, once stopped, until no connection is open any more."""
        await self._listener.all_closed()

    def cut(self) -> int:
        """Cut whatever is still open; how many requests and tunnels that were."""
        service = self._service
        busy = [connection for connection in service.connections if connection.exchange is not None]
        tunnels = list(service.tunnels)
        for connection in list(service.connections):
            connection.abort()
        for tunnel in tunnels:
            tunnel.abort()
        return len(busy) + len(tunnels)

    def close(self) -> None:
        """Close the connections to endpoints."""
        self._service.upstreams.close()

    def retry_budget(self, now: float) -> float:
        """Retries that could be paid for now."""
        return self._service.budget.left(now)

    def idle_connections(self, endpoint: Endpoint) -> int:
        """Unused connections kept open to `endpoint`."""
        return self._service.upstreams.idle_to(endpoint)


def _rules(settings: Settings) -> HttpRules:
    rules = HttpRules()
    rules.admin_token = settings.admin_token or ""
    rules.idle_timeout = settings.idle_timeout
    rules.keepalive_timeout = settings.keepalive_timeout
    rules.request_timeout = settings.request_timeout
    rules.total_timeout = settings.total_timeout
    rules.tunnel_idle_timeout = settings.tunnel_idle_timeout
    rules.queue_timeout = settings.queue_timeout
    rules.max_body_bytes = settings.max_body_bytes
    rules.max_header_bytes = settings.max_header_bytes
    rules.max_headers = settings.max_headers
    rules.max_uri_bytes = settings.max_uri_bytes
    rules.retries = settings.retries
    rules.retry_buffer = settings.retry_buffer
    rules.retry_statuses = settings.retry_statuses
    return rules


def _upstream_rules(settings: Settings) -> UpstreamRules:
    rules = UpstreamRules(
        connect=settings.connect_timeout,
        response=settings.response_timeout,
        idle=settings.idle_timeout,
        keepalive=settings.upstream_keepalive_timeout,
        max_header_bytes=settings.max_header_bytes,
        max_headers=settings.max_headers,
    )
    if settings.upstream_tls:
        rules.tls = tls.to_endpoints(settings.upstream_tls_ca)
    return rules
