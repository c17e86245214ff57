"""References to Services: whether they may be had, can be had, and which cluster they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from balancer.discovery.gateway.objects import GROUP, Ref
from balancer.discovery.gateway.world import World

HTTP1: Final = "http1"
H2C: Final = "h2c"
TCP: Final = "tcp"
"""Bytes of any kind, carried as they are."""
CARRIED: Final = frozenset({"TLSRoute", "TCPRoute"})
"""Routes of connections whose bytes are carried: whatever the Service's port speaks."""
PROTOCOLS: Final = {"": HTTP1, "http": HTTP1, "kubernetes.io/ws": HTTP1, "kubernetes.io/h2c": H2C}
"""What a Service's appProtocol means for the connection to its pods."""


@dataclass(frozen=True, slots=True)
class BackendTls:
    """That pods are reached by TLS, and which authorities to trust there."""

    hostname: str
    """In SNI, and what certificates must be for."""
    authorities: str | None
    """As PEM; empty: nobody is trusted, so that nothing is sent; None: those that the system trusts."""
    names: tuple[tuple[str, str], ...] = ()
    """What certificates must be for instead, one of them: `DNS` or `URI`, and the name."""


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """A Service's port: one fleet of endpoints."""

    namespace: str
    service: str
    port: int
    port_name: str
    """The name that its EndpointSlices know the port by; empty: it is the only one."""
    protocol: str
    overrides: tuple[tuple[str, object], ...] = ()
    """Settings of its own, by a LoadBalancingPolicy or an Ingress: fields and values."""
    variant: str = ""
    """What keeps it apart from others to that port: `grpc`, `tcp`, the Ingress or route with settings of its own."""
    tls: BackendTls | None = None
    """By a BackendTLSPolicy; None: in plain text."""

    @property
    def name(self) -> str:
        """As metrics and logs call it."""
        everybodys = f"{self.namespace}/{self.service}:{self.port}"
        return f"{everybodys}@{self.variant}" if self.variant else everybodys


class Unresolved(Exception):
    """A reference that cannot be followed; `reason` is the API's word for a ResolvedRefs condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


Outcome = tuple[ClusterSpec | None, str, str]
"""What a reference leads to; where it leads nowhere, the reason and the words."""

Reference = tuple[str, str, Ref]
"""The kind and namespace of the object that refers, and its reference."""


class Resolver:
    """Follows references in one world, each only once."""

    def __init__(self, world: World, protocols: frozenset[str]) -> None:
        """`protocols` are those that we speak to endpoints."""
        self._world = world
        self._protocols = protocols
        self._known: dict[Reference, Outcome] = {}

    def outcome(self, kind: str, namespace: str, ref: Ref) -> Outcome:
        """The cluster that an object of a kind of route in `namespace` refers to, or why there is none."""
        reference = kind, namespace, ref
        found = self._known.get(reference)
        if found is None:
            try:
                found = resolve(self._world, kind, namespace, ref, self._protocols), "", ""
            except Unresolved as problem:
                found = None, problem.reason, str(problem)
            self._known[reference] = found
        return found

    def port_named(self, namespace: str, service: str, name: str) -> int | None:
        """The number of a Service's port by its name; None: it has none of that name."""
        found = self._world.services.get((namespace, service))
        return next((each.port for each in found.ports if each.name == name), None) if found is not None else None

    def still(self, outcomes: Mapping[Reference, Outcome]) -> bool:
        """Whether these references lead where they led before."""
        return all(self.outcome(*reference) == before for reference, before in outcomes.items())


def resolve(world: World, kind: str, namespace: str, ref: Ref, protocols: frozenset[str]) -> ClusterSpec:
    """The cluster that a route in `namespace` refers to; `protocols`: those that we speak. Raises Unresolved."""
    if (ref.group, ref.kind) != ("", "Service"):
        other = f"{ref.kind} of group {ref.group or 'core'}"
        raise Unresolved("InvalidKind", f"A backend is a Service, and not a {other}.")
    name = f"Service {ref.namespace}/{ref.name}"
    if not world.may_refer(GROUP, kind, namespace, ref):
        words = f"No ReferenceGrant in {ref.namespace} lets {kind}s of {namespace} refer to {name}."
        raise Unresolved("RefNotPermitted", words)
    service = world.services.get((ref.namespace, ref.name))
    if service is None:
        raise Unresolved("BackendNotFound", f"There is no {name}.")
    if service.type == "ExternalName":
        # A name outside of the cluster would let anyone who may write a Service reach what only we can reach.
        raise Unresolved("BackendNotFound", f"{name} is of type ExternalName, which has no endpoints.")
    port = next((each for each in service.ports if each.port == ref.port and each.protocol == "TCP"), None)
    if port is None:
        raise Unresolved("BackendNotFound", f"{name} has no TCP port {ref.port}.")
    if kind in CARRIED:
        # Apart from the requests to that port: their latency is another, and so is what counts as a failure.
        return ClusterSpec(ref.namespace, ref.name, port.port, port.name, TCP, variant=TCP)
    protocol = PROTOCOLS.get(port.app_protocol, HTTP1 if "/" not in port.app_protocol else "")
    if protocol not in protocols:
        raise Unresolved("UnsupportedProtocol", f"Port {port.port} of {name} speaks {port.app_protocol}: we do not.")
    return ClusterSpec(ref.namespace, ref.name, port.port, port.name, protocol)
