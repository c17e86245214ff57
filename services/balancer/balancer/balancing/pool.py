"""The living set of endpoints: where discovery, health and selection meet, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable
from typing import Final, Protocol

from balancer.balancing import ejection
from balancer.balancing.chance import Random
from balancer.balancing.decision import Decision, DecisionLog
from balancer.balancing.eligibility import Eligibility
from balancer.balancing.endpoint import Endpoint, EndpointSpec, Snapshot
from balancer.balancing.errors import AllAtLimit, AllEjected, AllTried, NoEndpoint
from balancer.balancing.explain import Explainer, View
from balancer.balancing.lease import Lease
from balancer.balancing.policy import Policy
from balancer.balancing.queue import Queue, Ticket
from balancer.balancing.recovery import Recovery, is_good
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies.strategy import Strategy, hears_changes, hears_load

_Key = tuple[str, int, str]
"""Host, port and pod UID."""

__all__ = ["Lease", "Policy", "Pool", "Subscriber"]

REMEMBERED: Final = 60.0
"""An endpoint that leaves and returns within this time (s) finds its state again."""

_SPILL: Final = 1.0
"""How long (s) the other zones are used once the preferred zone had nobody for a request: all tried or at the limit."""


class Subscriber(Protocol):
    """Told what happens to endpoints, at once and in order. Must not call back into the pool."""

    def left(self, endpoint: Endpoint) -> None:
        """Discovery no longer names it: close its idle connections."""

    def transition(self, endpoint: Endpoint | None, event: str, detail: str) -> None:
        """`event` is one of decision.EVENTS: joined, left, ejected, …; where `endpoint` is None, the pool's own."""


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

        self._members: dict[_Key, Endpoint] = {}
        self._by_address: dict[str, Endpoint] | None = None
        """Made when somebody asks for an address."""
        self._gone: dict[_Key, tuple[Endpoint, float]] = {}
        """Endpoints that left lately, with the time until which they are remembered."""
        self._eligibility = Eligibility(policy.panic_share, policy.prefer_zone)
        self._used = 0
        self._choices = 0
        self._chosen_by: dict[str, int] = {}
        """Choices made by each strategy that was in force before."""
        self._choices_before = 0

        self._recovery = Recovery(self, policy)
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
            view = self._explainer.look(self._members.values(), View(request, excluded, now), explain)
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
        before = dict(self._members)  # Whoever is reading the old membership goes on reading it unharmed.
        members: dict[_Key, Endpoint] = {}
        joined: list[Endpoint] = []
        for spec in snapshot:
            key = (spec.host, spec.port, spec.uid)  # What `spec.key` says, without making a text of it.
            if key in members:
                continue
            endpoint = before.pop(key, None)
            if endpoint is None:
                endpoint = self._join(spec, key, now)
                joined.append(endpoint)
            elif spec is not endpoint.spec and _differ(spec, endpoint.spec):
                self._respecify(endpoint, spec, now)
            members[key] = endpoint
        self._members = members
        self._by_address = None
        for key, endpoint in before.items():
            self._leave(key, endpoint, now)
        if self.policy.slow_start > 0 and len(joined) < len(members):
            for endpoint in joined:
                self._recovery.start_slowly(endpoint, now)
        self._reorder()
        self._decide()
        self._apply_all()
        self._serve()

    def _join(self, spec: EndpointSpec, key: _Key, now: float) -> Endpoint:
        remembered = self._gone.pop(key, None)
        if remembered is None or remembered[1] < now:
            endpoint = Endpoint(spec)
        else:
            endpoint = remembered[0]
            endpoint.spec = spec
            endpoint.weight = spec.weight
            endpoint.slow_start_from = None
            self._recovery.resume(endpoint, now)
        endpoint.member = True
        self._eligibility.count(endpoint, 1)
        self.tell(endpoint, "joined", "")
        if spec.draining:
            self.tell(endpoint, "draining", "")
        return endpoint

    def _leave(self, key: _Key, endpoint: Endpoint, now: float) -> None:
        endpoint.member = False
        self._eligibility.count(endpoint, -1)
        self._apply(endpoint)
        self._recovery.forget(endpoint)
        self._gone[key] = (endpoint, now + REMEMBERED)
        for subscriber in self._subscribers:
            subscriber.left(endpoint)
        self.tell(endpoint, "left", "")

    def _respecify(self, endpoint: Endpoint, spec: EndpointSpec, now: float) -> None:
        """Discovery says something new of `endpoint`: its weight, its zone, that it is draining."""
        self._eligibility.count(endpoint, -1)
        drains = spec.draining and not endpoint.spec.draining
        endpoint.spec = spec
        self._eligibility.count(endpoint, 1)
        self._recovery.weigh(endpoint, now)
        if drains:
            self.tell(endpoint, "draining", "")

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
            self.tell(None, "panic" if rules.panic else "calm", f"{rules.good} of {rules.ready} endpoints are good")
        if rules.zone_only != zone_only and rules.ready:
            self.tell(None, "zone_back" if rules.zone_only else "zone_left", self.policy.prefer_zone or "")
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

    def judge(self, endpoint: Endpoint) -> None:
        """Its health, ejection or being left alone has changed."""
        good = is_good(endpoint)
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
        self.tell(endpoint, "healthy" if healthy else "unhealthy", "")
        if healthy:
            self._recovery.start_slowly(endpoint, now)
        self.judge(endpoint)

    def hold(self, endpoint: Endpoint, held: bool, now: float) -> None:
        """Drain an endpoint by hand, or take it back."""
        if endpoint.held == held:
            return
        if endpoint.member:
            self._eligibility.count(endpoint, -1)
        endpoint.held = held
        self.tell(endpoint, "held" if held else "released", "")
        if not held:
            self._recovery.start_slowly(endpoint, now)
        if endpoint.member:
            self._eligibility.count(endpoint, 1)
            self._settle(endpoint)

    # Failure, saturation, time

    def failed(self, endpoint: Endpoint, now: float) -> None:
        """A lease of `endpoint` ended in a failure."""
        self._recovery.failed(endpoint, now)

    def leave_alone(self, endpoint: Endpoint, seconds: float, now: float) -> None:
        """`endpoint` asked to be left alone for some seconds."""
        self._recovery.leave_alone(endpoint, seconds, now)

    def tick(self, now: float) -> None:
        """Let time pass: ejections end, slow starts go on. Called every 100 ms."""
        self._recovery.tick(now)
        if self._gone:
            for key in [key for key, gone in self._gone.items() if gone[1] < now]:
                del self._gone[key]
        if self._eligibility.full_zone and now >= self._spill_until:
            self._eligibility.full_zone = False
            self._settle()
        self._serve()

    def may_eject_another(self, ejected: int) -> bool:
        """Whether the rules leave room for one ejection more than `ejected`."""
        return ejection.may_eject(ejected, self._eligibility.ready, self.policy.eject_max_share)

    def reweighed(self, endpoint: Endpoint) -> None:
        """The weight in force of `endpoint` has changed: tell the strategy, if it wants to know."""
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
        self.tell(None, "strategy", f"{before} → {name}")

    def explain(self, request: RequestInfo, now: float, chosen: Endpoint | None = None) -> Decision:
        """Candidates, their scores and why the others are out; changes nothing."""
        view = self._explainer.look(self._members.values(), View(request, (), now), True)
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

    def tell(self, endpoint: Endpoint | None, event: str, detail: str) -> None:
        """Tell the subscribers of a transition, of the pool itself where `endpoint` is None."""
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
        found = self._by_address
        if found is None:
            found = {endpoint.address: endpoint for endpoint in self._members.values()}
            self._by_address = found
        return found.get(address)

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


def _differ(one: EndpointSpec, other: EndpointSpec) -> bool:
    """Whether two specs of the same endpoint say different things of it."""
    return (
        one.draining != other.draining
        or one.weight != other.weight
        or one.zone != other.zone
        or one.name != other.name
        or one.node != other.node
    )


def _name(endpoint: Endpoint) -> str:
    return endpoint.spec.name


def _chosen_at(endpoint: Endpoint) -> int:
    return endpoint.chosen_at
