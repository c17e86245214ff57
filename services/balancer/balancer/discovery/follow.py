"""From a discovery to the pool: the first change at once, those on its heels together, large ones in pieces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Final, Protocol

from balancer.balancing.endpoint import Snapshot
from balancer.discovery.pieces import PIECE

MERGE: Final = 0.05
"""Snapshots closer than this (s) are merged: a rollout's burst costs the pool one replacement, not fifty."""

BUSY: Final = 5
"""Applying takes at most one part in so many of the time: a rollout of 10,000 pods must not hold up the requests."""

Apply = Callable[[Snapshot], Iterator[object] | None]
"""Makes a snapshot the membership: at once, or step by step as its iterator is exhausted."""


class _Source(Protocol):
    def snapshots(self) -> AsyncGenerator[Snapshot, None]: ...


async def follow(discovery: _Source, apply: Apply) -> None:
    """Hand snapshots to `apply`, at most one in `MERGE` seconds and the latest always, until cancelled.

    A snapshot that comes later than that after the one before is applied in the same turn of the event loop, unless
    that takes longer than a `PIECE`: then the loop has turns in between.
    """
    merger = _Merger(apply)
    try:
        async with aclosing(discovery.snapshots()) as snapshots:
            async for snapshot in snapshots:
                merger.take(snapshot)
        while merger.busy:
            await asyncio.sleep(0)
            merger.flush()
    finally:
        merger.stop()


class _Merger:
    """Holds back what comes too soon; only the latest of it counts."""

    def __init__(self, apply: Apply) -> None:
        self._apply = apply
        self._loop = asyncio.get_running_loop()
        self._next = 0.0
        """When the next snapshot may be applied (s, the loop's time)."""
        self._held: Snapshot | None = None
        self._timer: asyncio.Handle | None = None
        """What goes on with the work, or begins the next."""
        self._work: Iterator[object] | None = None
        """What is left of the snapshot that is being applied."""
        self._took = 0.0
        """Seconds spent on it."""

    @property
    def busy(self) -> bool:
        return self._held is not None or self._work is not None

    def take(self, snapshot: Snapshot) -> None:
        self._held = snapshot
        if self._timer is None:
            if self._loop.time() >= self._next:
                self.flush()
            else:
                self._timer = self._loop.call_at(self._next, self.flush)

    def flush(self) -> None:
        """Go on with what is being applied, or begin with what is held."""
        self.stop()
        begun = time.perf_counter()  # uvloop's own time stands still within a turn
        if self._work is None:
            snapshot, self._held = self._held, None
            if snapshot is None:
                return
            self._took = 0.0
            self._work = self._apply(snapshot)
        done = self._go_on(begun)
        self._took += time.perf_counter() - begun
        if not done:
            self._timer = self._loop.call_soon(self.flush)
            return
        self._work = None
        self._next = self._loop.time() + max(MERGE, self._took * (BUSY - 1))
        if self._held is not None:
            self._timer = self._loop.call_at(self._next, self.flush)

    def _go_on(self, begun: float) -> bool:
        """One piece of the work; whether that was the last."""
        return all(time.perf_counter() - begun < PIECE for _ in self._work or ())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
