"""The checks of all endpoints of a pool, off the request path, each at its time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from random import Random

import structlog

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.events import Subscriber
from balancer.balancing.pool import Pool
from balancer.probes.ask import Ask
from balancer.probes.schedule import Schedule, Streak
from balancer.proxy.endpoint_tls import Trust
from balancer.settings import Settings

MAX_AT_ONCE = 256
"""Checks under way at one time. When endpoints hang by the hundred, checks come late rather than in a burst."""

log = structlog.get_logger()


class Probes(Subscriber):
    """Checks every endpoint of the pool, and reports to the pool what it finds."""

    def __init__(
        self,
        pool: Pool,
        settings: Settings,
        clock: Callable[[], float],
        random: Random,
        trust: Trust | None = None,
    ) -> None:
        """`trust`: which authorities to trust by TLS, where that is not as the settings say."""
        self._pool = pool
        self._clock = clock
        self._rise = settings.health_rise
        self._fall = settings.health_fall
        self._schedule = Schedule(settings.health_interval, random)
        self._streaks: dict[Endpoint, Streak] = {}
        self._ask = Ask(settings, trust)
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)

    async def run(self) -> None:
        """Check until cancelled. To be run once."""
        self._pool.subscribe(self)
        for known in self._pool.endpoints:
            self._schedule.add(known, self._clock())
        async with asyncio.TaskGroup() as checks:
            while True:
                while (endpoint := self._schedule.due(self._clock())) is not None:
                    await self._slots.acquire()
                    checks.create_task(self._check(endpoint)).add_done_callback(self._free_slot)
                    await asyncio.sleep(0)  # between two checks that are due at once, requests have their turn
                self._wake.clear()
                soonest = self._schedule.soonest()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(soonest and max(0.0, soonest - self._clock())):
                        await self._wake.wait()

    def left(self, endpoint: Endpoint) -> None:
        """It is checked no more."""
        self._schedule.remove(endpoint)
        self._streaks.pop(endpoint, None)

    def joined(self, endpoint: Endpoint) -> None:
        """It is checked from now on."""
        self._schedule.add(endpoint, self._clock())
        self._wake.set()

    async def _check(self, endpoint: Endpoint) -> None:
        started = self._clock()
        try:
            why = await self._ask(endpoint)
        except OSError as error:  # one of LOCAL_ERRORS: no verdict
            log.warning("health check impossible", endpoint=endpoint.address, error=error.strerror)
        else:
            self._judge(endpoint, why)
        self._schedule.again(endpoint, started, self._clock())
        self._wake.set()

    def _judge(self, endpoint: Endpoint, why: str | None) -> None:
        if endpoint not in self._schedule:  # it left meanwhile
            return
        streak = self._streaks.get(endpoint)
        if streak is None:
            streak = self._streaks[endpoint] = Streak(self._rise, self._fall, endpoint.health.passing_probes)
        if streak.heard(why is None):
            if why is not None:
                log.warning("health checks fail", endpoint=endpoint.address, why=why)
            self._pool.set_health(endpoint, streak.healthy, self._clock(), why or "")

    def _free_slot(self, _task: asyncio.Task[None]) -> None:
        self._slots.release()
