"""The connection on which this replica reports to one other."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Final, Protocol

import aiohttp
import structlog

from balancer.balancing.pool import Pool
from balancer.peers.pace import Pace
from balancer.peers.report import Intent, Report, Status, answered_by

HEARTBEAT: Final = 1.0
"""Seconds after which a report goes out though nothing has changed; it also measures the delay."""
CONNECT_TIMEOUT: Final = 5.0
BACKOFF_FIRST: Final = 0.2
BACKOFF_MOST: Final = 5.0
OURSELVES: Final = 4000
"""Close code: the replica that was connected to is the one that connects."""
MANY: Final = 50_000
"""Addresses remembered as reported; where endpoints come and go, a whole report then begins again."""
REFUSED: Final = 4001
"""Close code: what was sent is no report of this version."""

log = structlog.get_logger(__name__)


class Speaker(Protocol):
    """What the links report of."""

    name: str
    pool: Pool
    pace: Pace

    @property
    def intent(self) -> Intent:
        """What was asked of the whole fleet."""

    def status(self) -> Status | None:
        """What this replica says of itself; None: nothing yet."""


class Link:
    """Connects to one replica, again and again, and reports to it what changes here."""

    def __init__(self, speaker: Speaker, address: str, path: str, token: str, count: Callable[[str], None]) -> None:
        """`address` is `host:port`; `count` counts what happens, by kind."""
        self._speaker = speaker
        self.address = address
        self.peer = ""
        """The name of the replica, once it has said it."""
        self.problem = ""
        """Why nothing can be reported to it, in words; empty while it can."""
        self._url = f"ws://{address}{path}"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._count = count
        self._reported: dict[str, int] = {}
        self._told_ejected: frozenset[str] = frozenset()
        self._told_intent = Intent()
        self._delay = 0.0
        """Seconds that a report takes to arrive."""
        self._asked_at: float | None = None
        """When the answer that is awaited was asked for (s)."""

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Report until cancelled, or until it turns out that the other is ourselves."""
        backoff = BACKOFF_FIRST
        while True:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    socket = await session.ws_connect(self._url, headers=self._headers, heartbeat=2.0)
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
        self._reported = {}
        self._asked_at = None
        listener = asyncio.create_task(self._listen(socket))
        pace, measured_at, whole = self._speaker.pace, 0.0, True
        try:
            while not socket.closed:
                cpu = time.thread_time()
                begun = time.perf_counter()
                measure = begun - measured_at >= HEARTBEAT
                report = self._changes(whole or len(self._reported) > 2 * MANY, measure)
                if report is not None:
                    if measure:
                        measured_at = begun
                        self._asked_at = self._asked_at or begun
                    await socket.send_str(report.encode())
                    self._count("sent")
                    whole = False
                pace.spend(time.thread_time() - cpu, report is not None)
                await pace.turn()
        except (ConnectionError, aiohttp.ClientError):
            pass  # It is closed: `run` connects again.
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Measure: an answer has come back after twice the time that a report takes. It says who answers."""
        async for message in socket:
            self.peer = answered_by(message.data) or self.peer
            if self._asked_at is not None:
                self._delay = (time.perf_counter() - self._asked_at) / 2
                self._asked_at = None

    def _changes(self, whole: bool, measure: bool) -> Report | None:
        """What has changed since the report before; None: nothing, and no answer is wanted."""
        speaker = self._speaker
        if whole:
            self._reported = {}
        reported = self._reported
        changed: dict[str, int] = {}
        for endpoint in speaker.pool.endpoints:
            in_flight = endpoint.in_flight
            address = endpoint.address
            if in_flight != reported.get(address, 0):
                changed[address] = reported[address] = in_flight
        ejected, intent = speaker.pool.ejected, speaker.intent
        if not (whole or measure or changed or ejected != self._told_ejected or intent is not self._told_intent):
            return None
        report = Report(
            speaker.name,
            changed,
            ejected if whole or ejected != self._told_ejected else None,
            # On average, what is reported has waited half a pause to be so.
            self._delay + speaker.pace.pause / 2,
            intent if whole or intent is not self._told_intent else None,
            speaker.status() if measure else None,
            whole,
            measure,
        )
        self._told_ejected, self._told_intent = ejected, intent
        return report


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
