"""Which endpoints are meant for clients where we run: hints and internalTrafficPolicy, as kube-proxy uses them. Pure.

Source: kube-proxy's CategorizeEndpoints (pkg/proxy/topology.go, Kubernetes 1.34), KEP-2433 and KEP-3015. It differs in
one thing: hints only prefer. When too few of those meant for us are good, the pool uses the others too
(eligibility.py), whereas kube-proxy, which knows no health, would go on.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from balancer.balancing.endpoint import EndpointSpec

PIECE: Final = 100
"""Endpoints handled in one go."""


class Hint:
    """For whose clients an endpoint is meant, as its slice says. One object for all that say the same: see `hint`."""

    __slots__ = ("nodes", "zones")

    def __init__(self, zones: frozenset[str], nodes: frozenset[str]) -> None:
        self.zones = zones
        self.nodes = nodes


@lru_cache(maxsize=4096)
def hint(zones: frozenset[str], nodes: frozenset[str]) -> Hint:
    """The hint that says this."""
    return Hint(zones, nodes)


NO_HINT: Final = hint(frozenset(), frozenset())


@dataclass(frozen=True, slots=True)
class Place:
    """Where we run; "" what is not known."""

    node: str = ""
    zone: str = ""
    local: bool = False
    """The Service's internalTrafficPolicy is Local: endpoints of our own node, and no others."""


Near = dict[int, tuple[EndpointSpec, EndpointSpec]]
"""Endpoints and what they are when marked as near, by the first's identity."""


def at_place(
    endpoints: Sequence[EndpointSpec], hints: Mapping[tuple[str, int], Hint], place: Place, near: Near
) -> Generator[None, None, Sequence[EndpointSpec]]:
    """The endpoints that a client at `place` may use, those that hints mean for it marked as near: in pieces.

    `near` has those that were marked before, and then those that are marked now: an endpoint that is named again is
    the same object, which is what comparing and collecting garbage take little time for.
    """
    if place.local:
        return [spec for spec in endpoints if place.node and spec.node == place.node]
    # Endpoints are many, and hints few: what each hint means for us is found once.
    of_node = {hint: place.node in hint.nodes for hint in set(hints.values()) if hint.nodes}
    of_zone = {hint: place.zone in hint.zones for hint in set(hints.values()) if hint.zones}
    yield
    # The narrower hint first. One ready endpoint without a hint, or none for us, and hints of that kind do not count.
    for mine in (of_node, of_zone):
        said = [mine.get(hints.get((spec.host, spec.port), NO_HINT)) for spec in endpoints]
        ready = {meant for meant, spec in zip(said, endpoints, strict=True) if not spec.draining}
        yield
        if True in ready and None not in ready:
            marked: list[EndpointSpec] = []
            before = dict(near)
            near.clear()
            for meant, spec in zip(said, endpoints, strict=True):
                if meant:
                    near[id(spec)] = before.get(id(spec)) or (spec, _near(spec))
                marked.append(near[id(spec)][1] if meant else spec)
                if not len(marked) % PIECE:
                    yield
            return marked
    return endpoints


def _near(spec: EndpointSpec) -> EndpointSpec:
    return EndpointSpec(
        spec.host, spec.port, spec.weight, spec.name, spec.uid, spec.zone, spec.node, spec.draining, True, spec.protocol
    )
