"""Where clients connect: accepted, counted, named by a PROXY header if there is one, secured, and given a protocol.

A client has its place from the moment it is accepted (place.py), so that those who never shake hands count as much as
those who ask. At LB_MAX_CONNECTIONS the connections that idle longest make room, then those whose request's head has
been coming longest; when there is neither, accepting pauses, and clients wait in the kernel's backlog instead of being
refused. Listening sockets stay open all the while.

Above 300 lines because accepting, counting and making room keep the same counts.
"""

from __future__ import annotations

import asyncio
import ssl
from ipaddress import ip_address
from socket import SocketType
from typing import TYPE_CHECKING, Final

import structlog

from balancer.balancing.outcome import LOCAL_ERRORS
from balancer.counters import Counters, count
from balancer.hosts import to_listen_at
from balancer.proxy import descriptors
from balancer.proxy.clients import Clients
from balancer.proxy.fields import address_of
from balancer.proxy.listening import BACKLOG, Acceptor, Listening, listen
from balancer.proxy.opening import Greeted, Greeting, Namer, Opening, Protocols, ProxyHeader
from balancer.proxy.place import PASSED, REQUESTS, TERMINATED, Addresses, Keeper, Place
from balancer.proxy.poller import Poller
from balancer.proxy.sorting import Sorter
from balancer.proxy.timers import TICK, Timed
from balancer.proxy.tls import Secured, TlsTransport
from balancer.proxy.transport import NOT_BEGUN, Transport

if TYPE_CHECKING:
    from balancer.settings import Settings

BURST: Final = 32
"""Connections accepted before others have their turn."""
CROWDED: Final = 0.9
"""Share of LB_MAX_CONNECTIONS from which on responses close their connections."""
EVICTED: Final = 0.02
"""Share of the idle connections that are closed at once: a search looks at all of them, so it closes many."""
GRACE: Final = 0.2
"""Seconds in which a connection is not taken for an idle one, though nothing comes."""
UNFINISHED: Final = 2.0
"""Seconds that a request's head may be coming before its connection makes room: a lost packet is sent again in one."""
SEARCHING: Final = 0.005
"""Share of the time, at most, that goes into searches which find nothing: where all are busy, each that ends and is
followed by another would look at all of them."""
RETRY: Final = 0.1
"""Seconds until accepting is tried again, when nothing else would wake it."""

__all__ = ["Door", "Protocols"]

log = structlog.get_logger()


class Door(Timed, Secured, Acceptor, Keeper, Namer, Greeted):
    """Listens at every host of LB_HOST, and gives each connection to the protocol that `protocols` makes."""

    __slots__ = (
        "_all_closed",
        "_counters",
        "_crowded",
        "_hosts",
        "_http2",
        "_listening",
        "_max_connections",
        "_max_connections_set",
        "_paused",
        "_places",
        "_poller",
        "_protocols",
        "_proxy_protocol",
        "_search_at",
        "_timeout",
        "_tls",
        "_trusted",
        "_warned_at",
        "clients",
        "port",
        "sorter",
    )

    def __init__(
        self, settings: Settings, protocols: Protocols, poller: Poller, counters: Counters, http2: bool = False
    ) -> None:
        super().__init__()
        self._hosts: tuple[str, ...] = settings.host
        self.port: int = settings.port
        """The port; for 0, once listening, the one that the kernel chose."""
        self._protocols = protocols
        self._poller = poller
        self._counters = counters
        self._http2 = http2
        self._max_connections: int = settings.max_connections
        self._max_connections_set: bool = "max_connections" in settings.model_fields_set
        limit: int | None = settings.max_connections_per_client
        self.clients = Clients(limit) if limit is not None else None
        """Connections by client; None: they are not limited."""
        self._trusted = settings.trusted_proxies
        self._proxy_protocol: bool = settings.proxy_protocol
        self._timeout: float = settings.request_timeout
        """Seconds for a TLS client to shake hands, and for an HTTP/2 client to send its preface."""
        self._listening: list[Listening] = []
        self._tls: ssl.SSLContext | None = None
        self.sorter: Sorter | None = None
        """Says what TLS clients want; None: all want requests. Once there is one, there always is."""
        self._places: set[Place] = set()
        self._paused = False
        self._crowded = False
        self._search_at = 0.0
        """When (s) to look again for connections to spare: there was none."""
        self._warned_at = float("-inf")
        self._all_closed = asyncio.Event()

    # Coming and leaving.

    def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen. Raises OSError, with a message that names the address, when one is taken or not ours."""
        self._tls = tls
        self._max_connections = descriptors.allowed_connections(self._max_connections, self._max_connections_set)
        try:
            for host in to_listen_at(self._hosts):
                sock = listen(host, self.port)
                self.port = sock.getsockname()[1]
                self._listening.append(Listening(self, self._poller, sock))
        except OSError:
            self._close_listening()
            raise

    def stop(self) -> None:
        """Accept what waits in the backlog, then stop listening: later connections are refused."""
        self._poller.wheel.forget(self)
        for listening in self._listening:
            for _ in range(BACKLOG // BURST):
                if self._paused or not self._accept_some(listening):
                    break
        self._close_listening()
        if not self._places:
            self._all_closed.set()

    async def all_closed(self) -> None:
        """Wait, once stopped, until no connection is open any more."""
        await self._all_closed.wait()

    def is_trusted(self, address: str) -> bool:
        """Whether `address` is in LB_TRUSTED_PROXIES."""
        if not self._trusted:
            return False
        try:
            ip = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return any(ip in network for network in self._trusted)

    # A connection's way in.

    def accept(self, listening: Listening) -> None:
        """Take the connections that wait, as far as there is room."""
        self._accept_some(listening)

    def _accept_some(self, listening: Listening) -> bool:
        """Take BURST connections at most; False when no more can be taken now."""
        for _ in range(BURST):
            if len(self._places) >= self._max_connections:
                if not self._make_room():
                    self._pause("every connection allowed is busy", "raise LB_MAX_CONNECTIONS")
                return False  # those that make room are gone when this batch of events is; then it goes on
            try:
                sock, address = listening.accept()
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno in LOCAL_ERRORS:
                    self._pause(error.strerror or "out of means", "raise ulimit -n")
                    return False
                continue  # it has gone again
            self._enter(sock, address)
        return True

    def named(self, transport: Transport, addresses: Addresses | None, rest: bytes) -> None:
        """A PROXY header has come: who the client is, and what came behind it."""
        place = transport.place
        if not isinstance(place, Place):
            return
        if addresses is not None:
            self._uncount(place)
            place.address, place.addresses = str(address_of(addresses[0])), addresses
            place.trusted = self.is_trusted(place.address)
            self._count(place)
        self._go_on(transport, place, rest)

    def released(self, place: Place) -> None:
        """A connection has ended: called by its place, once."""
        self._places.discard(place)
        self._uncount(place)
        self._counters.connections_open -= 1
        if not self._places and not self._listening:
            self._all_closed.set()
        if self._crowded and len(self._places) < self._max_connections * CROWDED:
            self._crowded = False
            self._protocols.crowded(False)
        if self._paused and len(self._places) < self._max_connections:
            self._resume()

    def _enter(self, sock: SocketType, address: str) -> None:
        place = Place(self, address, b"http" if self._tls is None else b"https", self._poller.clock())
        self._places.add(place)
        self._counters.connections_accepted += 1
        self._counters.connections_open += 1
        if not self._crowded and len(self._places) >= self._max_connections * CROWDED:
            self._crowded = True
            self._protocols.crowded(True)
        transport: Transport | None = None
        try:
            place.trusted = self.is_trusted(address)
            self._count(place)
            if self._tls is None or self.sorter is not None or (self._proxy_protocol and place.trusted):
                transport = Transport(self._poller, sock)
            else:
                transport = TlsTransport(self._poller, sock, self._tls, self)
            transport.place = place
            place.transport = transport
            transport.watch()
            if self._proxy_protocol and place.trusted:
                transport.attach(ProxyHeader(self, self._poller))
            else:
                self._go_on(transport, place, b"")
        except Exception:
            log.exception("a connection could not be taken")
            self._counters.faults += 1
            if transport is not None and transport.fd >= 0:
                transport.abort()
            else:
                sock.close()
                place.release()

    def _go_on(self, transport: Transport, place: Place, rest: bytes) -> None:
        """Secure the connection, or give it its protocol; `rest` has been read of it already."""
        if self._tls is None:
            self._attach(transport, place, rest)
        elif not place.allowed:
            transport.abort()  # an answer that says why would take a handshake
        elif isinstance(transport, TlsTransport):
            transport.begin(self._timeout)
        elif self.sorter is not None:
            transport.attach(Greeting(self, self._poller, self._timeout))
            if rest:
                transport.protocol.data_received(rest)
        else:
            self._secure(transport, place, self._tls, rest, self._timeout)

    def _secure(self, transport: Transport, place: Place, context: ssl.SSLContext, rest: bytes, timeout: float) -> None:
        """Shake hands on a connection that is plain as yet; `rest` has been read of it already."""
        secured = TlsTransport(self._poller, transport.sock, context, self)
        place.transport = secured
        try:
            secured.go_on_from(transport, timeout, rest)
        except Exception:
            secured.abort()  # the plain one is gone, and cannot be ended any more
            raise

    def _attach(self, transport: Transport, place: Place, rest: bytes) -> None:
        if place.carries != REQUESTS and self.sorter is not None:
            transport.attach(self.sorter.streams.make(place))
        elif self._http2 and self._tls is None and place.allowed:
            transport.attach(Opening(self._protocols, place, self._poller, self._timeout))
        elif self._http2 and place.alpn == "h2":
            transport.attach(self._protocols.make_http2(place))
        else:
            transport.attach(self._protocols.make(place))
        if rest and not transport.closing:
            transport.protocol.data_received(rest)

    # Called by a greeting.

    def greeted(self, transport: Transport, name: str, held: bytes) -> None:
        """A TLS client has said what it asks for."""
        place, sorter = transport.place, self.sorter
        if not isinstance(place, Place) or sorter is None or self._tls is None:
            return
        place.name = name
        place.carries = sorter.sort(name)
        if place.carries == PASSED:
            self._attach(transport, place, held)
        else:
            context = sorter.context if place.carries == TERMINATED else self._tls
            self._secure(transport, place, context, held, self._left(place))

    def not_greeted(self, transport: Transport, why: str, held: bytes) -> None:
        """It does not speak TLS, or not in time, or not as it should. Where requests are taken, an answer says so."""
        place, sorter = transport.place, self.sorter
        if isinstance(place, Place) and why == "not TLS" and sorter is not None and sorter.takes_requests:
            if self._tls is not None:
                self._secure(transport, place, self._tls, held, self._left(place))
            return
        count(self._counters.client_faults, "handshake timed out" if why == "too late" else "handshake failed")
        transport.abort()

    def _left(self, place: Place) -> float:
        """Seconds that are left for a handshake whose first message has taken some."""
        return max(self._timeout - (self._poller.clock() - place.began), TICK)

    # Called by a handshake.

    def secured(self, transport: TlsTransport) -> None:
        """The handshake is done: give the connection its protocol."""
        place = transport.place
        if isinstance(place, Place):
            place.alpn = transport.alpn
            self._attach(transport, place, b"")

    def not_secured(self, transport: TlsTransport, error: Exception | None) -> None:
        """The handshake has failed, or took too long."""
        count(self._counters.client_faults, "handshake timed out" if _late(error) else "handshake failed")

    def not_tls(self, transport: TlsTransport, data: bytes) -> bytes:
        """A client spoke first, and not TLS."""
        return self._protocols.not_tls(data)

    # Room.

    def _count(self, place: Place) -> None:
        if self.clients is None:
            return
        if place.trusted and (self._protocols.names_clients() or (self._proxy_protocol and place.addresses is None)):
            return  # a proxy, which will say who the client is, stands for many
        place.counted = place.allowed = self.clients.enter(place.address)
        if not place.allowed:
            count(self._counters.connections_refused, "too many connections from this client")

    def _uncount(self, place: Place) -> None:
        if place.counted and self.clients is not None:
            place.counted = False
            self.clients.leave(place.address)

    def _make_room(self) -> bool:
        """Close some of the connections that can best be spared; False when there is none to close."""
        now = self._poller.clock()
        if now < self._search_at:
            return False
        found = self._to_spare(now)
        for _, _, transport in found[: int(len(found) * EVICTED) + 1]:
            self._counters.connections_evicted += 1
            transport.protocol.evicted()
            transport.close()
        if not found:
            self._search_at = now + max(RETRY, (self._poller.clock() - now) / SEARCHING)
        return bool(found)

    def _to_spare(self, now: float) -> list[tuple[float, int, Transport]]:
        """Those that idle, the longest first: since when, a number, and the connection.

        Where none idles, those whose request's head has been coming for longest: who sends half a head to many
        connections would keep all others out for LB_REQUEST_TIMEOUT.
        """
        idle: list[tuple[float, int, Transport]] = []
        unfinished: list[tuple[float, int, Transport]] = []
        for number, place in enumerate(self._places):
            transport = place.transport
            if transport is not None and not transport.closing:
                since = transport.protocol.unused_since()
                if since == NOT_BEGUN:
                    since = place.began
                if 0.0 <= since <= now - GRACE:
                    idle.append((since, number, transport))
                elif since < 0.0:
                    since = transport.protocol.unfinished_since()
                    if 0.0 <= since <= now - UNFINISHED:
                        unfinished.append((since, number, transport))
        found = idle or unfinished
        found.sort()
        return found

    def _pause(self, why: str, remedy: str) -> None:
        self._paused = True
        for listening in self._listening:
            listening.pause()
        now = self._poller.clock()
        self._poller.wheel.arm(self, now + RETRY)
        if now - self._warned_at > 10.0:
            self._warned_at = now
            log.warning("accepting paused", why=why, connections=len(self._places), remedy=remedy)

    def _resume(self) -> None:
        self._paused = False
        for listening in self._listening:
            listening.resume()

    def expired(self, now: float) -> None:
        """Look again whether there is room."""
        if self._paused:
            self._resume()

    def _close_listening(self) -> None:
        for listening in self._listening:
            listening.close()
        self._listening = []


def _late(error: Exception | None) -> bool:
    return isinstance(error, TimeoutError)
