"""LoadBalancingPolicy: settings of our own for one Service or one route, by attachment (GEP-713).

It holds what the release's settings hold for all clusters, by the names that the chart gives them, read and checked by
the settings' own table. Of several for one target the oldest counts; the status of the others says that they do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from balancer.balancing.strategies import STRATEGIES
from balancer.discovery.gateway.conditions import Condition
from balancer.discovery.gateway.objects import GROUP as ROUTES_GROUP
from balancer.discovery.gateway.objects import Json, Key, Meta, meta_of
from balancer.discovery.gateway.world import World
from balancer.settings import table

GROUP: Final = "policy.lb"
PLURAL: Final = "loadbalancingpolicies"

FIELDS: Final = (
    "strategy",
    "hash_key",
    "endpoint_max_requests",
    "queue_size",
    "queue_timeout",
    "retries",
    "retry_budget",
    "retry_statuses",
    "connect_timeout",
    "response_timeout",
    "total_timeout",
    "eject_after",
    "eject_time",
    "eject_max_share",
    "panic_share",
    "slow_start",
    "health_path",
    "health_status",
    "health_interval",
    "health_timeout",
    "health_rise",
    "health_fall",
    "upstream_proxy_protocol",
)
"""The settings that one cluster may have for itself."""

Overrides = tuple[tuple[str, object], ...]
"""Settings' fields, with their values as the settings hold them."""


@dataclass(frozen=True, slots=True)
class LoadBalancingPolicy:
    meta: Meta
    targets: tuple[Json, ...]
    """Services and routes, as written."""
    settings: Json
    status: Json


def load_balancing_policy(item: Json) -> LoadBalancingPolicy:
    spec = item["spec"]
    settings = {name: value for name, value in spec.items() if name != "targetRefs"}
    meta = meta_of("LoadBalancingPolicy", item)
    return LoadBalancingPolicy(meta, tuple(spec.get("targetRefs") or ()), settings, item.get("status") or {})


def camel_case(field: str) -> str:
    """`eject_after` as the chart and the policy call it: `ejectAfter`."""
    first, *others = field.split("_")
    return first + "".join(each.capitalize() for each in others)


def parsed(settings: Json) -> Overrides:
    """The settings of a policy. Raises ValueError, in words, for one that is none or not allowed."""
    rows = {camel_case(row.field): row for row in table() if row.field in FIELDS}
    found: list[tuple[str, object]] = []
    for name, value in sorted(settings.items()):
        row = rows.get(name)
        if row is None:
            raise ValueError(f"{name} is no setting of a cluster")
        if row.field == "strategy" and not (isinstance(value, str) and value in STRATEGIES):
            # A class of one's own is for the operator who installs the balancer, not for anyone who may write a policy.
            raise ValueError(f"strategy: allowed: {', '.join(STRATEGIES)}")
        try:
            found.append((row.field, row.kind.parse(value)))
        except (ValueError, TypeError):
            raise ValueError(f"{name}: allowed: {row.allowed}") from None
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A policy's target, and what is said of it there."""

    policy: LoadBalancingPolicy
    target: Json
    condition: Condition


Target = tuple[str, str, str]
"""Kind, namespace and name."""

TARGETS: Final = {"Service": ""} | dict.fromkeys(("HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"), ROUTES_GROUP)
"""Kinds that a policy may be for, with their groups."""


def attach(world: World) -> tuple[Mapping[Target, Overrides], list[Verdict]]:
    """By target, what its policy sets; and the verdict on every policy's every target, for its status."""
    effective: dict[Target, Overrides] = {}
    verdicts: list[Verdict] = []
    for policy in sorted(world.policies.values(), key=lambda each: (each.meta.created, each.meta.key)):
        for target in policy.targets:
            key = str(target.get("kind")), policy.meta.namespace, str(target.get("name"))
            verdicts.append(Verdict(policy, target, _evaluate(world, policy, target, key, effective)))
    return effective, verdicts


def _evaluate(
    world: World, policy: LoadBalancingPolicy, target: Json, key: Target, effective: dict[Target, Overrides]
) -> Condition:
    kind, namespace, name = key
    if TARGETS.get(kind) != (target.get("group") or ""):
        return Condition("Accepted", False, "Invalid", f"Only these can be targets: {', '.join(TARGETS)}.")
    there: Mapping[Key, object] = world.services if kind == "Service" else world.routes_of(kind)
    if (namespace, name) not in there:
        return Condition("Accepted", False, "TargetNotFound", f"There is no {kind} {namespace}/{name}.")
    if key in effective:
        return Condition("Accepted", False, "Conflicted", f"An older policy is for the same {kind}.")
    try:
        overrides = parsed(policy.settings)
    except ValueError as problem:
        return Condition("Accepted", False, "Invalid", f"{problem}.")
    effective[key] = overrides
    return Condition("Accepted", True, "Accepted")


def crd() -> dict[str, Any]:
    """The definition of the kind, its schema from the settings' table."""
    target = {
        "type": "object",
        "required": ["kind", "name"],
        "properties": {
            "group": {"type": "string", "default": ""},
            "kind": {"type": "string", "enum": list(TARGETS)},
            "name": {"type": "string", "minLength": 1, "maxLength": 253},
        },
    }
    properties: dict[str, Any] = {
        "targetRefs": {
            "description": "Services and routes of the policy's own namespace.",
            "type": "array",
            "minItems": 1,
            "maxItems": 16,
            "items": target,
        }
    }
    for row in table():
        if row.field in FIELDS:
            properties[camel_case(row.field)] = {
                "description": f"{row.meaning} Allowed: {row.allowed}. Without it: as the release's settings say.",
                # Numbers and texts both: what is allowed is said by the status, in words.
                "x-kubernetes-preserve-unknown-fields": True,
            }
    status = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    spec = {"type": "object", "required": ["targetRefs"], "properties": properties}
    schema = {"type": "object", "required": ["spec"], "properties": {"spec": spec, "status": status}}
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema},
    }
    names = {"kind": "LoadBalancingPolicy", "plural": PLURAL, "singular": "loadbalancingpolicy", "shortNames": ["lbp"]}
    metadata = {"name": f"{PLURAL}.{GROUP}", "labels": {"gateway.networking.k8s.io/policy": "Direct"}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }
