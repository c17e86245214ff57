"""The living set of endpoints: where discovery, health and selection meet, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from balancer.balancing.decision import Decision, DecisionLog
from balancer.balancing.endpoint import Endpoint, Snapshot
from balancer.balancing.outcome import Outcome
from balancer.balancing.queue import Ticket
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies import Strategy


@dataclass(frozen=True, slots=True)
class Policy:
    """The pool's rules, as plain values; each is the setting `LB_…` of the same name."""

    endpoint_max_requests: int | None = None
    queue_size: int = 1024
    eject_after: int = 5
    eject_time: float = 10.0
    eject_max_share: float = 0.5
    panic_share: float = 0.3
    slow_start: float = 0.0
    prefer_zone: str | None = None


class Subscriber(Protocol):
    """Told what happens to endpoints, at once and in order. Must not call back into the pool."""

    def left(self, endpoint: Endpoint) -> None:
        """Discovery no longer names it: close its idle connections."""

    def transition(self, endpoint: Endpoint | None, event: str, detail: str) -> None:
        """`event` is one of decision.EVENTS: joined, left, ejected, returned, panic, calm, unhealthy, …; None: the pool."""


class Lease:
    """One request's hold on one endpoint, counted from the moment of selection until `close`."""

    __slots__ = ("decision", "endpoint", "first_byte_at", "opened_at", "pool", "sent_at")

    endpoint: Endpoint
    decision: Decision | None
    """Why this endpoint: set when the lease was asked to explain itself."""
    opened_at: float
    sent_at: float | None
    first_byte_at: float | None

    def sent(self, now: float) -> None:
        """The request has been sent whole (in TCP mode: connecting began): from here its response is awaited."""
        raise NotImplementedError

    def first_byte(self, now: float) -> None:
        """The final response's head began to arrive (in TCP mode: connected). The latency sample is taken here."""
        raise NotImplementedError

    def close(self, outcome: Outcome, now: float) -> None:
        """Give the endpoint back. Exactly once: a second call does nothing."""
        raise NotImplementedError


class Pool:
    """All endpoints, their eligibility, and the strategy that chooses among the eligible ones."""

    def __init__(self, strategy: Strategy, strategy_name: str, policy: Policy, random: Random) -> None:
        self.strategy_name = strategy_name
        self.decisions = DecisionLog()
        raise NotImplementedError

    def replace(self, snapshot: Snapshot, now: float) -> None:
        """Make `snapshot` the membership; endpoints in both keep all their state."""
        raise NotImplementedError

    def lease(
        self,
        request: RequestInfo,
        now: float,
        excluded: Collection[Endpoint] = (),
        explain: bool = False,
        ticket: Ticket | None = None,
    ) -> Lease:
        """Choose an endpoint and count it as busy.

        `excluded` are the endpoints that this request has tried; `ticket` its place in the queue, when it was woken.
        Raises NoEndpoint, or AllAtLimit when it may `wait`.
        """
        raise NotImplementedError

    def wait(self, wake: Callable[[], None], now: float) -> Ticket:
        """Join the queue for an endpoint below its limit; `wake` is called once, when it is this one's turn.

        Whoever is woken calls `lease(…, ticket=…)`; whoever gives up calls `ticket.leave()`. Raises QueueFull.
        """
        raise NotImplementedError

    def tick(self, now: float) -> None:
        """Let time pass: ejections end, slow starts go on. Called every 100 ms."""
        raise NotImplementedError

    def use(self, strategy: Strategy, name: str, now: float) -> None:
        """Switch the strategy: the new one's index is built, nothing of the endpoints' state is lost."""
        raise NotImplementedError

    def set_health(self, endpoint: Endpoint, healthy: bool, now: float) -> None:
        """What the active probes say."""
        raise NotImplementedError

    def hold(self, endpoint: Endpoint, held: bool, now: float) -> None:
        """Drain an endpoint by hand, or take it back."""
        raise NotImplementedError

    def explain(self, request: RequestInfo, now: float, chosen: Endpoint | None = None) -> Decision:
        """Candidates, their scores and why the others are out; changes nothing."""
        raise NotImplementedError

    def subscribe(self, subscriber: Subscriber) -> None:
        """Tell `subscriber` of endpoints that leave and of transitions."""
        raise NotImplementedError

    @property
    def endpoints(self) -> Iterable[Endpoint]:
        """Every endpoint of the last snapshot, eligible or not, in its order."""
        raise NotImplementedError

    def find(self, address: str) -> Endpoint | None:
        """The endpoint at `host:port`, or None."""
        raise NotImplementedError

    def why_out(self, endpoint: Endpoint, now: float) -> str | None:
        """Why it is not eligible, in a few words (`ejected for 7 s more`), or None if it is."""
        raise NotImplementedError
