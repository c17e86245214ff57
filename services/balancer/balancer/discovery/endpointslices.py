"""The merging of EndpointSlices into one membership: pure, from the API's JSON to endpoints.

Source: the API's definition of discovery.k8s.io/v1 EndpointSlice, and kube-proxy for what it leaves open. A Service has
many slices; a pod may move from one to another and so be in both, or neither, for a moment, and its address may be
given to another pod while the old one is still listed. Which port is meant is a question to all slices together: slices
of one Service may have ports of different names.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from balancer.balancing.endpoint import EndpointSpec
from balancer.discovery.addresses import read_address, read_port
from balancer.discovery.topology import Hint, Near, Place, at_place, hint

PROTOCOLS: Final = {
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
class Port:
    """One TCP port of a slice."""

    name: str
    number: int | None
    """None for one that stands for every port, and for a number that is no port."""
    every: bool = False
    protocol: str = ""
    words: str = ""
    """`name (number)`, for people."""


class Slice:
    """One EndpointSlice, read once when it changes."""

    __slots__ = ("_found", "_specs", "family", "faults", "hints", "name", "others", "ports", "total", "wanted", "zones")

    def __init__(self, item: Mapping[str, Any], wanted: str | None) -> None:
        self.name: str = item["metadata"]["name"]
        self.family: str = item.get("addressType") or "IPv4"
        self.wanted = wanted
        """The port that LB_SERVICE names: a name, a number, or None for the Service's only one."""
        ports: Sequence[Mapping[str, Any]] = item.get("ports") or ()
        self.ports = tuple(_port(each) for each in ports if (each.get("protocol") or "TCP") == "TCP")
        self.others = tuple(f"{_words(each)} {each['protocol']}" for each in ports if each.get("protocol") != "TCP"
                            and each.get("protocol"))  # fmt: skip
        """Ports of other protocols, for people."""
        listed: Sequence[Mapping[str, Any]] = item.get("endpoints") or ()
        self.total = len(listed)
        """How many endpoints it lists, in whatever condition."""
        self.faults: list[str] = []
        """Its addresses that are none, for people."""
        self.hints: dict[str, Hint] = {}
        """By address, those that have hints."""
        self.zones: dict[str, str] = {}
        """Zones of the nodes that its endpoints are on."""
        self._found: list[tuple[str, str, str, str, str, bool]] = []
        """Host, name, UID, zone, node of each that is ready or draining; whether it drains."""
        self._specs: tuple[int, str, tuple[EndpointSpec, ...]] = (0, "", ())
        for each in listed:
            self._read(each)

    def _read(self, entry: Mapping[str, Any]) -> None:
        """Take in one endpoint. Absent conditions mean what the API says they mean."""
        zone, node = entry.get("zone") or "", entry.get("nodeName") or ""
        if zone and node:
            self.zones[node] = zone
        conditions: Mapping[str, bool | None] = entry.get("conditions") or {}
        ready = conditions.get("ready")
        ready = True if ready is None else ready
        serving = conditions.get("serving")
        serving = ready if serving is None else serving
        draining = bool(not ready and serving and conditions.get("terminating"))
        addresses = entry.get("addresses")
        if not addresses or not (ready or draining):
            return
        text = addresses[0]  # the others, if any, mean the same endpoint, and everyone uses the first
        host = read_address(text, self.family)
        if host is None:
            self.faults.append(f"{text!r} in EndpointSlice {self.name}")
            return
        target = entry.get("targetRef") or {}
        self._found.append((host, target.get("name") or "", target.get("uid") or "", zone, node, draining))
        if hints := entry.get("hints"):
            self.hints[host] = hint(_names(hints.get("forZones")), _names(hints.get("forNodes")))

    def at(self, port: int, protocol: str) -> tuple[EndpointSpec, ...]:
        """Its endpoints that are ready or draining, with this port."""
        known = self._specs
        if known[0] != port or known[1] != protocol:
            specs = tuple(
                EndpointSpec(host, port, 1.0, name, uid, zone, node, draining, False, protocol)
                for host, name, uid, zone, node, draining in self._found
            )
            self._specs = known = (port, protocol, specs)
        return known[2]


def parse(item: Mapping[str, Any], port: str | None) -> Slice:
    """Read one EndpointSlice as the API gives it; `port` is a name, a number, or None for the Service's only one."""
    return Slice(item, port)


def _port(entry: Mapping[str, Any]) -> Port:
    number = entry.get("port")
    said = (entry.get("appProtocol") or "").lower()
    return Port(entry.get("name") or "", read_port(number), number is None, PROTOCOLS.get(said, ""), _words(entry))


def _words(entry: Mapping[str, Any]) -> str:
    number = entry.get("port")
    no_port = "" if number is None or read_port(number) else ", which is no port"
    return f"{entry.get('name') or 'unnamed'} ({number or 'any'}{no_port})"


def _names(hints: Iterable[Mapping[str, str]] | None) -> frozenset[str]:
    return frozenset(each.get("name") or "" for each in hints or ())


@dataclass(frozen=True, slots=True)
class Merged:
    """All slices of a Service together."""

    endpoints: tuple[EndpointSpec, ...]
    """By name, so that `n-to-one` prefers the same one everywhere and always."""
    problem: str = ""
    """`no_slices`, `no_port`, `several_ports`, `bad_address`, or "" when nothing is wrong."""
    ports: tuple[str, ...] = ()
    """The TCP ports that the slices have, for the remedy of a problem with ports."""
    port_name: str | None = None
    """The name of the Service's only port, where none was asked for."""
    faults: tuple[str, ...] = ()
    """The addresses that were left out."""
    others: tuple[str, ...] = ()
    """The ports of other protocols, where there is no TCP port."""


def merge(
    slices: Sequence[Slice], prefer: str = "IPv4", settled: str | None = None, place: Place | None = None
) -> Merged:
    """What `merging` comes to, at once."""
    steps = merging(slices, prefer, settled, place, {})
    while True:
        try:
            next(steps)
        except StopIteration as end:
            merged: Merged = end.value
            return merged


def merging(
    slices: Sequence[Slice], prefer: str, settled: str | None, place: Place | None, near: Near
) -> Generator[None, None, Merged]:
    """One membership of all slices, given in the order in which they last changed.

    Of several claims on one address a ready one goes before a draining one, then the one of the slice that changed
    last. A pod of a dual-stack Service is one endpoint, at its address of the family `prefer` if it has one: were it
    two, its load would be known only by halves. `settled` is the `port_name` of before: where no port was asked for, it
    stays in use when ports of other names come, since it was the only one once. At a `place`, hints count. In pieces.
    """
    choice = _Choice(slices, settled)
    by_address: dict[tuple[str, int], EndpointSpec] = {}
    hints: dict[tuple[str, int], Hint] = {}
    family: dict[str, str] = {}
    for slice_ in sorted(slices, key=lambda each: each.family == prefer):
        port = choice.of(slice_)
        if port is None:
            continue
        for spec in slice_.at(*port):
            if spec.uid:
                family[spec.uid] = slice_.family
            known = by_address.get((spec.host, spec.port))
            if known is None or known.draining or not spec.draining:
                by_address[spec.host, spec.port] = spec
                if place is not None and (said := slice_.hints.get(spec.host)):
                    hints[spec.host, spec.port] = said
        yield
    if len({slice_.family for slice_ in slices}) > 1:
        kept = [spec for spec in by_address.values() if not spec.uid or family[spec.uid] == _family(spec.host)]
    else:
        kept = list(by_address.values())
    yield
    kept.sort(key=lambda spec: (spec.name, spec.host, spec.port))
    yield
    endpoints = tuple(kept if place is None else (yield from at_place(kept, hints, place, near)))
    faults = tuple(fault for slice_ in slices for fault in slice_.faults)
    problem = choice.problem or ("bad_address" if faults else "")
    return Merged(endpoints, problem, choice.ports, choice.port_name, faults, choice.others)


def _family(host: str) -> str:
    """The addressType that an address is of. A name never holds a colon, nor ends in a digit."""
    if ":" in host:
        return "IPv6"
    return "IPv4" if host[-1].isdecimal() else "FQDN"


class _Choice:
    """The port of each slice, by what all of them have."""

    def __init__(self, slices: Sequence[Slice], settled: str | None) -> None:
        # A slice without endpoints (a Service scaled to nothing) has no ports either, and nothing is wrong with that.
        filled = [slice_ for slice_ in slices if slice_.total]
        self.port_name: str | None = None
        self.problem = "" if slices else "no_slices"
        self.ports: tuple[str, ...] = ()
        self.others: tuple[str, ...] = ()
        self._portless = bool(filled) and not any(slice_.ports or slice_.others for slice_ in filled)
        """No slice says a port, as with headless Services: a number that was asked for is then taken as it is."""
        self._names = {port.name for slice_ in filled for port in slice_.ports}
        if len(self._names) == 1:
            self.port_name = next(iter(self._names))
        elif settled in self._names:
            self.port_name = settled
        else:
            self.port_name = None if self._names else settled
        if filled and all(self.of(slice_) is None for slice_ in filled):
            self.problem = "no_port"
        elif filled and filled[0].wanted is None and len(self._names) > 1:
            self.problem = "several_ports"
        if self.problem in {"no_port", "several_ports"}:
            self.ports = tuple(sorted({port.words for slice_ in filled for port in slice_.ports}))
            self.others = tuple(sorted({port for slice_ in filled for port in slice_.others}))

    def of(self, slice_: Slice) -> tuple[int, str] | None:
        """Number and protocol of the port of `slice_`; None if it has not the one that is meant."""
        wanted = slice_.wanted
        name = self.port_name if wanted is None else wanted
        for port in slice_.ports:
            if port.name == name and port.number:
                return port.number, port.protocol
        # A name goes before a number, so that a port named "80" can be meant.
        number = read_port(int(wanted)) if wanted and wanted.isdecimal() else None
        if number is None:
            return None
        for port in slice_.ports:
            if port.every or port.number == number:
                return number, port.protocol
        return (number, "") if self._portless else None
