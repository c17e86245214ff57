"""TCP mode: an endpoint is chosen when a client connects, and the two connections are joined by a tunnel.

No byte is sent before the endpoint's connection is open, so one that cannot be made is tried elsewhere whatever the
protocol.

Above 300 lines because a connection of TCP mode is one state machine, both sides of it.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final, cast

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.errors import NoEndpoint
from balancer.balancing.outcome import CLIENT_LEFT, CONNECT_TIMEOUT, RESET, Kind, Outcome
from balancer.balancing.pool import DEFAULT_CLUSTER, Lease
from balancer.balancing.request import RequestInfo
from balancer.counters import count
from balancer.log import AccessEntry, AccessLog
from balancer.proxy import proxy_protocol
from balancer.proxy.attempts import Attempts
from balancer.proxy.connector import Connecting, Opener, failure_of
from balancer.proxy.door import Door, Protocols
from balancer.proxy.place import Addresses, Place
from balancer.proxy.service import Context, Service
from balancer.proxy.tcp_routes import TcpCluster, TcpRouter
from balancer.proxy.transport import Protocol, Transport
from balancer.proxy.tunnel import Early, Tunnel

if TYPE_CHECKING:
    from balancer.settings import Settings

SERVED: Final = Outcome(Kind.ANSWERED)
UNKNOWN: Final = "0.0.0.0"  # noqa: S104 (not bound, written into a header)


class TcpService(Service):
    """The TCP proxy as its connections see it."""

    __slots__ = ("connections", "idle_timeout", "requests", "router")

    def __init__(self, settings: Settings, context: Context, router: TcpRouter) -> None:
        super().__init__(settings, context)
        self.router = router
        self.connections: set[TcpConnection] = set()
        self.requests = 0
        """Connections begun at this listener alone."""
        self.idle_timeout: float = settings.idle_timeout


class TcpConnection(Attempts, Protocol, Opener):
    """One client connection until it is joined to an endpoint's, and the account of it until both end."""

    __slots__ = (
        "_connect_began",
        "_connecting",
        "_counted",
        "_early",
        "_joined",
        "_place",
        "_service",
        "_transport",
        "_tunnel",
        "_way",
    )

    def __init__(self, service: TcpService, place: Place) -> None:
        way = service.router.way(place)
        super().__init__(service, way.cluster, RequestInfo(place.address), service.clock())
        self._way = way
        self._service = service
        self._place = place
        self._tunnel: Tunnel | None = None
        self._connecting: Connecting | None = None
        self._connect_began = 0.0
        self._early = Early()
        self._counted = False
        self._joined = False
        """Whether the endpoint's connection and the tunnel count as open."""

    # What the event loop calls, until the tunnel takes over.

    def connection_made(self, transport: Transport) -> None:
        service = self._service
        self._transport = transport
        service.connections.add(self)
        if not self._place.allowed:
            transport.abort()
            return
        self._counted = True
        service.requests += 1
        service.counters.requests += 1
        service.counters.requests_in_flight += 1
        if self._way.nowhere:
            self._fail(self._way.nowhere)
            return
        self.cluster.budget.earn(self.began_at)
        self.acquire(self.began_at)

    def data_received(self, data: bytes) -> None:
        # One piece is kept, the rest is left with the client.
        self._early.data += data
        self._transport.pause_reading()

    def eof_received(self) -> bool:
        # It has said all, and waits for the answer.
        self._early.ended = True
        return True

    def connection_lost(self, error: Exception | None) -> None:
        if self._tunnel is None:
            self.reason = self.reason or Kind.CLIENT_LEFT.value
            if self._connecting is not None:
                self._connecting.cancel()
                self._connecting = None
            self._end(CLIENT_LEFT)

    # Finding an endpoint.

    def leased(self, lease: Lease, now: float) -> None:
        """Connect to the endpoint; its latency is the time that takes."""
        lease.sent(now)
        cluster = cast("TcpCluster", self.cluster)
        proxy_header = b""
        if cluster.proxy_version:
            proxy_header = proxy_protocol.render(cluster.proxy_version, self._addresses())
        self._connect_began = now
        spec = lease.endpoint.spec
        connector = cluster.connector(self._place)
        self._connecting = connector.connect(spec.host, spec.port, self, proxy_header, self._place.alpn)
        self.arm(now + connector.timeout)

    def none_found(self, error: NoEndpoint, now: float) -> None:
        """No endpoint, and none to wait for."""
        self._fail(error.reason)

    def opened(self, transport: Transport) -> None:
        """The endpoint's connection is open."""
        self._connecting = None
        service = self._service
        now = service.clock()
        self.connect_took = now - self._connect_began
        service.counters.connect_seconds.observe(self.connect_took)
        if self.endpoint is not None:
            try:
                self._join(self.endpoint, transport, now)
            except Exception:
                self._transport.abort()
                raise

    def not_opened(self, error: Exception) -> None:
        """The endpoint's connection could not be had."""
        self._connecting = None
        try:
            self._attempt_failed(Outcome.failed(failure_of(error)))
        except Exception:
            self._transport.abort()
            raise

    def _addresses(self) -> Addresses:
        """Who is connected to us, for an endpoint that wishes to know."""
        if self._place.addresses is not None:
            return self._place.addresses
        _, port = self._transport.peer_address()
        own, own_port = self._transport.own_address()
        return self.info.client or UNKNOWN, port, own or UNKNOWN, own_port

    def _join(self, endpoint: Endpoint, server: Transport, now: float) -> None:
        service = self._service
        service.wheel.forget(self)
        if self.lease is not None:
            self.lease.first_byte(now)
        endpoint.stats.connections_opened += 1
        endpoint.stats.connections_open += 1
        self._tunnel = Tunnel(
            endpoint, service.counters, service.wheel, service.clock, service.idle_timeout, self._tunnel_ended
        )
        service.counters.tunnels_open += 1
        self._joined = True
        sent, self._early = self._early, Early()
        self._tunnel.start(self._transport, server, sent, Early())

    def _attempt_failed(self, outcome: Outcome) -> None:
        now = self._service.clock()
        self.arm(0.0)
        self.close_lease(outcome, now)
        if self._transport.is_closing():
            self._end(CLIENT_LEFT)
        elif self.may_try_again(outcome.kind.value, now):
            self.acquire(now)
        else:
            self._fail(outcome.kind.value)

    def crashed(self) -> None:
        self.cut()

    def expired(self, now: float) -> None:
        if self.ticket is not None:
            self.leave_queue(now)
            self._fail("queue timed out")
        elif self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
            self._attempt_failed(CONNECT_TIMEOUT)

    # The end.

    def _tunnel_ended(self, tunnel: Tunnel) -> None:
        if self._joined:
            self._joined = False
            tunnel.endpoint.stats.connections_open -= 1
            self._service.counters.tunnels_open -= 1
        if tunnel.server_reset_first:
            self.reason = self.reason or Kind.RESET.value
            self._end(RESET)
        else:
            self._end(SERVED)
        self._tunnel = None  # it holds us: the two would be left to the garbage collector

    def _fail(self, reason: str) -> None:
        """There is no endpoint for it: a reset says so plainer than an orderly end."""
        self.reason = reason
        count(self._service.counters.errors, reason)
        self._transport.abort()

    def cut_tunnel(self, endpoint: Endpoint) -> bool:
        """Reset both sides, if they are joined and the far one is `endpoint`; whether they were."""
        tunnel = self._tunnel
        if tunnel is None or tunnel.endpoint is not endpoint:
            return False
        self.reason = "endpoint turned unhealthy"
        tunnel.abort()
        return True

    def cut(self) -> None:
        """The time to drain is over."""
        if self._tunnel is not None:
            self._tunnel.abort()
        else:
            self._transport.abort()

    def _end(self, outcome: Outcome) -> None:
        service = self._service
        now = service.clock()
        service.wheel.forget(self)
        service.connections.discard(self)
        self.leave_queue(now)
        self.close_lease(outcome, now)
        if self._counted:
            self._counted = False
            service.counters.requests_in_flight -= 1
            took = now - self.began_at
            service.counters.total_seconds.observe(took)
            if service.access_log is not None and service.access_log.wants(took):
                self._log(service.access_log, took)

    def _log(self, access_log: AccessLog, took: float) -> None:
        entry = AccessEntry()
        self.describe(entry)
        entry.route = self._way.route
        entry.tls_name = self._place.name
        if self._way.nowhere:
            entry.cluster = ""
        entry.total = took
        if self._tunnel is not None:
            entry.bytes_received = self._tunnel.client_bytes
            entry.bytes_sent = self._tunnel.server_bytes
        access_log.write(entry)


class TcpProxy(Protocols):
    """The TCP proxy as the composition root sees it."""

    def __init__(self, settings: Settings, context: Context, router: TcpRouter | None = None) -> None:
        """`router` None: every connection goes to the one cluster of the settings."""
        if router is None:
            cluster = TcpCluster(DEFAULT_CLUSTER, context.pool, settings, context, settings.tls_alpn)
            router = TcpRouter(cluster)
        self._service = TcpService(settings, context, router)
        self._door = Door(settings, self, context.poller, context.counters)

    @property
    def port(self) -> int:
        """Where it listens, once started."""
        return self._door.port

    @property
    def requests(self) -> int:
        """Connections begun here."""
        return self._service.requests

    def make(self, place: Place) -> Protocol:
        """The protocol of a client's connection."""
        return TcpConnection(self._service, place)

    def start(self, server_tls: ssl.SSLContext | None) -> None:
        """Listen. Raises OSError."""
        self._door.start(server_tls)

    def discovered(self) -> None:
        """The first complete snapshot has come: connections found none until now, and said so."""

    def endpoint_left(self, endpoint: Endpoint) -> None:
        """Nothing idles in TCP mode; connections under way go on to their end."""

    def cut_tunnels(self, endpoint: Endpoint) -> int:
        """Reset what is tunnelled to `endpoint`; how many tunnels those were."""
        return sum([connection.cut_tunnel(endpoint) for connection in list(self._service.connections)])

    def drain(self) -> None:
        """TCP has no way to announce that a connection will close."""

    def stop_listening(self) -> None:
        """Accept no more."""
        self._door.stop()

    async def all_closed(self) -> None:
        """Wait, once stopped, until no connection is open any more."""
        await self._door.all_closed()

    def cut(self) -> int:
        """Reset whatever is still open; how many connections that were."""
        connections = list(self._service.connections)
        for connection in connections:
            connection.cut()
        return len(connections)

    def close(self) -> None:
        """Nothing is kept."""

    def retry_budget(self, now: float) -> float:
        """Retries that could be paid for now."""
        return self._service.router.only.budget.left(now)

    def idle_connections(self, endpoint: Endpoint) -> int:
        """Unused connections kept open to `endpoint`: none in TCP mode."""
        return 0
