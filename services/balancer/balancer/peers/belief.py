"""What a replica believes of the load that the others have sent, and how that belief fades.

Two rules about load, both tried in the lab (`python -m balancer lab --replicas 4 --news-every 0.013`):

**News counts less the more is sent before the next.** Of `x` requests that another has in flight at an endpoint each
counts `x / (x + n / HALVED)`, where `n` is how many requests all others send until they report again: as many each as
this replica, in the age of the news. So a few are forgotten soon, and 300 WebSockets are believed. The expected work
that is reported changes less, most of it is that of the longest requests: it counts by WORK_HALVED. Each of the `n`
goes where the same news says that there is the least to do: replicas that believe it wholly herd, and old news is then
worse than none. Where the strategy follows work, requests that have their response and last (a WebSocket, a download)
do not count: a replica counts its own by their number, and so does every other. A replica reports what changes, so its
silence says that nothing has: the age is the time that a report takes to arrive and the pause until the next, and grows
only once the replica is silent for longer than it ever is; then what it had in flight fades as requests end, and is
gone CUT_OFF seconds after it should have reported.

**Each replica prefers a part of its own, and then the next one's.** The replicas in order of their names share the
endpoints in order of their addresses, one after the other. Of `r` replicas in a circle, the part of the one that is `d`
places further on counts as if each of its endpoints had `d / 2r` of a request more, where this replica has none itself.
So two replicas that know of the same idle endpoints choose different ones, however old their news, also where neither
has an idle one in its own part. Where a part is a single endpoint, all others' count alike: else least-work, whose
paces learn from it, does worse with one of four endpoints slow. And where weights differ nothing is preferred: they
decide ties.

And one about failure: **ejection is a vote.** An endpoint that most replicas have ejected is ejected by the others too;
one that a single replica cannot reach stays in for the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from balancer.balancing.costs import Bound
from balancer.balancing.endpoint import Endpoint
from balancer.balancing.events import Subscriber
from balancer.balancing.pool import Pool
from balancer.peers.report import GAP, LONGEST_ADDRESS, MICROSECOND, MOST_ADDRESSES, Report

WHOLE_CIRCLE: Final = 0.5
"""Requests that an endpoint would count for whose part is a whole circle further on."""
NOTED: Final = 0.1
"""What a replica's news is worth is changed for all endpoints when it has changed by this part."""
LOOKED_EVERY: Final = 1.0
"""Seconds between two looks at the endpoints' weights."""
HALVED: Final = 0.5
"""Requests sent by all others before their next reports with which a single one that was reported counts half."""
WORK_HALVED: Final = 2.0
"""The same of the expected work."""
FORGOTTEN: Final = 8.0
"""What a replica had in flight that is late by so many times what a request takes has ended."""
MISSED: Final = 2.0
"""Seconds by which a replica's report may be overdue until its news is dropped: it hangs, or the network does."""
CUT_OFF: Final = 0.3
"""Seconds by which it may be overdue until what it had in flight counts no more, though its name is kept: it may have
been killed where no end of its connection comes to us."""
SILENCE: Final = GAP + MISSED
"""Seconds without a report after which the news of one is dropped that does not rest."""
FIRST_DURATION: Final = 0.05
"""How long (s) a request takes, until some have ended."""
TICKED: Final = 0.2
"""Seconds between two ticks at the most that say something: before a later one nothing was in flight."""
SMOOTHING: Final = 0.2
"""Weight of one tick's figures in the average duration of a request, and of one report in the time between two."""
NOTHING: Final[Mapping[str, int]] = {}
OVERDUE: Final = 4.0
"""A report is late after so many times the usual gap before it, …"""
LATE: Final = 1.2 * GAP
"""… and in any case after so many seconds."""


class Replica:
    """What one other replica has said."""

    __slots__ = (
        "bound",
        "delay",
        "ejected",
        "faded",
        "gap",
        "heard_at",
        "in_flight",
        "lasting",
        "left",
        "name",
        "next_within",
        "reports",
        "rests",
        "sent",
        "soonest",
        "work",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.bound: Bound | None = None
        """What has shown it how much endpoints work on at once."""
        self.in_flight: dict[str, int] = {}
        """By address, where there are any."""
        self.lasting: dict[str, int] = {}
        """How many of those do not wait for their response, where it says so."""
        self.work: dict[str, int] = {}
        """Expected work (microseconds) of those that do wait, where it says so."""
        self.ejected: frozenset[str] = frozenset()
        self.delay = 0.0
        """How old (s) its news counts as while it reports on as it does."""
        self.heard_at = 0.0
        self.reports = 0
        self.gap = GAP
        """Seconds between two of its reports, on average."""
        self.next_within = GAP
        """Seconds from its last report within which it has promised the next."""
        self.soonest = GAP
        """The least that it has promised, which it keeps to once something changes."""
        self.rests = False
        """Whether it knows that a replica may rest."""
        self.sent = 0.0
        """Requests that all others send until they report again."""
        self.left = 1.0
        """Part of what it had in flight that is there still, as far as its silence shows."""
        self.faded = False
        """Whether that has become less since it was heard."""

    def hear(self, report: Report, now: float) -> None:
        """What it says, the whole or what has changed; of more than an honest one has to say, the first."""
        if self.reports:
            self.gap += SMOOTHING * (min(now - self.heard_at, GAP) - self.gap)
        self.heard_at = now
        self.reports += 1
        self.faded = False
        self.next_within = self.soonest
        if report.next_within is not None:
            self.next_within, self.rests = report.next_within, True
            self.soonest = min(self.soonest, report.next_within)
        if report.delay is not None:
            self.delay = report.delay
        if report.ejected is not None:
            self.ejected = report.ejected
        if report.bound is not None:
            self.bound = report.bound
        if report.whole:
            self.in_flight.clear()
            self.lasting.clear()
            self.work.clear()
        _keep(self.in_flight, report.in_flight)
        if report.lasting:
            _keep(self.lasting, report.lasting)
        if report.work:
            _keep(self.work, report.work)

    def load(self, address: str, waits: bool) -> int:
        """Requests in flight at an endpoint; of those that wait for their response, if `waits`."""
        in_flight = self.in_flight.get(address, 0)
        return max(in_flight - self.lasting.get(address, 0), 0) if waits and in_flight else in_flight

    def worth(self, reported: int, halved: float) -> float:
        """What each of so many requests at an endpoint counts."""
        return self.left * reported / (reported + self.sent / halved) if reported else 0.0

    def age(self, now: float) -> float:
        """Seconds since what it said last was so."""
        return now - self.heard_at + self.delay

    def late(self, now: float) -> float:
        """Seconds by which its next report is late; 0 or less where it is not."""
        return now - self.heard_at - min(OVERDUE * self.gap, LATE)

    def is_cut_off(self, now: float) -> bool:
        """Whether it has been silent for so long that what it had in flight counts no more."""
        return now - self.heard_at > self.next_within + CUT_OFF

    @property
    def believed(self) -> Mapping[str, int]:
        """What it has in flight, by address, as far as that is believed."""
        return self.in_flight if self.left else NOTHING


def _keep(known: dict[str, int], said: Mapping[str, int]) -> None:
    for address, count in said.items():
        if not count:
            known.pop(address, None)
        elif address in known or (len(known) < MOST_ADDRESSES and len(address) <= LONGEST_ADDRESS):
            known[address] = count


class Belief(Subscriber):
    """The others' load at each endpoint, written to `endpoint.elsewhere`, where every strategy counts it.

    A strategy that follows work counts their expected work too, as far as they report it; and what has shown any of
    them how much endpoints work on at once.
    """

    def __init__(self, pool: Pool, name: str) -> None:
        """`name` is this replica's own, as the others hear it."""
        self._pool = pool
        self._name = name
        self._replicas: dict[str, Replica] = {}
        self._away: dict[str, float] | None = None
        """Requests that an endpoint of another's part counts for, by address; None: to be worked out again."""
        self._rate = 0.0
        """Requests that begin here a second, on average."""
        self._even = True
        """Whether all endpoints had one weight when the preferences were worked out."""
        self._looked_at = -1.0
        """When (s) the weights were last looked at."""
        self._duration = FIRST_DURATION
        self._choices = 0
        self._ticked_at = -1.0
        pool.subscribe(self)

    def joined(self, endpoint: Endpoint) -> None:
        """The parts are no longer the same."""
        self._away = None

    def left(self, endpoint: Endpoint) -> None:
        """The parts are no longer the same."""
        self._away = None

    @property
    def replicas(self) -> Iterable[Replica]:
        """The other replicas that have been heard, by name."""
        return sorted(self._replicas.values(), key=lambda replica: replica.name)

    def knows(self, name: str) -> bool:
        """Whether a replica of that name was heard lately."""
        return name in self._replicas

    def all_may_rest(self) -> bool:
        """Whether every replica that is heard knows that others may be silent for longer while they rest."""
        return all(replica.rests for replica in self._replicas.values())

    @property
    def is_empty(self) -> bool:
        """Whether no other replica is known to have anything in flight, or anything ejected."""
        return not any(replica.in_flight or replica.ejected for replica in self._replicas.values())

    @property
    def duration(self) -> float:
        """Seconds that a request takes, on average: the time in which news fades."""
        return self._duration

    def take(self, report: Report, now: float) -> None:
        """Another replica's report has come."""
        replica = self._replicas.get(report.replica)
        if replica is None:
            replica = self._replicas[report.replica] = Replica(report.replica)
            self._away = None
        addresses: Iterable[str] = report.in_flight
        if report.lasting or report.work:
            addresses = {*report.in_flight, *report.lasting, *report.work}
        if report.whole or replica.faded or report.delay is not None:
            before = set(replica.in_flight)
            replica.hear(report, now)
            self._weigh(replica, now)
            addresses = before.union(replica.in_flight)
        else:
            replica.hear(report, now)
        if report.bound is not None:
            self._pool.corroborate([each.bound for each in self._replicas.values() if each.bound is not None])
        if self._away is None:
            self._count_all()
            return
        for address in addresses:
            self._find_and_count(address)

    def forget(self, name: str) -> None:
        """A replica is gone."""
        if self._replicas.pop(name, None) is not None:
            self._away = None
            self._count_all()

    def tick(self, now: float) -> None:
        """Let time pass: the silent fade and are dropped, and the duration of a request is measured."""
        self._measure(now)
        for replica in list(self._replicas.values()):
            if now - replica.heard_at > replica.next_within + MISSED:
                self.forget(replica.name)
            elif replica.in_flight:
                replica.faded = replica.late(now) > 0.0 or replica.is_cut_off(now)
                if self._weigh(replica, now):
                    for address in replica.in_flight:
                        self._find_and_count(address)
        if now - self._looked_at >= LOOKED_EVERY:
            self._looked_at = now
            if self._even != self._is_even():
                self._away = None
        if self._away is None:
            self._count_all()
        self._vote(now)

    def _vote(self, now: float) -> None:
        """Follow most replicas where they have ejected an endpoint. One that a few cannot reach stays in elsewhere."""
        ejected = [replica.ejected for replica in self._replicas.values() if replica.ejected]
        if not ejected:
            return
        votes: Counter[str] = Counter()
        for addresses in ejected:
            votes.update(addresses)
        for address, count in votes.items():
            endpoint = self._pool.find(address)
            if 2 * count > len(self._replicas) + 1 and endpoint is not None:
                self._pool.outvoted(endpoint, now)

    def _measure(self, now: float) -> None:
        """Little's law: requests in flight over requests begun a second is how long each takes."""
        begun = sum(self._pool.chosen_by.values())
        number = begun - self._choices
        took = now - self._ticked_at
        if self._ticked_at >= 0.0 and took > 0.0:
            self._rate += (SMOOTHING if self._rate else 1.0) * (number / took - self._rate)
            if number > 0:
                endpoints = self._pool.endpoints
                waits = self._pool.counts_waiting  # What lasts says nothing of how long a request takes.
                in_flight = sum([endpoint.work.taken if waits else endpoint.in_flight for endpoint in endpoints])
                duration = in_flight * min(took, TICKED) / number
                self._duration += SMOOTHING * (duration - self._duration)
        self._choices = begun
        self._ticked_at = now

    def _weigh(self, replica: Replica, now: float) -> bool:
        """Note what its news is worth now; whether that has changed."""
        sent = len(self._replicas) * self._rate * replica.delay
        late = max(replica.late(now), 0.0) / self._duration
        left = math.exp(-late) if late < FORGOTTEN and not replica.is_cut_off(now) else 0.0
        before = replica.worth(1, HALVED)
        if abs(left / (1.0 + sent / HALVED) - before) <= NOTED * before:
            return False
        replica.left, replica.sent = left, sent
        return True

    def _count_all(self) -> None:
        if self._away is None:
            self._away = self._preferences()
        for endpoint in self._pool.endpoints:
            self._count(endpoint)

    def _find_and_count(self, address: str) -> None:
        endpoint = self._pool.find(address)
        if endpoint is not None:
            self._count(endpoint)

    def _count(self, endpoint: Endpoint) -> None:
        address = endpoint.address
        requests = unknown_cost = seconds = 0.0
        waits = self._pool.counts_waiting
        for replica in self._replicas.values():
            reported = replica.load(address, waits)
            load = reported * replica.worth(reported, HALVED)
            requests += load
            work = replica.work.get(address, 0)
            if work:
                seconds += MICROSECOND * work * replica.worth(max(reported, 1), WORK_HALVED)
            else:
                unknown_cost += load
        bias = self._away.get(address, 0.0) if self._away else 0.0
        if endpoint.others_have(requests, unknown_cost, seconds, bias):
            self._pool.changed(endpoint)

    def _is_even(self) -> bool:
        """Whether all endpoints have one weight."""
        return len({endpoint.weight for endpoint in self._pool.endpoints}) < 2

    def _preferences(self) -> dict[str, float]:
        """What each endpoint of another replica's part counts for, by address."""
        self._even = self._is_even()
        if not self._even:
            return {}
        names = sorted([self._name, *self._replicas])
        addresses = sorted(endpoint.address for endpoint in self._pool.endpoints)
        own, parts = names.index(self._name), min(len(names), len(addresses))
        # Replicas that are more than the endpoints share them evenly; those that are left over prefer none.
        if not parts or own >= len(names) - len(names) % parts:
            return {}
        places = ((i - own) % parts for i in range(len(addresses)))
        counts = zip(addresses, places, strict=True)
        return {address: WHOLE_CIRCLE * place / parts for address, place in counts if place}
