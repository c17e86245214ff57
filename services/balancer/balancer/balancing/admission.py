"""Whether there is capacity for a request: the limit of each endpoint, and the queue where all are at it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.errors import AllAtLimit
from balancer.balancing.queue import Queue, Ticket

Grant = Callable[[Ticket, float], bool]
"""Ends a ticket, by a lease or a refusal, at a time (s); False when no endpoint that is free will do for it."""


class Admission:
    """Counts the endpoints in rotation and what they can take, and gives that capacity to requests that wait."""

    __slots__ = ("_dispatching", "_freed", "_grant", "capacity", "in_rotation", "limit", "limited", "queue")

    def __init__(self, limit: int | None, queue_size: int, grant: Grant) -> None:
        self.limited = limit is not None
        self.limit = sys.maxsize if limit is None else limit
        """Requests in flight that each endpoint may have: LB_ENDPOINT_MAX_REQUESTS."""
        self.in_rotation = 0
        """Endpoints that may be chosen whenever they are below that."""
        self.capacity = 0
        """Requests that they can take until all are at their limit; kept only where there is one."""
        self.queue = Queue(queue_size)
        self._grant = grant
        self._dispatching = False
        self._freed = False
        """Whether capacity became free during `dispatch`."""

    def count(self, endpoint: Endpoint, step: int) -> None:
        """Add (1) or take away (-1) an endpoint in rotation with what it can take; call `dispatch` after it."""
        self.in_rotation += step
        self._freed = True
        if self.limited:
            self.capacity += step * (self.limit - endpoint.in_flight)

    def admit(self) -> None:
        """Refuse a new request while `dispatch` serves the queue, which it must not overtake. Raises AllAtLimit.

        At any other time it may go on: a queued request would have taken whatever is free, if it could use it.
        """
        if self._dispatching and self.in_rotation and self.queue.waiting:
            raise AllAtLimit

    def free(self, now: float) -> None:
        """An endpoint in rotation can take one request more."""
        self.capacity += 1
        self._freed = True
        if self.queue.waiting:
            self.dispatch(now)

    def dispatch(self, now: float) -> None:
        """Serve the requests that wait as far as there is capacity; refuse all of them when no endpoint is left.

        A served request may lease, close, leave or join the queue at once, and the loop goes on with the outcome. It
        ends: each further round needs a lease that has ended meanwhile.
        """
        if self._dispatching:
            return
        self._dispatching = True
        passed: list[Ticket] = []
        try:
            self._freed = True
            while self._freed:
                self._freed = False
                self.queue.put_back(passed)
                passed = []
                while self.capacity > 0 or not self.in_rotation:
                    ticket = self.queue.next()
                    if ticket is None:
                        break
                    if not self._grant(ticket, now):
                        passed.append(ticket)
        finally:
            self.queue.put_back(passed)
            self._dispatching = False
