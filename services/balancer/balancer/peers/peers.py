"""The replicas of this balancer: a link to each, and what each of them says."""

from __future__ import annotations

import asyncio
import hmac
import math
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, Protocol

import structlog
from aiohttp import web

from balancer.admin_trust import AdminTrust
from balancer.balancing.endpoint import Endpoint, Snapshot
from balancer.balancing.pool import Pool
from balancer.peers.belief import SILENCE, Belief, Replica
from balancer.peers.connection import Incoming
from balancer.peers.fleet import FleetIntent
from balancer.peers.frames import GOING_AWAY
from balancer.peers.hearing import Hearing
from balancer.peers.intent import Intent
from balancer.peers.lessons import Lessons
from balancer.peers.link import Link
from balancer.peers.report import MAX_BYTES, Status
from balancer.peers.reporter import Reporter
from balancer.peers.roster import Member, Roster

PATH: Final = "/peers"
SELDOM: Final = 0.45
"""Seconds between two ticks that do anything, while nothing is in flight anywhere."""
STRANGE: Final = 60.0
"""Seconds without a wrong token from a client after which the next is logged again."""
MOST_STRANGERS: Final = 64
"""Clients with a wrong token that are remembered, the latest."""

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
        trust: AdminTrust | None = None,
    ) -> None:
        """`name` is this replica's among the others; `token` is what all of them know; `status` is what this one says
        of itself; `trust`: they are spoken to by TLS.
        """
        self._trust = trust
        self.name = name
        self.events: defaultdict[str, int] = defaultdict(int)
        """What happened, by kind: connected, sent, received, refused, …"""
        self.fleet = FleetIntent(pool, switch_strategy, time.time)
        self.belief = Belief(pool, name)
        self._reporter = Reporter(pool, name, self.belief, self.fleet, status)
        self._ticked_at = 0.0
        self._roster = Roster()
        self._lessons = Lessons(pool, name, clock, self.events)
        self._hearing = Hearing(
            self._reporter, self.belief, self.fleet, self._roster, self._lessons, name, clock, self.events, self._wake
        )
        self._source = source
        self._token = token
        self._process = secrets.token_hex(8)
        """Shows whether a replica of this name is this one itself."""
        self._clock = clock
        self._links: dict[str, tuple[Link, asyncio.Task[None]]] = {}
        """By the address of the replica."""
        self._strangers: dict[str, float] = {}
        """When each client last came with a wrong token, by its address (s), in that order."""

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
        self._lessons.again()
        self._reporter.arm()

    def drained(self, address: str, drained: bool) -> None:
        """An endpoint was drained in the whole fleet, or taken back, here."""
        self.fleet.drain(address, drained)
        self._reporter.arm()

    def drains(self, endpoint: Endpoint) -> bool:
        """Whether all replicas were asked to drain `endpoint`."""
        return self.fleet.drains(endpoint)

    def routes(self) -> list[web.RouteDef]:
        """Where the others speak to this one."""
        return [web.get(PATH, self.hear, allow_head=False)]

    async def run(self) -> None:
        """Link to every replica there is, until cancelled."""
        self._reporter.start()
        try:
            async with aclosing(self._source.snapshots()) as snapshots:
                async for snapshot in snapshots:
                    self._link(snapshot)
            await asyncio.get_running_loop().create_future()
        finally:
            self._reporter.stop()
            tasks = [task for _, task in self._links.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for connection in list(self._hearing.open):
                connection.close(GOING_AWAY, "this replica stops")

    def tick(self, now: float) -> None:
        """Let time pass: news ages. Called every 100 ms, with the pool's, so that nothing is awoken for this alone."""
        if (
            now - self._ticked_at < SELDOM
            and self._reporter.rests
            and self.belief.is_empty
            and not self.intent.addresses
        ):
            return
        self._ticked_at = now
        self.belief.tick(now)
        self._hearing.end_silent(now)
        self.fleet.enforce(now)
        self._reporter.beat(now)

    async def hear(self, request: web.Request) -> web.StreamResponse:
        """Another replica speaks, on one connection, until it closes."""
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token.encode()):
            self._refused(request.remote or "unknown")
            return web.json_response({"error": "Replicas alone speak here, with LB_PEERS_TOKEN."}, status=401)
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        transport = request.transport
        if transport is None:
            return socket
        connection = Incoming(request.protocol, self._hearing.take, MAX_BYTES)
        connection.is_ours = request.query.get("from", self._process) == self._process
        transport.set_protocol(connection.protocol)
        connection.use(transport)
        stranger = asyncio.get_running_loop().call_later(SILENCE, _let_go, connection)
        try:
            await connection.closed
        finally:
            stranger.cancel()
            self._hearing.ended(connection)
        return socket

    def _refused(self, client: str) -> None:
        """Count that a client came with a wrong token, and log where that begins: it comes again every few seconds."""
        self.events["unauthorized"] += 1
        now = self._clock()
        before = self._strangers.pop(client, -math.inf)
        self._strangers[client] = now
        if len(self._strangers) > MOST_STRANGERS:
            del self._strangers[next(iter(self._strangers))]
        if now - before > STRANGE:
            log.warning("peer refused", client=client, remedy="give all replicas the same LB_PEERS_TOKEN")

    def _wake(self) -> None:
        """One has begun to speak here: it may have started again at an address that was given up for some seconds."""
        for link, _ in self._links.values():
            link.wake()

    def _link(self, snapshot: Snapshot) -> None:
        """Link to those that have come, and let go of those that have left."""
        wanted = {spec.address for spec in snapshot}
        for address in self._links.keys() - wanted:
            self._links.pop(address)[1].cancel()
        for address in wanted - self._links.keys():
            link = Link(
                self._reporter,
                address,
                f"{PATH}?from={self._process}",
                self._token,
                self.events,
                self._lessons.take,
                self._trust,
            )
            task = asyncio.create_task(link.run(), name=f"peer {address}")
            task.add_done_callback(_log_fault)
            self._links[address] = link, task


def _let_go(connection: Incoming) -> None:
    if not connection.name:
        connection.abort()


def _log_fault(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (fault := task.exception()) is not None:
        log.error("a link to a peer failed", error=repr(fault))
