"""Everything together: from a world to what has to be listened to, which clusters are needed, and what is written.

A pure function. It is a generator so that its caller may breathe between two routes: a thousand of them take
longer than requests should wait.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

from balancer.discovery.gateway import addresses, backend_tls, listener_sets, policies
from balancer.discovery.gateway.backends import Resolver
from balancer.discovery.gateway.conditions import Condition, ancestors, merged
from balancer.discovery.gateway.ingress_taking import IngressTaking
from balancer.discovery.gateway.listeners import Checked, check, statuses
from balancer.discovery.gateway.memory import Memory
from balancer.discovery.gateway.objects import Gateway, Key, Listener, Secret
from balancer.discovery.gateway.result import NOTHING, Context, Draft, Plan, PortPlan, note
from balancer.discovery.gateway.taking import Taking
from balancer.discovery.gateway.world import World
from balancer.routing.table import Table


def plan(world: World, context: Context, memory: Memory | None = None) -> Plan:
    """The plan, in one go."""
    steps = steps_to_plan(world, context, memory if memory is not None else Memory())
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: Plan = done.value
            return result


def steps_to_plan(world: World, context: Context, memory: Memory) -> Generator[None, None, Plan]:
    """The plan, in small steps; it is what the generator returns. `memory` is of the last plan, and for the next."""
    result = Plan()
    gateways = world.our_gateways()
    drafts: dict[Key, Draft] = {}
    for gateway in gateways:
        drafts[gateway.meta.key] = Draft(gateway, check(world, gateway, context.usable))
        yield
    sets = listener_sets.gather(world, context, drafts)
    overrides, verdicts = policies.attach(world)
    _take_policies(world, context, verdicts, result)
    yield
    resolver = Resolver(world, context.protocols)
    taking = Taking(world, context, memory, resolver, overrides, drafts, sets, result)
    for route in world.all_routes():
        taking.take(route)
        yield
    taking.forget()
    ingresses = IngressTaking(world, context, memory, resolver, result) if context.ingress_class else None
    if ingresses is not None:
        yield from ingresses.take_all()
    for name, spec in result.clusters.items():
        own = overrides.get(("Service", spec.namespace, spec.service), ())
        if own:
            result.clusters[name] = replace(spec, overrides=tuple({**dict(own), **dict(spec.overrides)}.items()))
    yield from backend_tls.take(world, context, memory.routes.values(), result)
    problems = {each.meta.key: _problem(each) for each in gateways}
    wanted = {
        addresses.service_name(draft.gateway): (draft.gateway, _ports(draft))
        for key, draft in drafts.items()
        if not problems[key] and _ports(draft)
    }
    if ingresses is not None:
        wanted[addresses.service_name(ingresses.front)] = (ingresses.front, ingresses.ports)
    asked = {name: ports for name, (_, ports) in wanted.items()}
    recorded = addresses.recorded_ports(world, asked)
    made = addresses.made_by_us(world, _classes(world, context))
    busy = {ours for each in made for ours in addresses.known_ports(each).values()}
    memory.ports = addresses.choose_ports(asked, recorded, memory.ports, busy)
    result.obsolete = addresses.obsolete(made, wanted)
    _take_services(world, context, memory.ports, wanted, result)
    for key, draft in drafts.items():
        draft.ports = recorded.get(addresses.service_name(draft.gateway), {})
        attached = listener_sets.attached(sets, draft.gateway)
        yield from _take_gateway(world, context, memory, draft, problems[key], attached, result)
    listener_sets.finish(world, context, sets, problems, result)
    if ingresses is not None:
        yield from ingresses.finish(recorded[addresses.service_name(ingresses.front)])
    memory.settle()
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
            note(result, found, status)
    return result


def _take_policies(world: World, context: Context, verdicts: list[policies.Verdict], result: Plan) -> None:
    by_policy: dict[Key, list[policies.Verdict]] = {}
    for each in verdicts:
        by_policy.setdefault(each.policy.meta.key, []).append(each)
    for targets in by_policy.values():
        policy = targets[0].policy
        before = policy.status.get("ancestors") or ()
        wanted = [
            ({name: str(each.target.get(name) or "") for name in ("group", "kind", "name")}, [each.condition])
            for each in targets
        ]
        written = ancestors(before, world.controller, wanted, policy.meta.generation, context.now)
        note(result, policy, {"ancestors": written})


def _problem(gateway: Gateway) -> Condition | None:
    """What keeps a Gateway from being taken at all; None: nothing."""
    if gateway.has_parameters:
        words = "A Gateway takes no parameters here: a LoadBalancingPolicy has settings."
        return Condition("Accepted", False, "InvalidParameters", words)
    if any(each.get("value") for each in gateway.addresses):
        words = "Addresses cannot be chosen: each Gateway gets that of its Service."
        return Condition("Accepted", False, "UnsupportedAddress", words)
    return None


def _ports(draft: Draft) -> list[int]:
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


def _classes(world: World, context: Context) -> list[str]:
    classes = [each.meta.name for each in world.classes.values() if each.controller == world.controller]
    return [*classes, context.ingress_class] if context.ingress_class else classes


def _take_gateway(
    world: World,
    context: Context,
    memory: Memory,
    draft: Draft,
    problem: Condition | None,
    sets: int,
    result: Plan,
) -> Generator[None, None, None]:
    gateway = draft.gateway
    service = world.services.get((world.home, addresses.service_name(gateway)))
    found = addresses.status_addresses(service)
    own = [each for each in draft.listeners if not each.owner]
    if problem is None:
        for port in sorted({each.listener.port for each in draft.listeners if each.serves}):
            ours = draft.ports.get(port)
            if ours is not None:
                result.ports[ours] = yield from _port_plan(memory, draft, port, ours)
    present = {str(each.get("name")): each for each in gateway.status.get("listeners") or ()}
    ports = draft.ports if found else {}
    generation = gateway.meta.generation
    listeners = statuses(own, draft.attached, present, ports, generation, context.now)
    conditions = _gateway_conditions(draft, own, problem, bool(found))
    status: dict[str, Any] = {
        "addresses": found,
        "conditions": merged(gateway.status.get("conditions") or (), conditions, gateway.meta.generation, context.now),
        "listeners": listeners,
    }
    if sets or "attachedListenerSets" in gateway.status:  # Older CRDs do not know the field.
        status["attachedListenerSets"] = sets
    note(result, gateway, status)


def _port_plan(memory: Memory, draft: Draft, port: int, ours: int) -> Generator[None, None, PortPlan]:
    serving = [each for each in draft.listeners if each.serves and each.listener.port == port]
    gateway = str(draft.gateway.meta)
    requests: dict[bytes, Table] = {}
    streams: dict[bytes, Table] = {}
    for each in serving:
        host = each.listener.hostname
        parts = draft.parts.get(each.id, {})
        tables = requests if each.listener.protocol in {"HTTP", "HTTPS"} else streams
        tables[host.encode()] = yield from memory.table((gateway, port, host), parts)
    protocol = serving[0].listener.protocol
    return PortPlan(
        gateway=gateway,
        port=port,
        ours=ours,
        protocol="TLS" if protocol == "HTTPS" else protocol,
        certificates=_certificates(serving, "HTTPS"),
        site=memory.site((gateway, port), requests),
        streams=memory.site((gateway, port), streams, "connections") if streams else NOTHING,
        modes={each.listener.hostname: _mode(each.listener) for each in serving},
        stream_certificates=_certificates(serving, "Terminate"),
    )


def _mode(listener: Listener) -> str:
    return listener.tls_mode if listener.protocol == "TLS" else listener.protocol


def _certificates(serving: list[Checked], mode: str) -> list[tuple[str, list[Secret]]]:
    return [(each.listener.hostname, each.certificates) for each in serving if _mode(each.listener) == mode]


def _gateway_conditions(
    draft: Draft, listeners: list[Checked], problem: Condition | None, has_address: bool
) -> list[Condition]:
    bad = [each.listener.name for each in listeners if not (each.accepted.holds and each.resolved.holds)]
    if problem is not None:
        accepts = problem
    elif not bad:
        accepts = Condition("Accepted", True, "Accepted")
    else:
        any_good = any(each.accepted.holds for each in listeners)
        accepts = Condition("Accepted", any_good, "ListenersNotValid", f"Not valid: {', '.join(bad)}.")
    if not accepts.holds:
        programmed = Condition("Programmed", False, "Invalid", accepts.message)
    elif not has_address:
        programmed = Condition("Programmed", False, "AddressNotAssigned", "Its Service has no address yet.")
    elif not any(each.serves for each in draft.listeners):
        programmed = Condition("Programmed", False, "Invalid", "No listener can be opened.")
    else:
        programmed = Condition("Programmed", True, "Programmed")
    return [accepts, programmed]
