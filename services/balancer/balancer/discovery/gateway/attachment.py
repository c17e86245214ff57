"""Which routes belong to which listeners: a parent is named, its listener lets the route in, and the hosts meet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from balancer.discovery.gateway.conditions import Condition
from balancer.discovery.gateway.listener_sets import SetDraft
from balancer.discovery.gateway.listeners import Checked
from balancer.discovery.gateway.objects import GROUP, Key, Meta, Ref, Route
from balancer.discovery.gateway.result import Draft
from balancer.discovery.gateway.world import World


@dataclass(frozen=True, slots=True)
class Parent:
    """A Gateway or a ListenerSet of ours that a route names."""

    place: int
    """Of the reference in the route."""
    ref: Ref
    meta: Meta
    gateway: Key
    listeners: list[Checked]


def parents(route: Route, drafts: Mapping[Key, Draft], sets: Mapping[Key, SetDraft]) -> Iterator[Parent]:
    """The Gateways and ListenerSets of ours that a route names."""
    for place, parent in enumerate(route.parents):
        if parent.group != GROUP:
            continue
        key = parent.namespace, parent.name
        draft, made = drafts.get(key), sets.get(key)
        if parent.kind == "Gateway" and draft is not None:
            own = [each for each in draft.listeners if not each.owner]
            yield Parent(place, parent, draft.gateway.meta, key, own)
        elif parent.kind == "ListenerSet" and made is not None:
            yield Parent(place, parent, made.found.meta, made.draft.gateway.meta.key, made.listeners)


def attach(world: World, route: Route, found: Parent) -> tuple[list[Checked], Condition]:
    """The listeners of a parent that take a route, and the condition that says so."""
    parent, what = found.ref, f"{found.meta.kind} {found.meta}"
    named = [
        each
        for each in found.listeners
        if parent.section in (None, each.listener.name) and parent.port in (None, each.listener.port)
    ]
    if not named:
        words = f"{what} has no listener"
        words += f" {parent.section}" if parent.section else ""
        words += f" at port {parent.port}" if parent.port else ""
        return [], Condition("Accepted", False, "NoMatchingParent", f"{words}.")
    allowing = [each for each in named if _allows(world, route, found.meta.namespace, each)]
    if not allowing:
        words = f"No listener of {what} lets {route.meta.kind}s of namespace {route.meta.namespace} attach."
        return [], Condition("Accepted", False, "NotAllowedByListeners", words)
    meeting = [each for each in allowing if hosts_meet(route.hostnames, each.listener.hostname)]
    if not meeting:
        words = "None of the route's host names is one of a listener's."
        return [], Condition("Accepted", False, "NoMatchingListenerHostname", words)
    return meeting, Condition("Accepted", True, "Accepted")


def _allows(world: World, route: Route, home: str, checked: Checked) -> bool:
    if (GROUP, route.meta.kind) not in checked.kinds:
        return False
    listener, namespace = checked.listener, route.meta.namespace
    if listener.from_namespaces == "Selector":
        return world.in_selection(namespace, listener.selector)
    return listener.from_namespaces == "All" or (listener.from_namespaces == "Same" and namespace == home)


def hosts_meet(hostnames: tuple[str, ...], listener: str) -> bool:
    """Whether there is a host of both, a route's and a listener's; none named is every one."""
    return not hostnames or any(meet(host, listener) for host in hostnames)


def meet(one: str, other: str) -> bool:
    """Whether two host names or wildcards have a host in common."""
    if not one or not other or one == other:
        return True
    if one.startswith("*."):
        # The longer of two wildcards is within the shorter; a name is within a wildcard, with a label before it.
        return other.endswith(one[1:]) or (other.startswith("*.") and one.endswith(other[1:]))
    return other.startswith("*.") and one.endswith(other[1:])
