"""The requests that wait for an endpoint below its limit, and which is next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.errors import NoEndpoint, QueueFull
from balancer.balancing.lease import Lease
from balancer.balancing.request import RequestInfo

Granted = Callable[[Lease, float], None]
"""Takes the lease that was waited for, and the time (s)."""
Refused = Callable[[NoEndpoint, float], None]
"""Takes the reason why waiting is of no use any more, and the time (s)."""


class Ticket:
    """One request's place in the queue. It ends in a lease, in a refusal, or when its owner leaves: in one of them."""

    __slots__ = ("excluded", "explain", "granted", "queue", "refused", "request", "waits")

    def __init__(
        self,
        queue: Queue,
        request: RequestInfo,
        excluded: Collection[Endpoint],
        explain: bool,
        granted: Granted,
        refused: Refused,
    ) -> None:
        self.queue = queue
        self.request = request
        self.excluded = excluded
        """Endpoints that the request has tried."""
        self.explain = explain
        self.granted = granted
        self.refused = refused
        self.waits = True

    def leave(self) -> None:
        """Give up the place: a client that left, or LB_QUEUE_TIMEOUT. Doing so twice, or too late, does nothing."""
        self.queue.end(self)


class Queue:
    """First come, first served; a request that cannot use what is free keeps its place."""

    __slots__ = ("_line", "_size", "waiting")

    def __init__(self, size: int) -> None:
        self._size = size
        self._line: OrderedDict[Ticket, None] = OrderedDict()
        self.waiting = 0
        """How many requests wait."""

    def join(self, ticket: Ticket) -> None:
        """Put `ticket`, made for this queue, at the end of the line. Raises QueueFull."""
        if self.waiting >= self._size:
            raise QueueFull
        self._line[ticket] = None
        self.waiting += 1

    def end(self, ticket: Ticket) -> None:
        """`ticket` waits no more."""
        if ticket.waits:
            ticket.waits = False
            self.waiting -= 1
            self._line.pop(ticket, None)

    def next(self) -> Ticket | None:
        """Take the first out of the line, though it waits until it is ended or put back; None when nobody is left."""
        return self._line.popitem(last=False)[0] if self._line else None

    def put_back(self, tickets: list[Ticket]) -> None:
        """Put those that were taken out and still wait in front again, in their order."""
        for ticket in reversed(tickets):
            if ticket.waits:
                self._line[ticket] = None
                self._line.move_to_end(ticket, last=False)
