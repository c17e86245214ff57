"""Which Secrets our Gateways may read: those that a listener refers to, in its namespace or by a grant."""

from __future__ import annotations

from balancer.discovery.gateway.objects import GROUP, Key
from balancer.discovery.gateway.world import World


def wanted_secrets(world: World) -> set[Key]:
    """The Secrets to watch, by namespace and name."""
    return {
        (ref.namespace, ref.name)
        for gateway in world.our_gateways()
        for listener in gateway.listeners
        for ref in listener.certificates
        if (ref.group, ref.kind) == ("", "Secret") and world.may_refer(GROUP, "Gateway", gateway.meta.namespace, ref)
    }
