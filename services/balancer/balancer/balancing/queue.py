"""Who waits for an endpoint below its limit, and who is next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from balancer.balancing.errors import QueueFull

_WAITING: Final = 0
_WOKEN: Final = 1
_GONE: Final = 2


class Ticket:
    """One request's place in the queue."""

    __slots__ = ("queue", "since", "state", "wake")

    def __init__(self, queue: Queue, wake: Callable[[], None], now: float) -> None:
        self.queue = queue
        self.wake = wake
        self.since = now
        """When it joined (s)."""
        self.state = _WAITING

    def leave(self) -> None:
        """Give up the place: a client that left, or LB_QUEUE_TIMEOUT. Doing so twice does nothing."""
        self.queue.leave(self)


class Queue:
    """First come, first served. A place that is woken and not used goes to the next in line.

    `serve` is called when a place became free that the queue had promised to somebody.
    """

    __slots__ = ("_serve", "_size", "_waiting", "woken")

    def __init__(self, size: int, serve: Callable[[], None]) -> None:
        self._size = size
        self._serve = serve
        self._waiting: OrderedDict[Ticket, None] = OrderedDict()
        self.woken = 0
        """Tickets woken that have neither leased nor left yet: each has a place promised to it."""

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, wake: Callable[[], None], now: float) -> Ticket:
        """A place at the end of the line. Raises QueueFull."""
        if len(self._waiting) >= self._size:
            raise QueueFull
        ticket = Ticket(self, wake, now)
        self._waiting[ticket] = None
        return ticket

    def wake_next(self) -> None:
        """Call the first in line."""
        ticket, _ = self._waiting.popitem(last=False)
        ticket.state = _WOKEN
        self.woken += 1
        ticket.wake()

    def spend(self, ticket: Ticket) -> bool:
        """Its owner has come, or gone; True when a place was promised to it, which is now its own or free again."""
        state = ticket.state
        ticket.state = _GONE
        if state == _WOKEN:
            self.woken -= 1
        elif state == _WAITING:
            del self._waiting[ticket]
        return state == _WOKEN

    def leave(self, ticket: Ticket) -> None:
        """Its owner has gone; the place promised to it, if any, goes to the next."""
        if self.spend(ticket):
            self._serve()
