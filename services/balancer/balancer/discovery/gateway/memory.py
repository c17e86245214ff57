"""What one plan leaves for the next, so that a change costs what it changes: translated routes, compiled tables.

Nothing here decides anything: what is remembered is used only where all that it was made of is still the same.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from balancer.discovery.gateway.addresses import PortMap
from balancer.discovery.gateway.backends import ClusterSpec, Outcome, Reference
from balancer.discovery.gateway.objects import Key, Stated
from balancer.routing.candidates import Entry
from balancer.routing.site import Site
from balancer.routing.table import Table

if TYPE_CHECKING:
    from balancer.discovery.gateway.result import StatusWrite
    from balancer.discovery.gateway.rules import Translated

Parts = Mapping[str, tuple[Entry, ...]]
"""What each route gives to a listener; the same object as before where the route is."""

RouteId = tuple[str, str, Key]
"""Kind, uid, and namespace with name."""


@dataclass(slots=True)
class Known:
    """A route as it was translated: `generation` of the object, its policy, and what its references led to."""

    generation: int
    overrides: tuple[tuple[str, object], ...]
    outcomes: Mapping[Reference, Outcome]
    translated: Translated
    entries: tuple[Entry, ...]
    route: Stated | None = None
    """The object as it was when the rest of this was found."""
    epoch: object = None
    attached: Sequence[tuple[Key, str]] = ()
    """Gateways and their listeners that took it."""
    write: StatusWrite | None = None
    named: bool = False
    """Whether it names a Gateway of ours."""


@dataclass(frozen=True, slots=True)
class KnownIngress:
    """An Ingress as it was translated: what of it, with which canaries, and what its references led to."""

    spec: object
    shares: object
    outcomes: Mapping[Reference, Outcome]
    plain: tuple[Entry, ...]
    secure: tuple[Entry, ...]
    clusters: Mapping[str, ClusterSpec]


@dataclass(slots=True)
class Memory:
    """Empty at first; each plan forgets what the world has no more."""

    ports: Mapping[str, PortMap] = field(default_factory=dict)
    """By Service name, the ports that were chosen."""
    routes: dict[RouteId, Known] = field(default_factory=dict)
    ingresses: dict[Key, KnownIngress] = field(default_factory=dict)
    tables: dict[tuple[str, int, str], tuple[Parts, Table]] = field(default_factory=dict)
    """By Gateway, port and listener's host: a table, and what it was made of."""
    sites: dict[tuple[str, int, str], Site] = field(default_factory=dict)
    """By Gateway, port, and what goes there: requests or connections."""
    epoch: object = None
    """All that attaching depends on, beside the route: the same object for as long as it is the same."""

    _used: set[tuple[str, int]] = field(default_factory=set)
    """Ports whose tables have been asked for since the last `settle`."""

    def settle(self) -> None:
        """A plan is done: what it did not ask for goes."""
        for key in [each for each in self.tables if each[:2] not in self._used]:
            del self.tables[key]
        for port in [each for each in self.sites if each[:2] not in self._used]:
            del self.sites[port]
        self._used = set()

    def begin(self, epoch: object) -> object:
        """Take up what attaching depends on now; the object to compare with."""
        if epoch != self.epoch:
            self.epoch = epoch
        return self.epoch

    def forget(self, routes: set[RouteId]) -> None:
        """Keep only these routes."""
        for gone in [each for each in self.routes if each not in routes]:
            del self.routes[gone]

    def table(self, key: tuple[str, int, str], parts: Parts) -> Generator[None, None, Table]:
        """In steps, the table of these parts: made of the last one, of which only what changed is made again."""
        self._used.add(key[:2])
        before, table = self.tables.get(key, ({}, Table()))
        yield
        gone = [entry for name, entries in before.items() if parts.get(name) is not entries for entry in entries]
        yield
        come = [entry for name, entries in parts.items() if before.get(name) is not entries for entry in entries]
        if gone or come:
            for made in table.changing(gone, come):
                if made is not None:
                    table = made
                yield
        self.tables[key] = (parts, table)
        return table

    def site(self, place: tuple[str, int], tables: Mapping[bytes, Table], what: str = "requests") -> Site:
        """The site of these tables: the last one if they are all the same, for what requests remember of it."""
        key = (*place, what)
        before = self.sites.get(key)
        if before is not None and before.tables.keys() == tables.keys():
            same = all(before.tables[host] is table for host, table in tables.items())
            if same:
                return before
        site = self.sites[key] = Site(tables)
        return site
