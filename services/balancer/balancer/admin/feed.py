"""Feeds the event stream: transitions and switches as they happen, figures and decisions once a second."""

from __future__ import annotations

import asyncio
import time

import structlog

from balancer import __version__
from balancer.admin.choices import Choices
from balancer.admin.events import Hub, encode
from balancer.admin.fleet import fleet_total, replicas_view
from balancer.admin.meter import HISTORY, Meter
from balancer.admin.remedies import place, read_only
from balancer.admin.status import Running
from balancer.admin.views import View
from balancer.balancing.endpoint import Endpoint
from balancer.balancing.events import Subscriber
from balancer.balancing.history import History

DECISIONS = 10
"""Decisions sent a second, at most: as many as a person can follow. /api/decisions has the last thousand."""
HAPPENED = 30
"""Transitions kept for a new listener."""
AT_FIRST = 40
"""Decisions sent to a new listener."""

log = structlog.get_logger(__name__)


class Feed(Subscriber):
    """Owns the hub, the meter and the task that runs once a second."""

    def __init__(self, running: Running) -> None:
        self.hub = Hub()
        self.meter = Meter(running)
        self.choices = Choices(running)
        self._running = running
        self._happened = History(HAPPENED)
        self._fleet_history = History(HISTORY)
        """The last five minutes of all replicas together."""
        self._told = float("-inf")
        self._strategy = running.pool.strategy_name
        """The one in force, as listeners know it."""
        self._task: asyncio.Task[None] | None = None
        running.pool.subscribe(self)

    def transition(self, endpoint: Endpoint | None, event: str, detail: str) -> None:
        """The pool's news."""
        counts = self._running.transitions
        counts[event] = counts.get(event, 0) + 1
        if event == "strategy":
            self._switched()
            return
        address = None if endpoint is None else endpoint.address
        cluster = None if endpoint is None else endpoint.cluster
        news: View = {
            "at": round(time.time(), 3),
            "cluster": cluster,
            "endpoint": address,
            "event": event,
            "detail": detail,
        }
        self._happened.append(news)
        self.hub.publish("transition", news)

    def _switched(self) -> None:
        """A pool chooses by another strategy: say so if it is that of LB_DISCOVERY, whichever replica was asked."""
        before, self._strategy = self._strategy, self._running.pool.strategy_name
        if before == self._strategy:
            return
        news: View = {"at": round(time.time(), 3), "before": before, **self.choices.view()}
        self._happened.append({"at": news["at"], "endpoint": None, "event": "strategy", "detail": news["strategy"]})
        self.hub.publish("strategy", news)

    def start(self) -> None:
        """Feed from now on."""
        self._task = asyncio.create_task(self._run(), name="admin feed")

    async def stop(self) -> None:
        """End every stream and the task."""
        self.hub.end()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def hello(self) -> tuple[bytes, ...]:
        """What a new listener receives first: who this is, the last five minutes, the endpoints, recent decisions."""
        running = self._running
        about: View = {
            "version": __version__,
            "replica": running.proxy.replica,
            "mode": running.settings.mode,
            "started": round(time.time() - running.clock() + running.proxy.started_at, 3),
            "changeable": running.settings.admin_token is not None,
            "read_only": None if running.settings.admin_token is not None else read_only(place()),
            "strategies": self.choices.view(),
            "history": list(self.meter.history),
            "happened": list(self._happened),
            "routes": running.settings.gateway_class is not None or running.settings.ingress_class is not None,
            "fleet": replicas_view(running, self.meter) if running.peers is not None else None,
            "fleet_history": list(self._fleet_history),
        }
        return (
            encode("hello", about),
            encode("endpoints", await self.meter.endpoints()),
            encode("decisions", self.choices.views(self.choices.latest(AT_FIRST))),
        )

    async def _run(self) -> None:
        next_at = self._running.clock()
        while True:
            next_at += 1.0
            await asyncio.sleep(max(0.0, next_at - self._running.clock()))
            try:
                await self._second()
            except Exception:
                log.exception("the admin port could not send the last second")

    async def _second(self) -> None:
        second = self.meter.second(time.time())
        fleet = self._second_of_fleet() if self._running.peers is not None else None
        if not self.hub:
            self.meter.forget_endpoints()
            return
        self.hub.publish("second", second)
        if fleet is not None:
            self.hub.publish("fleet", fleet)
        self.hub.publish("endpoints", await self.meter.endpoints())
        fresh = self.choices.latest(DECISIONS, after=self._told)
        if fresh:
            self._told = fresh[0].at
            self.hub.publish("decisions", self.choices.views(fresh))

    def _second_of_fleet(self) -> View | None:
        """Keep what all replicas did together; where somebody listens, what each of them did."""
        fleet = replicas_view(self._running, self.meter) if self.hub else None
        summed = fleet_total(self._running, self.meter) if fleet is None else fleet["total"]
        if summed is not None:
            self._fleet_history.append(summed)
        return fleet
