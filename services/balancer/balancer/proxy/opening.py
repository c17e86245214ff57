"""The first bytes of a connection, where they decide what it is: a PROXY header, TLS's, or HTTP/2's preface."""

from __future__ import annotations

from typing import Final

from mypy_extensions import mypyc_attr, trait

from balancer.proxy.client_hello import BadHello, ClientHello
from balancer.proxy.place import Addresses, Place
from balancer.proxy.poller import Poller
from balancer.proxy.proxy_protocol import BadProxyHeader, parse
from balancer.proxy.timers import Timed
from balancer.proxy.transport import NOT_BEGUN, Protocol, Transport

PROXY_TIMEOUT: Final = 5.0
"""Seconds for a PROXY header to come: a proxy sends it at once."""
HTTP2: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What an HTTP/2 client begins with (RFC 9113 §3.4)."""

METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT"})


@mypyc_attr(allow_interpreted_subclasses=True)
class Protocols:
    """Makes the protocol of each connection: what the proxy behind the door is."""

    def make(self, place: Place) -> Protocol:
        """For bytes of HTTP/1, or of anything in TCP mode."""
        raise NotImplementedError

    def make_http2(self, place: Place) -> Protocol:
        """For HTTP/2, agreed on by ALPN or begun with its preface; called only where the door serves HTTP/2."""
        raise NotImplementedError

    def names_clients(self) -> bool:
        """Whether a request names the client that a trusted proxy speaks for: its connection counts for nobody."""
        return False

    def not_tls(self, data: bytes) -> bytes:
        """What to say, in plain text, to a client of the TLS port that does not speak TLS; empty: nothing."""
        return b""

    def crowded(self, crowded: bool) -> None:
        """Nearly as many connections are open as may be, or no more."""


@trait
class Namer:
    """Learns who a client is from its PROXY header."""

    def named(self, transport: Transport, addresses: Addresses | None, rest: bytes) -> None:
        """A PROXY header has come: who the client is, and what came behind it."""
        raise NotImplementedError


class ProxyHeader(Timed, Protocol):
    """A connection whose PROXY header is awaited; without one, or with a bad one, it is closed."""

    __slots__ = ("_held", "_namer", "_poller", "_transport")

    def __init__(self, namer: Namer, poller: Poller) -> None:
        super().__init__()
        self._namer = namer
        self._poller = poller
        self._held = b""

    def connection_made(self, transport: Transport) -> None:
        self._transport = transport
        self._poller.wheel.arm(self, self._poller.clock() + PROXY_TIMEOUT)

    def data_received(self, data: bytes) -> None:
        self._held += data
        try:
            found = parse(self._held)
        except BadProxyHeader:
            self._transport.abort()
            return
        if found is not None:
            addresses, length = found
            self._poller.wheel.forget(self)
            self._namer.named(self._transport, addresses, self._held[length:])

    def connection_lost(self, error: Exception | None) -> None:
        self._poller.wheel.forget(self)

    def unused_since(self) -> float:
        return NOT_BEGUN

    def expired(self, now: float) -> None:
        self._transport.abort()


@trait
class Greeted:
    """Learns what a TLS client's first message says."""

    def greeted(self, transport: Transport, name: str, held: bytes) -> None:
        """It is whole, and asks for `name`; empty: for none. `held` is all that has come."""
        raise NotImplementedError

    def not_greeted(self, transport: Transport, why: str, held: bytes) -> None:
        """What has come is no such message."""
        raise NotImplementedError


class Greeting(Timed, Protocol):
    """A connection whose first TLS message is read, and stays as it is; in bounded time and of bounded length."""

    __slots__ = ("_greeted", "_held", "_hello", "_poller", "_timeout", "_transport")

    def __init__(self, greeted: Greeted, poller: Poller, timeout: float) -> None:
        """`timeout`: seconds for the whole message to come."""
        super().__init__()
        self._greeted = greeted
        self._poller = poller
        self._timeout = timeout
        self._hello = ClientHello()
        self._held: list[bytes] = []

    def connection_made(self, transport: Transport) -> None:
        self._transport = transport
        self._poller.wheel.arm(self, self._poller.clock() + self._timeout)

    def data_received(self, data: bytes) -> None:
        self._held.append(data)
        why = ""
        try:
            if not self._hello.feed(data):
                return
        except BadHello as error:
            why = str(error)
        self._poller.wheel.forget(self)
        held, self._held = b"".join(self._held), []
        if why:
            self._greeted.not_greeted(self._transport, why, held)
        else:
            self._greeted.greeted(self._transport, self._hello.name, held)

    def connection_lost(self, error: Exception | None) -> None:
        self._poller.wheel.forget(self)

    def unused_since(self) -> float:
        return NOT_BEGUN

    def expired(self, now: float) -> None:
        self._greeted.not_greeted(self._transport, "too late", b"")


class Opening(Timed, Protocol):
    """A connection in plain text that may turn out to be HTTP/1 or HTTP/2."""

    __slots__ = ("_held", "_place", "_poller", "_protocols", "_timeout", "_transport")

    def __init__(self, protocols: Protocols, place: Place, poller: Poller, timeout: float) -> None:
        """`timeout`: seconds for as many bytes to come as decide it."""
        super().__init__()
        self._protocols = protocols
        self._place = place
        self._poller = poller
        self._timeout = timeout
        self._held = b""

    def connection_made(self, transport: Transport) -> None:
        self._transport = transport
        self._poller.wheel.arm(self, self._poller.clock() + self._timeout)

    def data_received(self, data: bytes) -> None:
        held = self._held + data
        if HTTP2.startswith(held[: len(HTTP2)]):
            if len(held) < len(HTTP2):
                self._held = held
            else:
                self._go_on(self._protocols.make_http2(self._place), held)
        elif _is_no_http(held):
            # A client that meant HTTP/2 and erred must not be answered in HTTP/1 (RFC 9113 §3.4).
            self._transport.close()
        else:
            self._go_on(self._protocols.make(self._place), held)

    def connection_lost(self, error: Exception | None) -> None:
        self._poller.wheel.forget(self)

    def unused_since(self) -> float:
        return NOT_BEGUN

    def expired(self, now: float) -> None:
        self._transport.close()

    def _go_on(self, protocol: Protocol, held: bytes) -> None:
        self._poller.wheel.forget(self)
        transport = self._transport
        transport.attach(protocol)
        if not transport.closing:
            protocol.data_received(held)


def _is_no_http(data: bytes) -> bool:
    """Whether the first line is words alone, and none of them a method: no request that could be refused as one."""
    line = data.partition(b"\r\n")[0]
    return line.replace(b" ", b"").isalpha() and line.partition(b" ")[0] not in METHODS and len(line) < len(data)
