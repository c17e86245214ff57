"""The admin port: health, metrics, API, dashboard. It reads what the data plane counts, and never slows it."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from balancer.admin.feed import Feed
from balancer.admin.fleet import own_status
from balancer.admin.health import Phase, readiness
from balancer.admin.lag import LoopLag
from balancer.admin.server import Listening, application, listen
from balancer.admin.status import DiscoveryStatus, ListenerStatus, PeersStatus, ProxyStatus, Running
from balancer.balancing.pool import Pool
from balancer.counters import Counters

if TYPE_CHECKING:
    from balancer.settings import Settings

__all__ = ["Admin", "DiscoveryStatus", "Phase", "ProxyStatus"]


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
        others: Callable[[], Iterable[Pool]] = tuple,
        listeners: Callable[[], Iterable[tuple[str, int, int, list[int]]]] = tuple,
        open_ports: Callable[[], Iterable[ListenerStatus]] = tuple,
        planned: Callable[[], bool] = lambda: True,
        peers: PeersStatus | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`others`, `listeners`, `open_ports` and `planned` as Running has them; with `tls` it speaks TLS alone."""
        self._tls = tls
        self._running = Running(
            settings,
            pool,
            counters,
            clock,
            discovery,
            proxy,
            switch_strategy,
            peers,
            others=others,
            listeners=listeners,
            open_ports=open_ports,
            planned=planned,
        )
        self.phase = Phase.STARTING
        """The app moves it on: /readyz answers 200 only while serving."""

        self.port = settings.admin_port
        """Where it listens, once started."""
        self._feed = Feed(self._running)
        self._lag = LoopLag(counters.loop_lag_seconds, clock)
        self._listening: Listening | None = None
        self._said: Mapping[str, object] = {}

    @property
    def ready(self) -> bool:
        """From when the ports listen and the first snapshot is complete until SIGTERM."""
        return readiness(self._running, self.phase)[0] == 200

    def follow(self, pool: Pool) -> None:
        """Show the events of another pool too."""
        pool.subscribe(self._feed)

    def own_status(self) -> Mapping[str, object]:
        """What this replica says of itself to the others; worked out once a second, however many there are."""
        last = self._feed.meter.last
        if not self._said or last is None or self._said["second"] is not last:
            self._said = own_status(self._running, self._feed.meter)
        return self._said

    async def start(self) -> None:
        """Listen at LB_ADMIN_HOST (several with commas), LB_ADMIN_PORT. Raises OSError when it cannot."""
        app = application(self._running, self._feed, lambda: self.phase)
        hosts = [host.strip() for host in self._running.settings.admin_host.split(",")]
        self._listening = await listen(app, hosts, self._running.settings.admin_port, self._tls)
        self.port = self._listening.port
        self._feed.start()
        self._lag.start()

    async def stop(self) -> None:
        """End every event stream and close the port."""
        self._lag.stop()
        await self._feed.stop()
        if self._listening is not None:
            await self._listening.close()
