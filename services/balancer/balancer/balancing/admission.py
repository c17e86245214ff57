"""Whether there is room for a request: the limit of each endpoint, and the queue where all are at it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.errors import AllAtLimit
from balancer.balancing.queue import Queue, Ticket


class Admission:
    """Counts the used endpoints and the requests they can take, and wakes those who wait as there is room."""

    __slots__ = ("_queue", "_serving", "limit", "limited", "room", "used")

    def __init__(self, limit: int | None, queue_size: int) -> None:
        self.limited = limit is not None
        self.limit = sys.maxsize if limit is None else limit
        """Requests in flight that each endpoint may have."""
        self.used = 0
        """Endpoints that may be chosen whenever they are below it."""
        self.room = 0
        """Requests that they can take until all are at their limit; kept only where there is one."""
        self._queue = Queue(queue_size, self.serve)
        self._serving = False

    def count(self, endpoint: Endpoint, step: int) -> None:
        """Add (1) or take away (-1) an endpoint with what it can take; `serve` is to follow."""
        self.used += step
        if self.limited:
            self.room += step * (self.limit - endpoint.in_flight)

    def admit(self, ticket: Ticket | None) -> None:
        """Nobody takes the place that was promised to one who waits. Raises AllAtLimit."""
        if ticket is not None and self._queue.spend(ticket):
            return
        if self.used and (len(self._queue) or (self._queue.woken and self._queue.woken >= self.room)):
            raise AllAtLimit

    def free(self) -> None:
        """A used endpoint can take one request more."""
        self.room += 1
        if len(self._queue):
            self.serve()

    def wait(self, wake: Callable[[], None], now: float) -> Ticket:
        """Join the queue; `wake` is called once, when it is this one's turn. Raises QueueFull."""
        return self._queue.join(wake, now)

    def serve(self) -> None:
        """Wake as many as there is room for; all, when no endpoint is left to wait for."""
        if self._serving:  # Whoever is woken may lease, close and leave at once; the loop below goes on with that.
            return
        self._serving = True
        try:
            while len(self._queue) and (self.room > self._queue.woken or not self.used):
                self._queue.wake_next()
        finally:
            self._serving = False

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._queue)
