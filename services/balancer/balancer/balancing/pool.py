"""The living set of endpoints: where discovery, health and selection meet, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from mypy_extensions import mypyc_attr

from balancer.balancing import ejection, slow_start
from balancer.balancing.chance import Random
from balancer.balancing.decision import Decision, DecisionLog
from balancer.balancing.eligibility import Eligibility
from balancer.balancing.endpoint import Endpoint, EndpointSpec, Snapshot
from balancer.balancing.errors import AllAtLimit, AllEjected, AllTried, NoEndpoint
from balancer.balancing.explain import Explainer, View
from balancer.balancing.outcome import FAILURE, SATURATION, SUCCESS, Kind, Outcome
from balancer.balancing.queue import Queue, Ticket
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies.strategy import Strategy, hears_changes, hears_load

LONGEST_LEFT_ALONE: Final = 30.0
"""However long an endpoint asks to be left alone, it is for no longer than this (s)."""

REMEMBERED: Final = 60.0
"""An endpoint that leaves and returns within this time (s) finds its state again."""

_SPILL: Final = 1.0
"""How long (s) the other zones are used once the preferred zone had nobody for a request: all tried or at the limit."""


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
    hash_key: str = "client-ip"


class Subscriber(Protocol):
    """Told what happens to endpoints, at once and in order. Must not call back into the pool."""

    def left(self, endpoint: Endpoint) -> None:
        """Discovery no longer names it: close its idle connections."""

    def transition(self, endpoint: Endpoint | None, event: str, detail: str) -> None:
        """`event` is one of decision.EVENTS: joined, left, ejected, …; where `endpoint` is None, the pool's own."""


@mypyc_attr(acyclic=True, free_list_len=1)  # Every request makes one: 25 ns of 155 for a lease and its close.
class Lease:
    """One request's hold on one endpoint, counted from the moment of selection until `close`."""

    __slots__ = (
        "_average_at",
        "_average_before",
        "_had_average",
        "closed",
        "decision",
        "endpoint",
        "first_byte_at",
        "newer",
        "older",
        "opened_at",
        "pool",
        "sent_at",
    )

    def __init__(self, pool: Pool, endpoint: Endpoint, now: float) -> None:
        self.pool = pool
        self.endpoint = endpoint
        self.decision: Decision | None = None
        """Why this endpoint: set when the lease was asked to explain itself."""
        self.opened_at = now
        self.sent_at: float | None = None
        self.first_byte_at: float | None = None
        self.closed = False
        self.older: Lease | None = None
        """Its neighbours among those of the endpoint that wait for a response; a list in place of a dict: 100 ns."""
        self.newer: Lease | None = None
        self._had_average = False
        self._average_before = 0.0
        self._average_at = 0.0

    def sent(self, now: float) -> None:
        """The request has been sent whole (in TCP mode: connecting began): from here its response is awaited."""
        if self.closed or self.sent_at is not None or self.first_byte_at is not None:
            return
        self.sent_at = now
        endpoint = self.endpoint
        newest = endpoint.newest
        if newest is None:
            endpoint.oldest = self
        else:
            newest.newer = self
            self.older = newest
        endpoint.newest = self

    def first_byte(self, now: float) -> None:
        """The final response's head began to arrive (in TCP mode: connected). The latency sample is taken here."""
        if self.closed or self.first_byte_at is not None:
            return
        self.first_byte_at = now
        endpoint = self.endpoint
        latency = endpoint.latency
        self._had_average = latency.measured
        self._average_before = latency.value
        self._average_at = latency.measured_at
        sent_at = self.sent_at
        if sent_at is None:  # It answered before it had the whole request: nobody waited.
            latency.sample(0.0, now)
        else:
            self._wait_no_more()
            latency.sample(now - sent_at, now)
        self.pool.changed(endpoint)

    def close(self, outcome: Outcome, now: float) -> None:
        """Give the endpoint back. Exactly once: a second call does nothing."""
        if self.closed:
            return
        self.closed = True
        endpoint = self.endpoint
        sent_at = self.sent_at
        if sent_at is not None and self.first_byte_at is None:
            self._wait_no_more()
            if outcome.kind is Kind.CLIENT_LEFT:
                endpoint.latency.sample(now - sent_at, now)
        verdict = outcome.verdict
        if verdict == SUCCESS:
            endpoint.failures_in_row = 0
            endpoint.recent += 1
            if 200 <= outcome.status < 300:  # By far the most, and counted where the cache already is: 80 ns of 400.
                endpoint.answered_2xx += 1
            else:
                endpoint.answered_other[min(outcome.status // 100, 5)] += 1
        else:
            self._close_otherwise(outcome, verdict, now)
        self.pool.give_back(endpoint)

    def _wait_no_more(self) -> None:
        older = self.older
        newer = self.newer
        if older is None:
            self.endpoint.oldest = newer
        else:
            older.newer = newer
        if newer is None:
            self.endpoint.newest = older
        else:
            newer.older = older
        self.older = None
        self.newer = None

    def _close_otherwise(self, outcome: Outcome, verdict: int, now: float) -> None:
        endpoint = self.endpoint
        if outcome.kind is Kind.ANSWERED:
            endpoint.answered_other[min(outcome.status // 100, 5)] += 1
        elif outcome.kind is not Kind.UNUSED:
            reason = outcome.kind.value
            endpoint.failed[reason] = endpoint.failed.get(reason, 0) + 1
        if verdict == FAILURE:
            endpoint.latency.penalise(now)
            endpoint.recent += 1
            endpoint.recent_failures += 1
            endpoint.failures_in_row += 1
            self.pool.failed(endpoint, now)
        elif verdict == SATURATION:
            latency = endpoint.latency
            if self.first_byte_at is not None and latency.measured_at == self.first_byte_at:
                latency.restore(self._average_before, self._average_at, self._had_average)
            self.pool.leave_alone(endpoint, outcome.retry_after or 0.0, now)


class Pool:
    """All endpoints, their eligibility, and the strategy that chooses among the eligible ones."""

    def __init__(self, strategy: Strategy, strategy_name: str, policy: Policy, random: Random) -> None:
        self.strategy_name = strategy_name
        self.decisions = DecisionLog()
        self.policy = policy
        self.panics = 0
        """How often panic began."""
        self._strategy = strategy
        self._hears_load = hears_load(strategy)
        self._hears_changes = hears_changes(strategy)
        self._explainer = Explainer(random, policy.hash_key, self.why_out)
        self._explainer.use(strategy, strategy_name)
        self._subscribers: list[Subscriber] = []

        self._members: dict[tuple[str, str], Endpoint] = {}
        self._by_address: dict[str, Endpoint] = {}
        self._gone: dict[tuple[str, str], tuple[Endpoint, float]] = {}
        """Endpoints that left lately, with the time until which they are remembered."""
        self._eligibility = Eligibility(policy.panic_share, policy.prefer_zone)
        self._used = 0
        self._choices = 0
        self._chosen_by: dict[str, int] = {}
        """Choices made by each strategy that was in force before."""
        self._choices_before = 0

        self._ejected: dict[Endpoint, None] = {}
        self._left_alone: dict[Endpoint, None] = {}
        self._starting: dict[Endpoint, None] = {}
        self._rates_at: float | None = None
        self._spill_until = 0.0

        limit = policy.endpoint_max_requests
        self._limited = limit is not None
        self._limit = sys.maxsize if limit is None else limit
        self._room = 0
        """Requests that the used endpoints can take until all are at their limit; kept only where there is one."""
        self._queue = Queue(policy.queue_size, self._serve)
        self._serving = False

    # Choosing

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
        if self._limited:
            self._admit(ticket)
        view: View | None = None
        if explain or self.decisions.due(now):
            view = self._explainer.look(self._members.values(), request, excluded, now)
        endpoint = self._strategy.choose(request, excluded, now)
        if endpoint is None:
            endpoint = self._second_choice(request, excluded, now, view)
        lease = Lease(self, endpoint, now)
        if view is not None:
            decision = self._record(view, endpoint, None)
            if explain:
                lease.decision = decision
        self._choices += 1
        endpoint.chosen_at = self._choices
        in_flight = endpoint.in_flight + 1
        endpoint.in_flight = in_flight
        if self._limited:
            self._room -= 1
        if in_flight >= self._limit:
            endpoint.listed = False
            self._strategy.removed(endpoint)
        elif self._hears_load:
            self._strategy.changed(endpoint)
        return lease

    def _record(self, view: View, chosen: Endpoint | None, why_none: str | None) -> Decision:
        decision = self._explainer.decide(view, chosen, why_none)
        if self.decisions.due(view.at):
            self.decisions.add(decision, view.pause)
        return decision

    def _admit(self, ticket: Ticket | None) -> None:
        """Nobody takes the place that was promised to one who waits. Raises AllAtLimit."""
        if ticket is not None and self._queue.spend(ticket):
            return
        if self._used and (len(self._queue) or (self._queue.woken and self._queue.woken >= self._room)):
            raise AllAtLimit

    def _second_choice(
        self, request: RequestInfo, excluded: Collection[Endpoint], now: float, view: View | None
    ) -> Endpoint:
        """No eligible endpoint is left for this request: use other zones if that helps. Raises NoEndpoint."""
        if self._eligibility.zone_only:
            self._eligibility.full_zone = True
            self._spill_until = now + _SPILL
            self._settle()
            endpoint = self._strategy.choose(request, excluded, now)
            if endpoint is not None:
                return endpoint
        error = self._why_none(excluded)
        if view is not None:
            self._record(view, None, error.reason)
        self._serve()
        raise error

    def _why_none(self, excluded: Collection[Endpoint]) -> NoEndpoint:
        if not self._members:
            return NoEndpoint()
        if not self._used:
            return AllEjected()
        tried = 0
        for endpoint in excluded:
            if endpoint.used:
                tried += 1
        return AllAtLimit() if self._used > tried else AllTried()

    def changed(self, endpoint: Endpoint) -> None:
        """The load or latency of `endpoint` has changed: tell the strategy, if it wants to know."""
        if self._hears_load and endpoint.listed:
            self._strategy.changed(endpoint)

    def give_back(self, endpoint: Endpoint) -> None:
        """One lease of `endpoint` has ended."""
        endpoint.in_flight -= 1
        if endpoint.listed:
            if self._hears_load:
                self._strategy.changed(endpoint)
        elif endpoint.used and endpoint.in_flight < self._limit:
            endpoint.listed = True
            self._strategy.added(endpoint)
        if self._limited and endpoint.used:
            self._room += 1
            if len(self._queue):
                self._serve()

    # Waiting

    def wait(self, wake: Callable[[], None], now: float) -> Ticket:
        """Join the queue for an endpoint below its limit; `wake` is called once, when it is this one's turn.

        Whoever is woken calls `lease(…, ticket=…)`; whoever gives up calls `ticket.leave()`. Raises QueueFull.
        """
        return self._queue.join(wake, now)

    def _serve(self) -> None:
        """Wake as many as there is room for; all, when no endpoint is left to wait for."""
        if self._serving:  # Whoever is woken may lease, close and leave at once; the loop below goes on with that.
            return
        self._serving = True
        try:
            while len(self._queue) and (self._room > self._queue.woken or not self._used):
                self._queue.wake_next()
        finally:
            self._serving = False

    @property
    def queued(self) -> int:
        """How many wait in the queue."""
        return len(self._queue)

    # Membership

    def replace(self, snapshot: Snapshot, now: float) -> None:
        """Make `snapshot` the membership; endpoints in both keep all their state."""
        before = self._members
        members: dict[tuple[str, str], Endpoint] = {}
        joined: list[Endpoint] = []
        for spec in snapshot:
            key = spec.key
            if key in members:
                continue
            endpoint = before.pop(key, None)
            if endpoint is None:
                endpoint = self._join(spec, key, now)
                joined.append(endpoint)
            elif spec != endpoint.spec:
                self._respecify(endpoint, spec, now)
            members[key] = endpoint
        self._members = members
        self._by_address = {endpoint.address: endpoint for endpoint in members.values()}
        for key, endpoint in before.items():
            self._leave(key, endpoint, now)
        if self.policy.slow_start > 0 and len(joined) < len(members):
            for endpoint in joined:
                self._start_slowly(endpoint, now)
        self._reorder()
        self._decide()
        self._apply_all()
        self._serve()

    def _join(self, spec: EndpointSpec, key: tuple[str, str], now: float) -> Endpoint:
        remembered = self._gone.pop(key, None)
        if remembered is None or remembered[1] < now:
            endpoint = Endpoint(spec)
        else:
            endpoint = remembered[0]
            endpoint.spec = spec
            endpoint.weight = spec.weight
            endpoint.slow_start_from = None
            self._resume(endpoint, now)
        endpoint.member = True
        self._eligibility.count(endpoint, 1)
        self._tell(endpoint, "joined", "")
        if spec.draining:
            self._tell(endpoint, "draining", "")
        return endpoint

    def _resume(self, endpoint: Endpoint, now: float) -> None:
        """A remembered endpoint is back: what was to end meanwhile has ended, the rest goes on."""
        if endpoint.ejected_until > now:
            self._ejected[endpoint] = None
        elif endpoint.ejected_until > 0.0:
            ejection.readmit(endpoint, self.policy.eject_after, now)
        if endpoint.left_alone_until > now:
            self._left_alone[endpoint] = None
        else:
            endpoint.left_alone_until = 0.0
        endpoint.good = _is_good(endpoint)

    def _leave(self, key: tuple[str, str], endpoint: Endpoint, now: float) -> None:
        endpoint.member = False
        self._eligibility.count(endpoint, -1)
        self._apply(endpoint)
        self._starting.pop(endpoint, None)
        self._ejected.pop(endpoint, None)
        self._left_alone.pop(endpoint, None)
        self._gone[key] = (endpoint, now + REMEMBERED)
        for subscriber in self._subscribers:
            subscriber.left(endpoint)
        self._tell(endpoint, "left", "")

    def _respecify(self, endpoint: Endpoint, spec: EndpointSpec, now: float) -> None:
        """Discovery says something new of `endpoint`: its weight, its zone, that it is draining."""
        self._eligibility.count(endpoint, -1)
        drains = spec.draining and not endpoint.spec.draining
        endpoint.spec = spec
        self._eligibility.count(endpoint, 1)
        self._weigh(endpoint, now)
        if drains:
            self._tell(endpoint, "draining", "")

    def _reorder(self) -> None:
        """Number the endpoints as `n-to-one` prefers them: by the pod's name, without names as configured."""
        for place, endpoint in enumerate(sorted(self._members.values(), key=_name)):
            if endpoint.order != place:
                endpoint.order = place
                if endpoint.listed and self._hears_changes:
                    self._strategy.changed(endpoint)

    # Eligibility

    def _decide(self) -> bool:
        """Apply the rules anew and tell what changed; True when another set of endpoints is to be used."""
        rules = self._eligibility
        panic = rules.panic
        zone_only = rules.zone_only
        changed = rules.decide()
        if rules.panic != panic:
            self.panics += rules.panic
            self._tell(None, "panic" if rules.panic else "calm", f"{rules.good} of {rules.ready} endpoints are good")
        if rules.zone_only != zone_only and rules.ready:
            self._tell(None, "zone_back" if rules.zone_only else "zone_left", self.policy.prefer_zone or "")
        return changed

    def _settle(self, endpoint: Endpoint | None = None) -> None:
        """Something changed, of `endpoint` only if it is given: bring the strategy's set in line."""
        if self._decide() or endpoint is None:
            self._apply_all()
        else:
            self._apply(endpoint)
        self._serve()

    def _apply_all(self) -> None:
        for endpoint in self._members.values():
            self._apply(endpoint)

    def _apply(self, endpoint: Endpoint) -> None:
        used = endpoint.member and self._eligibility.admits(endpoint)
        if used != endpoint.used:
            endpoint.used = used
            step = 1 if used else -1
            self._used += step
            if self._limited:
                self._room += step * (self._limit - endpoint.in_flight)
        listed = used and endpoint.in_flight < self._limit
        if listed != endpoint.listed:
            endpoint.listed = listed
            if listed:
                self._strategy.added(endpoint)
            else:
                self._strategy.removed(endpoint)

    def _judge(self, endpoint: Endpoint) -> None:
        """Its health, ejection or being left alone has changed."""
        good = _is_good(endpoint)
        if good == endpoint.good:
            return
        if not endpoint.member:
            endpoint.good = good
            return
        self._eligibility.count(endpoint, -1)
        endpoint.good = good
        self._eligibility.count(endpoint, 1)
        self._settle(endpoint)

    def set_health(self, endpoint: Endpoint, healthy: bool, now: float) -> None:
        """What the active probes say."""
        if endpoint.healthy == healthy:
            return
        endpoint.healthy = healthy
        self._tell(endpoint, "healthy" if healthy else "unhealthy", "")
        if healthy:
            self._start_slowly(endpoint, now)
        self._judge(endpoint)

    def hold(self, endpoint: Endpoint, held: bool, now: float) -> None:
        """Drain an endpoint by hand, or take it back."""
        if endpoint.held == held:
            return
        if endpoint.member:
            self._eligibility.count(endpoint, -1)
        endpoint.held = held
        self._tell(endpoint, "held" if held else "released", "")
        if not held:
            self._start_slowly(endpoint, now)
        if endpoint.member:
            self._eligibility.count(endpoint, 1)
            self._settle(endpoint)

    # Failure and saturation

    def failed(self, endpoint: Endpoint, now: float) -> None:
        """A lease of `endpoint` ended in a failure: eject it, if that was one too many."""
        after = self.policy.eject_after
        if after > 0 and endpoint.failures_in_row >= after:
            self._eject(endpoint, f"{endpoint.failures_in_row} failures in a row", now)

    def _eject(self, endpoint: Endpoint, why: str, now: float) -> None:
        if endpoint.ejected_until > 0.0 or not endpoint.member:
            return
        if not ejection.may_eject(len(self._ejected), self._eligibility.ready, self.policy.eject_max_share):
            return
        seconds = ejection.eject(endpoint, self.policy.eject_time, now)
        self._ejected[endpoint] = None
        self._tell(endpoint, "ejected", f"{why}, for {seconds:g} s")
        self._judge(endpoint)

    def leave_alone(self, endpoint: Endpoint, seconds: float, now: float) -> None:
        """`endpoint` asked to be left alone for some seconds."""
        seconds = min(seconds, LONGEST_LEFT_ALONE)
        if seconds <= 0.0:
            return
        if endpoint.left_alone_until == 0.0:
            self._tell(endpoint, "left_alone", f"for {seconds:g} s")
        endpoint.left_alone_until = max(endpoint.left_alone_until, now + seconds)
        if endpoint.member:
            self._left_alone[endpoint] = None
        self._judge(endpoint)

    # Time

    def tick(self, now: float) -> None:
        """Let time pass: ejections end, slow starts go on. Called every 100 ms."""
        for endpoint in [e for e in self._ejected if now >= e.ejected_until]:
            del self._ejected[endpoint]
            ejection.readmit(endpoint, self.policy.eject_after, now)
            self._tell(endpoint, "returned", "")
            self._start_slowly(endpoint, now)
            self._judge(endpoint)
        for endpoint in [e for e in self._left_alone if now >= e.left_alone_until]:
            del self._left_alone[endpoint]
            endpoint.left_alone_until = 0.0
            self._judge(endpoint)
        for endpoint in list(self._starting):
            self._weigh(endpoint, now)
        if self._gone:
            for key in [key for key, gone in self._gone.items() if gone[1] < now]:
                del self._gone[key]
        if self._eligibility.full_zone and now >= self._spill_until:
            self._eligibility.full_zone = False
            self._settle()
        self._compare_rates(now)
        self._serve()

    def _compare_rates(self, now: float) -> None:
        if self._rates_at is None:
            self._rates_at = now + ejection.INTERVAL
        if now < self._rates_at or self.policy.eject_after <= 0:
            return
        self._rates_at = now + ejection.INTERVAL
        for endpoint in ejection.low_success(self._members.values()):
            self._eject(endpoint, "success rate far below the others'", now)

    def _start_slowly(self, endpoint: Endpoint, now: float) -> None:
        if self.policy.slow_start <= 0 or not endpoint.member:
            return
        endpoint.slow_start_from = now
        self._starting[endpoint] = None
        self._weigh(endpoint, now)

    def _weigh(self, endpoint: Endpoint, now: float) -> None:
        """Bring the weight in force up to date."""
        since = endpoint.slow_start_from
        window = self.policy.slow_start
        ends = since is not None and now - since >= window
        if ends:
            endpoint.slow_start_from = None
            self._starting.pop(endpoint, None)
        full = endpoint.spec.weight
        weight = full if since is None or ends else slow_start.weight(full, since, window, now)
        if weight == endpoint.weight and not ends:
            return
        endpoint.weight = weight
        if endpoint.listed and self._hears_changes:
            self._strategy.changed(endpoint)

    # Strategy

    def use(self, strategy: Strategy, name: str, now: float) -> None:
        """Switch the strategy: the new one's index is built, nothing of the endpoints' state is lost."""
        for endpoint in sorted(self._listed(), key=_chosen_at):
            strategy.added(endpoint)
        before = self.strategy_name
        self._chosen_by = self.chosen_by
        self._choices_before = self._choices
        self._strategy = strategy
        self.strategy_name = name
        self._hears_load = hears_load(strategy)
        self._hears_changes = hears_changes(strategy)
        self._explainer.use(strategy, name)
        self._tell(None, "strategy", f"{before} → {name}")

    def explain(self, request: RequestInfo, now: float, chosen: Endpoint | None = None) -> Decision:
        """Candidates, their scores and why the others are out; changes nothing."""
        view = self._explainer.look(self._members.values(), request, (), now)
        if chosen is None:
            chosen = view.best
        return self._explainer.decide(view, chosen, None if chosen is not None else self._why_none(()).reason)

    # Reading

    @property
    def chosen_by(self) -> dict[str, int]:
        """Choices made so far, by strategy."""
        counts = dict(self._chosen_by)
        counts[self.strategy_name] = counts.get(self.strategy_name, 0) + self._choices - self._choices_before
        return counts

    def subscribe(self, subscriber: Subscriber) -> None:
        """Tell `subscriber` of endpoints that leave and of transitions."""
        self._subscribers.append(subscriber)

    def _tell(self, endpoint: Endpoint | None, event: str, detail: str) -> None:
        for subscriber in self._subscribers:
            subscriber.transition(endpoint, event, detail)

    @property
    def endpoints(self) -> Iterable[Endpoint]:
        """Every endpoint of the last snapshot, eligible or not, in its order."""
        return self._members.values()

    def _listed(self) -> list[Endpoint]:
        return [endpoint for endpoint in self._members.values() if endpoint.listed]

    @property
    def in_panic(self) -> bool:
        """So few endpoints are good that all are used."""
        return self._eligibility.panic

    def find(self, address: str) -> Endpoint | None:
        """The endpoint at `host:port`, or None."""
        return self._by_address.get(address)

    def why_out(self, endpoint: Endpoint, now: float) -> str | None:
        """Why it is not eligible, in a few words (`ejected for 7 s more`), or None if it is."""
        if endpoint.listed:
            return None
        if not endpoint.member:
            return "gone"
        if endpoint.held:
            return "drained by hand"
        if not endpoint.healthy:
            return "its health checks fail"
        if endpoint.ejected_until > 0.0:
            return f"ejected for {max(endpoint.ejected_until - now, 0.0):.0f} s more"
        if endpoint.left_alone_until > 0.0:
            return f"asked to be left alone for {max(endpoint.left_alone_until - now, 0.0):.0f} s more"
        if endpoint.spec.draining:
            return "draining"
        if endpoint.in_flight >= self._limit:
            return f"at its limit of {self._limit} requests"
        return f"not in zone {self.policy.prefer_zone}"


def _is_good(endpoint: Endpoint) -> bool:
    return endpoint.healthy and endpoint.ejected_until == 0.0 and endpoint.left_alone_until == 0.0


def _name(endpoint: Endpoint) -> str:
    return endpoint.spec.name


def _chosen_at(endpoint: Endpoint) -> int:
    return endpoint.chosen_at
