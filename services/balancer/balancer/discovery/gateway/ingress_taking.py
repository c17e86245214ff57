"""All Ingresses of our class, behind one Service of their own: its ports, certificates and statuses."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Final

import structlog

from balancer.discovery.gateway import addresses
from balancer.discovery.gateway.backends import Resolver
from balancer.discovery.gateway.ingress import Canary, Ingress, PathKey, Taken, canaries, paths_of, translate
from balancer.discovery.gateway.memory import KnownIngress, Memory
from balancer.discovery.gateway.objects import SENSELESS, Gateway, Key, Meta, Secret
from balancer.discovery.gateway.result import Context, Plan, PortPlan, note
from balancer.discovery.gateway.world import World
from balancer.routing.candidates import Entry
from balancer.routing.table import Table

PLAIN: Final = 80
SECURE: Final = 443

log = structlog.get_logger()


def front_of(world: World, ingress_class: str) -> Gateway:
    """What the Ingresses of a class have in place of a Gateway: no name of an object holds a colon."""
    meta = Meta("IngressClass", world.home, f"ingress:{ingress_class}", "", 0, "", "")
    return Gateway(meta, ingress_class, (), (), {}, {}, {})


def ours(world: World, ingress_class: str) -> list[Ingress]:
    """The Ingresses of a class, the oldest first."""
    found = [each for each in world.ingresses.values() if each.ingress_class == ingress_class]
    return sorted(found, key=lambda each: (each.meta.created, each.meta.key))


class IngressTaking:
    """Takes them one after the other."""

    def __init__(self, world: World, context: Context, memory: Memory, resolver: Resolver, result: Plan) -> None:
        self._world = world
        self._context = context
        self._memory = memory
        self._resolver = resolver
        self._result = result
        self.front = front_of(world, context.ingress_class)
        self._ingresses = ours(world, context.ingress_class)
        self._plain: dict[str, tuple[Entry, ...]] = {}
        self._secure: dict[str, tuple[Entry, ...]] = {}
        self._certificates: dict[str, list[Secret]] = {}

    def take_all(self) -> Generator[None, None, None]:
        """In steps: rules, clusters and certificates."""
        shares = canaries(self._ingresses)
        yield
        for found in self._ingresses:
            known = self._known(found, shares)
            name = str(found.meta)
            self._plain[name], self._secure[name] = known.plain, known.secure
            self._result.clusters.update(known.clusters)
            self._result.routes += 1
            self._certify(found)
            yield
        names = {each.meta.key for each in self._ingresses}
        for gone in [key for key in self._memory.ingresses if key not in names]:
            del self._memory.ingresses[gone]

    @property
    def ports(self) -> list[int]:
        """Those that its Service has."""
        return [PLAIN, SECURE] if self._certificates else [PLAIN]

    def finish(self, recorded: addresses.PortMap) -> Generator[None, None, None]:
        """In steps: what is listened to, at the ports on record, and every status."""
        service = self._world.services.get((self._world.home, addresses.service_name(self.front)))
        name = str(self.front.meta)
        for port, parts in ((PLAIN, self._plain), (SECURE, self._secure)):
            if port in recorded and port in self.ports:
                table: Table = yield from self._memory.table((name, port, ""), parts)
                self._result.ports[recorded[port]] = PortPlan(
                    gateway=name,
                    port=port,
                    ours=recorded[port],
                    protocol="TLS" if port == SECURE else "HTTP",
                    certificates=list(self._certificates.items()) if port == SECURE else [],
                    site=self._memory.site((name, port), {b"": table}),
                )
        balanced = [_as_ingress(each) for each in addresses.status_addresses(service)]
        for found in self._ingresses:
            # The API leaves an empty list out, and a merge takes out only what is named.
            if ((found.status.get("loadBalancer") or {}).get("ingress") or []) != balanced:
                note(self._result, found, {"loadBalancer": {"ingress": balanced or None}})
            yield

    def _known(self, found: Ingress, shares: Mapping[PathKey, list[Canary]]) -> KnownIngress:
        spec = (found.annotations, found.default, found.rules, found.tls)
        mine = [shares.get((host, path.get("path") or "/"), []) for host, path in paths_of(found)]
        known = self._memory.ingresses.get(found.meta.key)
        if known is None or (known.spec, known.shares) != (spec, mine) or not self._resolver.still(known.outcomes):
            try:
                taken = translate(self._resolver, found, shares)
            except SENSELESS as error:
                taken = Taken(problems=[f"it makes no sense: {error!r}"])
            for problem in taken.problems:
                log.warning("ingress not served as asked", ingress=str(found.meta), problem=problem)
            known = KnownIngress(
                spec, mine, taken.outcomes, tuple(taken.plain), tuple(taken.secure), dict(taken.clusters)
            )
            self._memory.ingresses[found.meta.key] = known
        return known

    def _certify(self, found: Ingress) -> None:
        """The certificates that an Ingress brings; of several for one host the oldest Ingress's is shown."""
        for hosts, name in found.tls:
            secret = self._world.secrets.get((found.meta.namespace, name))
            if secret is None or secret.certificate is None or secret.key is None or self._context.usable(secret):
                continue
            for host in hosts or ("",):
                self._certificates.setdefault(host, [secret])


def wanted_secrets(world: World, ingress_class: str) -> set[Key]:
    """The Secrets that Ingresses of a class name, each in its own namespace."""
    return {(found.meta.namespace, name) for found in ours(world, ingress_class) for _, name in found.tls if name}


def _as_ingress(address: Mapping[str, str]) -> dict[str, Any]:
    return {"ip" if address["type"] == "IPAddress" else "hostname": address["value"]}
