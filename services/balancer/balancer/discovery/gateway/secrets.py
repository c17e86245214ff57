"""Which Secrets are read: those that a listener refers to, in its namespace or by a grant, and those of Ingresses.

A ListenerSet that its Gateway does not let in has none read.
"""

from __future__ import annotations

from balancer.discovery.gateway import ingress_taking
from balancer.discovery.gateway.listener_sets import allowed, ours
from balancer.discovery.gateway.objects import GROUP, Gateway, Key, ListenerSet
from balancer.discovery.gateway.world import World


def wanted_secrets(world: World, ingress_class: str = "") -> set[Key]:
    """The Secrets to watch, by namespace and name."""
    gateways = {each.meta.key: each for each in world.our_gateways()}
    sets = [
        each
        for each in ours(world, gateways)
        if allowed(world, gateways[each.parent.namespace, each.parent.name], each)
    ]
    owners: list[Gateway | ListenerSet] = [*gateways.values(), *sets]
    named = ingress_taking.wanted_secrets(world, ingress_class) if ingress_class else set()
    return named | {
        (ref.namespace, ref.name)
        for owner in owners
        for listener in owner.listeners
        for ref in listener.certificates
        if (ref.group, ref.kind) == ("", "Secret")
        and world.may_refer(GROUP, owner.meta.kind, owner.meta.namespace, ref)
    }
