"""What all connections of a proxy share, whatever it carries."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from balancer.balancing.pool import Pool
from balancer.balancing.retry import RetryBudget
from balancer.counters import Counters
from balancer.log import AccessLog
from balancer.proxy.clients import Clients
from balancer.proxy.timers import TimerWheel

if TYPE_CHECKING:
    from balancer.settings import Settings


class Service:
    """The pool, the clock, the counts, and the rules by which an endpoint is found (times in seconds)."""

    __slots__ = (
        "access_log",
        "budget",
        "clients",
        "clock",
        "counters",
        "pool",
        "queue_timeout",
        "retries",
        "wheel",
    )

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        counters: Counters,
        wheel: TimerWheel,
        clock: Callable[[], float],
        access_log: AccessLog | None,
    ) -> None:
        self.pool = pool
        self.counters = counters
        self.wheel = wheel
        self.clock = clock
        self.access_log = access_log
        self.clients = Clients(counters, settings.trusted_proxies, settings.max_connections_per_client)
        self.budget = RetryBudget(settings.retry_budget)
        self.retries: int = settings.retries
        self.queue_timeout: float = settings.queue_timeout
