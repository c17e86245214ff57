"""From a discovery to the pool: what comes alone is applied at once, what comes in a burst once more at its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest

from balancer.balancing.endpoint import EndpointSpec, Snapshot
from balancer.discovery import follow
from balancer.discovery.follow import MERGE


def snapshot(number: int) -> Snapshot:
    return (EndpointSpec("10.0.0.1", number),)


class Scripted:
    """Yields each snapshot after its pause (s), then stays open for `tail` seconds."""

    def __init__(self, *pauses: float, tail: float = 0.0) -> None:
        self.pauses = pauses
        self.tail = tail
        self.closed = False

    async def snapshots(self) -> AsyncGenerator[Snapshot, None]:
        try:
            for number, pause in enumerate(self.pauses, 1):
                await asyncio.sleep(pause)
                yield snapshot(number)
            await asyncio.sleep(self.tail)
        finally:
            self.closed = True


async def applied(source: Scripted) -> list[tuple[int, float]]:
    loop = asyncio.get_running_loop()
    started = loop.time()
    found: list[tuple[int, float]] = []
    await follow(source, lambda given: found.append((given[0].port, loop.time() - started)))
    return found


async def test_the_first_is_applied_at_once() -> None:
    ((number, after),) = await applied(Scripted(0.0, tail=0.2))
    assert number == 1
    assert after < MERGE


async def test_of_a_burst_the_first_and_the_last_are_applied() -> None:
    found = await applied(Scripted(0, 0, 0, 0, 0, tail=0.2))
    assert [number for number, _ in found] == [1, 5]
    assert found[1][1] - found[0][1] >= MERGE * 0.99


async def test_changes_further_apart_are_applied_each_and_at_once() -> None:
    found = await applied(Scripted(0, MERGE * 2, MERGE * 2))
    assert [number for number, _ in found] == [1, 2, 3]


async def test_what_is_held_back_is_applied_when_the_source_ends() -> None:
    assert [number for number, _ in await applied(Scripted(0, 0))] == [1, 2]


async def test_cancelling_closes_the_source_and_applies_nothing_more() -> None:
    source = Scripted(0, 0, tail=60)
    found: list[Snapshot] = []
    begun = asyncio.Event()

    def apply(given: Snapshot) -> None:
        found.append(given)
        begun.set()

    task = asyncio.create_task(follow(source, apply))
    await begun.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.closed
    await asyncio.sleep(MERGE * 2)
    assert found == [snapshot(1)]


async def test_a_snapshot_that_is_slow_to_apply_makes_the_next_wait_longer() -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []

    def slow(_: Snapshot) -> None:
        times.append(loop.time())
        time.sleep(MERGE)

    await follow(Scripted(0, 0.001, tail=MERGE * 10), slow)
    assert times[1] - times[0] >= MERGE * 4
