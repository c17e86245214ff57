"""What we read of the API's objects: typed, without the rest. What the CRDs' own rules refuse is not looked at again.

Sources: the Gateway API's types of v1 (gateway.networking.k8s.io), core v1, discovery.k8s.io/v1.

Above 300 lines because it is one dataclass for each kind of object, and how each is read.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

Json = Mapping[str, Any]
Key = tuple[str, str]
"""Namespace and name."""

GROUP: Final = "gateway.networking.k8s.io"

SENSELESS: Final = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError, re.error)
"""What comes of reading an object that makes no sense: it must not hide all others."""


@dataclass(frozen=True, slots=True)
class Meta:
    """Which object, and of which generation."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    created: str
    """RFC 3339, so that it sorts."""
    version: str
    """What a write must name, so that it overwrites nobody else's."""

    @property
    def key(self) -> Key:
        return self.namespace, self.name

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Stated(Protocol):
    """An object that has a status."""

    @property
    def meta(self) -> Meta: ...

    @property
    def status(self) -> Json: ...


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference to another object. `namespace` is that of the object that refers, where the reference names none."""

    group: str
    kind: str
    namespace: str
    name: str
    port: int | None = None
    section: str | None = None


@dataclass(frozen=True, slots=True)
class GatewayClass:
    meta: Meta
    controller: str
    has_parameters: bool
    status: Json


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener of a Gateway, as asked for."""

    name: str
    hostname: str
    port: int
    protocol: str
    tls_mode: str
    certificates: tuple[Ref, ...]
    kinds: tuple[tuple[str, str], ...] | None
    """Group and kind of the routes that may attach; None: whatever the protocol serves."""
    from_namespaces: str
    """Same, All, Selector or None."""
    selector: Json


@dataclass(frozen=True, slots=True)
class Gateway:
    meta: Meta
    gateway_class: str
    listeners: tuple[Listener, ...]
    addresses: tuple[Json, ...]
    labels: Json
    """For what is made for this Gateway (spec.infrastructure)."""
    annotations: Json
    status: Json
    sets_from: str = "None"
    """Namespaces whose ListenerSets may add to it: Same, All, Selector or None."""
    sets_selector: Json = field(default_factory=dict)
    has_parameters: bool = False


@dataclass(frozen=True, slots=True)
class ListenerSet:
    meta: Meta
    parent: Ref
    """The Gateway that it adds to."""
    listeners: tuple[Listener, ...]
    status: Json


@dataclass(frozen=True, slots=True)
class Route:
    """An HTTPRoute, GRPCRoute, TLSRoute or TCPRoute: `meta.kind` says which."""

    meta: Meta
    parents: tuple[Ref, ...]
    parent_json: tuple[Json, ...]
    """The same as written: a status must repeat them."""
    hostnames: tuple[str, ...]
    """None, for a TCPRoute: it has no such field."""
    rules: tuple[Json, ...]
    """As written: rules.py reads them."""
    status: Json


@dataclass(frozen=True, slots=True)
class ReferenceGrant:
    """Who may refer to what in the grant's own namespace."""

    meta: Meta
    sources: tuple[tuple[str, str, str], ...]
    """Group, kind, namespace."""
    targets: tuple[tuple[str, str, str], ...]
    """Group, kind, name; an empty name is every one."""


@dataclass(frozen=True, slots=True)
class ServicePort:
    name: str
    port: int
    target: str
    protocol: str
    app_protocol: str


@dataclass(frozen=True, slots=True)
class Service:
    meta: Meta
    type: str
    cluster_ip: str
    ports: tuple[ServicePort, ...]
    selector: Json
    labels: Json
    annotations: Json
    addresses: tuple[Json, ...]
    """What a load balancer of the cloud has given it."""


@dataclass(frozen=True, slots=True)
class Secret:
    """The certificate and key of a Secret, as PEM; None where they cannot be read out of it."""

    meta: Meta
    certificate: bytes | None
    key: bytes | None


@dataclass(frozen=True, slots=True)
class ConfigMap:
    """The authorities' certificates of a ConfigMap, as PEM; empty where there are none."""

    meta: Meta
    authorities: str


@dataclass(frozen=True, slots=True)
class Namespace:
    meta: Meta
    labels: Json


@dataclass(frozen=True, slots=True)
class Slice:
    """An EndpointSlice, of which `item` is what endpointslices.parse reads."""

    meta: Meta
    service: str
    item: Json


def gateway_class(item: Json) -> GatewayClass:
    spec = item["spec"]
    controller, parameters = spec["controllerName"], spec.get("parametersRef")
    return GatewayClass(meta_of("GatewayClass", item), controller, parameters is not None, item.get("status") or {})


def gateway(item: Json) -> Gateway:
    meta, spec = meta_of("Gateway", item), item["spec"]
    infrastructure = spec.get("infrastructure") or {}
    sets = (spec.get("allowedListeners") or {}).get("namespaces") or {}
    return Gateway(
        meta=meta,
        gateway_class=spec["gatewayClassName"],
        listeners=tuple(_listener(each, meta.namespace) for each in spec.get("listeners") or ()),
        addresses=tuple(spec.get("addresses") or ()),
        labels=infrastructure.get("labels") or {},
        annotations=infrastructure.get("annotations") or {},
        status=item.get("status") or {},
        sets_from=sets.get("from") or "None",
        sets_selector=sets.get("selector") or {},
        has_parameters=infrastructure.get("parametersRef") is not None,
    )


def listener_set(item: Json) -> ListenerSet:
    meta, spec = meta_of("ListenerSet", item), item["spec"]
    return ListenerSet(
        meta=meta,
        parent=ref(spec["parentRef"], meta.namespace, GROUP, "Gateway"),
        listeners=tuple(_listener(each, meta.namespace) for each in spec.get("listeners") or ()),
        status=item.get("status") or {},
    )


def _listener(item: Json, namespace: str) -> Listener:
    tls = item.get("tls") or {}
    allowed = item.get("allowedRoutes") or {}
    kinds: Sequence[Json] = allowed.get("kinds") or ()
    spaces = allowed.get("namespaces") or {}
    return Listener(
        name=item["name"],
        hostname=(item.get("hostname") or "").lower(),
        port=item["port"],
        protocol=item["protocol"],
        tls_mode=tls.get("mode") or "Terminate",
        certificates=tuple(ref(each, namespace, "", "Secret") for each in tls.get("certificateRefs") or ()),
        kinds=tuple((each.get("group", GROUP), each["kind"]) for each in kinds) if kinds else None,
        from_namespaces=spaces.get("from") or "Same",
        selector=spaces.get("selector") or {},
    )


def http_route(item: Json) -> Route:
    return _route("HTTPRoute", item)


def grpc_route(item: Json) -> Route:
    return _route("GRPCRoute", item)


def tls_route(item: Json) -> Route:
    return _route("TLSRoute", item)


def tcp_route(item: Json) -> Route:
    return _route("TCPRoute", item)


def _route(kind: str, item: Json) -> Route:
    meta, spec = meta_of(kind, item), item["spec"]
    parents: Sequence[Json] = spec.get("parentRefs") or ()
    return Route(
        meta=meta,
        parents=tuple(ref(each, meta.namespace, GROUP, "Gateway") for each in parents),
        parent_json=tuple(parents),
        hostnames=tuple(host.lower() for host in spec.get("hostnames") or ()),
        rules=tuple(spec.get("rules") or ()),
        status=item.get("status") or {},
    )


def reference_grant(item: Json) -> ReferenceGrant:
    spec = item["spec"]
    return ReferenceGrant(
        meta_of("ReferenceGrant", item),
        tuple((each.get("group", ""), each["kind"], each["namespace"]) for each in spec.get("from") or ()),
        tuple((each.get("group", ""), each["kind"], each.get("name") or "") for each in spec.get("to") or ()),
    )


def service(item: Json) -> Service:
    spec, metadata = item["spec"], item["metadata"]
    balanced = (item.get("status") or {}).get("loadBalancer") or {}
    return Service(
        meta=meta_of("Service", item),
        type=spec.get("type") or "ClusterIP",
        cluster_ip=spec.get("clusterIP") or "",
        ports=tuple(_service_port(each) for each in spec.get("ports") or ()),
        selector=spec.get("selector") or {},
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        addresses=tuple(balanced.get("ingress") or ()),
    )


def _service_port(item: Json) -> ServicePort:
    return ServicePort(
        name=item.get("name") or "",
        port=item["port"],
        target=str(item.get("targetPort") or item["port"]),
        protocol=item.get("protocol") or "TCP",
        app_protocol=item.get("appProtocol") or "",
    )


def secret(item: Json) -> Secret:
    data = item.get("data") or {}
    is_tls = item.get("type") == "kubernetes.io/tls"
    certificate, key = ((_pem(data.get(name)) if is_tls else None) for name in ("tls.crt", "tls.key"))
    return Secret(meta_of("Secret", item), certificate, key)


def _pem(encoded: str | None) -> bytes | None:
    try:
        decoded = base64.b64decode(encoded or "", validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded if b"-----BEGIN " in decoded else None


def config_map(item: Json) -> ConfigMap:
    return ConfigMap(meta_of("ConfigMap", item), str((item.get("data") or {}).get("ca.crt") or ""))


def namespace(item: Json) -> Namespace:
    return Namespace(meta_of("Namespace", item), item["metadata"].get("labels") or {})


def endpoint_slice(item: Json) -> Slice:
    labels = item["metadata"].get("labels") or {}
    kept = {name: item.get(name) for name in ("addressType", "ports", "endpoints")}
    # Of the metadata only what parse reads: managedFields alone would be half of the memory.
    kept["metadata"] = {"name": item["metadata"]["name"]}
    return Slice(meta_of("EndpointSlice", item), labels.get("kubernetes.io/service-name") or "", kept)


def ref(item: Json, namespace: str, group: str, kind: str) -> Ref:
    """A reference out of an object in `namespace`; `group` and `kind` are what it means where it names none."""
    return Ref(
        group=item.get("group", group) or "",
        kind=item.get("kind") or kind,
        namespace=item.get("namespace") or namespace,
        name=item["name"],
        port=item.get("port"),
        section=item.get("sectionName"),
    )


def meta_of(kind: str, item: Json) -> Meta:
    """Which object it is."""
    metadata = item["metadata"]
    return Meta(
        kind=kind,
        namespace=metadata.get("namespace") or "",
        name=metadata["name"],
        uid=metadata.get("uid") or "",
        generation=metadata.get("generation") or 0,
        created=metadata.get("creationTimestamp") or "",
        version=metadata.get("resourceVersion") or "",
    )
