"""One Service, and so one address, for each Gateway: its name, its ports, and what it is made like.

The Service is also the record of which of our ports stands for which of the Gateway's: two Gateways may both ask for
port 80. The leader chooses a port and writes it there; every replica listens at what is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from balancer.discovery.gateway.objects import Gateway, Json, Service
from balancer.discovery.gateway.world import World

FIRST_PORT: Final = 20_000
LAST_PORT: Final = 29_999
"""Our ports for Gateways: below the range from which Linux takes those of outgoing connections."""

OWNER_LABEL: Final = "gateway.networking.k8s.io/gateway-class-name"
GATEWAY_ANNOTATION: Final = "lb/gateway"
"""Namespace and name, which may be too long for a label."""


@dataclass(frozen=True, slots=True)
class ServiceWrite:
    """A Service to create or change; `body` is all of it that is ours."""

    name: str
    body: Json
    exists: bool


def service_name(gateway: Gateway) -> str:
    """The name of a Gateway's Service: hashed, since a Gateway's may have 253 characters and a Service's 63."""
    digest = hashlib.sha256(f"{gateway.meta.namespace}/{gateway.meta.name}".encode()).hexdigest()
    return f"lb-gateway-{digest[:12]}"


def known_ports(service: Service | None) -> dict[int, int]:
    """By the Gateway's port, ours that stands for it."""
    if service is None:
        return {}
    return {each.port: int(each.target) for each in service.ports if each.target.isdecimal()}


def choose_ports(world: World, gateways: Mapping[str, tuple[Gateway, Iterable[int]]]) -> dict[str, dict[int, int]]:
    """By Service name and Gateway's port, ours: those recorded stay, the others get the lowest that is free."""
    recorded = {name: known_ports(world.services.get((world.home, name))) for name in gateways}
    taken = {ours for ports in recorded.values() for ours in ports.values()}
    free = (port for port in range(FIRST_PORT, LAST_PORT + 1) if port not in taken)
    chosen: dict[str, dict[int, int]] = {}
    for name, (_, wanted) in gateways.items():
        chosen[name] = {}
        for port in sorted(set(wanted)):
            ours = recorded[name].get(port) or next(free, 0)
            if ours:
                chosen[name][port] = ours
    return chosen


def service_write(world: World, gateway: Gateway, ports: Mapping[int, int], front: Service) -> ServiceWrite | None:
    """What has to be written for a Gateway, or None. `front` is the release's own Service: ours is made like it."""
    name = service_name(gateway)
    present = world.services.get((world.home, name))
    wanted_type = front.type if front.type in {"LoadBalancer", "NodePort"} else "ClusterIP"
    same = (
        present is not None
        and known_ports(present) == dict(ports)
        and dict(present.selector) == dict(front.selector)
        and present.type == wanted_type
        and all(present.labels.get(key) == value for key, value in gateway.labels.items())
        and all(present.annotations.get(key) == value for key, value in gateway.annotations.items())
    )
    if same:
        return None
    metadata: dict[str, Any] = {
        "name": name,
        "labels": {**gateway.labels, OWNER_LABEL: gateway.gateway_class},
        "annotations": {**gateway.annotations, GATEWAY_ANNOTATION: str(gateway.meta)},
        # With the release's Service goes what was made for its Gateways.
        "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": front.meta.name, "uid": front.meta.uid}],
    }
    listed = [
        {"name": f"port-{port}", "port": port, "targetPort": ours, "protocol": "TCP"} for port, ours in ports.items()
    ]
    spec = {"type": wanted_type, "selector": dict(front.selector), "ports": listed}
    body = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    return ServiceWrite(name, body, present is not None)


def obsolete(world: World, classes: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Names of Services that we have made for Gateways that are gone."""
    kept, ours = set(wanted), set(classes)
    return [
        each.meta.name
        for each in world.services.values()
        if each.meta.namespace == world.home
        and each.labels.get(OWNER_LABEL) in ours
        and GATEWAY_ANNOTATION in each.annotations
        and each.meta.name not in kept
    ]


def status_addresses(service: Service | None) -> list[dict[str, str]]:
    """A Gateway's addresses, as its status says them."""
    if service is None:
        return []
    if service.type == "LoadBalancer":
        return [
            {"type": "IPAddress" if each.get("ip") else "Hostname", "value": each.get("ip") or each.get("hostname", "")}
            for each in service.addresses
        ]
    has_one = service.cluster_ip and service.cluster_ip != "None"
    return [{"type": "IPAddress", "value": service.cluster_ip}] if has_one else []
