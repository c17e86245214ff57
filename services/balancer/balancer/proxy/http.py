"""The HTTP proxy as the composition root sees it: built from settings, started, drained, stopped."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.pool import DEFAULT_CLUSTER
from balancer.balancing.retry import RetryBudget
from balancer.proxy import responses
from balancer.proxy.cluster import Cluster, Policy, Router
from balancer.proxy.door import Door, Protocols
from balancer.proxy.http1.heads import KnownBlocks
from balancer.proxy.http1.server import ServerConnection, refusal
from balancer.proxy.http2.server import ServerConnection as Http2Connection
from balancer.proxy.http_service import HttpService
from balancer.proxy.place import Place
from balancer.proxy.service import Context
from balancer.proxy.sorting import Sorter
from balancer.proxy.transport import Protocol
from balancer.proxy.upstreams import upstreams

if TYPE_CHECKING:
    from balancer.settings import Settings
    from balancer.tracing import Tracer


class HttpProxy(Protocols):
    """HTTP/1 and HTTP/2, in and out."""

    def __init__(self, settings: Settings, context: Context, router: Router | None = None) -> None:
        """`router` None: everything goes to the one cluster of the settings."""
        if router is None:
            budget = RetryBudget(settings.retry_budget)
            cluster = Cluster(DEFAULT_CLUSTER, context.pool, Policy(settings), budget, upstreams(settings, context))
            router = Router(cluster)
        self.cluster = router.only
        self._service = HttpService(settings, context, router)
        self._known = KnownBlocks(self._service)
        self._door = Door(settings, self, context.poller, context.counters, settings.http2)
        self._service.clients = self._door.clients

    @property
    def port(self) -> int:
        """Where it listens, once started."""
        return self._door.port

    @property
    def requests(self) -> int:
        """Requests begun here."""
        return self._service.requests

    @property
    def responses(self) -> list[int]:
        """Final responses sent here, by the first digit of the status."""
        return self._service.responses

    def sort(self, sorter: Sorter) -> None:
        """Not all TLS clients here want requests, from now on: `sorter` says which."""
        self._door.sorter = sorter

    def trace(self, tracer: Tracer) -> None:
        """Make spans of requests from now on; to be called before the start."""
        self._service.tracer = tracer

    def make(self, place: Place) -> Protocol:
        """The protocol of a client's connection."""
        return ServerConnection(self._service, self._known, place)

    def make_http2(self, place: Place) -> Protocol:
        """The protocol of a client's connection that speaks HTTP/2."""
        return Http2Connection(self._service, place)

    def names_clients(self) -> bool:
        """By X-Forwarded-For."""
        return True

    def not_tls(self, data: bytes) -> bytes:
        """What a client gets that speaks HTTP to the TLS port."""
        return refusal(self._service, responses.NOT_TLS, self._service.request_id()) if data[:1].isalpha() else b""

    def crowded(self, crowded: bool) -> None:
        """Say on each response that its connection closes, while nearly as many are open as may be."""
        self._service.crowded = crowded

    def start(self, server_tls: ssl.SSLContext | None) -> None:
        """Listen. Raises OSError."""
        self._door.start(server_tls)

    def discovered(self) -> None:
        """The first complete snapshot has come."""
        self.cluster.discovered = True

    def endpoint_left(self, endpoint: Endpoint) -> None:
        """Close what idles at an endpoint that has left."""
        self.cluster.upstreams.close_idle(endpoint)

    def cut_tunnels(self, endpoint: Endpoint) -> int:
        """Reset what is tunnelled to `endpoint`; how many tunnels those were."""
        return sum([connection.cut_tunnels(endpoint) for connection in list(self._service.connections)])

    def drain(self) -> None:
        """From now on every response says that its connection closes; none is closed without that notice."""
        self._service.draining = True
        for connection in list(self._service.connections):
            connection.drain()

    def stop_listening(self) -> None:
        """Accept no more, and close what idles."""
        self._door.stop()
        self._service.stopped = True
        for connection in list(self._service.connections):
            connection.stop()

    async def all_closed(self) -> None:
        """Wait, once stopped, until no connection is open any more."""
        await self._door.all_closed()

    def cut(self) -> int:
        """Cut whatever is still open; how many requests and tunnels that were."""
        connections = list(self._service.connections)
        under_way = sum(connection.under_way() for connection in connections)
        for connection in connections:
            connection.abort()
        for call in list(self._service.mirroring):
            call.crashed()
        return under_way

    def close(self) -> None:
        """Close the connections to endpoints."""
        self.cluster.upstreams.close()

    def retry_budget(self, now: float) -> float:
        """Retries that could be paid for now."""
        return self.cluster.budget.left(now)

    def idle_connections(self, endpoint: Endpoint) -> int:
        """Unused connections kept open to `endpoint`."""
        return self.cluster.upstreams.idle_to(endpoint)
