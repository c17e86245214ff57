"""Which Secrets are read: those that a listener refers to, in its namespace or by a grant, and those of Ingresses."""

from __future__ import annotations

from balancer.discovery.gateway import ingress_taking
from balancer.discovery.gateway.objects import GROUP, Key
from balancer.discovery.gateway.world import World


def wanted_secrets(world: World, ingress_class: str = "") -> set[Key]:
    """The Secrets to watch, by namespace and name."""
    named = ingress_taking.wanted_secrets(world, ingress_class) if ingress_class else set()
    return named | {
        (ref.namespace, ref.name)
        for gateway in world.our_gateways()
        for listener in gateway.listeners
        for ref in listener.certificates
        if (ref.group, ref.kind) == ("", "Secret") and world.may_refer(GROUP, "Gateway", gateway.meta.namespace, ref)
    }
