"""HTTP/2 connections to the endpoints of one cluster: few, each with as many streams as its endpoint allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.outcome import Kind
from balancer.proxy.connector import Connector, Opener, failure_of
from balancer.proxy.http2.client import MOST_STREAMS, ClientConnection, Owner, Starter
from balancer.proxy.interfaces import NOT_PROCESSED, ClientStream, Connecting, Receiver
from balancer.proxy.poller import Idler
from balancer.proxy.tls import TlsTransport
from balancer.proxy.transport import Transport

if TYPE_CHECKING:
    from balancer.proxy.service import Context
    from balancer.settings import Settings

log = structlog.get_logger()


class Opening(Opener, Starter):
    """A connection that is being opened, until it carries streams, and who waits for it."""

    __slots__ = ("_began", "_connecting", "_connection", "_owner", "endpoint", "waiting")

    def __init__(self, owner: Http2Upstreams, endpoint: Endpoint) -> None:
        self._owner = owner
        self.endpoint = endpoint
        self.waiting: list[Waiting] = []
        self._connection: ClientConnection | None = None
        """Open, but the endpoint's SETTINGS have not come."""
        self._began = owner.limits.clock()
        self._connecting = owner.connector.connect(endpoint.spec.host, endpoint.spec.port, self)

    def stands_at(self) -> str:
        """What is waited for, beside the connection itself."""
        return "SETTINGS" if self._connection is not None else self._connecting.stands_at()

    def left(self, waiting: Waiting) -> None:
        """One waits no more; the last one to leave ends it all."""
        if waiting in self.waiting:
            self.waiting.remove(waiting)
            if not self.waiting:
                self._owner.no_longer_opening(self)
                self._connecting.cancel()
                connection, self._connection = self._connection, None
                if connection is not None:
                    connection.starter = None
                    connection.close()

    def opened(self, transport: Transport) -> None:
        """It is open. The time to connect is limited by each request that waits."""
        secured = isinstance(transport, TlsTransport)
        if isinstance(transport, TlsTransport) and transport.alpn != "h2":
            transport.close()
            self.not_ready(Kind.HANDSHAKE, "does not speak h2")
            return
        self._connection = ClientConnection(self._owner, self.endpoint, b"https" if secured else b"http", self)
        transport.attach(self._connection)

    def not_opened(self, error: Exception) -> None:
        """It could not be had."""
        self.not_ready(failure_of(error), str(error))

    def ready(self) -> None:
        """Give each that waits a stream, or let it wait for another connection."""
        owner = self._owner
        owner.no_longer_opening(self)
        connection, self._connection = self._connection, None
        if connection is None:
            return
        took = owner.limits.clock() - self._began
        owner.counters.connect_seconds.observe(took)
        owner.add(connection)
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            try:
                if connection.has_room:
                    each.connected(connection, took)
                elif connection.closing or connection.ended:
                    each.failed(Kind.REFUSED, "closed at once")
                else:
                    owner.wait(each, self.endpoint)
            except Exception:  # noqa: BLE001 (`_crashed` logs and counts it)
                self._crashed(each)

    def not_ready(self, kind: Kind, fault: str) -> None:
        """It never carried anything: what waits may go to another endpoint."""
        self._owner.no_longer_opening(self)
        self._connection = None
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            try:
                each.failed(kind, fault)
            except Exception:  # noqa: BLE001 (`_crashed` logs and counts it)
                self._crashed(each)

    def _crashed(self, waiting: Waiting) -> None:
        """A fault of ours ends one request; the others that wait go on."""
        self._owner.counters.faults += 1
        log.exception("a request that waited for a connection failed")  # noqa: LOG004 (called while it is handled)
        waiting.crashed()


class Waiting(Connecting):
    """One who waits for a connection."""

    __slots__ = ("opening", "receiver")

    def __init__(self, receiver: Receiver) -> None:
        self.opening: Opening | None = None
        self.receiver: Receiver | None = receiver

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self.receiver = None
        if self.opening is not None:
            self.opening.left(self)

    def stands_at(self) -> str:
        return "" if self.opening is None else self.opening.stands_at()

    def connected(self, connection: ClientConnection, took: float) -> None:
        """It is there, and has room."""
        if self.receiver is not None:
            self.receiver.connected(connection.open(self.receiver), took)
        self.receiver = None

    def failed(self, kind: Kind, fault: str) -> None:
        """It could not be had."""
        if self.receiver is not None:
            self.receiver.attempt_failed(kind, NOT_PROCESSED, fault)
        self.receiver = None

    def crashed(self) -> None:
        """One of the above has raised."""
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.crashed()


class Http2Upstreams(Owner, Idler):
    """Hands out streams; opens a connection where those that there are have no room."""

    __slots__ = ("_closed", "_connections", "_opening", "connector", "counters")

    def __init__(self, settings: Settings, context: Context, connector: Connector) -> None:
        """`connector`: where it secures connections, its context has to offer h2 by ALPN."""
        super().__init__(settings, context)
        self.connector = connector
        self.counters = context.counters
        self._connections: dict[Endpoint, list[ClientConnection]] = {}
        self._opening: dict[Endpoint, list[Opening]] = {}
        self._closed = False
        connector.poller.idlers.append(self)

    def make_room(self) -> bool:
        """Close the connection that has carried nothing for longest; False when each carries something."""
        idle = [each for connections in self._connections.values() for each in connections if not each.streams]
        if not idle:
            return False
        longest = idle[0]
        for each in idle:
            if each.idle_since < longest.idle_since:
                longest = each
        self.leaves(longest)
        longest.close_when_done()
        return True

    def take(self, endpoint: Endpoint, receiver: Receiver, idle_since: float) -> ClientStream | None:
        # `idle_since` does not matter: by GOAWAY an endpoint that closes says what it has not begun.
        connections = self._connections.get(endpoint)
        if connections is None:
            return None
        for connection in connections:
            if connection.has_room:
                endpoint.stats.connections_reused += 1
                return connection.open(receiver)
        return None

    def connect(self, endpoint: Endpoint, receiver: Receiver) -> Connecting:
        waiting = Waiting(receiver)
        self.wait(waiting, endpoint)
        return waiting

    def wait(self, waiting: Waiting, endpoint: Endpoint) -> None:
        """Let one wait for a connection that is being opened, or for one more."""
        begun = self._opening.setdefault(endpoint, [])
        for opening in begun:
            if len(opening.waiting) < self.most.get(endpoint, MOST_STREAMS):
                break
        else:
            opening = Opening(self, endpoint)
            begun.append(opening)
        waiting.opening = opening
        opening.waiting.append(waiting)

    def no_longer_opening(self, opening: Opening) -> None:
        """Forget a connection that is open now, or will never be."""
        begun = self._opening.get(opening.endpoint)
        if begun is not None and opening in begun:
            begun.remove(opening)
            if not begun:
                del self._opening[opening.endpoint]

    def add(self, connection: ClientConnection) -> None:
        """Add an open connection to those in use; close it after its streams where its endpoint is gone."""
        endpoint = connection.endpoint
        if self._closed or not endpoint.discovered:
            connection.closing = True
        else:
            self._connections.setdefault(endpoint, []).append(connection)
        connection.rest(self.limits.clock())

    def lost(self, connection: ClientConnection) -> None:
        self.limits.wheel.forget(connection)
        self.leaves(connection)

    def leaves(self, connection: ClientConnection) -> None:
        connections = self._connections.get(connection.endpoint)
        if connections is not None and connection in connections:
            connections.remove(connection)
            if not connections:
                del self._connections[connection.endpoint]

    def close_idle(self, endpoint: Endpoint) -> None:
        self.most.pop(endpoint, None)
        for connection in list(self._connections.get(endpoint, ())):
            self.leaves(connection)
            connection.close_when_done()

    def close(self) -> None:
        self._closed = True
        self.connector.poller.leave(self)
        for endpoint in list(self._connections):
            self.close_idle(endpoint)

    def idle_to(self, endpoint: Endpoint) -> int:
        connections = self._connections.get(endpoint)
        return 0 if connections is None else sum(1 for connection in connections if not connection.streams)
