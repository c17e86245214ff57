"""What holds for all connections to the endpoints of one cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from balancer.proxy.timers import TimerWheel

if TYPE_CHECKING:
    from balancer.settings import Settings


class Limits:
    """Timeouts (s) and sizes (bytes), and the clock and wheel that keep them."""

    __slots__ = (
        "clock",
        "idle_timeout",
        "keepalive_timeout",
        "max_header_bytes",
        "response_timeout",
        "shortest_timeout",
        "wheel",
    )

    def __init__(self, settings: Settings, wheel: TimerWheel, clock: Callable[[], float]) -> None:
        self.wheel = wheel
        self.clock = clock
        self.response_timeout: float = settings.response_timeout
        self.idle_timeout: float = settings.idle_timeout
        self.shortest_timeout: float = min(self.response_timeout, self.idle_timeout)
        """What nothing can have waited for that is not waited for yet."""
        self.keepalive_timeout: float = settings.upstream_keepalive_timeout
        self.max_header_bytes: int = settings.max_header_bytes
