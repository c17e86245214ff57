"""What all connections of a proxy share, whatever it carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from balancer.balancing.pool import Pool
from balancer.counters import Counters
from balancer.log import AccessLog
from balancer.proxy.poller import Poller
from balancer.proxy.timers import TimerWheel

if TYPE_CHECKING:
    from balancer.settings import Settings


@dataclass(frozen=True, slots=True)
class Context:
    """What a proxy works with, handed to it by the composition root."""

    pool: Pool
    counters: Counters
    wheel: TimerWheel
    poller: Poller
    clock: Callable[[], float]
    """Gives the time (s), which never goes back."""
    access_log: AccessLog | None
    """None: no request is logged."""


class Service:
    """The clock, the counts, and the listener's own rules; what belongs to a fleet of endpoints is in its Cluster."""

    __slots__ = ("access_log", "clock", "counters", "poller", "wheel")

    def __init__(self, settings: Settings, context: Context) -> None:
        self.counters = context.counters
        self.wheel = context.wheel
        self.clock = context.clock
        self.access_log = context.access_log
        self.poller = context.poller
