"""Whatever becomes of requests, in whatever order: what endpoints have to do is counted once, and nothing stays."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as draw
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.balancer.balancing.world import Fleet

from balancer.balancing import outcome
from balancer.balancing.errors import NoEndpoint
from balancer.balancing.outcome import Outcome
from balancer.balancing.pool import Lease
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies import load
from balancer.balancing.work import LENGTHY, Job, Work

OK = Outcome.answered(200)
LONG = ("/poll", "/report", "/export")
PATHS = draw.sampled_from(("/items", "/search", *LONG))
NUMBERS = draw.integers(0, 100)
ENDS = draw.sampled_from(
    [OK, OK, Outcome.answered(500), Outcome.answered(503, 0.5), outcome.TIMED_OUT, outcome.CLIENT_LEFT]
)


class WorkMachine(RuleBasedStateMachine):
    """Requests of usual and of lengthy kinds at endpoints that come and go, under strategies that change."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet("least-work", "a b", eject_after=100)
        self.leases: list[Lease] = []
        """Those that are open."""
        self.jobs: dict[Job, Lease] = {}
        """And those of them that count as work."""
        self.works: dict[Work, int] = {}
        """All that there ever were, and how many lengthy requests had ended."""

    @initialize(workers=draw.integers(1, 3))
    def teach(self, workers: int) -> None:
        """Let it be known what is usual, what is lengthy, and how much the endpoints work on at once."""
        self.be_busy(workers)
        for path in LONG:
            self.overtake(path)
        self.be_busy(workers)
        assert self.fleet.pool.costs.bounded

    def be_busy(self, workers: int) -> None:
        fleet = self.fleet
        for _ in range(20):
            leases = [fleet.lease(request=RequestInfo(method="GET", path="/items")) for _ in range(2 * workers + 4)]
            for lease in leases:
                lease.sent(fleet.now)
            for endpoint in fleet.pool.endpoints:
                own = [lease for lease in leases if lease.endpoint is endpoint]
                while own:
                    fleet.now += 0.01
                    lease = own.pop(min(workers, len(own)) - 1)
                    lease.first_byte(fleet.now)
                    lease.close(OK, fleet.now)

    @rule(path=PATHS, times=draw.integers(1, 4))
    def send_some(self, path: str, times: int) -> None:
        for _ in range(times):
            self.begin(path, True)

    @rule(path=PATHS, is_sent=draw.booleans())
    def begin(self, path: str, is_sent: bool) -> None:
        try:
            lease = self.fleet.pool.lease(RequestInfo(method="GET", path=path), self.fleet.now)
        except NoEndpoint:
            return
        self.leases.append(lease)
        self.meet(lease)
        if is_sent:
            lease.sent(self.fleet.now)

    @rule(which=NUMBERS)
    def send(self, which: int) -> None:
        if self.leases:
            self.leases[which % len(self.leases)].sent(self.fleet.now)

    @rule(which=NUMBERS, after=draw.sampled_from([0.002, 0.02, 0.2, 2.0]))
    def answer(self, which: int, after: float) -> None:
        """The head of the response has come; the rest lasts."""
        self.fleet.now += after
        if self.leases:
            lease = self.leases[which % len(self.leases)]
            lease.first_byte(self.fleet.now)
            if lease.job is not None and lease.job.sent_at >= 0.0:
                assert lease.job.service <= self.fleet.now - lease.job.sent_at + 1e-6

    @rule(which=NUMBERS, after=draw.sampled_from([0.002, 0.02, 0.2, 2.0]), end=ENDS)
    def answer_and_close(self, which: int, after: float, end: Outcome) -> None:
        self.answer(which, after)
        self.close(which, end)

    @rule(which=NUMBERS, end=ENDS)
    def close(self, which: int, end: Outcome) -> None:
        if self.leases:
            self.leases.pop(which % len(self.leases)).close(end, self.fleet.now)

    @rule(path=draw.sampled_from(LONG))
    def overtake(self, path: str) -> None:
        """One is answered late, so that its kind may become lengthy while others of it are in flight."""
        self.begin(path, True)
        self.answer_and_close(-1, 2.0, OK)

    @rule(path=draw.sampled_from(LONG))
    def give_up(self, path: str) -> None:
        """A client does not wait for one; what was sent after it is late."""
        self.begin(path, True)
        self.send_some("/items", 4)
        self.close(-5, outcome.CLIENT_LEFT)
        for _ in range(4):
            self.answer_and_close(-1, 2.0, OK)

    @rule(path=draw.sampled_from(LONG), times=draw.integers(1, 40))
    def become_short(self, path: str, times: int) -> None:
        """Answers of a kind come at once, so that it may be lengthy no longer."""
        for _ in range(times):
            self.begin(path, True)
            self.answer_and_close(-1, 0.002, OK)

    @rule(name=draw.sampled_from("abc"))
    def add(self, name: str) -> None:
        self.fleet.add(name)

    @rule(name=draw.sampled_from("abc"), uid=draw.sampled_from(["", "another"]))
    def replace(self, name: str, uid: str) -> None:
        self.fleet.add(name, uid=uid)

    @rule(name=draw.sampled_from("abc"))
    def remove(self, name: str) -> None:
        if name in self.fleet.specs:
            self.fleet.remove(name)

    @rule(name=draw.sampled_from(["least-work", "least-work", "least-response-time", "round-robin"]))
    def switch(self, name: str) -> None:
        self.fleet.pool.use(load(name, Random(1)), name, self.fleet.now)
        for endpoint in self.fleet.pool.endpoints:
            pending = endpoint.oldest
            while pending is not None:
                assert isinstance(pending, Lease)
                self.meet(pending)
                pending = pending.newer

    @rule()
    def begin_again(self) -> None:
        self.fleet.pool.costs.begin_again()

    def meet(self, lease: Lease) -> None:
        if lease.job is not None and not lease.closed:
            self.jobs[lease.job] = lease
            self.works.setdefault(lease.job.work, 0)

    @invariant()
    def each_counts_once(self) -> None:
        self.jobs = {job: lease for job, lease in self.jobs.items() if not lease.closed}
        for endpoint in self.fleet.pool.endpoints:
            self.works.setdefault(endpoint.work, 0)
        usual = self.fleet.pool.costs.usual
        assert usual.aside == sum(work.lengthy.aside for work in self.works)
        assert usual.beside >= 0.0
        for work, ended in self.works.items():
            awaited = [
                job
                for job, lease in self.jobs.items()
                if job.work is work and job.sent_at >= 0.0 and lease.first_byte_at is None
            ]
            lengthy = [job for job in awaited if job.beside == LENGTHY]
            assert work.lengthy.present == len(lengthy)
            assert work.lengthy.aside == sum(job.aside for job in lengthy)
            assert work.lengthy.ended >= ended
            self.works[work] = work.lengthy.ended
            waiting = listed(work)
            assert {*waiting} == {job for job in awaited if not job.aside}
            assert work.waiting == len(waiting) == len({*waiting})
            assert work.waiting_cost == pytest.approx(sum(job.expected for job in waiting), abs=1e-6)
            unsent = [
                job
                for job, lease in self.jobs.items()
                if job.work is work and job.sent_at < 0.0 and lease.first_byte_at is None
            ]
            assert work.unsent == len(unsent)
            assert work.unsent_cost == pytest.approx(sum(job.unsent for job in unsent), abs=1e-6)
            assert work.servers >= 1
            assert work.held >= 0

    def teardown(self) -> None:
        for lease in self.leases:
            lease.close(outcome.TIMED_OUT, self.fleet.now)
        self.each_counts_once()
        assert self.fleet.pool.costs.usual.aside == 0
        for work in self.works:
            assert (work.waiting, work.waiting_cost, work.lengthy.present, work.lengthy.aside) == (0, 0.0, 0, 0)


def listed(work: Work) -> list[Job]:
    """The requests that wait there, the one sent first, first; each link leads back as well."""
    jobs: list[Job] = []
    job = work.oldest
    while job is not None:
        assert job.older is (jobs[-1] if jobs else None)
        assert job not in jobs
        jobs.append(job)
        job = job.newer
    assert work.newest is (jobs[-1] if jobs else None)
    return jobs


TestWork = WorkMachine.TestCase
TestWork.settings = settings(max_examples=60, stateful_step_count=80, deadline=None)
