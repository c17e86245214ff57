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

PortMap = dict[int, int]
"""By a Gateway's port, ours that stands for it."""


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


def known_ports(service: Service | None) -> PortMap:
    """What a Service has on record."""
    if service is None:
        return {}
    return {each.port: int(each.target) for each in service.ports if each.target.isdecimal()}


def recorded_ports(world: World, names: Iterable[str]) -> dict[str, PortMap]:
    """By Service name, the ports on record. What two Services have is the first's alone: the other gets a new one."""
    taken: set[int] = set()
    recorded: dict[str, PortMap] = {}
    for name in names:
        known = known_ports(world.services.get((world.home, name)))
        recorded[name] = {port: ours for port, ours in known.items() if ours not in taken}
        taken.update(recorded[name].values())
    return recorded


def choose_ports(
    wanted: Mapping[str, Iterable[int]], recorded: Mapping[str, PortMap], chosen_last: Mapping[str, PortMap]
) -> dict[str, PortMap]:
    """By Service name, ours for each port that a Gateway wants.

    What is on record stays. So does what the last plan chose, which may be written already without our having seen it:
    chosen a second time, it could go to another Gateway. The others get the lowest that is free.
    """
    on_record = {ours for ports in recorded.values() for ours in ports.values()}
    kept = {name: dict(recorded[name]) for name in wanted}
    for name in wanted:
        for port, ours in chosen_last.get(name, {}).items():
            if ours not in on_record:
                kept[name].setdefault(port, ours)
    taken = {ours for ports in kept.values() for ours in ports.values()}
    free = (port for port in range(FIRST_PORT, LAST_PORT + 1) if port not in taken)
    chosen: dict[str, PortMap] = {}
    for name, ports in wanted.items():
        found = {port: kept[name].get(port) or next(free, 0) for port in sorted(set(ports))}
        chosen[name] = {port: ours for port, ours in found.items() if ours}
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
