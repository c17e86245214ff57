"""Gateway parts on a stand-in for the API, each with a data plane that only keeps what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from random import Random
from time import monotonic
from typing import Any

from tests.balancer.discovery.gateway import cluster

from balancer.balancing.endpoint import Snapshot
from balancer.discovery.gateway.backends import ClusterSpec
from balancer.discovery.gateway.control import Config, GatewayControl
from balancer.discovery.gateway.listeners import Usable
from balancer.discovery.gateway.result import PortPlan

GATEWAYS = "/apis/gateway.networking.k8s.io/v1/gateways"
CLASSES = "/apis/gateway.networking.k8s.io/v1/gatewayclasses"
ROUTES = "/apis/gateway.networking.k8s.io/v1/httproutes"
SERVICES = "/api/v1/services"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
LEASES = "/apis/coordination.k8s.io/v1/leases"
SECRETS = "/api/v1/secrets"

KINDS: dict[str, list[Any]] = {
    CLASSES: [cluster.gateway_class()],
    GATEWAYS: [cluster.gateway()],
    ROUTES: [cluster.route()],
    "/apis/gateway.networking.k8s.io/v1/grpcroutes": [],
    "/apis/gateway.networking.k8s.io/v1beta1/referencegrants": [],
    SERVICES: [cluster.service("front", "lb-system", [{"port": 80}], selector={"app": "lb"}), cluster.service()],
    "/api/v1/namespaces": [{"metadata": {"name": "shop"}}, {"metadata": {"name": "lb-system"}}],
    SLICES: [],
    SECRETS: [cluster.secret()],
    LEASES: [],
}
"""No LoadBalancingPolicy: its CRD need not be installed."""


class DataPlane:
    """Keeps what it is asked."""

    def __init__(self) -> None:
        self.history: list[Mapping[int, PortPlan]] = []
        self.clusters: dict[str, ClusterSpec] = {}
        self.snapshots: dict[str, list[str]] = {}
        self.ports: Mapping[int, PortPlan] = {}

    def add_clusters(self, specs: Sequence[ClusterSpec]) -> None:
        self.clusters.update((each.name, each) for each in specs)

    def remove_clusters(self, names: Sequence[str]) -> None:
        for name in names:
            del self.clusters[name]

    def endpoints(self, name: str, snapshot: Snapshot) -> None:
        self.snapshots[name] = [each.address for each in snapshot]

    async def listen(self, ports: Mapping[int, PortPlan]) -> None:
        self.ports = ports
        self.history.append(ports)


async def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 (another program changes it)
            await asyncio.sleep(0.005)


class Replicas:
    """Balancers' Gateway parts, each with a data plane of its own."""

    def __init__(self) -> None:
        self._running: dict[GatewayControl, asyncio.Task[None]] = {}

    def start(self, identity: str, usable: Usable = cluster.usable) -> tuple[GatewayControl, DataPlane]:
        plane = DataPlane()
        config = Config("lb", "front", identity, frozenset({"http1"}), ["Gateway"], usable, lambda _: "")
        control = GatewayControl(config, plane, Random(1), monotonic)
        self._running[control] = asyncio.get_running_loop().create_task(control.run())
        return control, plane

    async def stop(self, control: GatewayControl) -> None:
        task = self._running.pop(control)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await control.close()

    async def stop_all(self) -> None:
        for control in list(self._running):
            await self.stop(control)
