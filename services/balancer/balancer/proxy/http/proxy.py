"""The HTTP proxy as the composition root sees it: built from settings, started, drained, stopped."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from balancer.balancing.endpoint import Endpoint
from balancer.proxy.http.downstream import Downstream
from balancer.proxy.http.service import HttpService
from balancer.proxy.listener import Accepting, Listener
from balancer.proxy.proxy_protocol import Preface
from balancer.proxy.service import Means

if TYPE_CHECKING:
    from balancer.settings import Settings
    from balancer.tracing import Tracer


class HttpProxy:
    """HTTP/1 in, HTTP/1.1 out."""

    def __init__(self, settings: Settings, means: Means) -> None:
        self._service = HttpService(settings, means)
        self._listener = Listener(settings, self._accept, means.counters)
        self._service.clients.listener = self._listener
        self._proxy_protocol: bool = settings.proxy_protocol
        self._scheme = b"https" if settings.tls_cert else b"http"

    @property
    def port(self) -> int:
        """Where it listens, once started."""
        return self._listener.port

    def trace(self, tracer: Tracer) -> None:
        """Make spans of requests from now on; to be called before the start."""
        self._service.tracer = tracer

    def _accept(self) -> Accepting:
        service = self._service
        if self._proxy_protocol:
            return Preface(service.clients, service.wheel, service.clock, self._make)
        return Downstream(service, self._scheme)

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
