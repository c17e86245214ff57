"""The HTTP proxy as the composition root sees it: built from settings, started, drained, stopped."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from balancer.balancing.endpoint import Endpoint
from balancer.proxy.door import Door, Protocols
from balancer.proxy.http import responses
from balancer.proxy.http.downstream import Downstream
from balancer.proxy.http.service import HttpService
from balancer.proxy.place import Place
from balancer.proxy.service import Means
from balancer.proxy.transport import Protocol

if TYPE_CHECKING:
    from balancer.settings import Settings
    from balancer.tracing import Tracer


class HttpProxy(Protocols):
    """HTTP/1 in, HTTP/1.1 out."""

    def __init__(self, settings: Settings, means: Means) -> None:
        self._service = HttpService(settings, means)
        self._door = Door(settings, self, means.poller, means.counters)

    @property
    def port(self) -> int:
        """Where it listens, once started."""
        return self._door.port

    def trace(self, tracer: Tracer) -> None:
        """Make spans of requests from now on; to be called before the start."""
        self._service.tracer = tracer

    def make(self, place: Place) -> Protocol:
        """The protocol of a client's connection."""
        return Downstream(self._service, place)

    def not_tls(self, data: bytes) -> bytes:
        """What a client gets that speaks HTTP to the TLS port."""
        if not data[:1].isalpha():
            return b""
        return responses.render(responses.NOT_TLS, self._service.request_id(), False, False, close=True)

    def crowded(self, crowded: bool) -> None:
        """Say on each response that its connection closes, while nearly as many are open as may be."""
        self._service.crowded = crowded

    def start(self, server_tls: ssl.SSLContext | None) -> None:
        """Listen. Raises OSError."""
        self._door.start(server_tls)

    def discovered(self) -> None:
        """The first complete snapshot has come."""
        self._service.discovered = True

    def endpoint_left(self, endpoint: Endpoint) -> None:
        """Close what idles at an endpoint that has left."""
        self._service.upstreams.close_idle(endpoint)

    def drain(self) -> None:
        """From now on every response says that its connection closes."""
        self._service.draining = True

    def stop_listening(self) -> None:
        """Accept no more, and close what idles."""
        self._door.stop()
        for connection in list(self._service.connections):
            connection.close_if_idle()

    async def all_closed(self) -> None:
        """Wait, once stopped, until no connection is open any more."""
        await self._door.all_closed()

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
