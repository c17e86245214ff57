"""One experiment: a fleet, traffic, replicas, a strategy and a seed, run to the last answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final

from balancer.lab.clock import Clock
from balancer.lab.fleet import Script, Server, capacity
from balancer.lab.news import News
from balancer.lab.record import Record, Summary
from balancer.lab.replica import TICK, Replica, Rules
from balancer.lab.traffic import Ask, Traffic, mean_cost, resampled

NOTHING: Final = "nothing"
HANDED_OVER: Final = "handed-over"
ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class Newcomer:
    """The last replica starts when half of the requests have come, and its first requests are all that is measured."""

    knows: str = NOTHING
    """NOTHING; HANDED_OVER: what the first replica has learned until then; ALL: it has been there from the start."""
    measured: int = 300
    """Requests measured."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything but the strategy and the seed."""

    fleet: tuple[Script, ...]
    traffic: Traffic = field(default_factory=Traffic)
    load: float = 0.7
    """Share of what the sound endpoints can do."""
    requests: int = 20_000
    replicas: int = 1
    news: News = field(default_factory=News)
    rules: Rules = field(default_factory=Rules)
    newcomer: Newcomer | None = None
    replayed: tuple[Ask, ...] = ()
    """Recorded requests in the place of `traffic`, `load` and `requests`: as they came with the first seed, with the
    others as they might have come as well."""
    exact: bool = False
    """With the other seeds too they come as recorded."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.load * capacity(list(self.fleet), mean_cost(self.traffic))

    @property
    def overloads(self) -> bool:
        """More is asked for than the sound endpoints can do, by clients that do not wait for answers."""
        return not self.replayed and self.traffic.arrivals != "closed" and self.load > 1.0

    @property
    def lasts(self) -> float:
        """Seconds, simulated, in which the requests come; 0 of a closed loop, whose requests come when others end."""
        if self.replayed:
            return self.replayed[-1].at
        if self.traffic.arrivals == "closed":
            return 0.0
        rate = self.rate
        return self.requests / rate if rate > 0.0 else math.inf

    def asks(self, seed: int) -> tuple[Iterator[Ask], int]:
        """The requests, and their number."""
        if self.replayed:
            drawn = self.replayed if seed == 1 or self.exact else resampled(self.replayed, Random(seed))
            return iter(drawn), len(drawn)
        return self.traffic.asks(self.rate, self.requests, Random(seed)), self.requests


def run(setting: Setting, strategy: str, seed: int, progress: Callable[[int], None] | None = None) -> Summary:
    """The summary of one run; `progress` is called now and then with the number of requests that have ended.

    The same seed means the same requests at the same times, the same pauses and failures, whatever the strategy: what
    differs is who chose which endpoint.
    """
    return _Run(setting, strategy, seed, progress).record.summary()


class _Run:
    """The clock, the endpoints, the replicas and the clients of one run."""

    def __init__(self, setting: Setting, strategy: str, seed: int, progress: Callable[[int], None] | None) -> None:
        self.clock = Clock()
        self._setting = setting
        self._progress = progress
        servers = [Server(script, self.clock, Random(seed * 1000 + i)) for i, script in enumerate(setting.fleet)]
        self.replicas = [
            Replica(strategy, setting.rules, servers, self.clock, Random(seed * 77 + i))
            for i in range(setting.replicas)
        ]
        self.record = Record(len(servers), setting.rules.client_timeout)
        self._others = Record(len(servers), setting.rules.client_timeout)
        """What is not measured."""
        self._asks, self._number = setting.asks(seed)
        self._measured = 0
        """Requests of the newcomer that are."""
        if setting.newcomer is None:
            self.record.whole = (self._number, self.clock.stop)
        self._spread = Random(seed + 1)
        self._next = next(self._asks, None)
        self._started = 0
        self._begin()
        self.clock.run()
        self.record.fault = next((replica.fault for replica in self.replicas if replica.fault), "")

    def _begin(self) -> None:
        if self._setting.traffic.arrivals == "closed" and not self._setting.replayed:
            for replica in self.replicas:
                replica.ended = self._ended
            for _ in range(self._setting.traffic.users):
                self._start_now()
        elif self._next is not None:
            self.clock.at(self._next.at, self._arrive)
        self.clock.at(TICK, self._tick)
        self._setting.news.begin(self.replicas, self.clock)

    def _arrive(self) -> None:
        ask = self._next
        if ask is None:
            return
        following = self._next = next(self._asks, None)
        if following is not None:
            self.clock.at(following.at, self._arrive)
        self._start(ask)

    def _ended(self) -> None:
        # Not within the end of the last one: where endpoints fail at once, that would nest without end.
        self.clock.at(self.clock.now, self._start_now)

    def _start_now(self) -> None:
        """A user of the closed loop asks for the next."""
        ask = self._next
        if ask is not None:
            self._next = next(self._asks, None)
            self._start(Ask(self.clock.now, ask.info, ask.cost, ask.upload, ask.stream, ask.idle))

    def _start(self, ask: Ask) -> None:
        self._started += 1
        if self._progress is not None and self._started % 1000 == 0:
            self._progress(1000)
        if self._setting.newcomer is not None:
            self._start_beside(ask, self._setting.newcomer)
            return
        replicas = self.replicas
        replica = replicas[0] if len(replicas) == 1 else replicas[int(self._spread.random() * len(replicas))]
        replica.start(ask, self.record)

    def _start_beside(self, ask: Ask, newcomer: Newcomer) -> None:
        """The same, where the last replica is new in the second half."""
        replicas = self.replicas
        last = replicas[-1]
        half = self._number // 2
        joined = self._started > half
        if self._started == half + 1 and newcomer.knows == HANDED_OVER:
            for learned in replicas[0].pool.learned(self.clock.now):
                last.pool.take_over(learned, self.clock.now)
        which = replicas if joined or newcomer.knows == ALL else replicas[:-1]
        replica = which[int(self._spread.random() * len(which))]
        record = self._others
        if joined and replica is last and self._measured < newcomer.measured:
            self._measured += 1
            record = self.record
        if self._started == self._number or self._measured == newcomer.measured:
            self.record.whole = (self._measured, self.clock.stop)
            if self.record.noted == self._measured:
                self.clock.stop()
        replica.start(ask, record)

    def _tick(self) -> None:
        for replica in self.replicas:
            replica.tick()
        self.clock.at(self.clock.now + TICK, self._tick)
