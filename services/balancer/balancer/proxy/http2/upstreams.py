"""HTTP/2 connections to the endpoints of one cluster: few, each with as many streams as its endpoint allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.outcome import Kind
from balancer.proxy.connector import Connector, Opener, failure_of
from balancer.proxy.http2.client import STREAMS_AT_FIRST, ClientConnection, Owner
from balancer.proxy.interfaces import NOT_PROCESSED, ClientStream, Connecting, Receiver
from balancer.proxy.tls import TlsTransport
from balancer.proxy.transport import Transport

if TYPE_CHECKING:
    from balancer.proxy.service import Context
    from balancer.settings import Settings


class Opening(Opener):
    """A connection that is being opened, and who waits for it."""

    __slots__ = ("_began", "_owner", "_way", "endpoint", "waiting")

    def __init__(self, owner: Http2Upstreams, endpoint: Endpoint) -> None:
        self._owner = owner
        self.endpoint = endpoint
        self.waiting: list[Waiting] = []
        self._began = owner.clock()
        self._way = owner.connector.connect(endpoint.spec.host, endpoint.spec.port, self)

    def left(self, waiting: Waiting) -> None:
        """One waits no more; the last one to leave ends it all."""
        if waiting in self.waiting:
            self.waiting.remove(waiting)
            if not self.waiting:
                self._owner.opened(self)
                self._way.cancel()

    def opened(self, transport: Transport) -> None:
        """It is open."""
        owner = self._owner
        owner.opened(self)
        secured = isinstance(transport, TlsTransport)
        if isinstance(transport, TlsTransport) and transport.alpn != "h2":
            transport.close()
            self._fail("does not speak h2")
            return
        connection = ClientConnection(owner, self.endpoint, b"https" if secured else b"http")
        transport.attach(connection)
        took = owner.clock() - self._began
        owner.counters.connect_seconds.observe(took)
        owner.keep(connection)
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            if connection.has_room or connection.ended or connection.closing:
                each.connected(connection, took)
            else:
                owner.wait(each, self.endpoint)

    def not_opened(self, error: Exception) -> None:
        """It could not be had."""
        self._owner.opened(self)
        self._fail(str(error), failure_of(error))

    def _fail(self, fault: str, kind: Kind = Kind.REFUSED) -> None:
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            receiver, each.receiver = each.receiver, None
            if receiver is not None:
                try:
                    receiver.attempt_failed(kind, NOT_PROCESSED, fault)
                except Exception:
                    receiver.crashed()
                    raise


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

    def connected(self, connection: ClientConnection, took: float) -> None:
        """It is there."""
        receiver, self.receiver = self.receiver, None
        if receiver is None:
            return
        try:
            if connection.ended:
                receiver.attempt_failed(Kind.REFUSED, NOT_PROCESSED, "closed at once")
            else:
                receiver.connected(connection.open(receiver), took)
        except Exception:
            receiver.crashed()
            raise


class Http2Upstreams(Owner):
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

    def take(self, endpoint: Endpoint, receiver: Receiver, idle_since: float) -> ClientStream | None:
        # However long it has idled: an endpoint that closes an HTTP/2 connection says by GOAWAY what it has not begun.
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
            if len(opening.waiting) < self.most.get(endpoint, STREAMS_AT_FIRST):
                break
        else:
            opening = Opening(self, endpoint)
            begun.append(opening)
        waiting.opening = opening
        opening.waiting.append(waiting)

    def opened(self, opening: Opening) -> None:
        """A connection is opened, or will never be."""
        begun = self._opening.get(opening.endpoint)
        if begun is not None and opening in begun:
            begun.remove(opening)
            if not begun:
                del self._opening[opening.endpoint]

    def keep(self, connection: ClientConnection) -> None:
        """Use a new connection for whoever comes."""
        endpoint = connection.endpoint
        if self._closed or not endpoint.discovered:
            connection.closing = True
        else:
            self._connections.setdefault(endpoint, []).append(connection)
        connection.rest(self.clock())

    def lost(self, connection: ClientConnection) -> None:
        self.wheel.forget(connection)
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
        for endpoint in list(self._connections):
            self.close_idle(endpoint)

    def idle_to(self, endpoint: Endpoint) -> int:
        connections = self._connections.get(endpoint)
        return 0 if connections is None else sum(1 for connection in connections if not connection.streams)
