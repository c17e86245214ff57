"""All HTTP/1 connections to endpoints: opened when needed, kept for the next request, closed when nobody needs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from balancer.balancing.endpoint import Endpoint
from balancer.proxy.connector import Connector, Opener, failure_of
from balancer.proxy.endpoint_tls import Trust
from balancer.proxy.http1.client import ClientConnection, Owner
from balancer.proxy.http1.idle import Idle
from balancer.proxy.interfaces import NOT_PROCESSED, ClientStream, Connecting, Receiver, Upstreams
from balancer.proxy.poller import Idler
from balancer.proxy.service import Context
from balancer.proxy.timers import TimerWheel
from balancer.proxy.transport import Transport

if TYPE_CHECKING:
    from balancer.settings import Settings


MAX_IDLE: Final = 1024
"""Idle connections to one endpoint; in all as many as there are descriptors, the longest idle make room."""


class Http1Owner(Owner):
    """The idle connections, by endpoint: the one used last is used first."""

    __slots__ = ("_closed", "_idle", "_keepalive_timeout")

    def __init__(self, settings: Settings, wheel: TimerWheel, clock: Callable[[], float]) -> None:
        super().__init__(wheel, clock)
        self.response_timeout = settings.response_timeout
        self.idle_timeout = settings.idle_timeout
        self.max_header_bytes = settings.max_header_bytes
        self.max_headers = settings.max_headers
        self.reads_load = settings.endpoint_load
        self._keepalive_timeout: float = settings.upstream_keepalive_timeout
        self._idle: dict[Endpoint, Idle] = {}
        self._closed = False

    def take(self, endpoint: Endpoint, idle_since: float) -> ClientConnection | None:
        """The idle connection to `endpoint` that was used last, if that was not before `idle_since` (s)."""
        idle = self._idle.get(endpoint)
        connection = idle.top if idle is not None else None
        if idle is None or connection is None or connection.idle_since < idle_since:
            return None
        idle.remove(connection)
        endpoint.stats.connections_reused += 1
        return connection

    def give_back(self, connection: ClientConnection, now: float) -> None:
        endpoint = connection.endpoint
        if self._closed or not endpoint.discovered:
            self._close(connection)
            return
        connection.idle_since = now
        idle = self._idle.get(endpoint)
        if idle is None:
            idle = self._idle[endpoint] = Idle()
        idle.push(connection)
        if idle.count > MAX_IDLE and idle.bottom is not None:
            self._drop(idle, idle.bottom)
        self.wheel.arm(connection, now + self._keepalive_timeout)

    def keep(self, connection: ClientConnection, now: float) -> None:
        self.wheel.arm(connection, now + self._keepalive_timeout)

    def lost(self, connection: ClientConnection) -> None:
        self.wheel.forget(connection)
        if connection.idle:
            self._idle[connection.endpoint].remove(connection)

    def idle_to(self, endpoint: Endpoint) -> int:
        """How many idle connections to `endpoint` there are."""
        idle = self._idle.get(endpoint)
        return 0 if idle is None else idle.count

    def close_idle(self, endpoint: Endpoint) -> None:
        """Close the idle connections to an endpoint."""
        idle = self._idle.pop(endpoint, None)
        while idle is not None and idle.top is not None:
            connection = idle.top
            idle.remove(connection)
            self._close(connection)

    def make_room(self) -> bool:
        """Close the connection that has idled longest of all; False when none idles."""
        longest: Idle | None = None
        for idle in self._idle.values():
            bottom = idle.bottom
            if bottom is None:
                continue
            if longest is None or longest.bottom is None or bottom.idle_since < longest.bottom.idle_since:
                longest = idle
        if longest is None or longest.bottom is None:
            return False
        self._drop(longest, longest.bottom)
        return True

    def _drop(self, idle: Idle, connection: ClientConnection) -> None:
        idle.remove(connection)
        self._close(connection)

    def close(self) -> None:
        """Close every idle connection, and from now on each that becomes idle."""
        self._closed = True
        for endpoint in list(self._idle):
            self.close_idle(endpoint)

    def _close(self, connection: ClientConnection) -> None:
        self.wheel.forget(connection)
        if connection.transport is not None:
            connection.transport.close()


class Opening(Connecting, Opener):
    """A connection that is being opened for one receiver."""

    __slots__ = ("_began", "_endpoint", "_receiver", "_upstreams", "_way")

    def __init__(self, upstreams: Http1Upstreams, endpoint: Endpoint, receiver: Receiver) -> None:
        self._upstreams = upstreams
        self._endpoint = endpoint
        self._receiver = receiver
        self._began = upstreams.owner.clock()
        self._way = upstreams.connector.connect(endpoint.spec.host, endpoint.spec.port, self)

    def cancel(self) -> None:
        self._way.cancel()

    def stands_at(self) -> str:
        return self._way.stands_at()

    def opened(self, transport: Transport) -> None:
        owner = self._upstreams.owner
        try:
            connection = ClientConnection(owner, self._endpoint)
            transport.attach(connection)
            took = owner.clock() - self._began
            self._upstreams.counters.connect_seconds.observe(took)
            connection.receiver = self._receiver
            self._receiver.connected(connection, took)
        except Exception:
            self._receiver.crashed()
            raise

    def not_opened(self, error: Exception) -> None:
        try:
            self._receiver.attempt_failed(failure_of(error), NOT_PROCESSED, str(error))
        except Exception:
            self._receiver.crashed()
            raise


class Http1Upstreams(Upstreams, Idler):
    """Hands out HTTP/1 connections: each carries one request at a time."""

    __slots__ = ("connector", "counters", "owner")

    def __init__(self, settings: Settings, context: Context, trust: Trust | None = None) -> None:
        self.counters = context.counters
        self.owner = Http1Owner(settings, context.wheel, context.clock)
        self.connector = Connector(settings, context, ("http/1.1",), trust)
        context.poller.idlers.append(self)

    def take(self, endpoint: Endpoint, receiver: Receiver, idle_since: float) -> ClientStream | None:
        connection = self.owner.take(endpoint, idle_since)
        if connection is not None:
            connection.receiver = receiver
        return connection

    def connect(self, endpoint: Endpoint, receiver: Receiver) -> Connecting:
        return Opening(self, endpoint, receiver)

    def make_room(self) -> bool:
        return self.owner.make_room()

    def close_idle(self, endpoint: Endpoint) -> None:
        self.owner.close_idle(endpoint)

    def close(self) -> None:
        self.connector.poller.leave(self)
        self.owner.close()

    def idle_to(self, endpoint: Endpoint) -> int:
        return self.owner.idle_to(endpoint)
