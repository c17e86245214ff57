"""What this replica reports: written once for all links, when something has changed and once a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.events import Subscriber
from balancer.balancing.pool import Pool
from balancer.peers.pace import Pace
from balancer.peers.report import Intent, Report, Status

STALE: Final = 3.0
"""Pauses between reports by which news counts as older than its way: each is believed until the next. Found in the lab,
where the half of a pause that a change waits on average gives a p99 up to a tenth higher, and six pauses no better."""
AT_REST: Final = 5
"""While nothing changes, one beat in so many asks for an answer."""


class Reporter(Subscriber):
    """Follows the pool, and wakes the links when there is something to say. It sets no timer while nothing changes."""

    def __init__(
        self,
        pool: Pool,
        name: str,
        intent: Callable[[], Intent],
        status: Callable[[], Status | None],
        duration: Callable[[], float],
    ) -> None:
        """`duration`: seconds that a request takes on average."""
        self._pool = pool
        self._name = name
        self._intent = intent
        self._status = status
        self._duration = duration
        self._running = False
        self._reported: dict[str, int] = {}
        """Requests in flight by address as last reported, where there are any."""
        self._told_ejected: frozenset[str] = frozenset()
        self._told_intent = Intent()
        self._waiting: list[asyncio.Future[None]] = []
        self._report = Report(name)
        self._text = ""
        self._beat = False
        self._asks = False
        """Whether the last beat asks for an answer."""
        self._beats = 0
        self._beat_turn = 0
        """Number of the report that was the last beat."""
        self.turn = 1
        """Number of the last report."""
        self.pace = Pace(self._take_turn)
        self._changes = pool.follow_load(self.arm)
        pool.subscribe(self)

    def start(self) -> None:
        """The event loop runs: changes are reported from now on."""
        self._running = True
        self.pace.arm()

    def stop(self) -> None:
        """Report no more."""
        self._running = False
        self.pace.cancel()

    def arm(self) -> None:
        """Something has changed."""
        if self._running:
            self.pace.arm()

    def transition(self, endpoint: Endpoint | None, event: str, detail: str) -> None:
        """An ejection has begun or ended, perhaps."""
        self.arm()

    def beat(self) -> None:
        """Report now, whatever has changed: so the others see that this replica is there."""
        self._beats += 1
        self._asks = self.turn > self._beat_turn + 1 or self._beats % AT_REST == 0
        self._beat = True
        self._take_turn()
        self._beat_turn = self.turn

    def turned(self) -> asyncio.Future[None]:
        """Done at the next report, or by the one who waits for it."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future

    def message(self, last: int, delay: float) -> tuple[str, bool]:
        """The text for a link whose last report was number `last`, and whether it asks for an answer.

        `delay`: seconds that a report takes to arrive there.
        """
        report = self._report
        if last == self.turn - 1:
            if self._text:
                return self._text, False
            in_flight, ejected, intent, whole = report.in_flight, report.ejected, report.intent, False
        else:
            in_flight, ejected, intent, whole = self._reported, self._told_ejected, self._told_intent, True
        delay += STALE * self.pace.pause
        asks = whole or self._asks
        return Report(self._name, in_flight, ejected, delay, intent, self._status(), whole, asks).encode(), asks

    def _take_turn(self) -> None:
        beat, self._beat = self._beat, False
        changed = self._changed()
        ejected, intent = self._pool.ejected, self._intent()
        ejections = ejected if ejected != self._told_ejected else None
        asked = intent if intent is not self._told_intent else None
        self._told_ejected, self._told_intent = ejected, intent
        if not changed and ejections is None and asked is None and not beat:
            return
        waiting, self._waiting = self._waiting, []
        self.turn += 1
        self.pace.reported(self._duration(), bool(waiting))
        begun = self.pace.begin()
        self._report = Report(self._name, changed, ejections, None, asked)
        # With what is said once a second, and of each link, each writes its own.
        self._text = self._report.encode() if waiting and not beat else ""
        for future in waiting:
            if not future.done():
                future.set_result(None)
        self.pace.spend(begun)

    def _changed(self) -> dict[str, int]:
        """Requests in flight by address where they are others than was reported."""
        changed: dict[str, int] = {}
        reported = self._reported
        for endpoint in self._changes.take():
            address, in_flight = endpoint.address, endpoint.in_flight
            if not endpoint.discovered and self._pool.find(address) is not None:
                continue  # Another one has its address now.
            if in_flight == reported.get(address, 0):
                continue
            changed[address] = in_flight
            if in_flight:
                reported[address] = in_flight
            else:
                del reported[address]
        return changed
