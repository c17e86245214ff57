"""TCP mode: an endpoint is chosen when a client connects, and the two connections are joined by a tunnel.

No byte is sent before the endpoint's connection is open, so one that cannot be made is tried elsewhere whatever the
protocol.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.errors import NoEndpoint
from balancer.balancing.outcome import CLIENT_LEFT, CONNECT_TIMEOUT, REFUSED, RESET, Kind, Outcome
from balancer.balancing.pool import Lease
from balancer.balancing.request import RequestInfo
from balancer.counters import count
from balancer.log import AccessEntry, AccessLog
from balancer.proxy import proxy_protocol, tls
from balancer.proxy.attempts import Attempts
from balancer.proxy.clients import address_of
from balancer.proxy.listener import Accepting, Listener
from balancer.proxy.proxy_protocol import Preface
from balancer.proxy.service import Means, Service
from balancer.proxy.tunnel import Early, Tunnel, reset

if TYPE_CHECKING:
    from balancer.settings import Settings

SERVED: Final = Outcome(Kind.ANSWERED)


class TcpService(Service):
    """The TCP proxy as its connections see it."""

    __slots__ = ("connect_timeout", "connections", "idle_timeout", "loop", "preface_version", "upstream_tls")

    def __init__(self, settings: Settings, means: Means) -> None:
        super().__init__(settings, means)
        self.loop = asyncio.get_running_loop()
        self.connections: set[TcpConnection] = set()
        self.connect_timeout: float = settings.connect_timeout
        self.idle_timeout: float = settings.idle_timeout
        self.preface_version = "" if settings.upstream_proxy_protocol == "off" else settings.upstream_proxy_protocol
        self.upstream_tls: ssl.SSLContext | None = None
        if settings.upstream_tls:
            self.upstream_tls = tls.to_endpoints(settings.upstream_tls_ca)


class TcpConnection(Attempts):
    """One client connection until it is joined to an endpoint's, and the account of it until both end."""

    __slots__ = ("_connecting", "_counted", "_early", "_service", "_transport", "_tunnel")

    def __init__(self, service: TcpService, address: str = "") -> None:
        """`address` is the client's where a PROXY header told it; empty: whoever connected."""
        super().__init__(service, RequestInfo(address), service.clock())
        self._service = service
        self._tunnel: Tunnel | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._early = Early()
        self._counted = False

    # What the event loop calls, until the tunnel takes over.

    def connection_made(self, transport: asyncio.Transport) -> None:
        service = self._service
        self._transport = transport
        self.info.client = self.info.client or address_of(transport)
        service.connections.add(self)
        if not service.clients.opened(self.info.client):
            reset(transport)
            return
        self._counted = True
        service.counters.requests += 1
        service.counters.requests_in_flight += 1
        service.budget.earn(self.began_at)
        self.find(self.began_at)

    def data_received(self, data: bytes) -> None:
        # One piece is kept, the rest is left with the client. Not sooner: uvloop begins to read after
        # `connection_made`, even if that has told it to pause.
        self._early.data += data
        if self._transport.is_reading():
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        # It has said all, and waits for the answer; but TLS knows no half-close.
        self._early.ended = True
        return self._transport.can_write_eof()

    def connection_lost(self, _error: Exception | None) -> None:
        if self._tunnel is None:
            self.reason = self.reason or Kind.CLIENT_LEFT.value
            if self._connecting is not None:
                self._connecting.cancel()
                self._connecting = None
            self._end(CLIENT_LEFT)

    def pause_writing(self) -> None:
        """Nothing is written before the tunnel takes over."""

    def resume_writing(self) -> None:
        """Nothing is written before the tunnel takes over."""

    # Finding an endpoint.

    def leased(self, lease: Lease, now: float) -> None:
        """Connect to the endpoint; its latency is the time that takes."""
        lease.sent(now)
        self._connecting = self._service.loop.create_task(self._connect(lease.endpoint, now))
        self.arm(now + self._service.connect_timeout)

    def none_found(self, error: NoEndpoint, now: float) -> None:
        """No endpoint, and none to wait for."""
        self._fail(error.reason)

    async def _connect(self, endpoint: Endpoint, began: float) -> None:
        service = self._service
        opening = _Opening(half_closes=service.upstream_tls is None)
        try:
            transport = await self._open(endpoint, opening)
        except OSError:
            self._connecting = None
            self._attempt_failed(REFUSED)
            return
        self._connecting = None
        if opening.closed:
            self._attempt_failed(REFUSED)  # accepted and closed in one, without a word
            return
        now = service.clock()
        self.connect_took = now - began
        service.counters.connect_seconds.observe(self.connect_took)
        self._join(endpoint, transport, opening.early, now)

    async def _open(self, endpoint: Endpoint, opening: _Opening) -> asyncio.Transport:
        """Connect; say who the client is, before any handshake; and only then begin TLS."""
        service = self._service
        transport: asyncio.Transport
        transport, _ = await service.loop.create_connection(  # type: ignore[type-var]  # a protocol by its methods
            lambda: opening, endpoint.spec.host, endpoint.spec.port
        )
        if service.preface_version:
            addresses = proxy_protocol.addresses_of(self._transport, self.info.client)
            transport.write(proxy_protocol.render(service.preface_version, addresses))
        if service.upstream_tls is None:
            return transport
        secured = await service.loop.start_tls(
            transport,
            opening,  # type: ignore[arg-type]  # a protocol by its methods
            service.upstream_tls,
            server_hostname=endpoint.spec.host,
        )
        if secured is None:
            raise ConnectionResetError
        return secured

    def _join(self, endpoint: Endpoint, server: asyncio.Transport, came: Early, now: float) -> None:
        service = self._service
        service.wheel.forget(self)
        if self.lease is not None:
            self.lease.first_byte(now)
        endpoint.connections_opened += 1
        endpoint.connections_open += 1
        self._tunnel = Tunnel(
            endpoint, service.counters, service.wheel, service.clock, service.idle_timeout, self._tunnel_ended
        )
        service.counters.tunnels_open += 1
        sent, self._early = self._early, Early()
        self._tunnel.start(self._transport, server, sent, came)

    def _attempt_failed(self, outcome: Outcome) -> None:
        now = self._service.clock()
        self.arm(0.0)
        self.close_lease(outcome, now)
        if self._transport.is_closing():
            self._end(CLIENT_LEFT)
        elif self.may_try_again(outcome.kind.value, now):
            self.find(now)
        else:
            self._fail(outcome.kind.value)

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
        tunnel.endpoint.connections_open -= 1
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
        service.clients.closed(self.info.client)
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
        entry.total = took
        if self._tunnel is not None:
            entry.bytes_received = self._tunnel.client_bytes
            entry.bytes_sent = self._tunnel.server_bytes
        access_log.write(entry)


class _Opening:
    """An endpoint's connection between its opening and the tunnel that takes it over; keeps what comes meanwhile."""

    __slots__ = ("_half_closes", "closed", "early")

    def __init__(self, half_closes: bool) -> None:
        """`half_closes`: whether it may have said all and still listen, which TLS does not know."""
        self._half_closes = half_closes
        self.closed = False
        self.early = Early()

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Whoever opened it has the transport."""

    def data_received(self, data: bytes) -> None:
        self.early.data += data

    def eof_received(self) -> bool:
        # A greeting and the end at once is an answer; the end alone is none.
        self.early.ended = bool(self.early.data) and self._half_closes
        self.closed = not self.early.ended
        return self.early.ended

    def connection_lost(self, _error: Exception | None) -> None:
        self.closed = True

    def pause_writing(self) -> None:
        """Nothing but a PROXY header is written here."""

    def resume_writing(self) -> None:
        """Nothing but a PROXY header is written here."""


class TcpProxy:
    """The TCP proxy as the composition root sees it."""

    def __init__(self, settings: Settings, means: Means) -> None:
        self._proxy_protocol = settings.proxy_protocol
        self._service = TcpService(settings, means)
        self._listener = Listener(settings, self._accept, means.counters)
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
