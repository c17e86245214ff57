"""One request's hold on one endpoint."""

from __future__ import annotations

from mypy_extensions import mypyc_attr

from balancer.balancing.decision import Decision
from balancer.balancing.endpoint import Endpoint, Pending
from balancer.balancing.outcome import FAILURE, MALFORMED_IN_ROW, NOTHING, SATURATION, SUCCESS, Kind, Outcome


class Owner:
    """What a lease reports to the pool that gave it."""

    def changed(self, endpoint: Endpoint) -> None:
        """The load or latency of `endpoint` has changed."""
        raise NotImplementedError

    def succeeded(self, endpoint: Endpoint, opened_at: float, now: float) -> None:
        """`endpoint`, which is not healthy, has answered well a request that was chosen for it at `opened_at` (s)."""
        raise NotImplementedError

    def failed(self, endpoint: Endpoint, now: float) -> None:
        """A request at `endpoint` ended in a failure."""
        raise NotImplementedError

    def saturated(self, endpoint: Endpoint, seconds: float, now: float) -> None:
        """`endpoint` wants us to back off for some seconds."""
        raise NotImplementedError

    def give_back(self, endpoint: Endpoint, now: float) -> None:
        """A lease of `endpoint` has ended. The last of these calls."""
        raise NotImplementedError


@mypyc_attr(acyclic=True, free_list_len=1)  # Every request makes one: 25 ns of 155 for a lease and its close.
class Lease(Pending):
    """One request's hold on one endpoint, counted from the moment of selection until `close`."""

    __slots__ = (
        "_average_at",
        "_average_before",
        "_had_average",
        "_owner",
        "closed",
        "decision",
        "endpoint",
        "first_byte_at",
        "opened_at",
    )

    def __init__(self, owner: Owner, endpoint: Endpoint, now: float) -> None:
        super().__init__()
        self._owner = owner
        self.endpoint = endpoint
        self.decision: Decision | None = None
        """Why this endpoint: set when the request wanted an explanation."""
        self.opened_at = now
        self.first_byte_at: float | None = None
        self.closed = False
        self._had_average = False
        self._average_before = 0.0
        self._average_at = 0.0

    def sent(self, now: float) -> None:
        """The request has been sent whole (in TCP mode: connecting began): from here its response is awaited."""
        if self.closed or self.sent_at is not None or self.first_byte_at is not None:
            return
        self.sent_at = now
        if self.job is not None:
            self.job.sent(now)
        endpoint = self.endpoint
        endpoint.append(self)
        if endpoint.oldest is self:
            self._owner.changed(endpoint)  # Ties go by the oldest that waits.

    def first_byte(self, now: float) -> None:
        """The final response's head began to arrive (in TCP mode: connected). The latency sample is taken here."""
        if self.closed or self.first_byte_at is not None:
            return
        self.first_byte_at = now
        endpoint = self.endpoint
        endpoint.lasting += 1
        if self.job is not None:
            self.job.answered(now)
        latency = endpoint.latency
        self._had_average = latency.measured
        self._average_before = latency.value
        self._average_at = latency.measured_at
        sent_at = self.sent_at
        if sent_at is None:  # It answered before it had the whole request: nobody waited.
            latency.sample(0.0, now)
        else:
            endpoint.remove(self)
            endpoint.variability.sample(now - sent_at)
            job = self.job
            latency.sample(now - sent_at if job is None else job.fair(job.running(now)), now)
        self._owner.changed(endpoint)

    def close(self, outcome: Outcome, now: float) -> None:
        """Give the endpoint back. Exactly once: a second call does nothing."""
        if self.closed:
            return
        self.closed = True
        endpoint = self.endpoint
        sent_at = self.sent_at
        if self.first_byte_at is not None:
            endpoint.lasting -= 1
        elif sent_at is not None:
            endpoint.remove(self)
            endpoint.variability.sample(now - sent_at)
            if outcome.kind is Kind.CLIENT_LEFT:
                job = self.job
                took = now - sent_at if job is None else job.fair(job.running(now))
                if took > 0.0:  # One that waited for others there says nothing.
                    endpoint.latency.sample(took, now)
        verdict = outcome.verdict
        if verdict == SUCCESS or outcome.kind is Kind.ANSWERED:  # An enum's member costs compiled code 30 ns.
            endpoint.stats.count_answer(outcome.status)
        elif outcome.kind is not Kind.UNUSED:
            endpoint.stats.count_failure(outcome.kind.value)
        if verdict == FAILURE and outcome.is_malformed:
            in_row = endpoint.stats.count_malformed(1 if outcome.kind is Kind.ANSWERED else 0)
            verdict = FAILURE if in_row >= MALFORMED_IN_ROW else NOTHING
        if self.job is not None:
            self.job.ended(verdict == SUCCESS, verdict == FAILURE, now)
        if verdict == SUCCESS:
            health = endpoint.health
            health.failures_in_row = 0
            health.recent += 1
            if not health.healthy:
                self._owner.succeeded(endpoint, self.opened_at, now)
        else:
            self._close_otherwise(outcome, verdict, now)
        self._owner.give_back(endpoint, now)

    def _close_otherwise(self, outcome: Outcome, verdict: int, now: float) -> None:
        endpoint = self.endpoint
        if verdict == FAILURE:
            endpoint.latency.penalise(now)
            health = endpoint.health
            health.recent += 1
            health.recent_failures += 1
            health.failures_in_row += 1
            self._owner.failed(endpoint, now)
        elif outcome.kind is Kind.ANSWERED:  # Turned away: how fast it did that is no measure of how fast it works.
            latency = endpoint.latency
            if self.first_byte_at is not None and latency.measured_at == self.first_byte_at:
                latency.restore(self._average_before, self._average_at, self._had_average)
            if verdict == SATURATION:
                self._owner.saturated(endpoint, outcome.retry_after or 0.0, now)
