"""One request's hold on one endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy_extensions import mypyc_attr

from balancer.balancing.decision import Decision
from balancer.balancing.endpoint import Endpoint
from balancer.balancing.outcome import FAILURE, SATURATION, SUCCESS, Kind, Outcome
from balancer.balancing.work import Job

if TYPE_CHECKING:
    from balancer.balancing.pool import Pool


@mypyc_attr(acyclic=True, free_list_len=1)  # Every request makes one: 25 ns of 155 for a lease and its close.
class Lease:
    """One request's hold on one endpoint, counted from the moment of selection until `close`."""

    __slots__ = (
        "_average_at",
        "_average_before",
        "_had_average",
        "closed",
        "decision",
        "endpoint",
        "first_byte_at",
        "job",
        "newer",
        "older",
        "opened_at",
        "pool",
        "sent_at",
    )

    def __init__(self, pool: Pool, endpoint: Endpoint, now: float) -> None:
        self.pool = pool
        self.endpoint = endpoint
        self.decision: Decision | None = None
        """Why this endpoint: set when the lease was asked to explain itself."""
        self.opened_at = now
        self.sent_at: float | None = None
        self.first_byte_at: float | None = None
        self.closed = False
        self.job: Job | None = None
        """The request as work, where the strategy asks for that."""
        self.older: Lease | None = None
        """Its neighbours among those of the endpoint that wait for a response; a list in place of a dict: 100 ns."""
        self.newer: Lease | None = None
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
        newest = endpoint.newest
        if newest is None:
            endpoint.oldest = self
            endpoint.newest = self
            self.pool.changed(endpoint)  # Ties go by the oldest that waits.
        else:
            newest.newer = self
            self.older = newest
            endpoint.newest = self

    def first_byte(self, now: float) -> None:
        """The final response's head began to arrive (in TCP mode: connected). The latency sample is taken here."""
        if self.closed or self.first_byte_at is not None:
            return
        self.first_byte_at = now
        endpoint = self.endpoint
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
            self._wait_no_more()
            took = now - sent_at
            latency.sample(took if self.job is None else self.job.fair(took), now)
        self.pool.changed(endpoint)

    def close(self, outcome: Outcome, now: float) -> None:
        """Give the endpoint back. Exactly once: a second call does nothing."""
        if self.closed:
            return
        self.closed = True
        endpoint = self.endpoint
        sent_at = self.sent_at
        if sent_at is not None and self.first_byte_at is None:
            self._wait_no_more()
            if outcome.kind is Kind.CLIENT_LEFT:
                took = now - sent_at
                endpoint.latency.sample(took if self.job is None else self.job.fair(took), now)
        verdict = outcome.verdict
        if self.job is not None:
            self.job.ended(verdict == SUCCESS, verdict == FAILURE, now)
        if verdict == SUCCESS:
            endpoint.failures_in_row = 0
            endpoint.recent += 1
            if 200 <= outcome.status < 300:  # By far the most, and counted where the cache already is: 80 ns of 400.
                endpoint.answered_2xx += 1
            else:
                endpoint.answered_other[min(outcome.status // 100, 5)] += 1
            if endpoint.backoff_until > 0.0 and self.opened_at >= endpoint.backoff_from:
                self.pool.answers_again(endpoint, now)
        else:
            self._close_otherwise(outcome, verdict, now)
        self.pool.give_back(endpoint, now)

    def _wait_no_more(self) -> None:
        older = self.older
        newer = self.newer
        if older is None:
            self.endpoint.oldest = newer
        else:
            older.newer = newer
        if newer is None:
            self.endpoint.newest = older
        else:
            newer.older = older
        self.older = None
        self.newer = None

    def _close_otherwise(self, outcome: Outcome, verdict: int, now: float) -> None:
        endpoint = self.endpoint
        if outcome.kind is Kind.ANSWERED:
            endpoint.answered_other[min(outcome.status // 100, 5)] += 1
        elif outcome.kind is not Kind.UNUSED:
            reason = outcome.kind.value
            endpoint.failed[reason] = endpoint.failed.get(reason, 0) + 1
        if verdict == FAILURE:
            endpoint.latency.penalise(now)
            endpoint.recent += 1
            endpoint.recent_failures += 1
            endpoint.failures_in_row += 1
            self.pool.failed(endpoint, now)
        elif outcome.kind is Kind.ANSWERED:  # Turned away: how fast it did that is no measure of how fast it works.
            latency = endpoint.latency
            if self.first_byte_at is not None and latency.measured_at == self.first_byte_at:
                latency.restore(self._average_before, self._average_at, self._had_average)
            if verdict == SATURATION:
                self.pool.back_off(endpoint, outcome.retry_after or 0.0, now)
