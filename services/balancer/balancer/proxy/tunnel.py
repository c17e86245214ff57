"""Two connections joined end to end, bytes of any kind: a TCP connection balanced.

Half-close is kept in each direction, backpressure reaches the sender, and a reset is passed on as a reset.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from balancer.balancing.endpoint import Endpoint
from balancer.counters import Counters
from balancer.proxy.flow import PEER_FULL, Intake
from balancer.proxy.timers import Timed, TimerWheel
from balancer.proxy.transport import Protocol, Transport

LAST_WORD: Final = 2.0
"""Seconds that a side has, once its tunnel is over, to take what is unsent."""


class Early:
    """What came on a connection before it was joined to another."""

    __slots__ = ("data", "ended")

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self.ended = False
        """Whether that was the last (a half-close)."""


class Tunnel(Timed):
    """Two transports joined. `ended` is called once, when both are closed.

    Each transport holds its side, a side holds the tunnel, and nothing holds a side: so all of it is gone with the two
    transports, and leaves the garbage collector nothing.
    """

    __slots__ = (
        "_client",
        "_client_open",
        "_clock",
        "_counters",
        "_ended",
        "_idle_timeout",
        "_server",
        "_server_open",
        "_wheel",
        "client_bytes",
        "endpoint",
        "reading",
        "server_bytes",
        "server_reset_first",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        counters: Counters,
        wheel: TimerWheel,
        clock: Callable[[], float],
        idle_timeout: float,
        ended: Callable[[Tunnel], None],
    ) -> None:
        super().__init__()
        self.endpoint = endpoint
        self._counters = counters
        self._wheel = wheel
        self._clock = clock
        self._idle_timeout = idle_timeout
        self._ended = ended
        self._client_open = True
        self._server_open = True
        self.reading = 2
        """Directions that have not come to their end."""
        self.client_bytes = 0
        """Bytes that came from the client."""
        self.server_bytes = 0
        """Bytes that came from the endpoint."""
        self.server_reset_first = False
        """Whether it ended by the endpoint's reset."""

    def start(self, client: Transport, server: Transport, sent: Early, came: Early) -> None:
        """Join the two transports; the client has `sent` something already, and something `came` from the endpoint."""
        self._client = client
        self._server = server
        client_intake, server_intake = Intake(client), Intake(server)
        client_side = Side(self, True, server, server_intake)
        server_side = Side(self, False, client, client_intake)
        _attach(client, client_side)
        _attach(server, server_side)
        self.touched()
        for side, early in ((server_side, came), (client_side, sent)):
            if early.data:
                side.data_received(early.data)
            if early.ended:
                side.eof_received()

    def touched(self) -> None:
        """Something moved: silence is counted from now."""
        self._wheel.arm(self, self._clock() + self._idle_timeout)

    def count(self, is_client: bool, size: int) -> None:
        """`size` bytes came from the client, or from the endpoint."""
        if is_client:
            self.client_bytes += size
            self._counters.bytes_received += size
            self.endpoint.stats.bytes_sent += size
        else:
            self.server_bytes += size
            self._counters.bytes_sent += size
            self.endpoint.stats.bytes_received += size

    def side_closed(self, is_client: bool, error: Exception | None) -> None:
        """One side is gone."""
        if error is not None and not is_client and self._client_open and self._server_open:
            self.server_reset_first = True
        if is_client:
            self._client_open = False
        else:
            self._server_open = False
        if not self._client_open and not self._server_open:
            self._wheel.forget(self)
            self._ended(self)

    def crashed(self) -> None:
        self.abort()

    def abort(self) -> None:
        """Cut both sides."""
        self._client.abort()
        self._server.abort()

    def expired(self, now: float) -> None:
        self._client.close()
        self._server.close()


class Side(Protocol):
    """One end of a tunnel, which passes on to the peer what comes."""

    __slots__ = ("_finished", "_is_client", "_peer", "_peer_intake", "_tunnel")

    def __init__(self, tunnel: Tunnel, is_client: bool, peer: Transport, peer_intake: Intake) -> None:
        self._tunnel = tunnel
        self._is_client = is_client
        self._peer = peer
        self._peer_intake = peer_intake
        self._finished = False

    def connection_made(self, transport: Transport) -> None:
        """Never called: the transport was open when it was given to it."""

    def data_received(self, data: bytes) -> None:
        tunnel = self._tunnel
        tunnel.count(self._is_client, len(data))
        tunnel.touched()
        self._peer.write(data)

    def eof_received(self) -> bool:
        self._finish()
        peer = self._peer
        if self._tunnel.reading == 0 or not peer.can_write_eof():
            # Both directions have ended (or TLS, which knows no half-close): what is unsent still goes out.
            peer.close()
            return False
        peer.write_eof()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._finish()
        if error is not None:
            # A reset, so that the far end does not take what it has for everything.
            self._peer.abort()
        elif not self._peer.is_closing():
            self._peer.close()
        self._tunnel.side_closed(self._is_client, error)

    def pause_writing(self) -> None:
        self._peer_intake.pause(PEER_FULL)

    def resume_writing(self) -> None:
        self._peer_intake.resume(PEER_FULL)

    def _finish(self) -> None:
        """Nothing more comes from here."""
        if not self._finished:
            self._finished = True
            self._tunnel.reading -= 1


def _attach(transport: Transport, side: Side) -> None:
    """Let `side` take over an open transport."""
    transport.patience = LAST_WORD
    transport.set_protocol(side)
    transport.resume_reading()
