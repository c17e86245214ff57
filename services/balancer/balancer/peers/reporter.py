"""What this replica reports: written once for all links, when something has changed, and otherwise that it is there.

While requests are in flight, or something changes, it says so every BUSY seconds at the least. While nothing is in
flight and nothing changes that somebody could see, its silence misleads nobody: it says so every REST seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mypy_extensions import mypyc_attr

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.events import Subscriber
from balancer.balancing.pool import Pool
from balancer.peers.belief import Belief
from balancer.peers.fleet import FleetIntent
from balancer.peers.frames import TEXT, frame
from balancer.peers.intent import Intent
from balancer.peers.pace import Pace
from balancer.peers.report import BUSY, GAP, REST, Report, Status, changes, delayed, microseconds

EARLY: Final = 0.95
"""Part of the time within which a report is due after which a tick sends it though nothing has changed; that also
measures the delay."""
AT_REST: Final = 3
"""While nothing changes, one beat in so many asks for an answer."""


class Turn:
    """One report, as all links send it."""

    __slots__ = ("_frame", "_pause", "asks", "beat", "number", "text")

    def __init__(self, number: int, text: bytes, pause: float, beat: bool, asks: bool) -> None:
        self.number = number
        self.text = text
        self.beat = beat
        """Whether each link adds how long a report takes to arrive."""
        self.asks = asks
        """Whether it asks for an answer."""
        self._pause = pause
        self._frame = b""

    def frame(self) -> bytes:
        """The same bytes for all links."""
        if not self._frame:
            self._frame = frame(TEXT, self.text, masked=True)
        return self._frame

    def delayed(self, delay: float) -> bytes:
        """The text for a link on which a report takes `delay` seconds."""
        return delayed(self.text, delay + self._pause)


@mypyc_attr(allow_interpreted_subclasses=True)
class Listener:
    """Hears of every report. It must not change who listens."""

    def reported(self, turn: Turn) -> None:
        """There is one."""


class Reporter(Subscriber):
    """Follows the pool, and has the links report what changes. It sets no timer while nothing changes."""

    def __init__(
        self,
        pool: Pool,
        name: str,
        belief: Belief,
        fleet: FleetIntent,
        status: Callable[[], Status | None],
    ) -> None:
        self._pool = pool
        self._name = name
        self._belief = belief
        self._fleet = fleet
        self._status = status
        self._running = False
        self._reported: dict[str, int] = {}
        """Requests in flight by address as last reported, where there are any."""
        self._lasting: dict[str, int] = {}
        """And how many of them do not wait for their response."""
        self._work: dict[str, int] = {}
        """And the expected work (microseconds) of those that do."""
        self._told_ejected: frozenset[str] = frozenset()
        self._told_intent = Intent()
        self._told_status: Status | None = None
        self.listeners: list[Listener] = []
        self._gap = BUSY
        """Seconds within which the next report comes, as the last beat has said."""
        self._beats = 0
        self._beat_turn = 0
        """Number of the report that was the last beat."""
        self._beat_at = 0.0
        self._looked_at = 0.0
        """When (s) it was last seen whether a beat is due."""
        self.turn = 1
        """Number of the last report."""
        self.pace = Pace(self._turn)
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
        """An ejection has begun or ended, perhaps; or an address whose requests were reported is another's now."""
        if endpoint is not None and endpoint.address in self._reported:
            self._changes.add(endpoint)
        if event == "strategy":  # Another one may follow work, or no longer does.
            for each in self._pool.endpoints:
                self._changes.add(each)
        self.arm()

    def beat(self, now: float, together: bool = False) -> None:
        """Say that this replica is there, where it is time to, whatever has changed.

        `together`: another one has said so just now. All do so together: each then wakes once for all of them.
        """
        part = 0.5 if together else 1.0
        if now - self._looked_at < part * EARLY * BUSY:
            return
        self._looked_at = now
        status = self._status()
        rests = self.turn == self._beat_turn and not self._reported and _same(status, self._told_status)
        gap = BUSY if not rests else REST if self._belief.all_may_rest() else GAP
        # Nobody must wait for longer than the last beat has said.
        if now - self._beat_at < part * EARLY * min(gap, self._gap):
            return
        self._beat_at, self._gap, self._told_status = now, gap, status
        self._beats += 1
        asks = self.turn > self._beat_turn + 1 or self._beats % AT_REST == 0
        self._take_turn(status, True, asks)
        self._beat_turn = self.turn

    @property
    def rests(self) -> bool:
        """Whether there was nothing to say when it was last seen, nor since."""
        return self._gap == REST and self.turn == self._beat_turn and not self.pace.is_due

    def whole(self, delay: float) -> bytes:
        """All that has been reported, for a link on which a report takes `delay` seconds."""
        report = Report(
            self._name,
            self._reported,
            self._told_ejected,
            delay + self.pace.pause,
            self._told_intent,
            self._status(),
            True,
            True,
            self._gap,
            lasting=self._lasting,
            work=self._work,
            bound=self._pool.bound,
        )
        return report.encode()

    def _turn(self) -> None:
        self._take_turn(None, False, False)

    def _take_turn(self, status: Status | None, beat: bool, asks: bool) -> None:
        changed, lasting, work = self._changed()
        ejected, intent = self._pool.ejected, self._fleet.intent
        ejections = ejected if ejected != self._told_ejected else None
        asked = intent if intent is not self._told_intent else None
        self._told_ejected, self._told_intent = ejected, intent
        if not changed and not lasting and not work and ejections is None and asked is None and not beat:
            return
        self.turn += 1
        self.pace.reported(self._belief.duration, len(self.listeners))
        if not self.listeners:
            return
        begun = self.pace.sending.begin()
        if beat or ejections is not None or asked is not None:
            gap = self._gap if beat else None
            bound = self._pool.bound if beat else None
            report = Report(
                self._name,
                changed,
                ejections,
                intent=asked,
                status=status,
                answer=asks,
                next_within=gap,
                lasting=lasting,
                work=work,
                bound=bound,
            )
            text = report.encode()
        else:
            text = changes(self._name, changed, lasting, work)
        turn = Turn(self.turn, text, self.pace.pause, beat, asks)
        for listener in self.listeners:
            listener.reported(turn)
        self.pace.sending.end(begun)

    def _changed(self) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
        """Requests in flight, those that last and the work of the others, by address where it is new."""
        changed: dict[str, int] = {}
        lasting: dict[str, int] = {}
        works: dict[str, int] = {}
        pool = self._pool
        for each in self._changes.take():
            address = each.address
            # Another one may have its address now: that one's count is what the others ask for.
            endpoint = each if each.discovered else pool.find(address) or each
            _note(self._reported, changed, address, endpoint.in_flight)
            _note(self._lasting, lasting, address, pool.lasting(endpoint))
            _note(self._work, works, address, microseconds(pool.work_to_report(endpoint)))
        return changed, lasting, works


def _note(reported: dict[str, int], news: dict[str, int], address: str, count: int) -> None:
    """Put what is to be reported of an address to the news, where it is another count than was reported."""
    if count == reported.get(address, 0):
        return
    news[address] = count
    if count:
        reported[address] = count
    else:
        del reported[address]


def _same(status: Status | None, before: Status | None) -> bool:
    """Whether people would see the same, but for the time."""
    if status is None or before is None:
        return status is before
    return {**status, "second": _timeless(status)} == {**before, "second": _timeless(before)}


def _timeless(status: Status) -> object:
    second = status.get("second")
    return {**second, "at": None} if isinstance(second, dict) else second
