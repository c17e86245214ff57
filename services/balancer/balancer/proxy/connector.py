"""Opening connections to endpoints: no task, no name asked on the data path, and every address of a name tried."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mypy_extensions import trait

from balancer.balancing.outcome import LOCAL_ERRORS, Kind, of_connect_error
from balancer.proxy.endpoint_tls import EndpointTls, Trust
from balancer.proxy.listening import tune
from balancer.proxy.names import Address, Inquirer, Names
from balancer.proxy.poller import WRITE, Watched
from balancer.proxy.timers import TICK
from balancer.proxy.tls import Secured, TlsTransport
from balancer.proxy.transport import Transport

if TYPE_CHECKING:
    from balancer.proxy.service import Context
    from balancer.settings import Settings

UNDER_WAY: Final = frozenset({errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR})
HANDSHAKE_LIMIT: Final = 60.0
"""Seconds; the opener has a shorter limit of its own."""


def failure_of(error: Exception) -> Kind:
    """Whose fault it is that a connection could not be had."""
    if isinstance(error, ssl.SSLError):
        return Kind.CERTIFICATE if is_about_certificates(error) else Kind.HANDSHAKE
    if isinstance(error, TimeoutError):
        return Kind.CONNECT_TIMEOUT
    return of_connect_error(error.errno) if isinstance(error, OSError) else Kind.REFUSED


def is_about_certificates(error: Exception | None) -> bool:
    """Whether a certificate is what it failed for: the peer's, or, by an alert of the peer's, ours."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return True
    reason = getattr(error, "reason", None) or "" if isinstance(error, ssl.SSLError) else ""  # ours have none
    return "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)


@trait
class Opener:
    """Asks for a connection, and gets its result by one call, unless it cancels."""

    def opened(self, transport: Transport) -> None:
        """It is open, secured where it was to be: `attach` a protocol to it."""
        raise NotImplementedError

    def not_opened(self, error: Exception) -> None:
        """It could not be had: an OSError, ssl.SSLError among them."""
        raise NotImplementedError


class Connector:
    """Opens connections to endpoints, by one timeout and one kind of TLS."""

    __slots__ = ("names", "poller", "timeout", "tls")

    def __init__(
        self, settings: Settings, context: Context, alpn: Sequence[str] = (), trust: Trust | None = None
    ) -> None:
        """`alpn`: the protocols to offer with TLS; `trust`: use it, and its authorities, whatever the settings say.

        Raises OSError when a certificate's file can't be read.
        """
        self.poller = context.poller
        self.names = Names(context.clock, context.wheel)
        self.timeout: float = settings.connect_timeout
        """Seconds; after half of them a name's next address is tried. The opener limits the whole."""
        self.tls = EndpointTls(settings, alpn, trust) if settings.upstream_tls or trust is not None else None
        """How connections are secured; None: they are not."""

    def connect(self, host: str, port: int, opener: Opener, proxy_header: bytes = b"", agreed: str = "") -> Connecting:
        """Open a connection; `proxy_header` is sent before anything else. `opener` is called later, never in this call.

        `agreed`: the protocol to offer by ALPN instead of the usual ones.
        """
        connecting = Connecting(self, host, opener, proxy_header, agreed)
        addresses = self.names.known(host)
        if addresses is not None:
            connecting.begin(addresses, port)
        else:
            self.names.ask(host, port, connecting)
        return connecting


class Connecting(Watched, Secured, Inquirer):
    """One connection on its way."""

    __slots__ = (
        "_address",
        "_addresses",
        "_agreed",
        "_connector",
        "_error",
        "_first",
        "_host",
        "_opener",
        "_port",
        "_proxy_header",
        "_sock",
        "_transport",
    )

    def __init__(self, connector: Connector, host: str, opener: Opener, proxy_header: bytes, agreed: str) -> None:
        super().__init__()
        self._agreed = agreed
        self._connector = connector
        self._host = host
        self._opener: Opener | None = opener
        self._proxy_header = proxy_header
        self._address = ""
        """The one being tried."""
        self._addresses: list[Address] = []
        self._port = 0
        self._sock: socket.socket | None = None
        self._transport: TlsTransport | None = None
        self._error: Exception | None = None
        self._first = True
        """Whether no address has been tried yet."""

    def stands_at(self) -> str:
        """What is waited for, where it is not the connection itself; empty: that."""
        return "TLS handshake" if self._transport is not None else ""

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self._opener = None
        self._give_up_socket()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def begin(self, addresses: list[Address], port: int) -> None:
        """Try the addresses, one after the other."""
        self._addresses = list(addresses)
        self._port = port
        self._next()

    def failed(self, error: Exception) -> None:
        """It has failed: report that, after the current callback has returned."""
        self._error = error
        self._connector.poller.later(self)

    # What the poller and the wheel call.

    def ready(self, events: int) -> None:
        sock = self._sock
        if sock is None:
            return
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._refused(OSError(number, os.strerror(number)))
        else:
            self._connected(sock)

    def expired(self, now: float) -> None:
        """The address does not answer: try the next."""
        if self._addresses:
            self._refused(TimeoutError("connecting timed out"))

    def crashed(self) -> None:
        opener = self._opener
        self.cancel()
        if opener is not None:
            opener.not_opened(OSError("internal fault"))

    def settle(self) -> None:
        error, self._error = self._error, None
        opener = self._opener
        if opener is None:
            return
        if error is not None:
            self._opener = None
            opener.not_opened(error)
        elif self._sock is not None:
            self._connected(self._sock)

    # Its way.

    def _next(self) -> None:
        poller = self._connector.poller
        family, address = self._addresses.pop(0)
        self._address = address
        sock = None
        try:
            poller.take_descriptor()
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            tune(sock)
            number = sock.connect_ex((address, self._port))
        except OSError as error:
            if sock is not None:
                sock.close()
            self._refused(error)
            return
        if number and number not in UNDER_WAY:
            sock.close()
            self._refused(OSError(number, os.strerror(number)))
            return
        self._sock = sock
        poller.add(self, sock.fileno(), WRITE)
        if self._addresses:
            # Half of the time for the first, and what is left for all others together.
            left = self._connector.timeout / 2 if self._first else self._connector.timeout / 2 / len(self._addresses)
            self._first = False
            poller.wheel.arm(self, poller.clock() + max(0.0, left - TICK))
        if not number:
            poller.later(self)  # loopback: it is open already

    def _refused(self, error: OSError) -> None:
        self._give_up_socket()
        if self._addresses and self._opener is not None:
            self._connector.names.silent(self._host, self._address)
            self._next()
        else:
            self.failed(error)

    def _connected(self, sock: socket.socket) -> None:
        connector, poller = self._connector, self._connector.poller
        poller.wheel.forget(self)
        self._sock = None
        opener = self._opener
        if opener is None:
            poller.close(self, sock)
            return
        tls = connector.tls
        if tls is None:
            self._opener = None
            transport = Transport(poller, sock, patient=True)
            transport.take_over(self)
            if self._proxy_header:
                transport.write(self._proxy_header)
            _hand_over(opener, transport)
            return
        context = tls.context(poller.clock(), self._agreed)
        secured = TlsTransport(poller, sock, context, self, tls.name or self._host.rstrip("."), patient=True)
        secured.take_over(self)
        self._transport = secured
        if self._proxy_header:
            secured.write_plain(self._proxy_header)
        secured.begin(HANDSHAKE_LIMIT)

    def _give_up_socket(self) -> None:
        poller = self._connector.poller
        poller.wheel.forget(self)
        sock, self._sock = self._sock, None
        if sock is not None:
            poller.close(self, sock)

    # Called by a handshake.

    def secured(self, transport: TlsTransport) -> None:
        """The endpoint is who it should be."""
        self._transport = None
        opener, self._opener = self._opener, None
        if opener is None:
            transport.abort()
            return
        tls = self._connector.tls
        if tls is not None and not tls.accepts(transport.ssl_object):
            transport.abort()
            opener.not_opened(
                ssl.SSLCertVerificationError("the certificate is for none of the names that it must be for")
            )
            return
        _hand_over(opener, transport)

    def not_secured(self, transport: TlsTransport, error: Exception | None) -> None:
        """It is not, or has gone."""
        self._transport = None
        opener, self._opener = self._opener, None
        if opener is not None:
            opener.not_opened(_in_handshake(error))


def _in_handshake(error: Exception | None) -> Exception:
    """What to say of a handshake that has failed: a connection that only ended was not refused."""
    if isinstance(error, (ssl.SSLError, TimeoutError)) or getattr(error, "errno", None) in LOCAL_ERRORS:
        return error or ssl.SSLError()
    said = "reset in the handshake" if isinstance(error, ConnectionResetError) else "closed in the handshake"
    return ssl.SSLError(1, said)


def _hand_over(opener: Opener, transport: Transport) -> None:
    """Give an open connection to who has asked for it; it is closed if they fail."""
    try:
        opener.opened(transport)
    except Exception:
        transport.abort()
        raise
