"""One simulated replica of the balancer: a real pool, and what the proxy does with it, without a byte.

The rules it follows are balancing's own: the pool chooses, ejects, queues and starts slowly, `may_retry` and
`RetryBudget` decide on another attempt. Written here is only who calls them when, as proxy/attempts.py does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from balancer.balancing.endpoint import Endpoint, EndpointSpec
from balancer.balancing.errors import AllAtLimit, AllTried, NoEndpoint
from balancer.balancing.load_report import FIELD
from balancer.balancing.outcome import Kind, Outcome
from balancer.balancing.policy import Policy
from balancer.balancing.pool import Lease, Pool
from balancer.balancing.queue import Ticket
from balancer.balancing.retry import IDEMPOTENT, Retry, RetryBudget, may_retry
from balancer.balancing.strategies import FALLBACK, load
from balancer.balancing.strategies.guarded import Guarded
from balancer.lab.clock import Clock
from balancer.lab.fleet import Call, Server
from balancer.lab.record import Record
from balancer.lab.traffic import Ask

TICK: Final = 0.1
"""Seconds between two ticks of the pool and of the deadlines, as in the proxy."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a replica is set to: the settings of the same names, in seconds."""

    policy: Policy = Policy()  # noqa: RUF009  (frozen)
    retries: int = 2
    retry_statuses: frozenset[int] = frozenset({503})
    retry_budget: float = 0.2
    response_timeout: float = 30.0
    queue_timeout: float = 5.0
    client_timeout: float = 60.0
    """Seconds that a client waits; a request that fails counts as so long a one."""


class Replica:
    """A balancer: its pool, its retry budget, and the requests that it carries."""

    def __init__(self, strategy: str, rules: Rules, servers: list[Server], clock: Clock, random: Random) -> None:
        self.clock = clock
        self.rules = rules
        self.ended: Callable[[], None] | None = None
        """Called when a request has ended: the closed loop's next."""
        self._strategy = load(strategy, random, rules.policy.hash_key)
        self.pool = Pool(self._strategy, strategy, rules.policy, random)
        specs = [
            EndpointSpec(f"10.0.{i // 250}.{i % 250 + 1}", 80, server.script.weight) for i, server in enumerate(servers)
        ]
        self.pool.replace(specs, 0.0)
        self._servers = {spec.address: server for spec, server in zip(specs, servers, strict=True)}
        self.numbers = {spec.address: i for i, spec in enumerate(specs)}
        self.budget = RetryBudget(rules.retry_budget)
        self.waiting: deque[tuple[float, Attempt]] = deque()
        """Attempts by the deadline of their responses: all have the same time, so the first is the next."""
        self.queued: deque[tuple[float, Trip]] = deque()

    def start(self, ask: Ask, record: Record) -> None:
        """A request has come."""
        self.budget.earn(self.clock.now)
        Trip(self, ask, record).find()

    @property
    def fault(self) -> str:
        """What a strategy of a user's own raised, and how often; empty if nothing, or it is one of ours."""
        strategy = self._strategy
        if not isinstance(strategy, Guarded) or not strategy.failures:
            return ""
        return f"{strategy.first_failure}; {strategy.failures:,} times, {FALLBACK} chose instead"

    def server(self, endpoint: Endpoint) -> Server:
        """The simulated endpoint behind `endpoint`."""
        return self._servers[endpoint.address]

    def tick(self) -> None:
        """100 ms have passed: deadlines, then the pool."""
        now = self.clock.now
        waiting = self.waiting
        while waiting and (waiting[0][1].over or waiting[0][0] <= now):
            waiting.popleft()[1].timed_out()
        while self.queued and self.queued[0][0] <= now:
            self.queued.popleft()[1].queued_too_long()
        self.pool.tick(now)


class Attempt(Call):
    """One try of a request at one endpoint."""

    __slots__ = ("_lease", "_status", "_trip", "over")

    def __init__(self, trip: Trip, lease: Lease) -> None:
        super().__init__(trip.ask.cost, trip.ask.info.path)
        self._trip = trip
        self._lease = lease
        self._status = 0
        self.over = False
        """It has its answer, or will have none."""

    def begin(self) -> None:
        """Send the request; it is whole after its upload."""
        ask = self._trip.ask
        clock = self._trip.replica.clock
        if ask.upload:
            clock.at(clock.now + ask.upload, self._sent)
        else:
            self._sent()

    def _sent(self) -> None:
        replica = self._trip.replica
        now = replica.clock.now
        self._lease.sent(now)
        replica.waiting.append((now + replica.rules.response_timeout, self))
        endpoint = self._lease.endpoint
        if self._trip.ask.idle:
            replica.clock.at(now + self._trip.ask.idle, self._polled)
        else:
            replica.server(endpoint).take(self)

    def _polled(self) -> None:
        self.answered(200)

    def answered(self, status: int) -> None:
        """The endpoint answers, if anybody still waits."""
        if self.over:
            return
        trip = self._trip
        clock = trip.replica.clock
        self._status = status
        self._lease.first_byte(clock.now)
        load = trip.replica.server(self._lease.endpoint).load
        if load is not None:
            trip.replica.pool.reported(self._lease.endpoint, FIELD, load.report(clock.now), clock.now)
        if (
            may_retry(Kind.ANSWERED, status, trip.idempotent, False, trip.replica.rules.retry_statuses)
            is Retry.ELSEWHERE
        ):
            self.over = True
            self._lease.close(_outcome(status), clock.now)
            trip.again_or_end(status)
        elif trip.ask.stream and status == 200:
            self.over = True
            trip.answered(clock.now)
            clock.at(clock.now + trip.ask.stream, self._streamed)
        else:
            self.over = True
            self._lease.close(_outcome(status), clock.now)
            trip.end(status, self._lease.endpoint)

    def _streamed(self) -> None:
        self._lease.close(_outcome(self._status), self._trip.replica.clock.now)

    def refused(self) -> None:
        """Nobody listens there."""
        self._fail(Kind.REFUSED)

    def timed_out(self) -> None:
        """No response within its time."""
        if not self.over:
            self._fail(Kind.TIMED_OUT)

    def _fail(self, kind: Kind) -> None:
        trip = self._trip
        self.over = True
        self._lease.close(Outcome.failed(kind), trip.replica.clock.now)
        if may_retry(kind, 0, trip.idempotent, False, trip.replica.rules.retry_statuses) is Retry.ELSEWHERE:
            trip.again_or_end(504)
        else:
            trip.end(504, self._lease.endpoint)


class Trip:
    """One request's search for an answer."""

    __slots__ = ("_attempts", "_last", "_queued_until", "_record", "_ticket", "_tried", "ask", "idempotent", "replica")

    def __init__(self, replica: Replica, ask: Ask, record: Record) -> None:
        self.replica = replica
        self._record = record
        self.ask = ask
        self.idempotent = ask.info.method in IDEMPOTENT
        self._attempts = 0
        self._tried: tuple[Endpoint, ...] = ()
        self._last: Endpoint | None = None
        self._ticket: Ticket | None = None
        self._queued_until = 0.0

    def find(self) -> None:
        """Lease an endpoint, or wait for one, or fail."""
        pool = self.replica.pool
        now = self.replica.clock.now
        try:
            lease = pool.lease(self.ask.info, now, self._tried)
        except AllTried:
            self._tried = ()
            self.find()
        except AllAtLimit:
            self._wait(now)
        except NoEndpoint:
            self.end(503, self._last)
        else:
            self._try(lease)

    def _try(self, lease: Lease) -> None:
        self._attempts += 1
        self._last = lease.endpoint
        Attempt(self, lease).begin()

    def _wait(self, now: float) -> None:
        try:
            self._ticket = self.replica.pool.wait(self.ask.info, self._tried, False, self._granted, self._refused)
        except NoEndpoint:
            self.end(503, self._last)
            return
        if not self._queued_until:
            self._queued_until = now + self.replica.rules.queue_timeout
            self.replica.queued.append((self._queued_until, self))

    def _granted(self, lease: Lease, _now: float) -> None:
        self._ticket = None
        self._try(lease)

    def _refused(self, _error: NoEndpoint, _now: float) -> None:
        self._ticket = None
        self.end(503, self._last)

    def queued_too_long(self) -> None:
        """It has waited for LB_QUEUE_TIMEOUT, if it still does."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            ticket.leave()
            self.end(503, None)

    def again_or_end(self, status: int) -> None:
        """Try elsewhere, if the number of attempts and the budget allow; else `status` is the answer."""
        replica = self.replica
        if self._attempts > replica.rules.retries or not replica.budget.take(replica.clock.now):
            self.end(status, self._last)
            return
        if self._last is not None:
            self._tried = (*self._tried, self._last)
        self.find()

    def answered(self, now: float) -> None:
        """A stream begins: to its client that is the answer."""
        self._note(now, 200)

    def end(self, status: int, endpoint: Endpoint | None) -> None:
        """It has its answer."""
        self._last = endpoint
        self._note(self.replica.clock.now, status)

    def _note(self, now: float, status: int) -> None:
        replica = self.replica
        number = -1 if self._last is None else replica.numbers[self._last.address]
        self._record.add(now - self.ask.at, self.ask.cost, status < 500, number, now)
        if replica.ended is not None:
            replica.ended()


_OK: Final = Outcome.answered(200)


def _outcome(status: int) -> Outcome:
    if status == 200:
        return _OK
    return Outcome.answered(status, 1.0 if status == 503 else None)
