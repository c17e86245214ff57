"""The connection on which this replica reports to one other."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Final

import aiohttp
import structlog

from balancer.peers.report import answered_by
from balancer.peers.reporter import Reporter

PING: Final = 10.0
"""Seconds without an answer after which the other is pinged, and let go if it does not answer that either."""
CONNECT_TIMEOUT: Final = 5.0
BACKOFF_FIRST: Final = 0.2
BACKOFF_MOST: Final = 5.0
OURSELVES: Final = 4000
"""Close code: the replica that was connected to is the one that connects."""
NOTHING: Final = -1
"""No report has reached the other yet."""
REFUSED: Final = 4001
"""Close code: what was sent is no report of this version."""

log = structlog.get_logger(__name__)


class Link:
    """Connects to one replica, again and again, and reports to it what changes here."""

    def __init__(self, reporter: Reporter, address: str, path: str, token: str, count: Callable[[str], None]) -> None:
        """`address` is `host:port`; `count` counts what happens, by kind."""
        self._reporter = reporter
        self.address = address
        self.peer = ""
        """The name of the replica, once it has said it."""
        self.problem = ""
        """Why nothing can be reported to it, in words; empty while it can."""
        self._url = f"ws://{address}{path}"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._count = count
        self._delay = 0.0
        """Seconds that a report takes to arrive."""
        self._asked_at: float | None = None
        """When the answer that is awaited was asked for (s)."""
        self._turned: asyncio.Future[None] | None = None
        """What is waited for before the next report."""

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Report until cancelled, or until it turns out that the other is ourselves."""
        backoff = BACKOFF_FIRST
        while True:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    socket = await session.ws_connect(self._url, headers=self._headers, heartbeat=PING)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                problem = _words(error)
                self._count("unreachable")
            else:
                backoff, self.problem = BACKOFF_FIRST, ""
                self._count("connected")
                async with socket:
                    await self._report(socket)
                if socket.close_code == OURSELVES:
                    return
                problem = "it cannot read this version's reports" if socket.close_code == REFUSED else ""
                self._count("disconnected")
            if problem and problem != self.problem:
                log.warning("peer unreachable", peer=self._url, error=problem)
            self.problem = problem
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, BACKOFF_MOST)

    async def _report(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Report on one connection until it ends."""
        reporter, last = self._reporter, NOTHING
        listener = asyncio.create_task(self._listen(socket))
        listener.add_done_callback(self._wake)
        try:
            while not listener.done():
                text, asks = reporter.message(last, self._delay)
                last = reporter.turn
                self._asked_at = self._asked_at or (time.perf_counter() if asks else None)
                begun = reporter.pace.begin()
                await socket.send_str(text)
                reporter.pace.spend(begun)
                self._count("sent")
                if not listener.done():
                    self._turned = reporter.turned()
                    await self._turned
        except (ConnectionError, aiohttp.ClientError):
            pass  # It is closed: `run` connects again.
        finally:
            self._asked_at = self._turned = None
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    def _wake(self, _: object) -> None:
        """The connection has ended: nobody is to wait for a report to notice."""
        if self._turned is not None and not self._turned.done():
            self._turned.set_result(None)

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Measure: an answer has come back after twice the time that a report takes. It says who answers."""
        async for message in socket:
            self.peer = answered_by(message.data) or self.peer
            if self._asked_at is not None:
                self._delay = (time.perf_counter() - self._asked_at) / 2
                self._asked_at = None


def _words(error: BaseException) -> str:
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"refused with status {error.status}" + (
            ": LB_PEERS_TOKEN is another there" if error.status == 401 else ""
        )
    if isinstance(error, aiohttp.ClientConnectorError) and error.errno:
        return f"cannot connect: {os.strerror(error.errno)}"
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_TIMEOUT:g} s"
    return str(error) or type(error).__name__
