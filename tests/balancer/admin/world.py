"""An admin port over a real pool, on a clock that stands still unless a test moves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from aiohttp import web

from balancer.admin import Admin, Phase
from balancer.admin.status import HeardReplica, ListenerStatus, Member
from balancer.balancing import strategies
from balancer.balancing.endpoint import Endpoint, EndpointSpec
from balancer.balancing.outcome import Outcome
from balancer.balancing.pool import Policy, Pool
from balancer.balancing.request import RequestInfo
from balancer.counters import Counters
from balancer.peers.intent import Intent, Wish
from balancer.settings import Settings

TOKEN = "open-sesame"


class MakeWorld(Protocol):
    async def __call__(self, others: Alone | None = None, **settings: object) -> World: ...


@dataclass
class Discovery:
    source: str = "static"
    fresh_at: float | None = None
    error: str | None = None
    stale: bool = False


@dataclass
class Proxy:
    replica: str = "lb-7f9c-x2x4q"
    started_at: float = 100.0
    retry_budget: float = 10.0
    log_lines_dropped: dict[str, int] = field(default_factory=lambda: {"access": 3, "messages": 0})

    def idle_connections(self, endpoint: Endpoint) -> int:
        return endpoint.stats.connections_open


class Alone:
    """LB_PEERS is set, and no other replica is there."""

    def __init__(self) -> None:
        self.events: dict[str, int] = {}
        self.heard: Sequence[HeardReplica] = ()
        self.intent = Intent()
        self.asked = 0
        """How often somebody wanted to know which others there are."""

    @property
    def members(self) -> Sequence[Member]:
        self.asked += 1
        return ()

    def routes(self) -> list[web.RouteDef]:
        return []

    def strategy_switched(self, name: str) -> None:
        """Nobody is told."""

    def drained(self, address: str, drained: bool) -> None:
        wishes = {**self.intent.wishes, address: Wish(self.intent.at + 1.0, drained)}
        self.intent = Intent(wishes=wishes)

    def drains(self, endpoint: Endpoint) -> bool:
        return endpoint.address in self.intent.addresses


@dataclass
class World:
    """A balancer without a data plane: what the data plane would do is done by `request`."""

    settings: Settings
    now: float = 1000.0
    discovery: Discovery = field(default_factory=Discovery)
    proxy: Proxy = field(default_factory=Proxy)
    counters: Counters = field(default_factory=Counters)
    peers: Alone | None = None

    def __post_init__(self) -> None:
        self.random = Random(7)
        self.ports: list[ListenerStatus] = []
        """What each open port of a Gateway serves."""
        self.others: list[Pool] = []
        """The pools of the clusters that routes lead to."""
        self.planned = True
        """Whether the Gateways' first plan is in force."""
        self.pool = Pool(
            self.strategy(self.settings.strategy), self.settings.strategy, Policy(eject_after=3), self.random
        )
        self.admin = Admin(
            settings=self.settings,
            pool=self.pool,
            counters=self.counters,
            clock=lambda: self.now,
            discovery=self.discovery,
            proxy=self.proxy,
            switch_strategy=self.switch,
            open_ports=lambda: self.ports,
            planned=lambda: self.planned,
            others=lambda: self.others,
            peers=self.peers,
        )
        self.admin.phase = Phase.SERVING
        self.url = ""

    def strategy(self, name: str) -> strategies.Strategy:
        return strategies.load(name, self.random)

    def switch(self, name: str) -> None:
        self.pool.use(self.strategy(name), name, self.now)

    def fleet(self, *names: str) -> None:
        """Discovery finds these, at 10.0.0.1:8000 and so on."""
        self.pool.replace([EndpointSpec(f"10.0.0.{i}", 8000, name=name) for i, name in enumerate(names, 1)], self.now)
        self.discovery.fresh_at = self.now

    def request(self, status: int = 200, seconds: float = 0.01, path: str = "/pi") -> Endpoint:
        """A request comes, is answered with `status` after `seconds`, and is counted as the proxy would."""
        lease = self.pool.lease(RequestInfo("192.0.2.1", "GET", path), self.now)
        lease.sent(self.now)
        self.now += seconds
        lease.first_byte(self.now)
        lease.close(Outcome.answered(status), self.now)
        self.counters.requests += 1
        self.counters.responses[status // 100] += 1
        self.counters.total_seconds.observe(seconds)
        return lease.endpoint

    def endpoint(self, number: int) -> Endpoint:
        return list(self.pool.endpoints)[number - 1]
