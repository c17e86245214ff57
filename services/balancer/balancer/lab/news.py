"""What simulated replicas report to each other of their requests in flight, and how late it arrives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from balancer.balancing.costs import Bound
from balancer.lab.clock import Clock

if TYPE_CHECKING:
    from balancer.lab.replica import Replica


@dataclass(frozen=True, slots=True)
class Word:
    """One report of a replica."""

    replica: str
    """Its name."""
    in_flight: dict[str, int]
    """Requests by the endpoint's address."""
    lasting: dict[str, int]
    """How many of those do not wait for a worker."""
    work: dict[str, float]
    """Expected seconds of work of those that do."""
    bound: Bound | None

    def load(self, address: str, waits: bool) -> int:
        """Requests in flight at an endpoint; of those that wait for a worker, if `waits`."""
        return self.in_flight[address] - (self.lasting[address] if waits else 0)


Hear = Callable[["Replica", str, Word, float], None]
"""The receiver and its name, the report, and how long it was on its way (s)."""


@dataclass(frozen=True, slots=True)
class News:
    """A report of each replica to each other one, every so many seconds, so many seconds late. None: they are blind."""

    every: float = 0.0
    """Seconds between two reports; 0: never."""
    late: float = 0.0
    """Seconds until a report arrives."""
    hear: Hear | None = None
    """What a replica makes of it. None: it believes every word."""

    def begin(self, replicas: list[Replica], clock: Clock) -> None:
        """Start sending."""
        if self.every > 0 and len(replicas) > 1:
            names = {f"replica-{i}": replica for i, replica in enumerate(replicas)}
            for i, name in enumerate(names):
                clock.at(self.every * (i + 1) / len(replicas), _Sender(self, name, names).send)


class _Sender:
    """One replica that reports to the others."""

    def __init__(self, news: News, name: str, replicas: dict[str, Replica]) -> None:
        self._news = news
        self._replica = replicas[name]
        self._name = name
        self._others = {other: replica for other, replica in replicas.items() if other != name}
        self._hear = news.hear or _Believed().hear

    def send(self) -> None:
        """Send a report, and the next in its time."""
        clock = self._replica.clock
        pool = self._replica.pool
        in_flight = {endpoint.address: endpoint.in_flight for endpoint in pool.endpoints}
        lasting = {endpoint.address: pool.lasting(endpoint) for endpoint in pool.endpoints}
        work = {endpoint.address: pool.work_to_report(endpoint) for endpoint in pool.endpoints}
        word = Word(self._name, in_flight, lasting, work, pool.bound)

        def arrive() -> None:
            for other, replica in self._others.items():
                self._hear(replica, other, word, self._news.late)

        clock.at(clock.now + self._news.late, arrive)
        clock.at(clock.now + self._news.every, self.send)


class _Believed:
    """Counts what each other replica said last as being there still."""

    def __init__(self) -> None:
        self._said: dict[Replica, Word] = {}

    def hear(self, replica: Replica, _own: str, word: Word, _late: float) -> None:
        """Replace what this one said before."""
        before = self._said.get(replica)
        self._said[replica] = word
        waits = replica.pool.counts_waiting
        for endpoint in replica.pool.endpoints:
            address = endpoint.address
            change = word.load(address, waits) - (0 if before is None else before.load(address, waits))
            if change:
                requests = endpoint.elsewhere.requests + change
                endpoint.others_have(requests, requests, 0.0, 0.0)
                replica.pool.changed(endpoint)
