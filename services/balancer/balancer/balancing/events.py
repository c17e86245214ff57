"""What a pool reports: the names of the events, and who hears of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mypy_extensions import mypyc_attr

from balancer.balancing.endpoint import Endpoint

EVENTS: Final = (
    "joined",
    "left",
    "draining",
    "ejected",
    "returned",
    "backoff",
    "unhealthy",
    "healthy",
    "drained",
    "undrained",
    "panic",
    "calm",
    "zone_left",
    "zone_back",
    "strategy",
    "strategy_failed",
)
"""Every event that a pool reports to its subscribers, by name."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Subscriber:
    """Hears what happens to endpoints, at once and in order, and overrides what it needs.

    It must not call back into the pool.
    """

    def joined(self, endpoint: Endpoint) -> None:
        """Discovery names it from now on."""

    def left(self, endpoint: Endpoint) -> None:
        """Discovery no longer names it: close its idle connections."""

    def transition(self, endpoint: Endpoint | None, event: str, detail: str) -> None:
        """`event` is one of EVENTS; where `endpoint` is None, it is the pool's own."""


class LoadChanges:
    """Endpoints whose number of requests in flight has changed since somebody looked: two calls for each request."""

    __slots__ = ("_changed", "_first")

    def __init__(self, first: Callable[[], None]) -> None:
        """`first` is called when there is one again; it must not call back into the pool."""
        self._changed: dict[Endpoint, None] = {}
        self._first = first

    def add(self, endpoint: Endpoint) -> None:
        """It has one request more, or one less."""
        is_first = not self._changed
        self._changed[endpoint] = None
        if is_first:
            self._first()

    def take(self) -> list[Endpoint]:
        """Those since the last call."""
        changed = list(self._changed)
        self._changed.clear()
        return changed


class Subscribers:
    """All that hear of a pool's events, in the order in which they subscribed."""

    __slots__ = ("_subscribers",)

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def add(self, subscriber: Subscriber) -> None:
        """`subscriber` hears of everything from now on."""
        self._subscribers.append(subscriber)

    def joined(self, endpoint: Endpoint) -> None:
        """`endpoint` has joined."""
        for subscriber in self._subscribers:
            subscriber.joined(endpoint)
        self.report(endpoint, "joined")

    def left(self, endpoint: Endpoint) -> None:
        """`endpoint` has left."""
        for subscriber in self._subscribers:
            subscriber.left(endpoint)
        self.report(endpoint, "left")

    def report(self, endpoint: Endpoint | None, event: str, detail: str = "") -> None:
        """Report an event, the pool's own where `endpoint` is None."""
        for subscriber in self._subscribers:
            subscriber.transition(endpoint, event, detail)
