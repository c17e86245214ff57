"""Worlds for the tests: a fleet driven by hand, and one simulated, both on a clock that the test owns."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from random import Random
from typing import Any

from balancer.balancing.endpoint import Endpoint, EndpointSpec
from balancer.balancing.errors import NoEndpoint
from balancer.balancing.events import Subscriber
from balancer.balancing.outcome import CLIENT_LEFT, TIMED_OUT, Outcome
from balancer.balancing.pool import Lease, Policy, Pool
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies import Strategy, load

REQUEST = RequestInfo("192.0.2.1", "GET", "/")


class Fleet(Subscriber):
    """A pool and its clock. Endpoints go by the names that the test gives them, `a` standing for `a:80`."""

    def __init__(self, strategy: str = "round-robin", names: str = "", **policy: Any) -> None:
        self.random = Random(1)
        self.now = 1000.0
        self.events: list[tuple[str, str]] = []
        """What the subscriber was told: the endpoint's name, the event."""
        self.gone: list[str] = []
        self.pool = Pool(load(strategy, self.random), strategy, Policy(**policy), self.random)
        self.pool.subscribe(self)
        self.specs: dict[str, EndpointSpec] = {}
        self.add(*names.split())

    def left(self, endpoint: Endpoint) -> None:
        self.gone.append(endpoint.spec.host)

    def transition(self, endpoint: Endpoint | None, event: str, detail: str) -> None:
        self.events.append((endpoint.spec.host if endpoint else "pool", event))

    def add(self, *names: str, **spec: Any) -> None:
        for name in names:
            self.specs[name] = EndpointSpec(name, 80, **spec)
        self.replace()

    def remove(self, *names: str) -> None:
        for name in names:
            del self.specs[name]
        self.replace()

    def replace(self) -> None:
        self.pool.replace(list(self.specs.values()), self.now)

    def __getitem__(self, name: str) -> Endpoint:
        endpoint = self.pool.find(f"{name}:80")
        assert endpoint is not None, name
        return endpoint

    def lease(self, *tried: str, request: RequestInfo = REQUEST) -> Lease:
        return self.pool.lease(request, self.now, [self[name] for name in tried])

    def chosen(self, count: int, outcome: Outcome | None = None) -> list[str]:
        """Who gets `count` requests, made one after the other and answered at once."""
        names = []
        for _ in range(count):
            lease = self.lease()
            names.append(lease.endpoint.spec.host)
            lease.close(outcome or Outcome.answered(200), self.now)
        return names

    def share(self, count: int = 100) -> dict[str, float]:
        """The same, as a share for each that got any."""
        return {name: got / count for name, got in Counter(self.chosen(count)).items()}

    def end(self, name: str, outcome: Outcome, times: int = 1) -> None:
        """Let `times` requests at one endpoint end so, whatever the strategy would choose."""
        others = [other for other in self.specs if other != name]
        for _ in range(times):
            self.lease(*others).close(outcome, self.now)

    def measure(self, **seconds: float) -> None:
        """Give endpoints a measured response time."""
        for name, took in seconds.items():
            self[name].latency.sample(took, self.now)
            self.pool.changed(self[name])

    def wait(self, seconds: float) -> None:
        """Let time pass, ticks included."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now = min(self.now + 0.1, end)
            self.pool.tick(self.now)

    def ineligible_reason(self, name: str) -> str | None:
        return self.pool.ineligible_reason(self[name], self.now)


def others_have(endpoint: Endpoint, requests: float, seconds: float | None = None) -> None:
    """Other replicas have so many requests there, of so much work (s), if they say so."""
    endpoint.others_have(requests, requests if seconds is None else 0.0, seconds or 0.0, 0.0)


@dataclass
class Server:
    """One simulated endpoint: `workers` requests at a time, the rest wait in a queue of its own."""

    seconds: Callable[[Random], float]
    workers: int = 1
    status: int = 200
    hangs: bool = False
    busy: int = 0
    queue: deque[tuple[Lease, Result]] = field(default_factory=deque)
    got: int = 0
    peak: int = 0
    """The most requests it held at once."""


@dataclass
class Result:
    """What clients saw of the requests that began in a stretch of simulated time."""

    shares: dict[str, float] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    failed: int = 0

    def share_of(self, name: str) -> float:
        return self.shares.get(name, 0.0)


class Simulation:
    """An open loop of requests at a rate, Poisson distributed, over simulated servers."""

    def __init__(self, strategy: str, rate: float, seed: int = 1, timeout: float = 60.0, **policy: Any) -> None:
        self.fleet = Fleet(strategy, **policy)
        self.fleet.pool.decisions.due(0.0)
        self.rate = rate
        self.timeout = timeout
        self.impatience: float | None = None
        """After how long (s) clients leave; None: never."""
        self.random = Random(seed)
        self.servers: dict[str, Server] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._result = Result()

    def add(self, *names: str, seconds: Callable[[Random], float] | float, joins: bool = True, **server: Any) -> None:
        """Servers of one kind; a fixed number of seconds stands for exponentially distributed ones of that mean."""
        mean = seconds
        draw = seconds if callable(seconds) else (lambda random: random.expovariate(1.0) * float(mean))  # type: ignore[arg-type]
        for name in names:
            self.servers[name] = Server(draw, **server)
            self.fleet.specs[name] = EndpointSpec(name, 80)
        if joins:
            self.fleet.replace()

    def run(self, seconds: float) -> Result:
        """Go on for some time; shares and latencies are of the requests that began in it."""
        fleet = self.fleet
        self._result = result = Result()
        for server in self.servers.values():
            server.got = server.peak = 0
        end = fleet.now + seconds
        self._at(fleet.now + self.random.expovariate(self.rate), lambda: self._arrive(end))
        tick = fleet.now + 0.1
        while self._events and self._events[0][0] <= end:
            at, _, act = heapq.heappop(self._events)
            while tick <= at:
                fleet.now = tick
                fleet.pool.tick(tick)
                tick += 0.1
            fleet.now = at
            act()
        fleet.now = end
        total = sum(server.got for server in self.servers.values()) or 1
        result.shares = {name: server.got / total for name, server in self.servers.items()}
        return result

    def _at(self, when: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, act))

    def _arrive(self, end: float) -> None:
        following = self.fleet.now + self.random.expovariate(self.rate)
        if following < end:
            self._at(following, lambda: self._arrive(end))
        try:
            lease = self.fleet.pool.lease(RequestInfo(f"192.0.2.{self.random.randrange(250)}"), self.fleet.now)
        except NoEndpoint:
            self._result.failed += 1
            return
        lease.sent(self.fleet.now)
        server = self.servers[lease.endpoint.spec.host]
        server.got += 1
        server.peak = max(server.peak, lease.endpoint.in_flight)
        if server.hangs:
            self._give_up(lease, self._result)
        elif server.busy < server.workers:
            self._begin(server, lease, self._result)
        else:
            server.queue.append((lease, self._result))

    def _give_up(self, lease: Lease, result: Result) -> None:
        patience = self.timeout if self.impatience is None else self.impatience
        outcome = TIMED_OUT if self.impatience is None else CLIENT_LEFT

        def leave() -> None:
            result.failed += 1
            lease.close(outcome, self.fleet.now)

        self._at(self.fleet.now + patience, leave)

    def _begin(self, server: Server, lease: Lease, result: Result) -> None:
        server.busy += 1
        self._at(self.fleet.now + server.seconds(self.random), lambda: self._end(server, lease, result))

    def _end(self, server: Server, lease: Lease, result: Result) -> None:
        now = self.fleet.now
        server.busy -= 1
        lease.first_byte(now)
        lease.close(Outcome.answered(server.status), now)
        result.latencies.append(now - lease.opened_at)
        result.failed += server.status >= 500
        if server.queue and not server.hangs:
            self._begin(server, *server.queue.popleft())


class Whole(Strategy):
    """A user's own strategy, all five methods of it, as the guide has it for what no base serves."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.endpoints: list[Endpoint] = []

    def added(self, endpoint: Endpoint) -> None:
        self.endpoints.append(endpoint)

    def removed(self, endpoint: Endpoint) -> None:
        self.endpoints.remove(endpoint)

    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        left = [endpoint for endpoint in self.endpoints if endpoint not in excluded]
        return min(left, key=lambda endpoint: (endpoint.in_flight, endpoint.chosen_at), default=None)

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        return float(endpoint.in_flight)
