"""The connection on which this replica reports to one other."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Final

import structlog

from balancer.admin_trust import AdminTrust
from balancer.peers.connection import UNREADABLE, Outgoing, RefusedError
from balancer.peers.frames import TEXT, frame
from balancer.peers.report import MAX_ANSWER, answered_by, is_report
from balancer.peers.reporter import Listener, Reporter, Turn

PATIENCE: Final = 10.0
"""Seconds after which an answer that has not come never will: the other is let go, and connected to again."""
CONNECT_TIMEOUT: Final = 5.0
BACKOFF_FIRST: Final = 0.2
BACKOFF_MOST: Final = 5.0
OURSELVES: Final = 4000
"""Close code: the replica that was connected to is the one that connects."""
SHUTDOWN_TIMEOUT: Final = 1.0
"""Seconds that the other is given to confirm the end of TLS."""
NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})
"""What OpenSSL says of an answer that is not TLS, by its version."""
NOTHING: Final = -1
"""No report has reached the other yet."""

log = structlog.get_logger(__name__)


class Link(Listener):
    """Connects to one replica, again and again, and reports to it what changes here."""

    def __init__(
        self,
        reporter: Reporter,
        address: str,
        path: str,
        token: str,
        events: defaultdict[str, int],
        learn: Callable[[bytes], None],
        trust: AdminTrust | None = None,
    ) -> None:
        """`address` is `host:port`; `events` counts what happens, by kind; `learn` takes what the other has learned;
        `trust`: the other is spoken to by TLS.
        """
        self._trust = trust
        self._reporter = reporter
        self._learn = learn
        self.address = address
        self.peer = ""
        """The name of the replica, once it has said it."""
        self.problem = ""
        """Why nothing can be reported to it, in words; empty while it can."""
        self._path = path
        self._token = token
        self._events = events
        self._delay = 0.0
        """Seconds that a report takes to arrive."""
        self._asked_at: float | None = None
        """When the answer that is awaited was asked for (s)."""
        self._connection: Outgoing | None = None
        self._last = NOTHING
        """Number of the last report that was sent on this connection."""
        self._backoff = BACKOFF_FIRST
        """Seconds until it is connected to again: more each time, until it has answered a report."""
        self._woken = asyncio.Event()
        """Set where it is not worth waiting for so long: another has connected here since this link failed."""

    async def run(self) -> None:
        """Report until cancelled, or until it turns out that the other is ourselves."""
        while True:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    connection = await self._connect()
            except (OSError, TimeoutError, RefusedError) as error:
                problem = _words(error, self._trust is not None)
                self._events["unreachable"] += 1
            else:
                self._events["connected"] += 1
                code = await self._report(connection)
                if code == OURSELVES:
                    return
                problem = "it cannot read this version's reports" if code == UNREADABLE else ""
                self._events["disconnected"] += 1
            if problem and problem != self.problem:
                log.warning("peer unreachable", peer=self.address, error=problem)
            self.problem = problem
            await self._back_off()

    def wake(self) -> None:
        """Another replica has connected here, perhaps this one: connect to it soon, if it is not reached now."""
        if self._connection is None:
            self._woken.set()

    def reported(self, turn: Turn) -> None:
        """Report it, and all of it to one who has missed what was before."""
        connection = self._connection
        if connection is None:
            return
        if self._asked_at is not None and time.perf_counter() - self._asked_at > PATIENCE:
            connection.abort()
        elif connection.full:
            self._asked_at = self._asked_at or time.perf_counter()  # That it reads again is awaited like an answer.
        elif self._last != turn.number - 1:
            self._report_all()
        else:
            self._last = turn.number
            self._send(
                turn.frame() if not turn.beat else frame(TEXT, turn.delayed(self._delay), masked=True), turn.asks
            )

    async def _connect(self) -> Outgoing:
        host, _, port = self.address.rpartition(":")
        connection = Outgoing(self.address, self._path, self._token, self._heard, MAX_ANSWER, self._resumed)
        loop = asyncio.get_running_loop()
        host, trust = host.strip("[]"), self._trust
        if trust is None:
            await loop.create_connection(lambda: connection.protocol, host, int(port))
        else:
            await loop.create_connection(
                lambda: connection.protocol,
                host,
                int(port),
                ssl=trust.context(),
                server_hostname=trust.name or host,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
            )
        try:
            await connection.opened
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _back_off(self) -> None:
        """Wait before the next attempt; for no longer than the shortest wait once woken, and never for less: two that
        fail must not wake each other without end.
        """
        await asyncio.sleep(BACKOFF_FIRST)
        try:
            async with asyncio.timeout(self._backoff - BACKOFF_FIRST):
                await self._woken.wait()
        except TimeoutError:
            self._backoff = min(2 * self._backoff, BACKOFF_MOST)
        else:
            self._backoff = BACKOFF_FIRST
            self._woken.clear()

    async def _report(self, connection: Outgoing) -> int:
        """Report on one connection until it ends; its close code."""
        self._woken.clear()
        self._connection = connection
        self._report_all()
        self._reporter.listeners.append(self)
        try:
            return await asyncio.shield(connection.closed)
        finally:
            self._reporter.listeners.remove(self)
            self._asked_at = self._connection = None
            connection.abort()

    def _resumed(self) -> None:
        if self._connection is not None and self._last != self._reporter.turn:
            self._report_all()

    def _report_all(self) -> None:
        self._last = self._reporter.turn
        self._send(frame(TEXT, self._reporter.whole(self._delay), masked=True), asks=True)

    def _send(self, data: bytes, asks: bool) -> None:
        if self._connection is None:
            return
        if asks and self._asked_at is None:
            self._asked_at = time.perf_counter()
        self._connection.write(data)
        self._events["sent"] += 1

    def _heard(self, text: bytes) -> None:
        """Measure: an answer has come back after twice the time that a report takes. It says who answers.

        Or take what the other has learned, which it sends to a new replica on this connection.
        """
        if is_report(text):
            self._learn(text)
            return
        self.peer = answered_by(text) or self.peer
        self._backoff, self.problem = BACKOFF_FIRST, ""
        if self._asked_at is not None:
            self._delay = (time.perf_counter() - self._asked_at) / 2
            self._asked_at = None


def _words(error: BaseException, by_tls: bool) -> str:
    if isinstance(error, RefusedError):
        if error.status == 400 and not by_tls:
            return f"{error}: it may speak TLS, and this replica does not (LB_ADMIN_TLS_CERT)"
        return f"{error}" + (": LB_PEERS_TOKEN is another there" if error.status == 401 else "")
    if isinstance(error, ssl.SSLError):
        return _words_of_tls(error)
    if isinstance(error, TimeoutError) and not error.errno:
        return f"no answer within {CONNECT_TIMEOUT:g} s"
    if isinstance(error, OSError) and error.errno:
        return f"cannot connect: {os.strerror(error.errno)}"
    return str(error) or type(error).__name__


def _words_of_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = "it must be LB_ADMIN_TLS_CERT of this replica too, or LB_PEERS_TLS_CA must have signed it"
        return f"its certificate is not trusted ({error.verify_message}): {remedy}"
    if error.reason in NO_TLS:
        return "it does not speak TLS, as this replica does: set LB_ADMIN_TLS_CERT there"
    return f"the TLS handshake failed: {error.reason or error}"
