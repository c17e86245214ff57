"""ListenerSet: listeners that others add to a Gateway, where it lets them (GEP-1713).

A Gateway's own listeners go before those of sets, an older set's before a younger one's: of two that cannot both be,
the status of the later says that it conflicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from balancer.discovery.gateway import addresses
from balancer.discovery.gateway.conditions import Condition, merged
from balancer.discovery.gateway.listeners import Checked, check_one, statuses
from balancer.discovery.gateway.objects import GROUP, Gateway, Json, Key, ListenerSet
from balancer.discovery.gateway.result import Context, Draft, Plan, note
from balancer.discovery.gateway.world import World


@dataclass(slots=True)
class SetDraft:
    """A set on the way."""

    found: ListenerSet
    draft: Draft
    """Its Gateway's."""
    allowed: bool
    listeners: list[Checked] = field(default_factory=list)


def ours(world: World, gateways: Mapping[Key, Gateway]) -> list[ListenerSet]:
    """The sets of our Gateways, the oldest first."""
    found = [
        each
        for each in world.listener_sets.values()
        if (each.parent.group, each.parent.kind) == (GROUP, "Gateway")
        and (each.parent.namespace, each.parent.name) in gateways
    ]
    return sorted(found, key=lambda each: (each.meta.created, each.meta.key))


def allowed(world: World, gateway: Gateway, found: ListenerSet) -> bool:
    """Whether a Gateway takes the listeners of a set."""
    namespace = found.meta.namespace
    if gateway.sets_from == "Selector":
        return world.in_selection(namespace, gateway.sets_selector)
    return gateway.sets_from == "All" or (gateway.sets_from == "Same" and namespace == gateway.meta.namespace)


def gather(world: World, context: Context, drafts: Mapping[Key, Draft]) -> dict[Key, SetDraft]:
    """The sets of our Gateways; the listeners of those that are allowed stand in their Gateways' drafts too."""
    sets: dict[Key, SetDraft] = {}
    for found in ours(world, {key: draft.gateway for key, draft in drafts.items()}):
        draft = drafts[found.parent.namespace, found.parent.name]
        made = sets[found.meta.key] = SetDraft(found, draft, allowed(world, draft.gateway, found))
        if not made.allowed:
            continue
        for listener in found.listeners:
            before = [each.listener for each in draft.listeners if not each.conflicted.holds]
            checked = check_one(world, found.meta, listener, before, context.usable)
            draft.listeners.append(checked)
            made.listeners.append(checked)
    return sets


def attached(sets: Mapping[Key, SetDraft], gateway: Gateway) -> int:
    """How many sets a Gateway has that bring it a listener."""
    return sum(made.draft.gateway is gateway and any(each.serves for each in made.listeners) for made in sets.values())


def finish(
    world: World, context: Context, sets: Mapping[Key, SetDraft], problems: Mapping[Key, Condition | None], result: Plan
) -> None:
    """Every set's status; `problems` by Gateway: what keeps it from being taken."""
    for made in sets.values():
        found, gateway = made.found, made.draft.gateway
        service = world.services.get((world.home, addresses.service_name(gateway)))
        ports = made.draft.ports if addresses.status_addresses(service) else {}
        conditions = _conditions(made, problems[gateway.meta.key], ports)
        generation = found.meta.generation
        status = {
            "conditions": merged(found.status.get("conditions") or (), conditions, generation, context.now),
            "listeners": _listeners(made, ports, context.now),
        }
        note(result, found, status)


def _conditions(made: SetDraft, problem: Condition | None, ports: Mapping[int, int]) -> list[Condition]:
    gateway = made.draft.gateway
    bad = [each.listener.name for each in made.listeners if not (each.accepted.holds and each.resolved.holds)]
    serving = [each for each in made.listeners if each.serves]
    if not made.allowed:
        words = f"Gateway {gateway.meta} takes no listeners of sets in namespace {made.found.meta.namespace}."
        return _refused("NotAllowed", words)
    if problem is not None:
        return _refused("ParentNotAccepted", f"Gateway {gateway.meta} is not accepted.")
    if not serving:
        return _refused("ListenersNotValid", f"Not valid: {', '.join(bad)}.")
    accepted = Condition("Accepted", True, "Accepted")
    if bad:
        accepted = Condition("Accepted", True, "ListenersNotValid", f"Not valid: {', '.join(bad)}.")
    if any(each.listener.port in ports for each in serving):
        return [accepted, Condition("Programmed", True, "Programmed")]
    return [accepted, Condition("Programmed", False, "Pending", "The Gateway has no address yet.")]


def _refused(reason: str, words: str) -> list[Condition]:
    return [Condition("Accepted", False, reason, words), Condition("Programmed", False, reason, words)]


def _listeners(made: SetDraft, ports: Mapping[int, int], now: str) -> list[Json]:
    present: dict[str, Json] = {str(each.get("name")): each for each in made.found.status.get("listeners") or ()}
    return statuses(made.listeners, made.draft.attached, present, ports, made.found.meta.generation, now)
