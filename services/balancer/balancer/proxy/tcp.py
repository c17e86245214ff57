"""TCP mode: an endpoint is chosen when a client connects, and the two connections are joined by a tunnel.

No byte is sent before the endpoint's connection is open, so one that cannot be made is tried elsewhere whatever the
protocol.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.errors import AllAtLimit, AllTried, NoEndpoint
from balancer.balancing.outcome import CLIENT_LEFT, CONNECT_TIMEOUT, REFUSED, RESET, Kind, Outcome
from balancer.balancing.pool import Lease, Pool
from balancer.balancing.queue import Ticket
from balancer.balancing.request import RequestInfo
from balancer.balancing.retry import RetryBudget
from balancer.counters import Counters, count
from balancer.log import AccessEntry, AccessLog
from balancer.proxy import proxy_protocol, tls
from balancer.proxy.clients import Clients, address_of
from balancer.proxy.flow import NOT_CONNECTED, Intake
from balancer.proxy.listener import Accepting, Listener
from balancer.proxy.proxy_protocol import Preface
from balancer.proxy.timers import Timed, TimerWheel
from balancer.proxy.tunnel import Tunnel, reset

if TYPE_CHECKING:
    from balancer.settings import Settings

SERVED: Final = Outcome(Kind.ANSWERED)


class TcpService:
    """What all connections of the TCP proxy share."""

    __slots__ = (
        "access_log",
        "budget",
        "clients",
        "clock",
        "connect_timeout",
        "connections",
        "counters",
        "idle_timeout",
        "loop",
        "pool",
        "preface_version",
        "queue_timeout",
        "retries",
        "upstream_tls",
        "wheel",
    )

    def __init__(
        self, settings: Settings, pool: Pool, counters: Counters, wheel: TimerWheel, clock: Callable[[], float]
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.pool = pool
        self.counters = counters
        self.wheel = wheel
        self.clock = clock
        self.clients = Clients(counters, settings.trusted_proxies, settings.max_connections_per_client)
        self.budget = RetryBudget(settings.retry_budget)
        self.connections: set[TcpConnection] = set()
        self.access_log: AccessLog | None = None
        self.connect_timeout = settings.connect_timeout
        self.idle_timeout = settings.idle_timeout
        self.queue_timeout = settings.queue_timeout
        self.retries = settings.retries
        self.preface_version = "" if settings.upstream_proxy_protocol == "off" else settings.upstream_proxy_protocol
        self.upstream_tls: ssl.SSLContext | None = None
        if settings.upstream_tls:
            self.upstream_tls = tls.to_endpoints(settings.upstream_tls_ca)


class TcpConnection(Timed):
    """One client connection until it is joined to an endpoint's, and the account of it until both end."""

    __slots__ = (
        "_address",
        "_attempts",
        "_began_at",
        "_connect_took",
        "_connecting",
        "_counted",
        "_endpoint",
        "_held",
        "_intake",
        "_lease",
        "_queue_took",
        "_queued_at",
        "_reason",
        "_service",
        "_ticket",
        "_transport",
        "_tried",
        "_tunnel",
    )

    def __init__(self, service: TcpService, address: str = "") -> None:
        super().__init__()
        self._service = service
        self._address = address
        self._lease: Lease | None = None
        self._endpoint: Endpoint | None = None
        self._ticket: Ticket | None = None
        self._tunnel: Tunnel | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._tried: list[Endpoint] = []
        self._held = b""
        self._attempts = 0
        self._began_at = service.clock()
        self._connect_took = -1.0
        self._queued_at = 0.0
        self._queue_took = -1.0
        self._reason = ""
        self._counted = False

    # What the event loop calls, until the tunnel takes over.

    def connection_made(self, transport: asyncio.Transport) -> None:
        service = self._service
        self._transport = transport
        self._address = self._address or address_of(transport)
        service.connections.add(self)
        if not service.clients.opened(self._address):
            reset(transport)
            return
        self._counted = True
        service.counters.requests += 1
        service.counters.requests_in_flight += 1
        service.budget.earn(self._began_at)
        self._intake = Intake(transport)
        self._intake.stop(NOT_CONNECTED)
        self._attempt(self._began_at)

    def data_received(self, data: bytes) -> None:
        # Reading stops at once, but what was read already still comes.
        self._held += data

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        if self._tunnel is None:
            self._reason = self._reason or Kind.CLIENT_LEFT.value
            if self._connecting is not None:
                self._connecting.cancel()
                self._connecting = None
            self._end(CLIENT_LEFT)

    def pause_writing(self) -> None:
        """Nothing is written before the tunnel takes over."""

    def resume_writing(self) -> None:
        """Nothing is written before the tunnel takes over."""

    # Finding an endpoint.

    def _attempt(self, now: float) -> None:
        ticket, self._ticket = self._ticket, None
        service = self._service
        try:
            lease = service.pool.lease(RequestInfo(self._address), now, self._tried, False, ticket)
        except AllTried:
            self._tried = []
            self._ticket = ticket
            self._attempt(now)
            return
        except AllAtLimit:
            self._join_queue(now)
            return
        except NoEndpoint as error:
            self._fail(error.reason)
            return
        self._lease = lease
        self._endpoint = lease.endpoint
        self._attempts += 1
        lease.sent(now)
        self._connecting = service.loop.create_task(self._connect(lease.endpoint, now))
        service.wheel.arm(self, now + service.connect_timeout)

    def _join_queue(self, now: float) -> None:
        try:
            self._ticket = self._service.pool.wait(self._woken, now)
        except NoEndpoint as error:
            self._fail(error.reason)
            return
        self._queued_at = self._queued_at or now
        self._service.wheel.arm(self, self._queued_at + self._service.queue_timeout)

    def _woken(self) -> None:
        now = self._service.clock()
        self.deadline = 0.0
        self._note_queue(now)
        self._attempt(now)

    def _note_queue(self, now: float) -> None:
        self._queue_took = now - self._queued_at
        self._service.counters.queue_seconds.observe(self._queue_took)

    async def _connect(self, endpoint: Endpoint, began: float) -> None:
        service = self._service
        context = service.upstream_tls
        try:
            transport, _ = await service.loop.create_connection(
                _Opening,  # type: ignore[type-var]  # a protocol by its methods
                endpoint.spec.host,
                endpoint.spec.port,
                ssl=context,
                server_hostname=endpoint.spec.host if context is not None else None,
            )
        except OSError:
            self._connecting = None
            self._attempt_failed(REFUSED)
            return
        self._connecting = None
        now = service.clock()
        self._connect_took = now - began
        service.counters.connect_seconds.observe(self._connect_took)
        self._join(endpoint, transport, now)

    def _join(self, endpoint: Endpoint, server: asyncio.Transport, now: float) -> None:
        service = self._service
        service.wheel.forget(self)
        if self._lease is not None:
            self._lease.first_byte(now)
        endpoint.connections_opened += 1
        endpoint.connections_open += 1
        if service.preface_version:
            addresses = proxy_protocol.addresses_of(self._transport, self._address)
            server.write(proxy_protocol.render(service.preface_version, addresses))
        self._tunnel = Tunnel(
            endpoint, service.counters, service.wheel, service.clock, service.idle_timeout, self._tunnel_ended
        )
        service.counters.tunnels_open += 1
        self._tunnel.start(self._transport, server)
        if self._held:
            held, self._held = self._held, b""
            self._tunnel.client.data_received(held)

    def _attempt_failed(self, outcome: Outcome) -> None:
        service = self._service
        now = service.clock()
        self.deadline = 0.0
        if self._lease is not None:
            self._lease.close(outcome, now)
            self._lease = None
        reason = outcome.kind.value
        if self._transport.is_closing():
            self._end(CLIENT_LEFT)
        elif self._attempts > service.retries:
            self._fail(reason)
        elif not service.budget.take(now):
            service.counters.retries_denied += 1
            self._fail(reason)
        else:
            count(service.counters.retries, reason)
            if self._endpoint is not None:
                self._tried.append(self._endpoint)
            self._attempt(now)

    def expired(self, now: float) -> None:
        if self._ticket is not None:
            self._ticket.leave()
            self._ticket = None
            self._note_queue(now)
            self._fail("queue timed out")
        elif self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
            self._attempt_failed(CONNECT_TIMEOUT)

    # The end.

    def _tunnel_ended(self, tunnel: Tunnel) -> None:
        tunnel.endpoint.connections_open -= 1
        self._service.counters.tunnels_open -= 1
        if tunnel.server_reset_first:
            self._reason = self._reason or Kind.RESET.value
            self._end(RESET)
        else:
            self._end(SERVED)

    def _fail(self, reason: str) -> None:
        """There is no endpoint for it: a reset says so plainer than an orderly end."""
        self._reason = reason
        count(self._service.counters.errors, reason)
        reset(self._transport)

    def cut(self) -> None:
        """The time to drain is over."""
        if self._tunnel is not None:
            self._tunnel.abort()
        else:
            reset(self._transport)

    def _end(self, outcome: Outcome) -> None:
        service = self._service
        now = service.clock()
        service.wheel.forget(self)
        service.connections.discard(self)
        service.clients.closed(self._address)
        if self._ticket is not None:
            self._ticket.leave()
            self._ticket = None
        if self._lease is not None:
            self._lease.close(outcome, now)
            self._lease = None
        if self._counted:
            self._counted = False
            service.counters.requests_in_flight -= 1
            took = now - self._began_at
            service.counters.total_seconds.observe(took)
            if service.access_log is not None and service.access_log.wants(took):
                self._log(service.access_log, took)

    def _log(self, access_log: AccessLog, took: float) -> None:
        entry = AccessEntry()
        entry.client = self._address
        entry.queue = self._queue_took if self._queue_took >= 0.0 else None
        entry.connect = self._connect_took if self._connect_took >= 0.0 else None
        entry.total = took
        entry.endpoint = self._endpoint.address if self._endpoint is not None else ""
        entry.attempts = self._attempts
        entry.strategy = self._service.pool.strategy_name
        entry.reason = self._reason
        if self._tunnel is not None:
            entry.bytes_received = self._tunnel.client_bytes
            entry.bytes_sent = self._tunnel.server_bytes
        access_log.write(entry)


class _Opening:
    """An endpoint's connection between its opening and the tunnel that takes it over in the same turn."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        transport.pause_reading()

    def connection_lost(self, _error: Exception | None) -> None:
        """Whoever opened it sees that for itself."""


class TcpProxy:
    """The TCP proxy as the composition root sees it."""

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        counters: Counters,
        wheel: TimerWheel,
        clock: Callable[[], float],
        access_log: AccessLog | None,
    ) -> None:
        self._proxy_protocol = settings.proxy_protocol
        self._service = TcpService(settings, pool, counters, wheel, clock)
        self._service.access_log = access_log
        self._listener = Listener(settings.host, settings.port, self._accept, counters, settings.max_connections)
        self._service.clients.listener = self._listener

    @property
    def port(self) -> int:
        """Where it listens, once started."""
        return self._listener.port

    def _accept(self) -> Accepting:
        service = self._service
        if self._proxy_protocol:
            return Preface(service.clients, service.wheel, service.clock, self._make)
        return TcpConnection(service)

    def _make(self, address: str) -> Accepting:
        return TcpConnection(self._service, address)

    async def start(self, server_tls: ssl.SSLContext | None) -> None:
        """Listen. Raises OSError."""
        await self._listener.start(server_tls)

    def discovered(self) -> None:
        """The first complete snapshot has come: connections found none until now, and said so."""

    def endpoint_left(self, endpoint: Endpoint) -> None:
        """Nothing idles in TCP mode; connections under way go on to their end."""

    def drain(self) -> None:
        """TCP knows no way to tell a client that its connection will close."""

    async def stop_listening(self) -> None:
        """Accept no more."""
        await self._listener.stop()

    async def all_closed(self) -> None:
        """Wait, once stopped, until no connection is open any more."""
        await self._listener.all_closed()

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
        return self._service.budget.left(now)

    def idle_connections(self, endpoint: Endpoint) -> int:
        """Unused connections kept open to `endpoint`: none in TCP mode."""
        return 0
