"""From a discovery to the pool: the first change at once, those that come hard on its heels together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

from balancer.balancing.endpoint import Snapshot

MERGE = 0.05
"""Snapshots closer than this (s) are merged: a rollout's burst costs the pool one replacement, not fifty."""

BUSY = 5
"""Applying takes at most one part in so many of the time: a rollout of 10,000 pods must not hold up the requests."""


class _Source(Protocol):
    def snapshots(self) -> AsyncGenerator[Snapshot, None]: ...


async def follow(discovery: _Source, apply: Callable[[Snapshot], None]) -> None:
    """Hand snapshots to `apply`, at most one in `MERGE` seconds and the latest always, until cancelled.

    A snapshot that comes later than that after the one before is applied in the same turn of the event loop.
    """
    merger = _Merger(apply)
    try:
        async with aclosing(discovery.snapshots()) as snapshots:
            async for snapshot in snapshots:
                merger.take(snapshot)
        merger.flush()
    finally:
        merger.stop()


class _Merger:
    """Holds back what comes too soon; only the latest of it counts."""

    def __init__(self, apply: Callable[[Snapshot], None]) -> None:
        self._apply = apply
        self._loop = asyncio.get_running_loop()
        self._next = 0.0
        """When the next snapshot may be applied (s, the loop's time)."""
        self._held: Snapshot | None = None
        self._timer: asyncio.TimerHandle | None = None

    def take(self, snapshot: Snapshot) -> None:
        self._held = snapshot
        if self._timer is None:
            if self._loop.time() >= self._next:
                self.flush()
            else:
                self._timer = self._loop.call_at(self._next, self.flush)

    def flush(self) -> None:
        self.stop()
        snapshot, self._held = self._held, None
        if snapshot is not None:
            begun = self._loop.time()
            self._apply(snapshot)
            took = self._loop.time() - begun
            self._next = begun + max(MERGE, took * BUSY)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
