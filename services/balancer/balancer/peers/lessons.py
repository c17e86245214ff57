"""What this replica has learned, given once to each that reports here; and what the others have, taken from them.

A replica that starts connects to all others, and gets it on these connections within milliseconds, before it has
chosen for itself. Nothing is sent while the strategy learns nothing, or has learned little; and all of it again after
the fleet's strategy was switched, since a replica whose strategy has learned nothing until then is new to it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Final

import structlog

from balancer.balancing.pool import Pool
from balancer.peers.connection import Incoming
from balancer.peers.frames import TEXT, frame
from balancer.peers.report import BadReport, Report, decode

PIECE_EVERY: Final = 0.002
"""Seconds between two pieces, in which both replicas do other things."""

log = structlog.get_logger(__name__)


class Lessons:
    """Gives and takes."""

    def __init__(self, pool: Pool, name: str, clock: Callable[[], float], events: defaultdict[str, int]) -> None:
        """`name` is this replica's; `events` counts what happens, by kind."""
        self._pool = pool
        self._name = name
        self._clock = clock
        self._events = events
        self._given: set[str] = set()
        """Replicas that have it."""
        self._giving: dict[str, asyncio.Task[None]] = {}
        self._taken: dict[str, tuple[int, int]] = {}
        """Endpoints and kinds that were learned from each replica that has more to say."""

    def again(self) -> None:
        """Give it to all of them again."""
        self._given.clear()

    def left(self, name: str) -> None:
        """A replica is gone: should it come back, it is a new one."""
        self._given.discard(name)
        task = self._giving.pop(name, None)
        if task is not None:
            task.cancel()

    def give(self, name: str, connection: Incoming) -> None:
        """A replica of that name listens on `connection`: give it what was learned here, if it has not got it."""
        if name in self._given or name in self._giving or not self._pool.has_learned:
            return
        task = self._giving[name] = asyncio.create_task(self._give(name, connection), name=f"lessons for {name}")
        task.add_done_callback(lambda done: self._ended(name, done))

    async def _give(self, name: str, connection: Incoming) -> None:
        for learned in self._pool.learned(self._clock()):
            connection.write(frame(TEXT, Report(self._name, learned=learned).encode(), masked=False))
            await asyncio.sleep(PIECE_EVERY)
            if connection.full:
                return  # It does not read; the next report of its own is another chance.
        self._given.add(name)
        self._events["handed_over"] += 1

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        if self._giving.get(name) is task:
            del self._giving[name]
        if task.cancelled():
            return
        fault = task.exception()
        if fault is not None:
            log.error("handing over to a peer failed", peer=name, error=repr(fault))

    def take(self, text: bytes) -> None:
        """A message from a replica that this one reports to: a piece of what it has learned."""
        try:
            report = decode(text)
        except BadReport:
            return  # Of a newer version: this one learns by itself.
        if report.learned is None:
            return
        endpoints, kinds = self._pool.take_over(report.learned, self._clock(), report.replica)
        before = self._taken.pop(report.replica, (0, 0))
        endpoints, kinds = endpoints + before[0], kinds + before[1]
        if not report.learned.last:
            self._taken[report.replica] = endpoints, kinds
            return
        self._given.add(report.replica)  # It knows that already.
        if endpoints or kinds:
            self._events["taken_over"] += 1
            log.info("learned from a peer", peer=report.replica, endpoints=endpoints, kinds=kinds)
