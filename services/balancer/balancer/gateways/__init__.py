"""Gateways in the data plane: ports that open and close, and clusters that come and go, as a plan asks for.

The second half of the composition root, used only where LB_GATEWAY_CLASS is set. It takes nothing down that still
serves: a port that is asked for no more drains, a cluster goes when no rule leads to it.

    features  what is claimed
    fleets    a cluster with its pool and its health checks
    ports     a port: which proxies it has, and how what its clients want changes
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Final, Protocol

import structlog

from balancer.balancing.endpoint import Endpoint, Snapshot
from balancer.balancing.pool import Pool
from balancer.balancing.retry import RetryBudget
from balancer.balancing.strategies import load
from balancer.discovery.gateway.backends import H2C, HTTP1, TCP, ClusterSpec
from balancer.discovery.gateway.control import Config, GatewayControl
from balancer.discovery.gateway.objects import Secret
from balancer.discovery.gateway.result import PortPlan
from balancer.gateways.features import FEATURES
from balancer.gateways.fleets import Fleet
from balancer.gateways.ports import HttpPort, OpenPort, TcpPort
from balancer.probes import Probes
from balancer.proxy.cluster import Cluster, Policy
from balancer.proxy.endpoint_tls import Trust, fault_of_authorities
from balancer.proxy.service import Context
from balancer.proxy.sni import fault_of
from balancer.proxy.tcp_routes import TcpCluster
from balancer.proxy.upstreams import upstreams
from balancer.settings import Settings
from balancer.tracing import Tracer

log = structlog.get_logger()

_TO_SERVICES: Final = {"upstream_protocol": "auto", "upstream_tls": False}
"""Each Service says by its appProtocol what its pods speak; how the release's own backend is reached is no matter."""


class NewPool(Protocol):
    """Makes the pool of a cluster by its settings; with `own_strategy` by their strategy too, else by that in force."""

    def __call__(self, cluster: str, settings: Settings, own_strategy: bool) -> Pool: ...


RETRY: Final = 1.0
"""Seconds until a port that could not be had is tried again."""

ListenerCounts = tuple[str, int, int, list[int]]
"""A Gateway, its port, the requests begun there, and the responses by the first digit of their status."""


class Gateways:
    """Every open port and every cluster of the Gateways."""

    def __init__(
        self,
        settings: Settings,
        context: Context,
        new_pool: NewPool,
        nowhere: Cluster,
        tracer: Tracer | None,
        turned: Callable[[Endpoint, str], None],
    ) -> None:
        """`new_pool` makes the pool of a cluster; `nowhere` is the cluster of requests that go to none.

        `turned` is called with each event of an endpoint.
        """
        self._turned = turned
        self.settings = settings
        self.context = context
        self._new_pool = new_pool
        self._nowhere = nowhere
        self._tracer = tracer
        self.ports: dict[int, OpenPort] = {}
        self.fleets: dict[str, Fleet] = {}
        self._replaced: list[Fleet] = []
        """Their settings have changed: rules lead to them until the ports get theirs."""
        self._leaving: dict[OpenPort, asyncio.Task[None]] = {}
        """Closed, and each on the way to its last connection's end."""
        self._retry: asyncio.TimerHandle | None = None
        self._draining = False
        self._clusters: dict[str, Cluster] | None = None
        """By name, for the ports; None: they have changed since the ports got theirs."""

    # As a plan asks (discovery.gateway.control.Applies).

    def add_clusters(self, specs: Sequence[ClusterSpec]) -> None:
        """Have these clusters, beside those that are there."""
        for spec in specs:
            before = self.fleets.get(spec.name)
            settings = self.settings.model_copy(update={**_TO_SERVICES, **dict(spec.overrides)})
            own_strategy = any(field == "strategy" for field, _ in spec.overrides)
            pool, context = self._new_pool(spec.name, settings, own_strategy), self.context
            trust = None
            if spec.tls is not None:
                trust = Trust(spec.tls.hostname, spec.tls.authorities, spec.tls.names)
            cluster: Cluster
            if spec.protocol == TCP:
                cluster = TcpCluster(spec.name, pool, settings, context, trust=trust)
            else:
                budget = RetryBudget(settings.retry_budget)
                cluster = Cluster(spec.name, pool, Policy(settings), budget, upstreams(settings, context, trust))
            fleet = Fleet(cluster, settings, own_strategy, self._turned)
            pool.subscribe(fleet)
            if any(field == "health_path" for field, _ in spec.overrides) and settings.health_path:
                fleet.check(Probes(pool, settings, self.context.clock, Random(), trust))
            self.fleets[spec.name] = fleet
            if before is not None:
                self._replaced.append(before)
            log.info("cluster added", cluster=spec.name)
        self._clusters = None

    def remove_clusters(self, names: Sequence[str]) -> None:
        """No route leads to these any more."""
        for name in names:
            fleet = self.fleets.pop(name, None)
            if fleet is not None:
                self._retire(fleet)
                log.info("cluster removed", cluster=name)

    def endpoints(self, cluster: str, snapshot: Snapshot) -> None:
        """All endpoints of a cluster."""
        fleet = self.fleets.get(cluster)
        if fleet is not None:
            fleet.cluster.pool.replace(snapshot, self.context.clock())
            fleet.cluster.discovered = True

    async def listen(self, ports: Mapping[int, PortPlan]) -> None:
        """Listen at these ports, and by these rules, and at no others."""
        if self._draining:
            # What is open goes on by the rules that are in force: others begin and end no more.
            open_still = {ours: plan for ours, plan in ports.items() if ours in self.ports}
            self._serve({ours: plan for ours, plan in open_still.items() if self.ports[ours].serves(plan)})
            return
        for ours in [ours for ours, port in self.ports.items() if ours not in ports or not port.serves(ports[ours])]:
            self._close(ours)
        self._serve(ports)
        # Only now does no rule lead to them any more.
        for fleet in self._replaced:
            self._retire(fleet)
        self._replaced.clear()

    def _serve(self, ports: Mapping[int, PortPlan], again: bool = False) -> None:
        """Open what is not open, and have all by these rules. A port that another has may be free later."""
        if self._clusters is None:
            self._clusters = {name: fleet.cluster for name, fleet in self.fleets.items()}
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        for ours, plan in ports.items():
            try:
                port = self.ports.get(ours) or self._open(plan)
                port.use(plan, self._clusters)
            except OSError as error:
                level = log.debug if again else log.warning
                level("gateway port not served", gateway=plan.gateway, port=plan.port, error=str(error))
        missing = {ours: plan for ours, plan in ports.items() if ours not in self.ports}
        if missing and not self._draining:
            self._retry = asyncio.get_running_loop().call_later(RETRY, self._serve, missing, True)

    def _open(self, plan: PortPlan) -> OpenPort:
        settings = self.settings.model_copy(update={"port": plan.ours, "upstream_tls": False})
        opened: OpenPort
        if plan.protocol == "TCP":
            opened = TcpPort(plan, settings, self.context, self._nowhere)
        else:
            opened = HttpPort(plan, settings, self.context, self._nowhere, self._tracer)
        self.ports[plan.ours] = opened
        names = {"protocol": plan.protocol, "gateway": plan.gateway, "port": plan.port, "ours": plan.ours}
        log.info("gateway port opened", **names)
        return opened

    def _close(self, ours: int) -> None:
        """Accept no more at a port, and let what is in flight end."""
        port = self.ports.pop(ours)
        port.drain()
        port.stop_listening()
        log.info("gateway port closed", gateway=port.plan.gateway, port=port.plan.port)
        self._leaving[port] = asyncio.get_running_loop().create_task(self._ended(port))

    async def _ended(self, port: OpenPort) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_timeout):
                await port.all_closed()
        port.cut()
        del self._leaving[port]

    def _retire(self, fleet: Fleet) -> None:
        """What is in flight there ends; nothing new comes."""
        fleet.close()

    # As the composition root asks.

    def plans(self) -> Iterator[PortPlan]:
        """What every open port serves."""
        for port in self.ports.values():
            yield port.plan

    def pools(self) -> Iterator[Pool]:
        """The pools of all clusters."""
        for fleet in self.fleets.values():
            yield fleet.cluster.pool

    def listeners(self) -> Iterator[ListenerCounts]:
        """What each port of each Gateway has counted."""
        for port in self.ports.values():
            yield port.plan.gateway, port.plan.port, port.requests, port.responses

    def use(self, strategy: str, random: Random) -> None:
        """Choose by another strategy from now on, where a cluster has none of its own."""
        now = self.context.clock()
        for fleet in self.fleets.values():
            if not fleet.own_strategy:
                fleet.cluster.pool.use(load(strategy, random, fleet.settings.hash_key), strategy, now)

    def idle_connections(self, endpoint: Endpoint) -> int:
        """Unused connections kept open to `endpoint`."""
        fleet = self.fleets.get(endpoint.cluster)
        return fleet.cluster.upstreams.idle_to(endpoint) if fleet is not None else 0

    def cut_tunnels(self, endpoint: Endpoint) -> int:
        """Reset what is tunnelled to `endpoint`; how many tunnels those were."""
        return sum(port.cut_tunnels(endpoint) for port in [*self.ports.values(), *self._leaving])

    def drain(self) -> None:
        """From now on every response says that its connection closes."""
        self._draining = True
        if self._retry is not None:
            self._retry.cancel()
        for port in self.ports.values():
            port.drain()

    def stop_listening(self) -> None:
        """Accept no more, and close what idles."""
        for port in self.ports.values():
            port.stop_listening()

    async def all_closed(self) -> None:
        """Wait, once stopped, until no connection is open any more."""
        for port in [*self.ports.values(), *self._leaving]:
            await port.all_closed()

    def cut(self) -> int:
        """Cut whatever is still open; how many requests that were."""
        return sum(port.cut() for port in [*self.ports.values(), *self._leaving])

    def close(self) -> None:
        """Close the connections to endpoints."""
        if self._retry is not None:
            self._retry.cancel()
        for task in self._leaving.values():
            task.cancel()
        for fleet in self.fleets.values():
            fleet.close()


def control(gateways: Gateways, replica: str, random: Random) -> GatewayControl:
    """What watches the cluster, and makes it so in `gateways`."""
    settings, clock = gateways.settings, gateways.context.clock
    config = Config(
        gateway_class=settings.gateway_class or "",
        ingress_class=settings.ingress_class or "",
        front=settings.own_service or "",
        identity=replica,
        protocols=frozenset({HTTP1, H2C}),
        features=FEATURES,
        usable=usable,
        usable_authorities=lru_cache(maxsize=64)(fault_of_authorities),
    )
    return GatewayControl(config, gateways, random, clock)


def usable(secret: Secret) -> str:
    """What is wrong with a Secret's certificate; empty: nothing."""
    if secret.certificate is None or secret.key is None:
        return "there is none"
    return _fault_of(secret.certificate, secret.key)


_fault_of = lru_cache(maxsize=4096)(fault_of)
"""Each plan asks of every certificate, and OpenSSL takes 0.6 ms for one."""
