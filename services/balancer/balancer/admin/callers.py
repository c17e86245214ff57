"""The admin port's connections: a bounded number, so that nobody who opens many keeps probes and scrapes out.

The one that has been unused longest makes room for a new one; those amid an answer (event streams) go last.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import web

from balancer.balancing.outcome import LOCAL_ERRORS

MOST = 256
"""Connections at once, or an eighth of the files that may be open: the data plane counts on the rest."""
LEAST = 16
BACKLOG = 128
BURST = 8
"""Connections accepted before others have their turn, and being opened at once."""
RETRY = 0.1
"""Seconds until accepting is tried again, where nothing of ours could make room."""
HANDSHAKE_TIMEOUT = 10.0
"""Seconds in which a client must have said something, and agreed on TLS."""
SHUTDOWN_TIMEOUT = 1.0
"""Seconds that a client is given to confirm the end of TLS."""
MOST_UNREAD = 64
"""Pieces that are read, and not looked at, of what a client sends without TLS."""
RECORD = b"\x16"
"""What every TLS connection begins with: a record of the handshake."""
SAYS_TLS = b"This port speaks TLS: use https://\n"
PLAIN = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (
    len(SAYS_TLS),
    SAYS_TLS,
)


def most_callers() -> int:
    """How many connections the port may have, by the limit of open files."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return MOST if files == resource.RLIM_INFINITY else max(LEAST, min(MOST, files // 8))


class Caller:
    """One connection."""

    __slots__ = ("busy", "opening", "transport", "unused_since")

    def __init__(self, now: float) -> None:
        self.opening: asyncio.Task[None] | None = None
        """What opens it: a handshake is cut short by its end."""
        self.transport: asyncio.Transport | None = None
        """None while it is being opened."""
        self.unused_since = now
        """When (s) it was accepted, or last answered."""
        self.busy = 0
        """Requests that are being answered on it."""


class Callers:
    """Accepts connections for aiohttp's server, and knows which of them are in use."""

    def __init__(self, most: int, tls: ssl.SSLContext | None = None) -> None:
        """`tls`: what all must speak."""
        self._most = most
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._open: dict[asyncio.BaseProtocol, Caller] = {}
        self._listening: list[socket.socket] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._server: web.Server | None = None

    @web.middleware
    async def middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Note which connections are in use."""
        caller = self._open.get(request.protocol)
        if caller is None:
            return await handler(request)
        caller.busy += 1
        try:
            return await handler(request)
        finally:
            caller.busy -= 1
            caller.unused_since = self._loop.time()

    def listen(self, server: web.Server, host: str, port: int) -> int:
        """Accept connections at `port` of `host` for `server`; the port in use. Raises OSError."""
        self._server = server
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
        listening.setblocking(False)
        self._listening.append(listening)
        self._loop.add_reader(listening, self._accept, listening)
        return int(listening.getsockname()[1])

    def close(self) -> None:
        """Accept no more; what is open is the server's to end."""
        for listening in self._listening:
            self._loop.remove_reader(listening)
            listening.close()
        self._listening = []
        for opening in self._opening:
            opening.cancel()

    def _accept(self, listening: socket.socket) -> None:
        server = self._server
        if server is None:
            return
        # A handshake may take long: those that are under way hold up nobody, and make room like others.
        for _ in range(BURST if self._tls is not None else BURST - len(self._opening)):
            try:
                accepted, _address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in LOCAL_ERRORS:
                    self._wait(listening)
                    return
                continue  # it has gone again
            accepted.setblocking(False)
            if len(self._open) >= self._most:
                self._make_room(len(self._open) - self._most + 1)
            protocol = server()
            self._open[protocol] = caller = Caller(self._loop.time())
            task = self._loop.create_task(self._take(accepted, protocol, caller))
            caller.opening = task
            self._opening.add(task)
            task.add_done_callback(partial(self._taken, accepted, protocol, caller))

    async def _take(self, accepted: socket.socket, protocol: asyncio.Protocol, caller: Caller) -> None:
        with contextlib.suppress(OSError):
            if self._tls is not None:
                async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                    caller.transport = await self._secure(accepted, protocol, self._tls)
            else:
                caller.transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, accepted)

    def _taken(
        self, accepted: socket.socket, protocol: asyncio.Protocol, caller: Caller, opening: asyncio.Task[None]
    ) -> None:
        """It is open, or not to be had, or nobody waits for it any more."""
        self._opening.discard(opening)
        caller.opening = None
        if caller.transport is None:
            accepted.close()
            self._open.pop(protocol, None)

    async def _secure(
        self, accepted: socket.socket, protocol: asyncio.Protocol, tls: ssl.SSLContext
    ) -> asyncio.Transport | None:
        """Agree on TLS; None for a client that speaks plain HTTP, which gets to know what to do."""
        await self._something_said(accepted)
        if accepted.recv(1, socket.MSG_PEEK) in (RECORD, b""):
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: protocol,
                accepted,
                ssl=tls,
                ssl_handshake_timeout=2 * HANDSHAKE_TIMEOUT,  # ours comes first
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
            )
            return transport
        accepted.send(PLAIN)
        accepted.shutdown(socket.SHUT_WR)
        # Closed with something unread, it would be reset, and the answer lost.
        for _ in range(MOST_UNREAD):
            if not await self._loop.sock_recv(accepted, 65536):
                break
        return None

    async def _something_said(self, accepted: socket.socket) -> None:
        said = asyncio.Event()
        self._loop.add_reader(accepted, said.set)
        try:
            await said.wait()
        finally:
            self._loop.remove_reader(accepted)

    def _make_room(self, number: int) -> None:
        """Forget so many connections: those that have closed, and as many more as that takes, which are closed."""
        for protocol, caller in list(self._open.items()):
            if caller.transport is not None and caller.transport.is_closing():
                del self._open[protocol]
                number -= 1
        if number <= 0:
            return
        closable = [each for each in self._open.items() if each[1].transport is not None or self._tls is not None]
        closable.sort(key=lambda each: (each[1].busy > 0, each[1].unused_since))
        for protocol, caller in closable[:number]:
            if caller.transport is not None:
                caller.transport.abort()
            elif caller.opening is not None:
                caller.opening.cancel()
            del self._open[protocol]

    def _wait(self, listening: socket.socket) -> None:
        """No descriptor is left: one of ours makes room, or the others may have some soon."""
        self._make_room(1)
        self._loop.remove_reader(listening)
        self._loop.call_later(RETRY, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._listening:
            self._loop.add_reader(listening, self._accept, listening)
