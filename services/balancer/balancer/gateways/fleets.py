"""A cluster that routes lead to, with its pool and its health checks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.events import Subscriber
from balancer.probes import Probes
from balancer.proxy.cluster import Cluster
from balancer.settings import Settings

log = structlog.get_logger()


class Fleet(Subscriber):
    """A cluster and its pool; hears from the pool what happens to endpoints."""

    def __init__(
        self, cluster: Cluster, settings: Settings, own_strategy: bool, turned: Callable[[Endpoint, str], None]
    ) -> None:
        """`turned` is called with each event of an endpoint."""
        self.cluster = cluster
        self._turned = turned
        self.settings = settings
        self.own_strategy = own_strategy
        self._checking: asyncio.Task[None] | None = None

    def check(self, probes: Probes) -> None:
        """Have the endpoints checked from now on."""
        self._checking = asyncio.get_running_loop().create_task(probes.run())
        self._checking.add_done_callback(self._checked)

    def close(self) -> None:
        """Check no more, and close what idles."""
        if self._checking is not None:
            self._checking.cancel()
        self.cluster.upstreams.close()

    def _checked(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("health checks have ended", cluster=self.cluster.name, exc_info=fault)

    def left(self, endpoint: Endpoint) -> None:
        """An endpoint is gone: so are the connections that idle there."""
        self.cluster.upstreams.close_idle(endpoint)

    def transition(self, endpoint: Endpoint | None, event: str, detail: str) -> None:
        """Something happened to an endpoint, or to the pool."""
        level = log.warning if event in {"ejected", "unhealthy", "panic", "strategy_failed"} else log.info
        fields = {"endpoint": endpoint.address if endpoint else "", "detail": detail}
        level(event, cluster=self.cluster.name, **{name: value for name, value in fields.items() if value})
        if endpoint is not None:
            self._turned(endpoint, event)
