"""The replicas of this balancer: a link to each, and what each of them says."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, Protocol

import aiohttp
import structlog
from aiohttp import WSMsgType, web

from balancer.balancing.endpoint import EndpointSpec, Snapshot
from balancer.balancing.pool import Pool
from balancer.peers.belief import SILENCE, Belief, Replica
from balancer.peers.fleet import FleetIntent
from balancer.peers.link import OURSELVES, REFUSED, Link
from balancer.peers.report import MAX_BYTES, BadReport, Intent, Status, answer, decode
from balancer.peers.reporter import Reporter
from balancer.peers.roster import Member, Roster

PATH: Final = "/peers"
HEARTBEAT: Final = 0.95
"""Seconds after which a tick reports though nothing has changed; that also measures the delay."""
ENDED: Final = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)

log = structlog.get_logger(__name__)


class Source(Protocol):
    """Says which replicas there are: a discovery of their admin ports."""

    def snapshots(self) -> AsyncGenerator[Snapshot, None]:
        """Every set of replicas, whole, as it becomes known."""


class Peers:
    """Reports this replica's load to the others, and receives theirs. `run` it as a task; `tick` it; serve `routes`."""

    def __init__(
        self,
        pool: Pool,
        source: Source,
        name: str,
        token: str,
        switch_strategy: Callable[[str], None],
        clock: Callable[[], float],
        status: Callable[[], Status | None] = lambda: None,
    ) -> None:
        """`name` is this replica's among the others; `token` is what all of them know; `status` is what this one says
        of itself.
        """
        self.name = name
        self.events: dict[str, int] = {}
        """What happened, by kind: connected, sent, received, refused, …"""
        self.fleet = FleetIntent(pool, switch_strategy, time.time)
        self.belief = Belief(pool, name)
        self._reporter = Reporter(pool, name, lambda: self.intent, status, lambda: self.belief.duration)
        self._beat_at = 0.0
        self._roster = Roster()
        self._source = source
        self._token = token
        self._clock = clock
        self._links: dict[str, tuple[Link, asyncio.Task[None]]] = {}
        """By the address of the replica."""
        self._hearing: dict[str, asyncio.Transport | None] = {}
        """The connection on which each replica speaks, the latest."""

    @property
    def intent(self) -> Intent:
        """What was asked of the whole fleet."""
        return self.fleet.intent

    @property
    def heard(self) -> list[Replica]:
        """The replicas that are heard, by name."""
        return list(self.belief.replicas)

    @property
    def members(self) -> list[Member]:
        """Every other replica that is heard, was, or should be."""
        return self._roster.members([link for link, _ in self._links.values()], self._clock())

    def strategy_switched(self, name: str) -> None:
        """The fleet's strategy was switched here."""
        self.fleet.strategy(name)
        self._reporter.arm()

    def drained(self, address: str, drained: bool) -> None:
        """An endpoint was drained in the whole fleet, or taken back, here."""
        self.fleet.drain(address, drained)
        self._reporter.arm()

    def routes(self) -> list[web.RouteDef]:
        """Where the others speak to this one."""
        return [web.get(PATH, self.hear, allow_head=False)]

    async def run(self) -> None:
        """Link to every replica there is, until cancelled."""
        async with aiohttp.ClientSession() as session:
            self._reporter.start()
            try:
                async with aclosing(self._source.snapshots()) as snapshots:
                    async for snapshot in snapshots:
                        self._link(snapshot, session)
                await asyncio.get_running_loop().create_future()
            finally:
                self._reporter.stop()
                tasks = [task for _, task in self._links.values()]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def tick(self, now: float) -> None:
        """Let time pass: news ages. Called every 100 ms, with the pool's, so that nothing is awoken for this alone."""
        self.belief.tick(now)
        for name, transport in self._hearing.items():
            if transport is not None and not self.belief.knows(name):
                transport.abort()  # It has been silent for too long: it may connect again.
        self.fleet.enforce(now)
        self._beat_if(now - self._beat_at >= HEARTBEAT, now)

    async def hear(self, request: web.Request) -> web.StreamResponse:
        """Another replica speaks, on one connection, until it closes."""
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token.encode()):
            self._count("unauthorized")
            log.warning("peer refused", client=request.remote, remedy="give all replicas the same LB_PEERS_TOKEN")
            return web.json_response({"error": "Replicas alone speak here, with LB_PEERS_TOKEN."}, status=401)
        # It reports each second: no ping is needed to know that it is there.
        socket = web.WebSocketResponse(max_msg_size=MAX_BYTES, compress=False)
        await socket.prepare(request)
        name = ""
        try:
            message = await socket.receive(SILENCE)
            while message.type not in ENDED:
                if message.type is WSMsgType.TEXT:
                    name = await self._read(message.data, name, socket, request.transport)
                    if not name:
                        break
                message = await socket.receive()
        except TimeoutError:
            pass  # It has not said who it is.
        finally:
            if name and self._hearing.get(name) is request.transport:
                del self._hearing[name]
                self.belief.forget(name)
                self._roster.left(name, self._clock())
                log.info("peer left", peer=name)
        return socket

    async def _read(
        self, text: str, known: str, socket: web.WebSocketResponse, transport: asyncio.Transport | None
    ) -> str:
        """Take one report; the name of the replica, or "" once the connection has been closed for what it says."""
        try:
            report = decode(text)
        except BadReport as bad:
            self._count("refused")
            if sender := known or bad.replica:
                self._roster.refused(sender, str(bad), self._clock())
            log.warning("peer's report refused", peer=known or bad.replica, error=str(bad))
            await socket.close(code=REFUSED, message=str(bad)[:100].encode())
            return ""
        if report.replica == self.name:
            await socket.close(code=OURSELVES, message=b"this is you")
            return ""
        self._count("received")
        now = self._clock()
        self.belief.take(report, now)
        if not known:
            log.info("peer joined", peer=report.replica)
            self._hearing[report.replica] = transport
        if report.delay is not None or not known:
            self._roster.heard(report.replica, report.status, now)
            # All replicas beat together: each then wakes once a second for all of them.
            self._beat_if(now - self._beat_at >= HEARTBEAT / 2, now)
        if report.intent is not None:
            self.fleet.take(report.intent, report.replica, now)
            self._reporter.arm()
        self._reporter.pace.heard()
        if report.answer:
            await socket.send_str(answer(self.name))
        return report.replica

    def _link(self, snapshot: Snapshot, session: aiohttp.ClientSession) -> None:
        """Link to those that have come, and let go of those that have left."""
        wanted = {_address(spec) for spec in snapshot}
        for address in self._links.keys() - wanted:
            self._links.pop(address)[1].cancel()
        for address in wanted - self._links.keys():
            link = Link(self._reporter, address, PATH, self._token, self._count)
            task = asyncio.create_task(link.run(session), name=f"peer {address}")
            task.add_done_callback(_log_fault)
            self._links[address] = link, task

    def _beat_if(self, due: bool, now: float) -> None:
        if due:
            self._beat_at = now
            self._reporter.beat()

    def _count(self, event: str) -> None:
        self.events[event] = self.events.get(event, 0) + 1


def _address(spec: EndpointSpec) -> str:
    host = f"[{spec.host}]" if ":" in spec.host else spec.host
    return f"{host}:{spec.port}"


def _log_fault(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (fault := task.exception()) is not None:
        log.error("a link to a peer failed", error=repr(fault))
