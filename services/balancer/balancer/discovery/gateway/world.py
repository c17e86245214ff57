"""All objects at one moment, and the look-ups that rules need. A value: the watchers make the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from balancer.discovery.gateway.objects import (
    ConfigMap,
    Gateway,
    GatewayClass,
    Json,
    Key,
    ListenerSet,
    Namespace,
    Ref,
    ReferenceGrant,
    Route,
    Secret,
    Service,
)

if TYPE_CHECKING:
    from balancer.discovery.gateway.backend_tls import BackendTlsPolicy
    from balancer.discovery.gateway.ingress import Ingress
    from balancer.discovery.gateway.policies import LoadBalancingPolicy


@dataclass(frozen=True, slots=True)
class World:
    """What the cluster holds, by namespace and name."""

    controller: str
    """Our controllerName: classes that say another are not ours."""
    home: str
    """The namespace that we run in, where the Gateways' Services are."""
    classes: Mapping[Key, GatewayClass] = field(default_factory=dict)
    gateways: Mapping[Key, Gateway] = field(default_factory=dict)
    listener_sets: Mapping[Key, ListenerSet] = field(default_factory=dict)
    routes: Mapping[Key, Route] = field(default_factory=dict)
    grpc_routes: Mapping[Key, Route] = field(default_factory=dict)
    tls_routes: Mapping[Key, Route] = field(default_factory=dict)
    tcp_routes: Mapping[Key, Route] = field(default_factory=dict)
    grants: Mapping[Key, ReferenceGrant] = field(default_factory=dict)
    services: Mapping[Key, Service] = field(default_factory=dict)
    secrets: Mapping[Key, Secret] = field(default_factory=dict)
    namespaces: Mapping[Key, Namespace] = field(default_factory=dict)
    policies: Mapping[Key, LoadBalancingPolicy] = field(default_factory=dict)
    ingresses: Mapping[Key, Ingress] = field(default_factory=dict)
    tls_policies: Mapping[Key, BackendTlsPolicy] = field(default_factory=dict)
    config_maps: Mapping[Key, ConfigMap] = field(default_factory=dict)
    """Those that a BackendTLSPolicy names."""

    def routes_of(self, kind: str) -> Mapping[Key, Route]:
        """The routes of one kind."""
        return self._routes()[kind]

    def all_routes(self) -> Iterator[Route]:
        """The routes of every kind."""
        for routes in self._routes().values():
            yield from routes.values()

    def _routes(self) -> dict[str, Mapping[Key, Route]]:
        return {
            "HTTPRoute": self.routes,
            "GRPCRoute": self.grpc_routes,
            "TLSRoute": self.tls_routes,
            "TCPRoute": self.tcp_routes,
        }

    def our_gateways(self) -> list[Gateway]:
        """The Gateways of our classes, the oldest first."""
        ours = {each.meta.name for each in self.classes.values() if each.controller == self.controller}
        found = [each for each in self.gateways.values() if each.gateway_class in ours]
        return sorted(found, key=lambda each: (each.meta.created, each.meta.key))

    def may_refer(self, group: str, kind: str, namespace: str, target: Ref) -> bool:
        """Whether an object of a kind in `namespace` may refer to `target`: within one namespace, or by a grant."""
        if namespace == target.namespace:
            return True
        source = (group, kind, namespace)
        return any(
            grant.meta.namespace == target.namespace
            and source in grant.sources
            and any((target.group, target.kind, name) in grant.targets for name in ("", target.name))
            for grant in self.grants.values()
        )

    def in_selection(self, namespace: str, selector: Json) -> bool:
        """Whether a namespace's labels are those that a label selector wants."""
        found = self.namespaces.get(("", namespace))
        if found is None:
            return False
        wanted = selector.get("matchLabels") or {}
        if any(found.labels.get(name) != value for name, value in wanted.items()):
            return False
        return all(_meets(found.labels, each) for each in selector.get("matchExpressions") or ())


def _meets(labels: Json, wanted: Json) -> bool:
    name, operator, values = str(wanted.get("key")), wanted.get("operator"), wanted.get("values") or ()
    if operator == "Exists":
        return name in labels
    if operator == "DoesNotExist":
        return name not in labels
    if operator == "NotIn":
        return labels.get(name) not in values
    return operator == "In" and labels.get(name) in values
