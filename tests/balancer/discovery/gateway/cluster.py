"""A small cluster in objects, as the API would list them."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

from balancer.discovery.gateway import objects
from balancer.discovery.gateway.backend_tls import backend_tls_policy
from balancer.discovery.gateway.ingress import ingress
from balancer.discovery.gateway.objects import Json, Secret
from balancer.discovery.gateway.plan import plan
from balancer.discovery.gateway.policies import load_balancing_policy
from balancer.discovery.gateway.result import Context, Plan, PortPlan
from balancer.discovery.gateway.world import World

CONTROLLER = "lb/lb"
NOW = "2026-11-29T17:00:00Z"
PEM = b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"


def metadata(name: str, namespace: str = "shop", **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": namespace, "generation": 2, "uid": f"uid-{name}", "resourceVersion": "7", **more}


def gateway_class(name: str = "lb", controller: str = CONTROLLER) -> Json:
    return {"metadata": {"name": name, "generation": 2}, "spec": {"controllerName": controller}}


def listener(name: str = "http", port: int = 80, protocol: str = "HTTP", **more: Any) -> dict[str, Any]:
    return {"name": name, "port": port, "protocol": protocol, **more}


def gateway(*listeners: Json, name: str = "door", namespace: str = "shop", **spec: Any) -> Json:
    return {
        "metadata": metadata(name, namespace),
        "spec": {"gatewayClassName": "lb", "listeners": list(listeners or [listener()]), **spec},
    }


def route(
    *rules: Json, name: str = "route", namespace: str = "shop", parents: list[Json] | None = None, **spec: Any
) -> dict[str, Any]:
    return {
        "metadata": metadata(name, namespace),
        "spec": {
            "parentRefs": [{"name": "door"}] if parents is None else parents,
            "rules": list(rules or [{"backendRefs": [backend()]}]),
            **spec,
        },
    }


def backend(name: str = "web", port: int = 8080, **more: Any) -> dict[str, Any]:
    return {"name": name, "port": port, **more}


def service(name: str = "web", namespace: str = "shop", ports: list[Json] | None = None, **spec: Any) -> Json:
    ports = [{"port": 8080}] if ports is None else ports
    return {"metadata": metadata(name, namespace), "spec": {"clusterIP": "10.96.0.9", "ports": ports, **spec}}


def secret(name: str = "cert", namespace: str = "shop") -> Json:
    pem = base64.b64encode(PEM).decode()
    return {
        "metadata": metadata(name, namespace),
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": pem, "tls.key": pem},
    }


def grant(source: tuple[str, str, str], target: tuple[str, str, str], namespace: str) -> Json:
    origin = {"group": source[0], "kind": source[1], "namespace": source[2]}
    to = {"group": target[0], "kind": target[1], **({"name": target[2]} if target[2] else {})}
    return {"metadata": metadata("grant", namespace), "spec": {"from": [origin], "to": [to]}}


def world(
    *,
    gateways: list[Json] | None = None,
    routes: list[Json] | None = None,
    services: list[Json] | None = None,
    secrets: list[Json] | None = None,
    grants: list[Json] | None = None,
    namespaces: dict[str, dict[str, str]] | None = None,
    policies: list[Json] | None = None,
    ingresses: list[Json] | None = None,
    grpc_routes: list[Json] | None = None,
    tls_routes: list[Json] | None = None,
    tcp_routes: list[Json] | None = None,
    tls_policies: list[Json] | None = None,
    listener_sets: list[Json] | None = None,
    config_maps: list[Json] | None = None,
) -> World:
    front = service("front", "lb-system", [{"port": 80}], selector={"app": "lb"})
    found = [objects.gateway(each) for each in (gateways if gateways is not None else [gateway()])]
    listed = [objects.service(each) for each in [front, *(services if services is not None else [service()])]]
    spaces = {"shop": {}, "other": {}} if namespaces is None else namespaces
    return World(
        controller=CONTROLLER,
        home="lb-system",
        classes={("", "lb"): objects.gateway_class(gateway_class())},
        gateways={each.meta.key: each for each in found},
        routes={each.meta.key: each for each in map(objects.http_route, routes or [])},
        grpc_routes={each.meta.key: each for each in map(objects.grpc_route, grpc_routes or [])},
        tls_routes={each.meta.key: each for each in map(objects.tls_route, tls_routes or [])},
        tcp_routes={each.meta.key: each for each in map(objects.tcp_route, tcp_routes or [])},
        grants={each.meta.key: each for each in map(objects.reference_grant, grants or [])},
        services={each.meta.key: each for each in listed},
        secrets={each.meta.key: each for each in map(objects.secret, secrets or [])},
        namespaces={
            ("", name): objects.namespace({"metadata": {"name": name, "labels": labels}})
            for name, labels in spaces.items()
        },
        policies={each.meta.key: each for each in map(load_balancing_policy, policies or [])},
        ingresses={each.meta.key: each for each in map(ingress, ingresses or [])},
        listener_sets={each.meta.key: each for each in map(objects.listener_set, listener_sets or [])},
        tls_policies={each.meta.key: each for each in map(backend_tls_policy, tls_policies or [])},
        config_maps={each.meta.key: each for each in map(objects.config_map, config_maps or [])},
    )


def planned(there: World) -> Plan:
    """The plan after the leader's Services have been written, and have got their addresses."""
    first = plan(there, context("lb" if there.ingresses else ""))
    return plan(written(there, first), context("lb" if there.ingresses else ""))


def written(there: World, found: Plan, kept: bool = False) -> World:
    """The world once the Services that a plan wants have been written; `kept`: those that are there are not changed."""
    services = dict(there.services)
    for write in found.services:
        body = {**write.body, "spec": {**write.body["spec"], "clusterIP": "10.96.0.10"}}
        body["metadata"] = {**write.body["metadata"], "namespace": there.home}
        made = objects.service(body)
        if not (kept and made.meta.key in services):
            services[made.meta.key] = made
    return replace(there, services=services)


def only_port(found: Plan) -> PortPlan:
    """What is served, where that is one port."""
    (port,) = found.ports.values()
    return port


def usable(found: Secret) -> str:
    return "the key is another's" if found.meta.name == "bad" else ""


def context(ingress_class: str = "") -> Context:
    return Context(usable, frozenset({"http1"}), ["Gateway", "HTTPRoute"], "front", NOW, ingress_class)


def status(found: Plan, kind: str, name: str, namespace: str = "shop") -> Any:
    return next(write.status for write in found.statuses if write.kind == kind and write.key == (namespace, name))


def said(conditions: list[Json], kind: str) -> tuple[str, str]:
    """Status and reason of a condition."""
    found = next(each for each in conditions if each["type"] == kind)
    return found["status"], found["reason"]
