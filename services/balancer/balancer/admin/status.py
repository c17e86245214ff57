"""What the admin port is handed of the running balancer: it reads all of this and owns none of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.pool import Pool
from balancer.counters import Counters
from balancer.routing.site import Site

if TYPE_CHECKING:
    from balancer.settings import Settings


class DiscoveryStatus(Protocol):
    """How the discovery fares."""

    @property
    def source(self) -> str:
        """Which discovery: `static`, `dns` or `kubernetes`."""

    @property
    def fresh_at(self) -> float | None:
        """When the membership was last known to be complete and current (s, the app's clock); None before the first."""

    @property
    def error(self) -> str | None:
        """What is wrong and what to do about it, in words; None while all is well."""

    @property
    def stale(self) -> bool:
        """Whether the source cannot be read now, so that the last known endpoints are used on."""


class ProxyStatus(Protocol):
    """What of the data plane is known neither to the pool nor to the counters."""

    @property
    def replica(self) -> str:
        """The name of this replica: the pod's, or the host's."""

    @property
    def started_at(self) -> float:
        """When the balancer started (s, the app's clock)."""

    @property
    def retry_budget(self) -> float:
        """Retries that the budget would pay for now."""

    @property
    def log_lines_dropped(self) -> dict[str, int]:
        """Lines lost because nobody read them or they could not be written, by log."""

    def idle_connections(self, endpoint: Endpoint) -> int:
        """Unused connections kept open to `endpoint`."""


class HeardReplica(Protocol):
    """What is known of another replica."""

    name: str
    ejected: frozenset[str]
    reports: int
    """Reports heard so far."""

    @property
    def believed(self) -> Mapping[str, int]:
        """Requests in flight there, by endpoint address, as far as that is believed."""

    def age(self, now: float) -> float:
        """Age (s) of its news."""


class Member(Protocol):
    """Another replica that is heard, was, or should be."""

    @property
    def name(self) -> str:
        """Empty: it has never said."""

    @property
    def address(self) -> str:
        """`host:port`; empty: it is looked for no more."""

    @property
    def state(self) -> str:
        """One of `live`, `silent`, `refused`, `unreachable`, `left`."""

    @property
    def problem(self) -> str:
        """What is wrong, in words."""

    @property
    def age(self) -> float | None:
        """Seconds since its last report; None: there was none."""

    @property
    def status(self) -> Mapping[str, object] | None:
        """What it said of itself last."""


class Intent(Protocol):
    """What was asked of the whole fleet."""

    @property
    def at(self) -> float:
        """Unix time (s); 0: never."""

    @property
    def strategy(self) -> str:
        """Empty: nobody has switched it."""

    @property
    def addresses(self) -> frozenset[str]:
        """Those of the endpoints drained by hand."""


class PeersStatus(Protocol):
    """The other replicas, where LB_PEERS names them."""

    @property
    def events(self) -> Mapping[str, int]:
        """What happened on the links, by kind."""

    @property
    def heard(self) -> Sequence[HeardReplica]:
        """The replicas that are heard, by name."""

    @property
    def members(self) -> Sequence[Member]:
        """Every other replica that is heard, was, or should be."""

    @property
    def intent(self) -> Intent:
        """What was asked of the whole fleet."""

    def routes(self) -> list[web.RouteDef]:
        """Where the others speak to this one."""

    def strategy_switched(self, name: str) -> None:
        """The fleet's strategy was switched here."""

    def drained(self, address: str, drained: bool) -> None:
        """An endpoint was drained in the whole fleet, or taken back, here."""

    def drains(self, endpoint: Endpoint) -> bool:
        """Whether all replicas were asked to drain `endpoint`."""


class ListenerStatus(Protocol):
    """One port of one Gateway, and what it serves."""

    @property
    def gateway(self) -> str:
        """Its name, with the namespace."""

    @property
    def port(self) -> int:
        """The Gateway's."""

    @property
    def tls(self) -> bool:
        """Whether clients speak TLS there."""

    @property
    def protocol(self) -> str:
        """What a connection begins with: HTTP, TLS or TCP."""

    @property
    def site(self) -> Site:
        """Its routes of requests."""

    @property
    def streams(self) -> Site:
        """Its routes of connections whose bytes are carried."""


@dataclass(frozen=True, slots=True)
class Running:
    """The running balancer, as the rest of this room sees it."""

    settings: Settings
    pool: Pool
    counters: Counters
    clock: Callable[[], float]
    """Seconds on the clock of the pool's times."""
    discovery: DiscoveryStatus
    proxy: ProxyStatus
    switch_strategy: Callable[[str], None]
    """Makes the named strategy choose from now on. Raises ValueError, with the names there are, for an unknown one."""
    peers: PeersStatus | None = None
    """None: this replica knows of no other."""
    transitions: dict[str, int] = field(default_factory=dict)
    """How often each event of events.EVENTS has happened."""
    others: Callable[[], Iterable[Pool]] = tuple
    """The pools of the clusters that routes lead to, beside the one of LB_DISCOVERY."""
    listeners: Callable[[], Iterable[tuple[str, int, int, list[int]]]] = tuple
    """Of each Gateway's port: Gateway, port, requests (or connections) begun, responses by the status's first digit."""
    open_ports: Callable[[], Iterable[ListenerStatus]] = tuple
    """The ports of Gateways that are open."""
    planned: Callable[[], bool] = lambda: True
    """Whether the Gateways have been read and are listened for, where there are any to serve."""

    @property
    def pools(self) -> list[Pool]:
        """The pools of all clusters."""
        return [self.pool, *self.others()]

    def pool_of(self, endpoint: Endpoint) -> Pool:
        """The pool that an endpoint belongs to."""
        return next((pool for pool in self.others() if pool.cluster == endpoint.cluster), self.pool)

    @property
    def endpoints(self) -> list[Endpoint]:
        """The endpoints of all clusters."""
        return [endpoint for pool in self.pools for endpoint in pool.endpoints]
