"""Two connections joined end to end, bytes of any kind: a TCP connection balanced, or an upgraded one (WebSocket).

Half-close is kept in each direction, backpressure reaches the sender, and a reset is passed on as a reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from balancer.proxy.flow import HIGH_WATER, PEER_FULL, Intake
from balancer.proxy.timers import Timed, TimerWheel

if TYPE_CHECKING:
    from balancer.balancing.endpoint import Endpoint
    from balancer.counters import Counters
    from balancer.proxy.http.exchange import Exchange
    from balancer.proxy.http.service import HttpService
    from balancer.proxy.http.upstream import Upstream


class Tunnel(Timed):
    """Two sides, each other's peer. `ended` is called once, when both are closed."""

    __slots__ = (
        "_clock",
        "_counters",
        "_ended",
        "_idle_timeout",
        "_open",
        "_wheel",
        "client",
        "client_bytes",
        "endpoint",
        "server",
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
        self._open = 2
        self.client_bytes = 0
        """Bytes that came from the client."""
        self.server_bytes = 0
        """Bytes that came from the endpoint."""
        self.server_reset_first = False
        """Whether it ended by the endpoint's reset."""
        self.client = Side(self, is_client=True)
        self.server = Side(self, is_client=False)

    def start(self, client: asyncio.Transport, server: asyncio.Transport) -> None:
        """Join the two transports."""
        self.client.attach(client, self.server)
        self.server.attach(server, self.client)
        self.touched()

    def touched(self) -> None:
        """Something moved: silence is counted from now."""
        self._wheel.arm(self, self._clock() + self._idle_timeout)

    def count(self, is_client: bool, size: int) -> None:
        """`size` bytes came from the client, or from the endpoint."""
        if is_client:
            self.client_bytes += size
            self._counters.bytes_received += size
            self.endpoint.bytes_sent += size
        else:
            self.server_bytes += size
            self._counters.bytes_sent += size
            self.endpoint.bytes_received += size

    def side_closed(self, is_client: bool, error: Exception | None) -> None:
        """One side is gone."""
        if error is not None and not is_client and self._open == 2:
            self.server_reset_first = True
        self._open -= 1
        if self._open == 0:
            self._wheel.forget(self)
            self._ended(self)

    def abort(self) -> None:
        """Cut both sides."""
        self.client.cut()
        self.server.cut()

    def expired(self, now: float) -> None:
        self.client.transport.close()
        self.server.transport.close()


class Side:
    """One end of a tunnel: an asyncio protocol by its methods."""

    __slots__ = ("_finished", "_intake", "_is_client", "_tunnel", "peer", "transport")

    def __init__(self, tunnel: Tunnel, is_client: bool) -> None:
        self._tunnel = tunnel
        self._is_client = is_client
        self._finished = False

    def attach(self, transport: asyncio.Transport, peer: Side) -> None:
        """Take over an open transport."""
        self.transport = transport
        self.peer = peer
        self._intake = Intake(transport)
        transport.set_write_buffer_limits(HIGH_WATER)
        transport.set_protocol(self)  # type: ignore[arg-type]  # a protocol by its methods
        if not transport.is_reading() and not transport.is_closing():
            transport.resume_reading()

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Never called: the transport was open when it was attached."""

    def data_received(self, data: bytes) -> None:
        tunnel = self._tunnel
        tunnel.count(self._is_client, len(data))
        tunnel.touched()
        self.peer.transport.write(data)

    def eof_received(self) -> bool:
        self._finished = True
        peer = self.peer
        if peer._finished or not peer.transport.can_write_eof():
            # Both directions have ended (or TLS, which knows no half-close): what is unsent still goes out.
            peer.transport.close()
            return False
        peer.transport.write_eof()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._finished = True
        if error is not None:
            self.peer.cut()
        elif not self.peer.transport.is_closing():
            self.peer.transport.close()
        self._tunnel.side_closed(self._is_client, error)

    def pause_writing(self) -> None:
        self.peer._intake.stop(PEER_FULL)

    def resume_writing(self) -> None:
        self.peer._intake.go(PEER_FULL)

    def cut(self) -> None:
        """End this side by a reset, so that its far end does not take what it has for everything."""
        reset(self.transport)


def reset(transport: asyncio.Transport) -> None:
    """Close with a TCP reset (RST) instead of an orderly end."""
    if not transport.is_closing():
        connection = transport.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


class _Upgraded:
    """Ends the exchange of an upgraded connection when its tunnel ends."""

    __slots__ = ("_exchange", "_service")

    def __init__(self, service: HttpService, exchange: Exchange) -> None:
        self._service = service
        self._exchange = exchange

    def ended(self, tunnel: Tunnel) -> None:
        self._service.counters.tunnels_open -= 1
        self._service.clients.closed(self._exchange.downstream.peer.address)
        self._service.tunnels.discard(tunnel)
        tunnel.endpoint.connections_open -= 1
        self._exchange.tunnel_ended()


def join_upgraded(
    service: HttpService, exchange: Exchange, client: asyncio.Transport, sent_ahead: bytes, upstream: Upstream
) -> None:
    """Make a tunnel of a client's and an endpoint's connection after a 101; `sent_ahead` came behind the request."""
    server, came_behind = upstream.hand_over()
    if server is None:
        client.abort()
        exchange.tunnel_ended()
        return
    tunnel = Tunnel(
        upstream.endpoint,
        service.counters,
        service.wheel,
        service.clock,
        service.tunnel_idle_timeout,
        _Upgraded(service, exchange).ended,
    )
    service.counters.tunnels_open += 1
    service.tunnels.add(tunnel)
    tunnel.start(client, server)
    if came_behind:
        tunnel.server.data_received(came_behind)
    if sent_ahead:
        tunnel.client.data_received(sent_ahead)
