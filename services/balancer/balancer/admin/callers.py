"""The admin port's connections: a bounded number, so that nobody who opens many keeps probes and scrapes out.

The one that has been unused longest makes room for a new one; those amid an answer (event streams) go last.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Awaitable, Callable

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


def most_callers() -> int:
    """How many connections the port may have, by the limit of open files."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return MOST if files == resource.RLIM_INFINITY else max(LEAST, min(MOST, files // 8))


class Caller:
    """One connection."""

    __slots__ = ("busy", "transport", "unused_since")

    def __init__(self, now: float) -> None:
        self.transport: asyncio.Transport | None = None
        """None while it is being opened."""
        self.unused_since = now
        """When (s) it was accepted, or last answered."""
        self.busy = 0
        """Requests that are being answered on it."""


class Callers:
    """Accepts connections for aiohttp's server, and knows which of them are in use."""

    def __init__(self, most: int) -> None:
        self._most = most
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

    def _accept(self, listening: socket.socket) -> None:
        server = self._server
        if server is None:
            return
        for _ in range(BURST - len(self._opening)):
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
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _take(self, accepted: socket.socket, protocol: asyncio.Protocol, caller: Caller) -> None:
        try:
            caller.transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, accepted)
        except OSError:
            accepted.close()
            del self._open[protocol]

    def _make_room(self, number: int) -> None:
        """Forget so many connections: those that have closed, and as many more as that takes, which are closed."""
        for protocol, caller in list(self._open.items()):
            if caller.transport is not None and caller.transport.is_closing():
                del self._open[protocol]
                number -= 1
        if number <= 0:
            return
        closable = [each for each in self._open.items() if each[1].transport is not None]
        closable.sort(key=lambda each: (each[1].busy > 0, each[1].unused_since))
        for protocol, caller in closable[:number]:
            if caller.transport is not None:
                caller.transport.abort()
            del self._open[protocol]

    def _wait(self, listening: socket.socket) -> None:
        """No descriptor is left: one of ours makes room, or the others may have some soon."""
        self._make_room(1)
        self._loop.remove_reader(listening)
        self._loop.call_later(RETRY, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._listening:
            self._loop.add_reader(listening, self._accept, listening)
