"""Gateways in the data plane: ports that open and close, and clusters that come and go, as a plan asks for.

The second half of the composition root, used only where LB_GATEWAY_CLASS is set. It takes nothing down that still
serves: a port that is asked for no more drains, a cluster goes when no rule leads to it.

Above 300 lines because it is where plan and data plane meet: what a plan asks for is one list of steps.
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
from balancer.balancing.events import Subscriber
from balancer.balancing.pool import Pool
from balancer.balancing.retry import RetryBudget
from balancer.balancing.strategies import load
from balancer.discovery.gateway.backends import H2C, HTTP1, ClusterSpec
from balancer.discovery.gateway.control import Config, GatewayControl
from balancer.discovery.gateway.objects import Secret
from balancer.discovery.gateway.result import PortPlan
from balancer.probes import Probes
from balancer.proxy.cluster import Cluster, Policy
from balancer.proxy.endpoint_tls import Trust, fault_of_authorities
from balancer.proxy.http import HttpProxy
from balancer.proxy.routes import SiteRouter
from balancer.proxy.service import Context
from balancer.proxy.sni import Certificates, fault_of
from balancer.proxy.upstreams import upstreams
from balancer.settings import Settings
from balancer.tracing import Tracer

FEATURES: Final = (
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayHTTPListenerIsolation",
    "GatewayPort8080",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
    "ReferenceGrant",
)
"""What of the Gateway API is served, by the names that its conformance tests know."""

log = structlog.get_logger()

_TO_SERVICES: Final = {"upstream_protocol": "auto", "upstream_tls": False}
"""Each Service says by its appProtocol what its pods speak; how the release's own backend is reached is no matter."""


class NewPool(Protocol):
    """Makes the pool of a cluster by its settings; with `own_strategy` by their strategy too, else by that in force."""

    def __call__(self, cluster: str, settings: Settings, own_strategy: bool) -> Pool: ...


ListenerCounts = tuple[str, int, int, list[int]]
"""A Gateway, its port, the requests begun there, and the responses by the first digit of their status."""


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


class OpenPort:
    """One port of a Gateway, listening."""

    def __init__(self, plan: PortPlan, proxy: HttpProxy, router: SiteRouter, certificates: Certificates | None) -> None:
        self.plan = plan
        self.proxy = proxy
        self.router = router
        self.certificates = certificates

    def serves(self, plan: PortPlan) -> bool:
        """Whether it can go on for another plan without being opened again."""
        return (plan.gateway, plan.port, plan.tls) == (self.plan.gateway, self.plan.port, self.plan.tls)


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
        self._leaving: set[asyncio.Task[None]] = set()
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
            budget = RetryBudget(settings.retry_budget)
            trust = None
            if spec.tls is not None:
                trust = Trust(spec.tls.hostname, spec.tls.authorities, spec.tls.names)
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
            self._retire(self.fleets.pop(name))
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
            return
        if self._clusters is None:
            self._clusters = {name: fleet.cluster for name, fleet in self.fleets.items()}
        for ours in [ours for ours, port in self.ports.items() if ours not in ports or not port.serves(ports[ours])]:
            self._close(ours)
        for ours, plan in ports.items():
            port = self.ports.get(ours)
            try:
                if port is None:
                    port = self._open(plan)
                if port.certificates is not None:
                    port.certificates.use([(host, _pairs(secrets)) for host, secrets in plan.certificates])
            except OSError as error:
                log.warning("gateway port not served", gateway=plan.gateway, port=plan.port, error=str(error))
                continue
            port.plan = plan
            port.router.use(plan.site, self._clusters)
        # Only now does no rule lead to them any more.
        for fleet in self._replaced:
            self._retire(fleet)
        self._replaced.clear()

    def _open(self, plan: PortPlan) -> OpenPort:
        settings = self.settings.model_copy(update={"port": plan.ours, "upstream_tls": False})
        router = SiteRouter(self._nowhere, plan.port)
        proxy = HttpProxy(settings, self.context, router)
        if self._tracer is not None:
            proxy.trace(self._tracer)
        certificates = Certificates(["h2", "http/1.1"] if settings.http2 else ["http/1.1"]) if plan.tls else None
        proxy.start(certificates.context if certificates else None)
        port = self.ports[plan.ours] = OpenPort(plan, proxy, router, certificates)
        log.info("gateway port opened", gateway=plan.gateway, port=plan.port, ours=plan.ours, tls=plan.tls)
        return port

    def _close(self, ours: int) -> None:
        """Accept no more at a port, and let what is in flight end."""
        port = self.ports.pop(ours)
        port.proxy.drain()
        port.proxy.stop_listening()
        log.info("gateway port closed", gateway=port.plan.gateway, port=port.plan.port)
        task = asyncio.get_running_loop().create_task(self._ended(port.proxy))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _ended(self, proxy: HttpProxy) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_timeout):
                await proxy.all_closed()
        proxy.cut()

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
            yield port.plan.gateway, port.plan.port, port.proxy.requests, port.proxy.responses

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
        return sum(port.proxy.cut_tunnels(endpoint) for port in self.ports.values())

    def drain(self) -> None:
        """From now on every response says that its connection closes."""
        self._draining = True
        for port in self.ports.values():
            port.proxy.drain()

    def stop_listening(self) -> None:
        """Accept no more, and close what idles."""
        for port in self.ports.values():
            port.proxy.stop_listening()

    async def all_closed(self) -> None:
        """Wait, once stopped, until no connection is open any more."""
        for port in self.ports.values():
            await port.proxy.all_closed()

    def cut(self) -> int:
        """Cut whatever is still open; how many requests that were."""
        return sum(port.proxy.cut() for port in self.ports.values())

    def close(self) -> None:
        """Close the connections to endpoints."""
        for task in self._leaving:
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
    return fault_of(secret.certificate, secret.key)


def _pairs(secrets: Sequence[Secret]) -> list[tuple[bytes, bytes]]:
    return [(each.certificate, each.key) for each in secrets if each.certificate is not None and each.key is not None]
