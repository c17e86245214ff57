"""Everything together: from a world to what has to be listened to, which clusters are needed, and what is written.

A pure function. It is a generator so that whoever calls it may breathe between two routes: a thousand of them take
longer than requests should wait.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from balancer.discovery.gateway import addresses, policies
from balancer.discovery.gateway.addresses import ServiceWrite
from balancer.discovery.gateway.attachment import attach, parents
from balancer.discovery.gateway.backends import ClusterSpec
from balancer.discovery.gateway.conditions import Condition, merged
from balancer.discovery.gateway.listeners import Checked, Usable, check
from balancer.discovery.gateway.objects import Gateway, GatewayClass, HttpRoute, Json, Key, Secret
from balancer.discovery.gateway.policies import LoadBalancingPolicy
from balancer.discovery.gateway.rules import Translated, translate
from balancer.discovery.gateway.world import World
from balancer.routing.site import Site
from balancer.routing.table import Entry, Table


@dataclass(frozen=True, slots=True)
class Context:
    """What a plan depends on beside the world."""

    usable: Usable
    protocols: frozenset[str]
    """Those that we speak to endpoints."""
    features: Sequence[str]
    """What the GatewayClass's status claims, by name."""
    front: str
    """The release's own Service, in our namespace: those of Gateways are made like it."""
    now: str
    """RFC 3339."""


@dataclass(frozen=True, slots=True)
class PortPlan:
    """One port of one Gateway."""

    gateway: str
    port: int
    """The Gateway's."""
    ours: int
    """Where we listen for it."""
    tls: bool
    certificates: Sequence[tuple[str, Sequence[Secret]]]
    """By a listener's host name (empty: every one), the first listener first."""
    site: Site


@dataclass(frozen=True, slots=True)
class StatusWrite:
    """The status of an object, which is not what it should be."""

    kind: str
    key: Key
    version: str
    """Of the object that the status was made for: a write that comes too late is refused, and made again."""
    status: Json


@dataclass(slots=True)
class Plan:
    """What follows from a world."""

    ports: dict[int, PortPlan] = field(default_factory=dict)
    clusters: dict[str, ClusterSpec] = field(default_factory=dict)
    statuses: list[StatusWrite] = field(default_factory=list)
    services: list[ServiceWrite] = field(default_factory=list)
    obsolete: list[str] = field(default_factory=list)
    routes: int = 0
    """How many are attached to one of our Gateways."""


@dataclass(slots=True)
class _Draft:
    """A Gateway on the way."""

    gateway: Gateway
    listeners: list[Checked]
    entries: dict[str, list[Entry]]
    """By listener."""
    attached: set[tuple[str, Key]] = field(default_factory=set)
    """Listeners, and the routes that they have."""


def plan(world: World, context: Context) -> Plan:
    """The plan, in one go."""
    steps = steps_to_plan(world, context)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: Plan = done.value
            return result


def steps_to_plan(world: World, context: Context) -> Generator[None, None, Plan]:
    """The plan, in small steps; it is what the generator returns."""
    result = Plan()
    gateways = world.our_gateways()
    drafts = {each.meta.key: _Draft(each, check(world, each, context.usable), {}) for each in gateways}
    overrides, judged = policies.attach(world)
    _take_policies(world, context, judged, result)
    yield
    for route in sorted(world.routes.values(), key=lambda each: (each.meta.created, each.meta.key)):
        _take_route(world, context, route, drafts, result)
        yield
    for name, spec in result.clusters.items():
        own = overrides.get((spec.namespace, spec.service), ())
        if own:
            result.clusters[name] = replace(spec, overrides=own)
    accepted = {each.meta.key: _problem(each) == "" for each in gateways}
    wanted = {
        addresses.service_name(draft.gateway): (draft.gateway, _ports(draft))
        for key, draft in drafts.items()
        if accepted[key] and _ports(draft)
    }
    chosen = addresses.choose_ports(world, wanted)
    _take_services(world, context, chosen, wanted, result)
    for draft in drafts.values():
        yield from _take_gateway(world, context, draft, result)
    for found in world.classes.values():
        if found.controller == world.controller:
            accepts = Condition("Accepted", True, "Accepted")
            if found.has_parameters:
                accepts = Condition("Accepted", False, "InvalidParameters", "This class takes no parameters.")
            conditions = merged(found.status.get("conditions") or (), [accepts], found.meta.generation, context.now)
            status = {
                "conditions": conditions,
                "supportedFeatures": [{"name": name} for name in sorted(context.features)],
            }
            _write(result, found.meta.kind, found, status)
    return result


def _take_policies(world: World, context: Context, judged: list[policies.Judged], result: Plan) -> None:
    by_policy: dict[Key, list[policies.Judged]] = {}
    for each in judged:
        by_policy.setdefault(each.policy.meta.key, []).append(each)
    for told in by_policy.values():
        policy = told[0].policy
        before = policy.status.get("ancestors") or ()
        ancestors = [each for each in before if each.get("controllerName") != world.controller]
        for each in told:
            ancestor = {"group": "", "kind": str(each.target.get("kind")), "name": str(each.target.get("name"))}
            present: Json = next((one for one in before if one.get("ancestorRef") == ancestor), {})
            conditions = merged(present.get("conditions") or (), [each.condition], policy.meta.generation, context.now)
            ancestors.append({"ancestorRef": ancestor, "controllerName": world.controller, "conditions": conditions})
        _write(result, policy.meta.kind, policy, {"ancestors": ancestors})


def _problem(gateway: Gateway) -> str:
    """What keeps a Gateway from being taken at all; empty: nothing."""
    return (
        "Addresses cannot be chosen: each Gateway gets that of its Service."
        if any(each.get("value") for each in gateway.addresses)
        else ""
    )


def _ports(draft: _Draft) -> list[int]:
    return [each.listener.port for each in draft.listeners if each.accepted.holds and each.kinds]


def _take_services(
    world: World,
    context: Context,
    chosen: dict[str, dict[int, int]],
    wanted: dict[str, tuple[Gateway, list[int]]],
    result: Plan,
) -> None:
    front = world.services.get((world.home, context.front))
    if front is None:
        return
    for name, (gateway, _) in wanted.items():
        write = addresses.service_write(world, gateway, chosen[name], front)
        if write is not None:
            result.services.append(write)
    classes = [each.meta.name for each in world.classes.values() if each.controller == world.controller]
    result.obsolete = addresses.obsolete(world, classes, wanted)


def _take_route(world: World, context: Context, route: HttpRoute, drafts: dict[Key, _Draft], result: Plan) -> None:
    gateways = {key: draft.gateway for key, draft in drafts.items()}
    named = list(parents(route, gateways))
    others = [each for each in route.status.get("parents") or () if each.get("controllerName") != world.controller]
    before = [each for each in route.status.get("parents") or () if each.get("controllerName") == world.controller]
    if not named and not before:
        return
    entries = list(others)
    if named:
        result.routes += 1
        translated = translate(world, route, context.protocols)
        result.clusters.update((spec.name, spec) for spec in translated.clusters)
        for place, parent, gateway in named:
            draft = drafts[gateway.meta.key]
            listeners, accepts = attach(world, route, parent, gateway, draft.listeners)
            for each in listeners:
                _add(draft, each, route, translated)
            json = route.parent_json[place]
            present: Json = next((each for each in before if each.get("parentRef") == json), {})
            conditions = merged(_kept(present), _conditions(accepts, translated), route.meta.generation, context.now)
            entries.append({"parentRef": json, "controllerName": world.controller, "conditions": conditions})
    _write(result, route.meta.kind, route, {"parents": entries})


def _kept(present: Json) -> list[Json]:
    """Our entry's conditions without those that are said only where they hold."""
    return [each for each in present.get("conditions") or () if each.get("type") != "PartiallyInvalid"]


def _conditions(accepts: Condition, translated: Translated) -> list[Condition]:
    conditions = [accepts]
    if accepts.holds and translated.dropped:
        words = "; ".join(translated.dropped)
        if translated.rules:
            partly = Condition("PartiallyInvalid", True, "UnsupportedValue", f"Dropped Rule: {words}")
            conditions.append(partly)
        else:
            conditions = [Condition("Accepted", False, "UnsupportedValue", words)]
    problem = translated.unresolved
    if problem is None:
        conditions.append(Condition("ResolvedRefs", True, "ResolvedRefs"))
    else:
        conditions.append(Condition("ResolvedRefs", False, problem.reason, str(problem)))
    return conditions


def _add(draft: _Draft, checked: Checked, route: HttpRoute, translated: Translated) -> None:
    """Attach a route to a listener, once however many of its references lead there."""
    name = str(route.meta)
    entries = draft.entries.setdefault(checked.listener.name, [])
    pair = checked.listener.name, route.meta.key
    if pair in draft.attached or (translated.dropped and not translated.rules):
        return
    draft.attached.add(pair)
    checked.attached += 1
    for place, matches, rule in translated.rules:
        for host in route.hostnames or ("",):
            for match in matches:
                entries.append(Entry(host.encode(), match, rule, route.meta.created, name, place))


def _take_gateway(world: World, context: Context, draft: _Draft, result: Plan) -> Generator[None, None, None]:
    gateway = draft.gateway
    service = world.services.get((world.home, addresses.service_name(gateway)))
    found = addresses.status_addresses(service)
    problem = _problem(gateway)
    if not problem:
        recorded = addresses.known_ports(service)
        for port in sorted({each.listener.port for each in draft.listeners if each.serves}):
            if port in recorded:
                result.ports[recorded[port]] = _port_plan(draft, port, recorded[port])
                yield
    present = {each.get("name"): each for each in gateway.status.get("listeners") or ()}
    listeners = []
    for checked in draft.listeners:
        name, before = checked.listener.name, present.get(checked.listener.name) or {}
        reachable = bool(found) and checked.listener.port in addresses.known_ports(service)
        conditions = checked.conditions(reachable)
        listeners.append(
            {
                "name": name,
                "supportedKinds": [{"group": group, "kind": kind} for group, kind in checked.kinds],
                "attachedRoutes": checked.attached,
                "conditions": merged(before.get("conditions") or (), conditions, gateway.meta.generation, context.now),
            }
        )
    conditions = _gateway_conditions(draft, problem, bool(found))
    status: dict[str, Any] = {
        "addresses": found,
        "conditions": merged(gateway.status.get("conditions") or (), conditions, gateway.meta.generation, context.now),
        "listeners": listeners,
    }
    _write(result, gateway.meta.kind, gateway, status)


def _port_plan(draft: _Draft, port: int, ours: int) -> PortPlan:
    serving = [each for each in draft.listeners if each.serves and each.listener.port == port]
    tables = {each.listener.hostname.encode(): Table(draft.entries.get(each.listener.name, ())) for each in serving}
    return PortPlan(
        gateway=str(draft.gateway.meta),
        port=port,
        ours=ours,
        tls=serving[0].listener.protocol == "HTTPS",
        certificates=[(each.listener.hostname, each.certificates) for each in serving if each.certificates],
        site=Site(tables),
    )


def _gateway_conditions(draft: _Draft, problem: str, has_address: bool) -> list[Condition]:
    listeners = draft.listeners
    bad = [each.listener.name for each in listeners if not (each.accepted.holds and each.resolved.holds)]
    if problem:
        accepts = Condition("Accepted", False, "UnsupportedAddress", problem)
    elif not bad:
        accepts = Condition("Accepted", True, "Accepted")
    else:
        any_good = any(each.accepted.holds for each in listeners)
        accepts = Condition("Accepted", any_good, "ListenersNotValid", f"Not valid: {', '.join(bad)}.")
    if not accepts.holds:
        programmed = Condition("Programmed", False, "Invalid", accepts.message)
    elif not has_address:
        programmed = Condition("Programmed", False, "AddressNotAssigned", "Its Service has no address yet.")
    elif not any(each.serves for each in listeners):
        programmed = Condition("Programmed", False, "Invalid", "No listener can be opened.")
    else:
        programmed = Condition("Programmed", True, "Programmed")
    return [accepts, programmed]


def _write(
    result: Plan, kind: str, found: GatewayClass | Gateway | HttpRoute | LoadBalancingPolicy, status: dict[str, Any]
) -> None:
    """Note a status that is not what it should be; what others have put beside ours stays as it is."""
    if any(found.status.get(name) != value for name, value in status.items()):
        result.statuses.append(StatusWrite(kind, found.meta.key, found.meta.version, status))
