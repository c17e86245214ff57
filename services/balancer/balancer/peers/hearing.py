"""What the other replicas say here, report by report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import structlog

from balancer.peers.belief import MISSED, Belief
from balancer.peers.connection import UNREADABLE, Incoming
from balancer.peers.fleet import FleetIntent
from balancer.peers.frames import TEXT, frame
from balancer.peers.lessons import Lessons
from balancer.peers.link import OURSELVES
from balancer.peers.report import GAP, LONGEST_GAP, BadReport, Report, answer, decode
from balancer.peers.reporter import Reporter
from balancer.peers.roster import Roster

log = structlog.get_logger(__name__)


class Hearing:
    """Takes every report: the load to the belief, what was asked of the fleet to the intent, the rest to the roster."""

    def __init__(
        self,
        reporter: Reporter,
        belief: Belief,
        fleet: FleetIntent,
        roster: Roster,
        lessons: Lessons,
        name: str,
        clock: Callable[[], float],
        events: defaultdict[str, int],
        joined: Callable[[], None],
    ) -> None:
        """`name` is this replica's; `events` counts what happens, by kind; `joined` is called when another joins."""
        self._reporter = reporter
        self._belief = belief
        self._fleet = fleet
        self._roster = roster
        self._lessons = lessons
        self._name = name
        self._clock = clock
        self._events = events
        self._joined = joined
        self.connections: dict[str, Incoming] = {}
        """The one on which each replica speaks, the latest."""
        self.open: dict[Incoming, None] = {}
        """All on which one has said its name: the earlier ones too, where it speaks on several, or has lost some."""

    def take(self, connection: Incoming, data: bytes) -> None:
        """Take one report."""
        cost = self._reporter.pace.hearing
        begun = cost.begin()
        try:
            report = decode(data)
        except BadReport as bad:
            self._refuse(connection, bad)
            return
        if connection.name and report.replica != connection.name:
            self._refuse(connection, BadReport("another replica's name on this connection"))
            return
        if report.replica == self._name:
            if not connection.is_ours:
                log.warning("another replica has this one's name", name=self._name, remedy="give each its own HOSTNAME")
            connection.close(OURSELVES, "this is you")
            return
        self._events["received"] += 1
        now = self._clock()
        connection.heard_at = now
        self._belief.take(report, now)
        if report.delay is not None or not connection.name:
            self._look_up(report, connection, now)
        if report.intent is not None:
            before = self._fleet.intent
            self._fleet.take(report.intent, report.replica, now)
            if self._fleet.intent is not before:
                self._lessons.again()
            self._reporter.arm()
        if report.answer:
            connection.write(frame(TEXT, answer(self._name), masked=False))
        cost.end(begun)
        self._reporter.pace.heard()

    def _refuse(self, connection: Incoming, bad: BadReport) -> None:
        self._events["refused"] += 1
        sender = connection.name or bad.replica
        if sender:
            self._roster.refused(sender, str(bad), self._clock())
        log.warning("peer's report refused", peer=sender, error=str(bad))
        connection.close(UNREADABLE, str(bad))

    def _look_up(self, report: Report, connection: Incoming, now: float) -> None:
        """What is said but seldom."""
        if not connection.name:
            connection.name = report.replica
            self.connections[report.replica] = connection
            self.open[connection] = None
            self._lessons.left(report.replica)  # It may be another process of that name.
            log.info("peer joined", peer=report.replica)
            self._joined()
        self._roster.heard(report.replica, report.status, now, report.next_within or GAP)
        self._reporter.beat(now, together=True)
        self._lessons.give(report.replica, connection)

    def end_silent(self, now: float) -> None:
        """Let go of those that have been silent for too long: they may connect again."""
        for connection in self.open:
            if self._is_silent(connection, now):
                connection.abort()

    def ended(self, connection: Incoming) -> None:
        """A connection has ended."""
        self.open.pop(connection, None)
        name = connection.name
        if name and self.connections.get(name) is connection:
            del self.connections[name]
            for other in self.open:
                if other.name == name:
                    self.connections[name] = other
                    return
            now = self._clock()
            if self._is_silent(connection, now):
                log.warning("peer silent", peer=name, error="it hangs, or the network between is cut")
            else:
                log.info("peer left", peer=name)
            self._belief.forget(name)
            self._lessons.left(name)
            self._roster.left(name, now)

    def _is_silent(self, connection: Incoming, now: float) -> bool:
        """It has said nothing for too long, on a connection that stands."""
        return not self._belief.knows(connection.name) or now - connection.heard_at > LONGEST_GAP + MISSED
