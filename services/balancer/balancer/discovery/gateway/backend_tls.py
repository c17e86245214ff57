"""BackendTLSPolicy: that the pods of a Service are reached by TLS, and who they have to be (GEP-1897).

A policy whose authorities cannot be had must not let requests go out unchecked: its Services' pods are then trusted by
nobody's word, and every connection fails.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from balancer.discovery.gateway.backends import BackendTls
from balancer.discovery.gateway.conditions import Condition, ancestors
from balancer.discovery.gateway.memory import Known
from balancer.discovery.gateway.objects import GROUP, Json, Key, Meta, Ref, meta_of, ref
from balancer.discovery.gateway.result import Context, Plan, note
from balancer.discovery.gateway.world import World

NAMES: Final = {"Hostname": ("DNS", "hostname"), "URI": ("URI", "uri")}
"""Types of subjectAltNames: as certificates call them, and the field that has the name."""

STEP: Final = 200
"""Routes that are looked at without a pause."""

Port = tuple[str, str, str]
"""Namespace and name of a Service, and the name of a port; empty: every one that no other policy is for."""


@dataclass(frozen=True, slots=True)
class BackendTlsPolicy:
    meta: Meta
    targets: tuple[Ref, ...]
    authorities: tuple[Ref, ...]
    system: bool
    """Whether the authorities are those that the system trusts."""
    hostname: str
    names: tuple[tuple[str, str], ...]
    status: Json


@dataclass(frozen=True, slots=True)
class Verdict:
    """A policy, and what is said of it at every Gateway that it counts for."""

    policy: BackendTlsPolicy
    conditions: tuple[Condition, ...]


def backend_tls_policy(item: Json) -> BackendTlsPolicy:
    meta, spec = meta_of("BackendTLSPolicy", item), item["spec"]
    validation = spec["validation"]
    names = []
    for each in validation.get("subjectAltNames") or ():
        kind, field = NAMES.get(each["type"], ("", ""))  # No certificate is for what is not known.
        names.append((kind, str(each.get(field))))
    return BackendTlsPolicy(
        meta=meta,
        targets=tuple(ref(each, meta.namespace, "", "Service") for each in spec.get("targetRefs") or ()),
        authorities=tuple(ref(each, meta.namespace, "", "") for each in validation.get("caCertificateRefs") or ()),
        system=validation.get("wellKnownCACertificates") == "System",
        hostname=validation["hostname"],
        names=tuple(names),
        status=item.get("status") or {},
    )


def wanted_config_maps(world: World) -> set[Key]:
    """The ConfigMaps to watch: each policy names those of its own namespace."""
    return {
        (policy.meta.namespace, each.name)
        for policy in world.tls_policies.values()
        for each in policy.authorities
        if (each.group, each.kind) == ("", "ConfigMap")
    }


def evaluate(world: World, usable: Callable[[str], str]) -> tuple[Mapping[Port, BackendTls], list[Verdict]]:
    """By port, how its pods are reached; and every policy's verdict. Of two for one port the older counts."""
    found: dict[Port, BackendTls] = {}
    verdicts: list[Verdict] = []
    for policy in sorted(world.tls_policies.values(), key=lambda each: (each.meta.created, each.meta.key)):
        authorities, resolved = _authorities(world, policy, usable)
        tls = BackendTls(policy.hostname, authorities, policy.names)
        free = [port for port in _ports(policy) if port not in found]
        found.update((port, tls) for port in free)
        if not free:
            accepted = Condition("Accepted", False, "Conflicted", "An older policy is for the same.")
        elif authorities == "":
            accepted = Condition("Accepted", False, "NoValidCACertificate", resolved.message)
        else:
            accepted = Condition("Accepted", True, "Accepted")
        verdicts.append(Verdict(policy, (accepted, resolved)))
    return found, verdicts


def _ports(policy: BackendTlsPolicy) -> Iterable[Port]:
    for target in policy.targets:
        if (target.group, target.kind) == ("", "Service"):
            yield policy.meta.namespace, target.name, target.section or ""


def _authorities(world: World, policy: BackendTlsPolicy, usable: Callable[[str], str]) -> tuple[str | None, Condition]:
    """The certificates to trust, and the condition ResolvedRefs; empty where there are none that can be used."""
    resolved = Condition("ResolvedRefs", True, "ResolvedRefs")
    if policy.system:
        return None, resolved
    good: list[str] = []
    for each in policy.authorities:
        name = f"{each.kind} {policy.meta.namespace}/{each.name}"
        if (each.group, each.kind) != ("", "ConfigMap"):
            words = f"Authorities are in a ConfigMap, and not in a {each.kind} of group {each.group or 'core'}."
            resolved = Condition("ResolvedRefs", False, "InvalidKind", words)
            continue
        there = world.config_maps.get((policy.meta.namespace, each.name))
        problem = usable(there.authorities) if there is not None else ""
        if there is None:
            resolved = Condition("ResolvedRefs", False, "InvalidCACertificateRef", f"There is no {name}.")
        elif problem:
            words = f"The certificates in ca.crt of {name} cannot be used: {problem}."
            resolved = Condition("ResolvedRefs", False, "InvalidCACertificateRef", words)
        else:
            good.append(there.authorities)
    return "\n".join(good), resolved


def take(world: World, context: Context, routes: Iterable[Known], result: Plan) -> Generator[None, None, None]:
    """In steps: the clusters that policies are for, and their statuses, an entry for each Gateway that leads there."""
    if not world.tls_policies:
        return
    found, verdicts = evaluate(world, context.usable_authorities)
    for name, spec in result.clusters.items():
        tls = found.get((spec.namespace, spec.service, spec.port_name)) or found.get((spec.namespace, spec.service, ""))
        if tls is not None:
            result.clusters[name] = replace(spec, tls=tls)
    yield
    gateways: dict[Key, dict[Key, None]] = {}
    for number, known in enumerate(routes):
        if known.named:
            for spec in known.translated.clusters:
                gateways.setdefault((spec.namespace, spec.service), {}).update((key, None) for key, _ in known.attached)
        if number % STEP == 0:
            yield
    for each in verdicts:
        _state(world, context, each, gateways, result)


def _state(
    world: World, context: Context, verdict: Verdict, gateways: Mapping[Key, Mapping[Key, None]], result: Plan
) -> None:
    policy = verdict.policy
    before = policy.status.get("ancestors") or ()
    reached: dict[Key, None] = {}
    for namespace, service, _ in _ports(policy):
        reached.update(gateways.get((namespace, service), {}))
    wanted = [
        ({"group": GROUP, "kind": "Gateway", "namespace": namespace, "name": name}, verdict.conditions)
        for namespace, name in sorted(reached)
    ]
    written = ancestors(before, world.controller, wanted, policy.meta.generation, context.now)
    if written or before:
        note(result, policy, {"ancestors": written})
