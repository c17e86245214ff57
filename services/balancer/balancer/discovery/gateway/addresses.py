"""One Service, and so one address, for each Gateway: its name, its ports, and what it is made like.

The Service is also the record of which of our ports stands for which of the Gateway's: two Gateways may both ask for
port 80. The leader chooses a port and writes it there; every replica listens at what is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from balancer.discovery.gateway.objects import Gateway, Json, Meta, Service
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
    """Then the body names the version that it was made for: a write that comes too late is refused, and made again."""


def service_name(gateway: Gateway) -> str:
    """The name of a Gateway's Service: hashed, since a Gateway's may have 253 characters and a Service's 63."""
    digest = hashlib.sha256(f"{gateway.meta.namespace}/{gateway.meta.name}".encode()).hexdigest()
    return f"lb-gateway-{digest[:12]}"


def known_ports(service: Service | None) -> PortMap:
    """What a Service has on record: ports of ours, none twice. Anything else there is somebody else's writing."""
    found: PortMap = {}
    for each in service.ports if service is not None else ():
        ours = int(each.target) if each.target.isdecimal() and each.protocol == "TCP" else 0
        if FIRST_PORT <= ours <= LAST_PORT and ours not in found.values():
            found[each.port] = ours
    return found


def recorded_ports(world: World, wanted: Mapping[str, Iterable[int]]) -> dict[str, PortMap]:
    """By Service name, what stands on record for the ports that a Gateway wants.

    What two Services have is that of the one that was made first: the other gets a new one.
    """
    known = {name: known_ports(world.services.get((world.home, name))) for name in wanted}
    made = {name: world.services[world.home, name].meta.created for name in wanted if known[name]}
    taken: set[int] = set()
    recorded: dict[str, PortMap] = {name: {} for name in wanted}
    for name in sorted(made, key=made.__getitem__):
        asked = set(wanted[name])
        recorded[name] = {port: ours for port, ours in known[name].items() if port in asked and ours not in taken}
        taken.update(recorded[name].values())
    return recorded


def choose_ports(
    wanted: Mapping[str, Iterable[int]],
    recorded: Mapping[str, PortMap],
    chosen_last: Mapping[str, PortMap],
    busy: Collection[int] = (),
) -> dict[str, PortMap]:
    """By Service name, ours for each port that a Gateway wants.

    What is on record stays. So does what the last plan chose, which may be written already without our having seen it:
    chosen a second time, it could go to another Gateway. The others get the next that is free from where a hash of
    theirs points: two leaders, of which neither knows what the other has written, choose the same, and for two Gateways
    hardly ever one. None that is `busy`: clients may still come there by a Service's port that goes.
    """
    on_record = {ours for ports in recorded.values() for ours in ports.values()}
    kept = {name: dict(recorded[name]) for name in wanted}
    for name in wanted:
        for port, ours in chosen_last.get(name, {}).items():
            if ours not in on_record:
                kept[name].setdefault(port, ours)
    taken = {ours for ports in kept.values() for ours in ports.values()}.union(busy)
    chosen: dict[str, PortMap] = {name: {} for name in wanted}
    for name, ports in wanted.items():
        for port in sorted(set(ports)):
            ours = kept[name].get(port) or _free_port(f"{name}:{port}", taken)
            if ours:
                chosen[name][port] = ours
                taken.add(ours)
    return chosen


def _free_port(key: str, taken: Collection[int]) -> int:
    """The next that is free from where the hash of `key` points; 0 for none."""
    span = LAST_PORT - FIRST_PORT + 1
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4])
    ports = (FIRST_PORT + (start + step) % span for step in range(span))
    return next((port for port in ports if port not in taken), 0)


def service_write(world: World, gateway: Gateway, ports: Mapping[int, int], front: Service) -> ServiceWrite | None:
    """What has to be written for a Gateway, or None. `front` is the release's own Service: ours is made like it."""
    name = service_name(gateway)
    present = world.services.get((world.home, name))
    wanted_type = front.type if front.type in {"LoadBalancer", "NodePort"} else "ClusterIP"
    labels = {**gateway.labels, OWNER_LABEL: gateway.gateway_class}
    annotations = {**gateway.annotations, GATEWAY_ANNOTATION: str(gateway.meta)}
    same = (
        present is not None
        and _listed(present) == {(port, "TCP", str(ours)) for port, ours in ports.items()}
        and dict(present.selector) == dict(front.selector)
        and present.type == wanted_type
        and labels.items() <= present.labels.items()
        and annotations.items() <= present.annotations.items()
    )
    if same:
        return None
    metadata: dict[str, Any] = {
        "name": name,
        "labels": labels,
        "annotations": annotations,
        # With the release's Service goes what was made for its Gateways.
        "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": front.meta.name, "uid": front.meta.uid}],
    }
    selector: dict[str, Any] = dict(front.selector)
    if present is not None:
        metadata["resourceVersion"] = present.meta.version
        # A merge takes out only what is named.
        selector.update((label, None) for label in present.selector if label not in selector)
    listed = [
        {"name": f"port-{port}", "port": port, "targetPort": ours, "protocol": "TCP"} for port, ours in ports.items()
    ]
    spec = {"type": wanted_type, "selector": selector, "ports": listed}
    body = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    return ServiceWrite(name, body, present is not None)


def _listed(service: Service) -> set[tuple[int, str, str]]:
    """Its ports that lead to a number: those that lead to a name are somebody else's, and do no harm."""
    return {(each.port, each.protocol, each.target) for each in service.ports if each.target.isdecimal()}


def made_by_us(world: World, classes: Iterable[str]) -> list[Service]:
    """The Services that we have made for Gateways of these classes."""
    ours = set(classes)
    return [
        each
        for each in world.services.values()
        if each.meta.namespace == world.home
        and each.labels.get(OWNER_LABEL) in ours
        and GATEWAY_ANNOTATION in each.annotations
    ]


def obsolete(made: Iterable[Service], wanted: Collection[str]) -> list[Meta]:
    """Those of the Services that we have made whose Gateways are gone."""
    return [each.meta for each in made if each.meta.name not in wanted]


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
