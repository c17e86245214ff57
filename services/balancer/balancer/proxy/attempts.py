"""Finding an endpoint, for a request or a TCP connection: lease one, or wait for one; after a failure try another.

What is leased is given back exactly once, however it ends.
"""

from __future__ import annotations

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.errors import AllAtLimit, AllTried, NoEndpoint
from balancer.balancing.outcome import Outcome
from balancer.balancing.pool import Lease
from balancer.balancing.queue import Ticket
from balancer.balancing.request import RequestInfo
from balancer.counters import count
from balancer.log import AccessEntry
from balancer.proxy.cluster import Cluster
from balancer.proxy.service import Service
from balancer.proxy.timers import Timed


class Attempts(Timed):
    """One request's or connection's search for an endpoint; subclasses say what to do with one."""

    __slots__ = (
        "attempts",
        "began_at",
        "cluster",
        "connect_took",
        "endpoint",
        "explain",
        "info",
        "lease",
        "queue_took",
        "queued_at",
        "reason",
        "service",
        "ticket",
        "tried",
    )

    def __init__(self, service: Service, cluster: Cluster, info: RequestInfo, now: float) -> None:
        super().__init__()
        self.service = service
        self.cluster = cluster
        self.info = info
        self.began_at = now
        self.lease: Lease | None = None
        self.endpoint: Endpoint | None = None
        """The last attempt's endpoint."""
        self.attempts = 0
        self.tried: tuple[Endpoint, ...] = ()
        """Endpoints that have failed this one, while there are others."""
        self.explain = False
        """Whether the lease is to say why it went where it went."""
        self.reason = ""
        """Why it failed, in the words of Proxy-Status, log and metrics; empty while it has not."""
        self.ticket: Ticket | None = None
        self.queued_at = 0.0
        self.queue_took = -1.0
        """Seconds in the queue; below 0 when it did not wait."""
        self.connect_took = -1.0
        """Seconds to connect; below 0 when a connection was open already."""

    # For the subclass to say.

    def leased(self, lease: Lease, now: float) -> None:
        """There is an endpoint: send it what there is."""
        raise NotImplementedError

    def none_found(self, error: NoEndpoint, now: float) -> None:
        """There is none, and waiting would not help."""
        raise NotImplementedError

    def most_retries(self) -> int:
        """Attempts beyond the first."""
        return self.cluster.policy.retries

    # For the subclass to call.

    def acquire(self, now: float) -> None:
        """Lease an endpoint, or wait in the queue for one, or say that there is none."""
        try:
            lease = self.cluster.pool.lease(self.info, now, self.tried, self.explain)
        except AllTried:
            # Another endpoint is better than the same again, which is better than none.
            self.tried = ()
            self.acquire(now)
        except AllAtLimit:
            self._join_queue(now)
        except NoEndpoint as error:
            self.none_found(error, now)
        else:
            self.start_attempt(lease, now)

    def start_attempt(self, lease: Lease, now: float) -> None:
        """Go on with `lease`."""
        self.lease = lease
        self.endpoint = lease.endpoint
        self.attempts += 1
        self.leased(lease, now)

    def may_try_again(self, why: str, now: float) -> bool:
        """Whether the number of attempts and the budget allow one more, for the reason `why`; it is then paid for."""
        service = self.service
        if self.attempts > self.most_retries():
            return False
        if not self.cluster.budget.take(now):
            service.counters.retries_denied += 1
            return False
        count(service.counters.retries, why)
        if self.endpoint is not None:
            self.tried = (*self.tried, self.endpoint)
        return True

    def leave_queue(self, now: float) -> None:
        """Give up the place in the queue, if there is one."""
        ticket, self.ticket = self.ticket, None
        if ticket is not None:
            ticket.leave()
            self._left_queue(now)

    def close_lease(self, outcome: Outcome, now: float) -> None:
        """Give the endpoint back, if there is a lease."""
        lease, self.lease = self.lease, None
        if lease is not None:
            lease.close(outcome, now)

    def describe(self, entry: AccessEntry) -> None:
        """Pass the search to the access log."""
        entry.client = self.info.client
        entry.queue = self.queue_took if self.queue_took >= 0.0 else None
        entry.connect = self.connect_took if self.connect_took >= 0.0 else None
        entry.endpoint = self.endpoint.address if self.endpoint is not None else ""
        # A request of no route was for no cluster.
        entry.cluster = self.cluster.name if self.attempts or self.reason != "no route" else ""
        entry.attempts = self.attempts
        entry.strategy = self.cluster.pool.strategy_name
        entry.reason = self.reason

    def _join_queue(self, now: float) -> None:
        try:
            self.ticket = self.cluster.pool.wait(self.info, self.tried, self.explain, self._granted, self._refused)
        except NoEndpoint as error:
            self.none_found(error, now)
            return
        if self.queued_at == 0.0:
            self.queued_at = now
        self.arm(self.queued_at + self.cluster.policy.queue_timeout)

    def _granted(self, lease: Lease, now: float) -> None:
        # Called within another's end, or by the clock: a fault is ours alone.
        try:
            self._wait_no_more(now)
            self.start_attempt(lease, now)
        except Exception:  # noqa: BLE001 (`fault` logs and counts it)
            self.service.wheel.fault("a request that had waited failed", self)

    def _refused(self, error: NoEndpoint, now: float) -> None:
        try:
            self._wait_no_more(now)
            self.none_found(error, now)
        except Exception:  # noqa: BLE001 (`fault` logs and counts it)
            self.service.wheel.fault("a request that had waited failed", self)

    def _wait_no_more(self, now: float) -> None:
        self.ticket = None
        self.arm(0.0)
        self._left_queue(now)

    def _left_queue(self, now: float) -> None:
        self.queue_took = now - self.queued_at
        self.service.counters.queue_seconds.observe(self.queue_took)

    def arm(self, deadline: float) -> None:
        """Expire at `deadline` (s); 0: not at all."""
        if deadline:
            self.service.wheel.arm(self, deadline)
        else:
            self.deadline = 0.0
