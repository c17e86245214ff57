"""The Gateway part, running: watches, makes a plan of every change, has it applied and written.

What changes often and concerns one Service alone, its endpoints, does not come by a plan: it goes straight to the
Service's clusters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random
from time import perf_counter
from typing import Any, Final, Protocol

import structlog

from balancer.balancing.endpoint import Snapshot
from balancer.discovery.endpointslices import Slice as ParsedSlice
from balancer.discovery.endpointslices import merge, parse
from balancer.discovery.gateway import objects
from balancer.discovery.gateway.api import ClusterApi
from balancer.discovery.gateway.backend_tls import backend_tls_policy, wanted_config_maps
from balancer.discovery.gateway.backends import ClusterSpec
from balancer.discovery.gateway.ingress import ingress
from balancer.discovery.gateway.lease import Leadership
from balancer.discovery.gateway.listeners import Usable
from balancer.discovery.gateway.memory import Memory
from balancer.discovery.gateway.objects import GROUP, Json, Key
from balancer.discovery.gateway.plan import steps_to_plan
from balancer.discovery.gateway.policies import GROUP as POLICY_GROUP
from balancer.discovery.gateway.policies import PLURAL, load_balancing_policy
from balancer.discovery.gateway.result import Context, Plan, PortPlan
from balancer.discovery.gateway.secrets import wanted_secrets
from balancer.discovery.gateway.watch import Followed, Watcher
from balancer.discovery.gateway.world import World
from balancer.discovery.gateway.writer import Writer

BREATH: Final = 0.004
"""Seconds of planning without a pause for the requests."""
AT_ONCE: Final = 8
"""Clusters that are made without one."""
MERGE: Final = 0.02
"""Seconds between two plans: changes that come together make one."""

CONTROLLER_DOMAIN: Final = "lb"

log = structlog.get_logger()


class Applies(Protocol):
    """The data plane, as a plan's listeners and clusters become real in it."""

    def add_clusters(self, specs: Sequence[ClusterSpec]) -> None:
        """Have these clusters, beside those that are there."""

    def remove_clusters(self, names: Sequence[str]) -> None:
        """No route leads to these any more."""

    def endpoints(self, cluster: str, snapshot: Snapshot) -> None:
        """All endpoints of a cluster."""

    async def listen(self, ports: Mapping[int, PortPlan]) -> None:
        """Listen at these ports, and by these rules, and at no others."""


@dataclass(frozen=True, slots=True)
class Config:
    """What the Gateway part is given at the start."""

    gateway_class: str
    """Empty: no Gateways, only Ingresses."""
    front: str
    """The release's own Service."""
    identity: str
    protocols: frozenset[str]
    features: Sequence[str]
    usable: Usable
    usable_authorities: Callable[[str], str]
    """Says what is wrong with authorities' certificates (PEM); empty: nothing."""
    ingress_class: str = ""
    """Empty: no Ingresses."""


class GatewayControl:
    """Keeps the data plane as the cluster's Gateways and routes ask for."""

    def __init__(self, config: Config, applies: Applies, random: Random, clock: Callable[[], float]) -> None:
        self._config = config
        self._applies = applies
        self._random = random
        self._api = ClusterApi()
        self._dirty = asyncio.Event()
        gateway_api = f"/apis/{GROUP}/v1"
        self._classes = self._watcher(f"{gateway_api}/gatewayclasses", objects.gateway_class)
        self._gateways = self._watcher(f"{gateway_api}/gateways", objects.gateway)
        self._listener_sets = self._watcher(f"{gateway_api}/listenersets", objects.listener_set)
        self._routes = self._watcher(f"{gateway_api}/httproutes", objects.http_route)
        self._grpc_routes = self._watcher(f"{gateway_api}/grpcroutes", objects.grpc_route)
        self._tls_routes = self._watcher(f"{gateway_api}/tlsroutes", objects.tls_route)
        self._tcp_routes = self._watcher(f"{gateway_api}/tcproutes", objects.tcp_route)
        self._grants = self._watcher(f"/apis/{GROUP}/v1beta1/referencegrants", objects.reference_grant)
        self._services = self._watcher("/api/v1/services", objects.service)
        self._namespaces = self._watcher("/api/v1/namespaces", objects.namespace)
        policies = f"/apis/{POLICY_GROUP}/v1alpha1/{PLURAL}"
        self._policies = self._watcher(policies, load_balancing_policy)
        self._tls_policies = self._watcher(f"{gateway_api}/backendtlspolicies", backend_tls_policy)
        self._ingresses = self._watcher("/apis/networking.k8s.io/v1/ingresses", ingress)
        slices = "/apis/discovery.k8s.io/v1/endpointslices"
        self._slices = Watcher(self._api, slices, objects.endpoint_slice, self._slices_changed, random)
        self._by_service: dict[Key, dict[Key, objects.Slice]] = {}
        self._service_of: dict[Key, Key] = {}
        self._secrets = Followed[objects.Secret]("secrets", objects.secret, self._watcher)
        self._config_maps = Followed[objects.ConfigMap]("configmaps", objects.config_map, self._watcher)
        self._watchers: list[Watcher[Any]] = [self._services, self._namespaces, self._policies, self._slices]
        if config.gateway_class:
            self._watchers += [self._classes, self._gateways, self._routes, self._grpc_routes, self._grants]
            self._watchers += [self._tls_policies, self._listener_sets, self._tls_routes, self._tcp_routes]
        if config.ingress_class:
            self._watchers.append(self._ingresses)
        self._clusters: dict[str, ClusterSpec] = {}
        self._clusters_of: dict[Key, set[str]] = {}
        self._applying = False
        self._memory = Memory()
        lease = f"lb-gateway-{config.gateway_class or config.ingress_class}"
        self._leadership = Leadership(self._api, lease, config.identity, clock, self._dirty.set)
        self._writer = Writer(self._api, lambda: self._leadership.leads, self._dirty.set)
        self.plan = Plan()
        """The latest that has been applied."""
        self.ready = asyncio.Event()
        """Set once a plan has been applied."""

    @property
    def leads(self) -> bool:
        """Whether this replica writes."""
        return self._leadership.leads

    async def run(self) -> None:
        """Watch, plan, apply, write, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for watcher in self._watchers:
                    tasks.create_task(watcher.run())
                for watcher in self._watchers:
                    await watcher.known.wait()
                tasks.create_task(self._leadership.run())
                tasks.create_task(self._writer.run())
                await self._plan_for_ever()
        finally:
            await self._secrets.stop()
            await self._config_maps.stop()

    async def close(self) -> None:
        """Let another replica write, and close the connection. To be called when `run` has ended."""
        await self._leadership.release()
        await self._api.close()

    # Plans.

    async def _plan_for_ever(self) -> None:
        while True:
            self._dirty.clear()
            try:
                await self._plan()
            except Exception:
                # What nobody foresaw in one object must not end every replica, and again at each start.
                log.exception("no plan could be made: the last one stands")
                self._memory = Memory(ports=self._memory.ports)
            await asyncio.sleep(MERGE)
            await self._dirty.wait()

    async def _plan(self) -> None:
        begun = perf_counter()
        world = self._world()
        await self._secrets.follow(wanted_secrets(world, self._config.ingress_class))
        await self._config_maps.follow(wanted_config_maps(world))
        # The same world: what has changed while we waited may refer to others, which nobody follows yet.
        world = replace(world, secrets=self._secrets.objects(), config_maps=self._config_maps.objects())
        plan = await self._planned(world)
        await self._apply(plan)
        self._write(plan)
        self.plan = plan
        self.ready.set()
        log.debug("planned", ports=len(plan.ports), routes=plan.routes, seconds=round(perf_counter() - begun, 4))

    def _write(self, plan: Plan) -> None:
        """Have a plan written."""
        if not (self._gateways.listed and self._classes.listed):
            # That we know of no Gateway does not say that there is none: a Service that goes takes its address along.
            plan.obsolete.clear()
        self._writer.write(plan)

    def _world(self) -> World:
        """All that is known, without what objects refer to."""
        return World(
            controller=f"{CONTROLLER_DOMAIN}/{self._config.gateway_class}",
            home=self._api.namespace,
            classes=dict(self._classes.objects),
            gateways=dict(self._gateways.objects),
            listener_sets=dict(self._listener_sets.objects),
            routes=dict(self._routes.objects),
            grpc_routes=dict(self._grpc_routes.objects),
            tls_routes=dict(self._tls_routes.objects),
            tcp_routes=dict(self._tcp_routes.objects),
            grants=dict(self._grants.objects),
            services=dict(self._services.objects),
            namespaces=dict(self._namespaces.objects),
            policies=dict(self._policies.objects),
            ingresses=dict(self._ingresses.objects),
            tls_policies=dict(self._tls_policies.objects),
        )

    async def _planned(self, world: World) -> Plan:
        config = self._config
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        context = Context(
            config.usable,
            config.protocols,
            config.features,
            config.front,
            now,
            config.ingress_class,
            config.usable_authorities,
        )
        steps = steps_to_plan(world, context, self._memory)
        paused = perf_counter()
        while True:
            try:
                next(steps)
            except StopIteration as done:
                result: Plan = done.value
                return result
            if perf_counter() - paused > BREATH:
                await asyncio.sleep(0)
                paused = perf_counter()

    async def _apply(self, plan: Plan) -> None:
        """Clusters before the routes that lead there, and gone after them."""
        # Where the last was not applied to its end, nobody knows what there is.
        known: Mapping[str, ClusterSpec] = {} if self._applying else self._clusters
        wanted, self._applying = plan.clusters, True
        changed = [spec for name, spec in wanted.items() if known.get(name) is not spec and known.get(name) != spec]
        gone = [name for name in self._clusters if name not in wanted]
        if changed or gone:
            self._clusters = {**self._clusters, **wanted}
            self._index()
        for start in range(0, len(changed), AT_ONCE):
            several = changed[start : start + AT_ONCE]
            self._applies.add_clusters(several)
            for spec in several:
                self._tell_endpoints(spec)
            await asyncio.sleep(0)
        await self._applies.listen(plan.ports)
        if gone:
            self._clusters = dict(wanted)
            self._index()
            self._applies.remove_clusters(gone)
        self._applying = False

    def _index(self) -> None:
        self._clusters_of = {}
        for name, spec in self._clusters.items():
            self._clusters_of.setdefault((spec.namespace, spec.service), set()).add(name)

    # Endpoints.

    def _slices_changed(self, keys: list[Key]) -> None:
        services: dict[Key, None] = {}
        for key in keys:
            before = self._service_of.pop(key, None)
            if before is not None:
                self._by_service[before].pop(key, None)
                if not self._by_service[before]:
                    del self._by_service[before]
                services[before] = None
            found = self._slices.objects.get(key)
            if found is not None and found.service:
                service = (found.meta.namespace, found.service)
                # Taken out and put in again: the one that changed last stands last, as `merge` wants it.
                self._by_service.setdefault(service, {})[key] = found
                self._service_of[key] = service
                services[service] = None
        for service in services:
            for name in self._clusters_of.get(service, ()):
                self._tell_endpoints(self._clusters[name])

    def _tell_endpoints(self, spec: ClusterSpec) -> None:
        found = self._by_service.get((spec.namespace, spec.service), {})
        port = spec.port_name or None
        slices: list[ParsedSlice] = [parse(each.item, port) for each in found.values()]
        self._applies.endpoints(spec.name, merge(slices).endpoints)

    def _watcher(
        self, path: str, parse_item: Callable[[Json], Any], query: Mapping[str, str] | None = None
    ) -> Watcher[Any]:
        return Watcher(self._api, path, parse_item, lambda _: self._dirty.set(), self._random, query)
