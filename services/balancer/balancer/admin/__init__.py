"""The admin port: health, metrics, the API and the dashboard. It reads what the data plane counts, and never slows it."""

from __future__ import annotations

from collections.abc import Callable

from balancer.admin.status import DiscoveryStatus, ProxyStatus, Running
from balancer.balancing.pool import Pool
from balancer.counters import Counters
from balancer.settings import Settings

__all__ = ["Admin", "DiscoveryStatus", "ProxyStatus"]


class Admin:
    """The admin port's server. `start` it before the first snapshot, `stop` it last: readiness is asked meanwhile."""

    def __init__(
        self,
        *,
        settings: Settings,
        pool: Pool,
        counters: Counters,
        clock: Callable[[], float],
        discovery: DiscoveryStatus,
        proxy: ProxyStatus,
        switch_strategy: Callable[[str], None],
    ) -> None:
        self._running = Running(settings, pool, counters, clock, discovery, proxy, switch_strategy)
        self.draining = False
        """Set at SIGTERM: /readyz fails from then on."""

    @property
    def ready(self) -> bool:
        """From the first complete snapshot until SIGTERM."""
        return self._running.discovery.fresh_at is not None and not self.draining

    async def start(self) -> None:
        """Listen on every LB_ADMIN_HOST at LB_ADMIN_PORT. Raises OSError when a port cannot be had."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Close the port and end every event stream."""
        raise NotImplementedError
