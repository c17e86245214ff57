"""Where clients connect: listening sockets, the limits on connections, and the order of leaving.

A listening socket is opened once and stays open as long as we listen; accepting pauses by closing a duplicate of it,
so that clients wait in the kernel's backlog instead of being refused. So it does at LB_MAX_CONNECTIONS, which is
lowered at the start to what the limit of open files allows: file descriptors cannot run out.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from balancer.counters import Counters

if TYPE_CHECKING:
    from balancer.settings import Settings

BACKLOG: Final = 4096
RESUME_SHARE: Final = 0.95
"""Accepting goes on when fewer than this share of the connections allowed are open."""
FILES_RESERVED: Final = 64
"""File descriptors for everything but connections."""

log = structlog.get_logger()


class Accepting(Protocol):
    """What a new connection becomes: an asyncio protocol by its methods."""

    def connection_made(self, transport: asyncio.Transport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def connection_lost(self, error: Exception | None) -> None: ...


class Listener:
    """Listens at every host of LB_HOST, and gives each connection to the protocol that `accept` makes."""

    def __init__(self, settings: Settings, accept: Callable[[], Accepting], counters: Counters) -> None:
        self._hosts: tuple[str, ...] = settings.host
        self.port: int = settings.port
        """The port; for 0, once listening, the one that the kernel chose."""
        self._accept = accept
        self._counters = counters
        self._max_connections: int = settings.max_connections
        self._handshake_timeout: float = settings.request_timeout
        """Seconds for a TLS client to shake hands."""
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._tls: ssl.SSLContext | None = None
        self._paused = False
        self._changing: asyncio.Task[None] | None = None
        self._all_closed = asyncio.Event()

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen. Raises OSError, with a message that names the address, when one is taken or not ours."""
        self._tls = tls
        self._max_connections = allowed_connections(self._max_connections)
        try:
            for host in self._hosts:
                opened = _listen(host, self.port)
                self.port = opened.getsockname()[1]
                self._sockets.append(opened)
        except OSError:
            self._close_sockets()
            raise
        await self._serve()

    def opened(self) -> None:
        """A connection has been accepted."""
        self._counters.connections_accepted += 1
        self._counters.connections_open += 1
        if self._counters.connections_open >= self._max_connections and not self._paused:
            self._paused = True
            self._close_servers()
            log.warning(
                "accepting paused", connections=self._counters.connections_open, remedy="raise LB_MAX_CONNECTIONS"
            )

    def closed(self) -> None:
        """A connection has ended."""
        self._counters.connections_open -= 1
        if self._counters.connections_open == 0 and not self._sockets:
            self._all_closed.set()
        if self._paused and self._counters.connections_open < self._max_connections * RESUME_SHARE:
            self._paused = False
            log.info("accepting resumed", connections=self._counters.connections_open)
            self._changing = asyncio.get_running_loop().create_task(self._serve())

    async def stop(self) -> None:
        """Listen no more: who connects from now on is refused."""
        self._paused = False
        if self._changing is not None:
            self._changing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._changing
        self._close_servers()
        self._close_sockets()
        if self._counters.connections_open == 0:
            self._all_closed.set()

    async def all_closed(self) -> None:
        """Wait, once stopped, until no connection is open any more."""
        await self._all_closed.wait()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        for opened in self._sockets:
            server = await loop.create_server(
                self._accept,  # type: ignore[arg-type]  # a protocol by its methods
                sock=opened.dup(),
                backlog=BACKLOG,
                ssl=self._tls,
                ssl_handshake_timeout=self._handshake_timeout if self._tls is not None else None,
            )
            self._servers.append(server)

    def _close_servers(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()

    def _close_sockets(self) -> None:
        for opened in self._sockets:
            opened.close()
        self._sockets.clear()


def allowed_connections(wanted: int) -> int:
    """Raise the limit of open files as far as we may, and lower `wanted` to what it then allows, two files each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * wanted + FILES_RESERVED
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    allowed = max(1, (soft - FILES_RESERVED) // 2)
    log.info("fewer connections than LB_MAX_CONNECTIONS", allowed=allowed, open_files=soft, remedy="raise ulimit -n")
    return allowed


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # `::` and `0.0.0.0` are told separately, and may both be asked for.
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.setblocking(False)
        opened.bind((host, port))
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise OSError(error.errno, f"cannot listen at {host} port {port}: {error.strerror}") from error
    return opened
