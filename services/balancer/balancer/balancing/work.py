"""What each endpoint has to do, in expected seconds; how fast it is; and how much it works on at once.

**How much at once** is its concurrency (concurrency.py). Until the endpoints have shown, together, that they work on no
more at once, requests count by their number, whatever each costs: the fewest in flight is then the best guess, and one
that seems fast does not get all there is. Requests that may wait for something, as long polls do, are laid aside
(lengthy.py).

**How fast** is its pace (pace.py). The wait in its own queue is taken off before, and the likely wait for requests of
other replicas: else those that mostly others use would look slow.

Above 300 lines because a job and the work of its endpoint are one model: each keeps sums of the other.
"""

from __future__ import annotations

from math import log, sqrt
from typing import Final

from mypy_extensions import mypyc_attr

from balancer.balancing.concurrency import Concurrency
from balancer.balancing.cost import TRUSTED, RequestKind
from balancer.balancing.costs import Costs
from balancer.balancing.elsewhere import Elsewhere
from balancer.balancing.lengthy import HELD, Lengthy
from balancer.balancing.pace import SMALLEST, Pace
from balancer.balancing.request import RequestInfo

LEARN_EVERY: Final = 0.001
"""Seconds between two answers of an endpoint that are learned from, at the least: where there are thousands a second,
the last two hundred would be a moment, and alike."""
FOLLOWED: Final = 8
"""Of an endpoint that works on up to so many at once, what is left of each counts; of more, the mean is as good, and
costs no time."""
LENGTHY: Final = -1
"""What a lengthy request has in the place of the number of those beside it."""
LATE: Final = 0.05
"""What a failure counts that comes after more time than a request is likely to take: that may have been too expensive,
and to blame its endpoint in full would drive all others to the few that have not had such a one yet."""


@mypyc_attr(acyclic=True, free_list_len=1)  # As for `Lease`.
class Job:
    """One request at one endpoint."""

    __slots__ = (
        "_ended_before",
        "_gone",
        "aside",
        "behind",
        "beside",
        "expected",
        "growth",
        "kind",
        "newer",
        "number",
        "older",
        "sent_at",
        "service",
        "started_at",
        "unsent",
        "work",
    )

    def __init__(self, work: Work, kind: RequestKind, expected: float) -> None:
        self.work = work
        self.number = work.begun
        """The how many-th of its endpoint."""
        self.kind = kind
        self.expected = expected
        """Seconds of work at a typical endpoint."""
        self.behind = 0.0
        """And of work of other replicas' requests that it probably waited for."""
        self.growth = kind.growth
        self.unsent = min(expected, work.costs.mean)
        """Seconds that it counts for until it is sent whole: others may be done during its upload."""
        self._gone = False
        """Whether it no longer counts as unsent."""
        self.aside = False
        """Whether it takes no place among those that wait for a worker."""
        self.beside = 0
        """Lengthy requests that were there when it was sent; LENGTHY: it is one itself."""
        self._ended_before = 0
        """Those that had ended by then."""
        self.sent_at = -1.0
        self.started_at = -1.0
        """When the endpoint is believed to have begun with it; below 0: it waits there, or is not sent whole."""
        self.service = -1.0
        """Seconds that the endpoint worked on it; below 0 until it has answered."""
        self.older: Job | None = None
        self.newer: Job | None = None

    @property
    def longest(self) -> float:
        """Seconds of work at a typical endpoint beyond which it is unlikely to take more."""
        kind = self.kind
        if kind.count < TRUSTED:  # It may be as expensive as the most expensive that is known.
            return STALLED * self.work.costs.dearest
        deviation = sqrt((1.0 + self.growth) / max(1.0 - self.growth, SMALLEST))
        # A mean of few samples may be far off.
        mean = max(self.expected, kind.mean, SMALLEST) * (1.0 + TRUSTED / kind.count)
        return mean * max(1.0 + (STALLED - 1.0) * deviation, STALLED)

    @property
    def may_wait(self) -> bool:
        """Whether it may wait for something and take no worker, as far as is known of its kind."""
        kind = self.kind
        return kind.lengthy or (kind.count < TRUSTED and self.work.costs.usual.knows_most)

    def sent(self, now: float) -> None:
        """It is sent whole: the endpoint can begin."""
        work = self.work
        self._leave_unsent()
        self.sent_at = now
        if self.kind.parked:
            self.aside = True
            return
        if self.kind.lengthy:
            self.beside = LENGTHY
            work.lengthy.begin()
            if work.lays_aside(self.kind):
                self.aside = True
                work.lengthy.lay_aside()
                return
        else:
            self.beside = work.lengthy.present
            self._ended_before = work.lengthy.ended
        newest = work.newest
        if newest is None:
            work.oldest = self
        else:
            newest.newer = self
            self.older = newest
        work.newest = self
        work.waiting += 1
        work.waiting_cost += self.expected
        if work.waiting <= work.servers:
            self.started_at = now

    def answered(self, now: float) -> None:
        """The response has begun; what that teaches is learned at its end, when its status is known."""
        work = self.work
        if self.sent_at < 0.0:  # It answered before it had all of it: its work is not known.
            self._leave_unsent()
            return
        if self.beside == LENGTHY:
            work.end_lengthy(self, now)
            work.lengthy.answered(self.kind, self.sent_at, now)
        if self.aside:
            self.service = now - self.sent_at
            return
        work.count_overtaken(self, now)
        # One that was believed to wait began when the last was answered, if not before.
        started_at = self.started_at if self.started_at >= 0.0 else max(self.sent_at, work.answered_at)
        self.service = now - started_at
        if self.beside > 0:
            self._show_lengthy(work, now)
        work.answered_at = now
        work.drop(self, now)
        work.lay_aside(now)

    def _show_lengthy(self, work: Work, now: float) -> None:
        """Let an answer say whether the lengthy requests that were there before left room for it."""
        lengthy = work.lengthy
        ended = lengthy.ended - self._ended_before
        if ended > 0 and self._is_late(work):
            # While there may be any number of workers it may have been slow for whatever reason.
            if work.concurrency.is_bounded and lengthy.held_up(self.sent_at):
                self.service = now - lengthy.ended_at
        elif self.beside > ended:
            lengthy.answered_beside(self.beside - ended, self.sent_at, work.concurrency.servers, work.at_once)

    def _is_late(self, work: Work) -> bool:
        return self.service > max(self.longest * work.pace.factor, HELD * work.costs.usual.lengthy_from)

    def running(self, now: float) -> float:
        """For how long (s) the endpoint is believed to have worked on it; 0 where it waits for others there."""
        if self.service >= 0.0:
            return self.service
        if self.aside:
            return now - self.sent_at
        return max(now - self.started_at, 0.0) if self.started_at >= 0.0 else 0.0

    def fair(self, seconds: float) -> float:
        """`seconds` scaled to a request of average cost, so that an expensive request makes no endpoint look slow.

        A request of a kind with too few samples counts as the average at most: it may have been an expensive one.
        """
        mean = self.work.costs.mean
        if mean <= 0.0:
            return seconds
        if self.kind.count < TRUSTED_KIND:
            return min(seconds, mean)
        return seconds * mean / max(self.kind.mean, SMALLEST)

    def _leave_unsent(self) -> None:
        if not self._gone:
            self._gone = True
            self.work.unsent -= 1
            self.work.unsent_cost -= self.unsent

    def ended(self, succeeded: bool, failed: bool, now: float) -> None:
        """The lease is closed."""
        work = self.work
        if self.service >= 0.0:
            if succeeded:
                work.failures = 0.0
                if now >= work.learn_from:
                    work.learn_from = now + LEARN_EVERY
                    work.learn(self, self.service)
        elif self.sent_at >= 0.0:
            if self.beside == LENGTHY:
                work.end_lengthy(self, now)
            if not self.aside:
                work.drop(self, now)
        else:
            self._leave_unsent()
        if failed:
            late = self.sent_at >= 0.0 and now - self.sent_at > self.longest
            work.failed_at = now
            work.failures = min(work.failures + (LATE if late else 1.0), 8.0)


# `Endpoint` links its requests in the same way. One generic class for both would bring the collector's header back to
# each (mypyc: no `acyclic` class may be Generic), and one without generics a cast in each loop here.
@mypyc_attr(acyclic=True)
class Work:
    """What one endpoint has to do, and what is learned of it."""

    __slots__ = (
        "_changes",
        "_epoch",
        "answered_at",
        "at_once",
        "begun",
        "concurrency",
        "costs",
        "failed_at",
        "failures",
        "learn_from",
        "lengthy",
        "newest",
        "oldest",
        "pace",
        "unsent",
        "unsent_cost",
        "waiting",
        "waiting_cost",
    )

    def __init__(self, costs: Costs) -> None:
        self.costs = costs
        self.oldest: Job | None = None
        self.newest: Job | None = None
        self.at_once = 1
        """How many others than lengthy ones it worked on at once, as the last answer has shown."""
        self.begun = 0
        """Requests so far."""
        self.waiting = 0
        """Requests sent whole that wait for their response."""
        self.waiting_cost = 0.0
        """Expected seconds of those."""
        self.unsent = 0
        """Requests that are not sent whole: connecting, or an upload."""
        self.unsent_cost = 0.0
        self.lengthy = Lengthy(costs.usual)
        """The lengthy ones among those, and those laid aside, which do not count there."""
        self.concurrency = Concurrency(costs)
        """How much it works on at once."""
        self.pace = Pace(costs)
        """How fast it is."""
        self._epoch = costs.epoch
        self._changes = costs.usual.changes
        self.answered_at = 0.0
        self.learn_from = 0.0
        """When the next answer is learned from, or later."""
        self.failed_at = 0.0
        self.failures = 0.0
        """Failures since the last success; one that came late counts `LATE`."""

    def begin(self, request: RequestInfo, elsewhere: Elsewhere) -> Job:
        """`request` goes to it."""
        kind = self.costs.kinds.take(request)
        self.begun += 1
        job = Job(self, kind, kind.expected)
        if elsewhere.requests > 0.0:
            job.behind = self._ahead(elsewhere)
        self.unsent += 1
        self.unsent_cost += job.unsent
        return job

    @property
    def servers(self) -> int:
        """How many requests it works on at once beside those that are laid aside."""
        return max(self.lengthy.spare(self.concurrency.servers), 1)

    @property
    def held(self) -> int:
        """Workers that are taken by requests laid aside."""
        return 0 if self.lengthy.aside == 0 or self.lengthy_take_none else self.lengthy.aside

    @property
    def lengthy_take_none(self) -> bool:
        """Whether lengthy requests take no worker here, as far as is known."""
        return self.lengthy.takes_none(self.concurrency.servers)

    def lays_aside(self, kind: RequestKind) -> bool:
        """Whether a lengthy request of `kind` is believed to leave room for others."""
        return self.concurrency.is_bounded and not self.lengthy.holds_up(kind)

    def lay_aside(self, now: float) -> None:
        """Lay aside those that were not known to be lengthy when they were sent, or to leave room."""
        changes = self.costs.usual.changes
        if self._changes == changes:
            return
        self._changes = changes
        job = self.oldest
        while job is not None:
            newer = job.newer
            if (job.kind.lengthy or job.beside == LENGTHY) and self.lays_aside(job.kind):
                if job.beside != LENGTHY:
                    job.beside = LENGTHY
                    self.lengthy.begin()
                self._unlink(job)
                job.aside = True
                self.lengthy.lay_aside()
            job = newer
        self._begin_next(now)

    def end_lengthy(self, job: Job, now: float) -> None:
        """A lengthy request has its answer, or will have none."""
        self.lengthy.end(job.aside)
        if job.aside:
            self._begin_next(now)

    def _ahead(self, elsewhere: Elsewhere) -> float:
        """Seconds of work of other replicas' requests that the next one waits for beside its own replica's."""
        servers = self.servers
        if not self.concurrency.is_bounded:  # It may work on all of them at once.
            return 0.0
        if servers == 1:
            return self._seconds(elsewhere)
        if self.has_room(elsewhere):
            return 0.0
        requests = elsewhere.requests
        ahead = min(requests, self.waits + requests + 1.0 - servers) / servers
        return self._seconds(elsewhere) / requests * ahead

    def _seconds(self, elsewhere: Elsewhere) -> float:
        """Expected seconds of work of other replicas' requests."""
        if elsewhere.unknown_cost > 0.0:
            return elsewhere.seconds + elsewhere.unknown_cost * self.costs.found
        return elsewhere.seconds

    @property
    def waits(self) -> int:
        """Requests that wait for their response and take it a worker, those that are not sent whole included."""
        return self.waiting + self.unsent

    @property
    def cost(self) -> float:
        """Expected seconds of those."""
        return self.waiting_cost + self.unsent_cost

    @property
    def taken(self) -> int:
        """Requests that take a worker each or wait for one, as far as is known: those laid aside may, too."""
        return self.waits + self.held

    @property
    def taken_cost(self) -> float:
        """Expected seconds of those; of one laid aside the mean, once others were answered beside one."""
        costs = self.costs
        return self.cost + self.held * (costs.mean if self.lengthy.beside > 0.0 else costs.usual.lengthy_from)

    def take_over(self, pace_log: float, samples: int, workers: float, learned_at: float) -> bool:
        """Count `samples` requests that another replica has seen, where that is more than were seen here.

        `workers`: what it works on at once; 0: not known. `learned_at`: when the last of them was answered (s).
        """
        if not self.pace.take_over(pace_log, samples, learned_at):
            return False
        if workers > 0.0:
            self.concurrency.take_over(workers)
        return True

    def learn(self, job: Job, service: float) -> None:
        """One request has been answered well: its kind's cost, and the pace."""
        costs = self.costs
        service = max(service, SMALLEST)
        if job.aside and (job.kind.parked or self.lengthy_take_none):
            job.kind.sample_alone(service)
            costs.sort(job.kind)
            return
        own = 1.0
        if job.behind > 0.0:
            expected = max(job.expected, SMALLEST)
            # What took less than their work did not wait for all of it; and the less it took, the less likely for any.
            likely = min(service / (self.pace.factor * job.behind), 1.0)
            own = expected / (expected + likely * likely * job.behind)
            service *= own
        logarithm = log(service)
        at_typical = logarithm - self.pace.logarithm + costs.typical
        costs.usual.learn(job.kind, at_typical)
        costs.compare(job.kind, at_typical)
        if job.kind.count >= TRUSTED_KIND:
            self.pace.learn(job.kind, logarithm, own, self.answered_at)
        job.kind.sample(service / self.pace.factor)
        costs.sort(job.kind)
        kind: RequestKind | None = job.kind
        while kind is not None and kind.count < TRUSTED:
            kind = kind.wider
        if kind is not None and kind.mean > costs.dearest:
            costs.dearest = kind.mean

    def count_overtaken(self, job: Job, now: float) -> None:
        """Learn from an answer: the endpoint works at once on it and on the older requests that it overtook."""
        if self._epoch != self.costs.epoch:
            self._epoch = self.costs.epoch
            self.concurrency.begin_again()
        self.at_once = 1
        if not self.concurrency.looks(job.older is not None, self.waiting):
            return
        at_once = 1
        begun = now - self.costs.usual.lengthy_from
        older = job.older
        while older is not None:
            kind = older.kind
            if older.sent_at <= begun:
                if kind.lengthy or older.beside == LENGTHY:
                    pass
                elif kind.count < TRUSTED:
                    self.costs.usual.find(kind)
                elif 0.0 <= older.started_at <= begun:  # This one is lengthy, whatever its kind usually takes.
                    older.beside = LENGTHY
                    self.lengthy.begin()
                    self._changes = -1
            elif older.beside != LENGTHY and not kind.lengthy and older.number < job.number:
                at_once += 1  # One that began during this one's upload may wait for the worker that read it.
            older = older.older
        self.at_once = at_once
        concurrency = self.concurrency
        was_bounded = concurrency.is_bounded
        concurrency.saw(at_once, self.waiting, not self.lengthy.takes_some(concurrency.servers))
        if concurrency.is_bounded and not was_bounded:
            self._changes = -1  # Some may be laid aside, though nothing has changed at the others.

    def drop(self, job: Job, now: float) -> None:
        """Remove a request that has its answer; the endpoint goes on with the next."""
        self._unlink(job)
        self._begin_next(now)

    def _unlink(self, job: Job) -> None:
        older = job.older
        newer = job.newer
        if older is None:
            self.oldest = newer
        else:
            older.newer = newer
        if newer is None:
            self.newest = older
        else:
            newer.older = older
        job.older = None
        job.newer = None
        self.waiting -= 1
        # From 0 again, so that roundings do not add up.
        self.waiting_cost = self.waiting_cost - job.expected if self.waiting else 0.0

    def _begin_next(self, now: float) -> None:
        """It works on the oldest."""
        next_job = self.oldest
        number = 0
        servers = self.servers
        while next_job is not None and number < servers:
            if next_job.started_at < 0.0:
                next_job.started_at = now
            next_job = next_job.newer
            number += 1

    def has_room(self, elsewhere: Elsewhere) -> bool:
        """Whether it can begin with one more at once, as far as is known."""
        if not self.concurrency.is_bounded:
            return True
        return self.waits + elsewhere.requests <= self.servers - 1

    def excess(self, others: float, at_once: int) -> float:
        """What it has to do before it can begin with one more, where requests are alike: in mean costs, by count.

        `others`: requests of other replicas.
        """
        over = self.taken + others + 1.0 - at_once
        return over / at_once if over > 0.0 else 0.0

    def wait(self, elsewhere: Elsewhere, now: float, pace: float) -> float:
        """Seconds, at a typical pace, until it can begin with one more, where it goes on at `pace`."""
        if self.has_room(elsewhere):
            return 0.0
        servers = self.servers
        total = self.cost + self._seconds(elsewhere)
        job = self.oldest
        if servers == 1:
            return total if job is None else total - job.expected + _left(job, pace, now)
        if servers > FOLLOWED:
            everything = self.waits + elsewhere.requests
            return total / everything * (everything + 1.0 - servers) / servers
        left = 0.0
        running = 0
        while job is not None and running < servers:
            left += _left(job, pace, now)
            total -= job.expected
            running += 1
            job = job.newer
        # What waits is poured onto the workers like water: those that are busy for longer get none of it.
        workers = servers
        while True:
            level = (max(total, 0.0) + left) / workers
            below, left = self._left_below(level, pace, now)
            below += servers - running
            if below >= workers or below == 0:
                return level
            workers = below

    def _left_below(self, level: float, pace: float, now: float) -> tuple[int, float]:
        """How many of those that it works on end before `level` (s), and what is left of them together."""
        left = 0.0
        number = 0
        below = 0
        job = self.oldest
        servers = self.servers
        while job is not None and number < servers:
            each = _left(job, pace, now)
            if each < level:
                left += each
                below += 1
            number += 1
            job = job.newer
        return below, left

    def silence(self, now: float) -> float:
        """For how long (s) it has been silent, where that is longer than its requests together make likely; else 0."""
        oldest = self.oldest
        # A long poll is silent for long: what came after it shows whether it holds others up.
        while oldest is not None and oldest.may_wait:
            oldest = oldest.newer
        if oldest is None or self.costs.dearest <= 0.0:
            return 0.0
        begun = oldest.started_at if oldest is self.oldest else oldest.sent_at
        if begun < 0.0:
            return 0.0
        since = self.answered_at
        silent = now - max(begun, since)
        most = SUSPICIOUS * self.pace.factor
        if 8.0 * silent <= most * STALLED * oldest.expected:  # No need to work out more.
            return 0.0
        if 8.0 * silent <= most * oldest.longest:
            return 0.0
        unlikely = silent / oldest.longest
        job = oldest.newer
        number = 1
        while job is not None and number < 8 and job.started_at >= 0.0:
            unlikely += (now - max(job.started_at, since)) / job.longest
            job = job.newer
            number += 1
        return silent if unlikely > most else 0.0


TRUSTED_KIND: Final = 2
"""Samples of a kind after which it says something of an endpoint's pace."""
STALLED: Final = 4.0
"""Few requests take more than so many times what was expected, where costs are exponential; where they have a heavier
tail it is that of as many standard deviations."""
SUSPICIOUS: Final = 2.0
"""So many of those times of silence, of all that it works on together: exponential costs come to that once in 3,000."""


def _left(job: Job, pace: float, now: float) -> float:
    """Seconds, at a typical pace, that one still needs."""
    if job.started_at < 0.0 or (job.kind.count < TRUSTED and job.may_wait):
        return job.expected
    run = (now - job.started_at) / pace
    # One that should have ended long ago is not about to end: it has a tail that its kind does not show.
    return max(job.expected + job.growth * run, 0.1 * run, 0.02 * job.expected)


NOTHING_KNOWN: Final = Work(Costs())
"""Of an endpoint whose work is not followed."""
