"""The slices as a watch reports them, one after the other, and the membership that they make.

An endpoint that moves from one slice to another is in neither for as long as the two writes are apart. So one that is
missed for the first time after an event stays for `HELD`; after a list, which gives all at one moment, none does.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Final

from balancer.balancing.endpoint import EndpointSpec
from balancer.discovery.endpointslices import Merged, Slice, merging
from balancer.discovery.topology import Near, Place

HELD: Final = 0.04
"""Seconds; less than anybody would notice, and more than a controller takes from one write to the next."""


class Gathering:
    """All slices of one Service."""

    def __init__(self) -> None:
        self.prefer = "IPv4"
        """The address family of which a pod of two is used."""
        self.place: Place | None = None
        """Where we are, if hints count."""
        self.held_until: float | None = None
        """When merging is due again, with nothing else happening, since endpoints are held."""
        self._slices: dict[str, Slice] = {}
        """By name, the one that changed last at the end."""
        self._port_name: str | None = None
        self._near: Near = {}
        self._before: tuple[EndpointSpec, ...] = ()
        self._held: dict[tuple[str, int, str], float] = {}
        """Until when each missing endpoint stays."""

    def replace(self, slices: Iterable[Slice]) -> None:
        """What a list says: these, and no others."""
        self._slices = {slice_.name: slice_ for slice_ in slices}
        self._before = ()
        self._held.clear()

    def put(self, slice_: Slice) -> None:
        """One that is new or has changed."""
        self.remove(slice_.name)
        self._slices[slice_.name] = slice_

    def remove(self, name: str) -> None:
        """One that is gone."""
        self._slices.pop(name, None)

    @property
    def empty(self) -> bool:
        return not self._slices

    def zone_of(self, node: str) -> str:
        """The zone of a node, if one of the endpoints is there; else ""."""
        found = (slice_.zones[node] for slice_ in self._slices.values() if node in slice_.zones)
        return next(found, "")

    def merging(self, now: float) -> Generator[None, None, tuple[Merged, tuple[EndpointSpec, ...]]]:
        """What the slices say, and the membership: with those that are held. In pieces."""
        slices = list(self._slices.values())
        merged = yield from merging(slices, self.prefer, self._port_name, self.place, self._near)
        self._port_name = merged.port_name
        yield
        missing = yield from self._missing(merged.endpoints)
        yield
        held: dict[tuple[str, int, str], float] = {}
        kept = []
        for spec in missing:
            key = (spec.host, spec.port, spec.uid)
            until = self._held.get(key, now + HELD)
            if until > now:
                held[key] = until
                kept.append(spec)
        self._held = held
        self.held_until = min(held.values()) if held else None
        endpoints = merged.endpoints
        if kept:
            endpoints = tuple(sorted((*endpoints, *kept), key=lambda spec: (spec.name, spec.host, spec.port)))
        self._before = endpoints
        return merged, endpoints

    def _missing(self, endpoints: tuple[EndpointSpec, ...]) -> Generator[None, None, list[EndpointSpec]]:
        """Those of before whose pod and address are gone."""
        if not self._before:
            return []
        there = {(spec.host, spec.port) for spec in endpoints}
        yield
        pods = {spec.uid for spec in endpoints if spec.uid}
        yield
        return [spec for spec in self._before if (spec.host, spec.port) not in there and spec.uid not in pods]
