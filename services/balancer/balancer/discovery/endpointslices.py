"""The merging of EndpointSlices into one membership: pure, from the API's JSON to endpoints.

Source: the API's definition of discovery.k8s.io/v1 EndpointSlice, and kube-proxy for what it leaves open. A Service has
many slices; a pod may move from one to another and so be in both, or neither, for a moment, and its address may be
given to another pod while the old one is still listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from balancer.balancing.endpoint import EndpointSpec

FAMILIES = ("IPv4", "IPv6")
PROTOCOLS = {
    "kubernetes.io/h2c": "h2c",
    "h2c": "h2c",
    "http2": "h2c",
    "grpc": "h2c",
    "http": "http1",
    "kubernetes.io/ws": "http1",
    "kubernetes.io/wss": "http1",
}
"""What a port's appProtocol says of the protocol towards it: the API's own names (KEP-3726), and those that meshes made
usual. WebSocket is a matter of HTTP/1.1."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One EndpointSlice, read once when it changes."""

    name: str
    family: str
    """The addressType: IPv4, IPv6 or FQDN."""
    ports: tuple[str, ...]
    """Every TCP port it has, as `name (number)`, for people."""
    port: int | None
    """The port that was asked for, or None if it is not there."""
    endpoints: tuple[EndpointSpec, ...]
    """Those that are ready or draining; none without the port."""
    total: int
    """How many endpoints it lists, in whatever condition."""


@dataclass(frozen=True, slots=True)
class Merged:
    """All slices of a Service together."""

    endpoints: tuple[EndpointSpec, ...]
    """By name, so that `n-to-one` prefers the same one everywhere and always."""
    problem: str = ""
    """`no_slices` or `no_port`, or "" when nothing is wrong."""
    ports: tuple[str, ...] = ()
    """The ports that the slices have, for the remedy of `no_port`."""


def parse(item: Mapping[str, Any], port: str | None) -> Slice:
    """Read one EndpointSlice as the API gives it; `port` is a name, a number, or None for its only one."""
    named = [entry for entry in item.get("ports") or () if (entry.get("protocol") or "TCP") == "TCP"]
    number = _pick(named, port)
    listed: Sequence[Mapping[str, Any]] = item.get("endpoints") or ()
    protocol = next((_protocol(entry) for entry in named if entry.get("port") == number), "")
    specs = [] if number is None else [_endpoint(each, number, protocol) for each in listed]
    return Slice(
        name=item["metadata"]["name"],
        family=item.get("addressType") or "IPv4",
        ports=tuple(f"{entry.get('name') or 'unnamed'} ({entry.get('port') or 'any'})" for entry in named),
        port=number,
        endpoints=tuple(spec for spec in specs if spec is not None),
        total=len(listed),
    )


def _pick(ports: Sequence[Mapping[str, Any]], wanted: str | None) -> int | None:
    """The number of the wanted port. A name goes before a number, so that a port named "80" can be meant."""
    if wanted is None:
        return ports[0].get("port") if len(ports) == 1 else None
    for entry in ports:
        if entry.get("name") == wanted and entry.get("port"):
            return int(entry["port"])
    if wanted.isdecimal():
        for entry in ports:
            # A port without a number stands for every port.
            if entry.get("port") in (int(wanted), None):
                return int(wanted)
    return None


def _protocol(port: Mapping[str, Any]) -> str:
    return PROTOCOLS.get((port.get("appProtocol") or "").lower(), "")


def _endpoint(entry: Mapping[str, Any], port: int, protocol: str) -> EndpointSpec | None:
    """The endpoint, or None if nothing may be sent to it. Absent conditions mean what the API says they mean."""
    conditions: Mapping[str, bool | None] = entry.get("conditions") or {}
    ready = conditions.get("ready")
    ready = True if ready is None else ready
    serving = conditions.get("serving")
    serving = ready if serving is None else serving
    draining = not ready and serving and bool(conditions.get("terminating"))
    addresses = entry.get("addresses")
    if not addresses or not (ready or draining):
        return None
    target = entry.get("targetRef") or {}
    return EndpointSpec(
        host=addresses[0],  # the others, if any, mean the same endpoint, and everyone uses the first
        port=port,
        name=target.get("name") or "",
        uid=target.get("uid") or "",
        zone=entry.get("zone") or "",
        node=entry.get("nodeName") or "",
        draining=draining,
        protocol=protocol,
    )


def merge(slices: Sequence[Slice], prefer: str = "IPv4") -> Merged:
    """One membership of all slices, given in the order in which they last changed.

    Of several claims on one address a ready one goes before a draining one, then the one of the slice that changed
    last. A pod of a dual-stack Service is one endpoint, at its address of the family `prefer` if it has one: were it
    two, its load would be known only by halves.
    """
    by_address: dict[tuple[str, int], EndpointSpec] = {}
    family: dict[str, str] = {}
    for slice_ in sorted(slices, key=lambda each: each.family == prefer):
        for spec in slice_.endpoints:
            if spec.uid:
                family[spec.uid] = slice_.family
            known = by_address.get((spec.host, spec.port))
            if known is None or known.draining or not spec.draining:
                by_address[spec.host, spec.port] = spec
    if len({slice_.family for slice_ in slices}) > 1:
        kept = [spec for spec in by_address.values() if not spec.uid or family[spec.uid] == _family(spec.host)]
    else:
        kept = list(by_address.values())
    kept.sort(key=lambda spec: (spec.name, spec.host, spec.port))
    return Merged(tuple(kept), *_problem(slices))


def _family(host: str) -> str:
    """The addressType that an address is of. A name never holds a colon, nor ends in a digit."""
    if ":" in host:
        return "IPv6"
    return "IPv4" if host[-1].isdecimal() else "FQDN"


def _problem(slices: Sequence[Slice]) -> tuple[str, tuple[str, ...]]:
    if not slices:
        return "no_slices", ()
    # A slice without endpoints (a Service scaled to nothing) has no ports either, and nothing is wrong with that.
    filled = [slice_ for slice_ in slices if slice_.total]
    if filled and all(slice_.port is None for slice_ in filled):
        return "no_port", tuple(sorted({port for slice_ in filled for port in slice_.ports}))
    return "", ()
