"""The living set of endpoints: where discovery, health and selection meet, and nowhere else."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final, Protocol

from balancer.balancing import ejection
from balancer.balancing.admission import Admission
from balancer.balancing.decision import Decision, DecisionLog
from balancer.balancing.eligibility import Eligibility
from balancer.balancing.endpoint import Endpoint, EndpointSpec, Snapshot
from balancer.balancing.errors import AllAtLimit, AllEjected, AllTried, NoEndpoint
from balancer.balancing.explain import Explainer, View
from balancer.balancing.lease import Lease
from balancer.balancing.membership import Changes, Membership
from balancer.balancing.outlier_detection import OutlierDetection, is_healthy
from balancer.balancing.policy import Policy
from balancer.balancing.queue import Granted, Refused, Ticket
from balancer.balancing.request import RequestInfo
from balancer.balancing.rng import Random
from balancer.balancing.strategies.guarded import Guarded
from balancer.balancing.strategies.strategy import Strategy, follows_work, hears_changes, hears_load
from balancer.balancing.work import NOTHING_KNOWN, Costs

__all__ = ["Lease", "Policy", "Pool", "Subscriber"]

_REPORT_EVERY: Final = 10.0
"""A user's strategy that goes on failing is reported once in this time (s)."""

_SPILL: Final = 1.0
"""How long (s) the other zones are used once the preferred zone had nobody for a request: all tried or at the limit."""


DEFAULT_CLUSTER: Final = "default"
"""The cluster of LB_DISCOVERY's endpoints."""


class Subscriber(Protocol):
    """Told what happens to endpoints, at once and in order. Must not call back into the pool."""

    def joined(self, endpoint: Endpoint) -> None:
        """Discovery names it from now on."""

    def left(self, endpoint: Endpoint) -> None:
        """Discovery no longer names it: close its idle connections."""

    def transition(self, endpoint: Endpoint | None, event: str, detail: str) -> None:
        """`event` is one of decision.EVENTS: joined, left, ejected, …; where `endpoint` is None, the pool's own."""


class Pool:
    """All endpoints, their eligibility, and the strategy that chooses among the eligible ones."""

    def __init__(
        self,
        strategy: Strategy,
        strategy_name: str,
        policy: Policy,
        random: Random,
        cluster: str = DEFAULT_CLUSTER,
        decisions: DecisionLog | None = None,
    ) -> None:
        """`decisions`: the log of several pools together; None: one of its own."""
        self.cluster = cluster
        """Whose endpoints these are: the name that metrics, logs and the API tell them apart by."""
        self.strategy_name = strategy_name
        self.decisions = DecisionLog() if decisions is None else decisions
        self.policy = policy
        self.panics = 0
        """How often panic began."""
        self._strategy = strategy
        self._hears_load = hears_load(strategy)
        self._hears_changes = hears_changes(strategy)
        self._costs = Costs(policy.cost_key)
        self._follows_work = follows_work(strategy)
        self._explainer = Explainer(random, policy.hash_key, self.ineligible_reason)
        self._explainer.cluster = cluster
        self._explainer.use(strategy, strategy_name)
        self._subscribers: list[Subscriber] = []

        self._members = Membership()
        self._eligibility = Eligibility(policy.panic_share, policy.prefer_zone)
        self._choices = 0
        self._chosen_by: dict[str, int] = {}
        """Choices made by each strategy that was in force before."""
        self._choices_before = 0

        self._outliers = OutlierDetection(self, policy)
        self._spill_until = 0.0
        self._failures_reported = 0
        self._report_from = 0.0

        self._admission = Admission(policy.endpoint_max_requests, policy.queue_size, self._grant)
        self._limited = self._admission.limited
        self._limit = self._admission.limit

    # Choosing

    def lease(
        self,
        request: RequestInfo,
        now: float,
        excluded: Collection[Endpoint] = (),
        explain: bool = False,
    ) -> Lease:
        """Choose an endpoint and count it as busy.

        `excluded` are the endpoints that this request has tried. Raises NoEndpoint, or AllAtLimit when it may `wait`.
        """
        if self._limited:
            self._admission.admit()
        return self._lease(request, now, excluded, explain)

    def _lease(self, request: RequestInfo, now: float, excluded: Collection[Endpoint], explain: bool) -> Lease:
        view: View | None = None
        if explain or self.decisions.due(now):
            view = self._explainer.survey(self._members.endpoints, View(request, excluded, now), explain)
        endpoint = self._strategy.choose(request, excluded, now)
        if endpoint is None:
            endpoint = self._second_choice(request, excluded, now)
            if endpoint is None:
                raise self._refusal(excluded, view)
        # Recorded as it was when the strategy chose: before this request counts.
        decision = None if view is None else self._record(view, endpoint, None)
        lease = self._take(endpoint, request, now)
        if explain:
            lease.decision = decision
        return lease

    def lease_at(self, endpoint: Endpoint, request: RequestInfo, now: float) -> Lease | None:
        """A lease on this very endpoint, for a client that is bound to it; None where it can't be had now."""
        if not endpoint.eligible or (self._limited and self._admission.capacity <= 0):
            return None
        return self._take(endpoint, request, now)

    def _take(self, endpoint: Endpoint, request: RequestInfo, now: float) -> Lease:
        """Count a chosen endpoint as busy."""
        lease = Lease(self, endpoint, now)
        if self._follows_work:
            lease.job = self._costs.begin(endpoint.work, request, now)
        self._choices += 1
        endpoint.chosen_at = self._choices
        in_flight = endpoint.in_flight + 1
        endpoint.in_flight = in_flight
        if self._limited:
            self._admission.capacity -= 1
        if in_flight >= self._limit:
            endpoint.eligible = False
            self._strategy.removed(endpoint)
        elif self._hears_load:
            self._strategy.changed(endpoint)
        return lease

    def _record(self, view: View, chosen: Endpoint | None, why_none: str | None) -> Decision:
        decision = self._explainer.decide(view, chosen, why_none)
        if self.decisions.due(view.at):
            self.decisions.add(decision, view.pause)
        return decision

    def _second_choice(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        """No eligible endpoint is left for this request: use other zones if that helps."""
        if not self._eligibility.zone_only:
            return None
        self._eligibility.zone_exhausted = True
        self._spill_until = now + _SPILL
        self._settle(now)
        return self._strategy.choose(request, excluded, now)

    def _refusal(self, excluded: Collection[Endpoint], view: View | None) -> NoEndpoint:
        """What to raise where nobody is left, recorded. Raised by who asked: a frame that named it would be a cycle."""
        error = self._why_none(excluded)
        if view is not None:
            self._record(view, None, error.reason)
        return error

    def _why_none(self, excluded: Collection[Endpoint]) -> NoEndpoint:
        if not self._members.endpoints:
            return NoEndpoint()
        if not self._admission.in_rotation:
            return AllEjected()
        tried = 0
        for endpoint in excluded:
            if endpoint.in_rotation:
                tried += 1
        return AllAtLimit() if self._admission.in_rotation > tried else AllTried()

    def changed(self, endpoint: Endpoint) -> None:
        """The load or latency of `endpoint` has changed: tell the strategy, if it wants to know."""
        if self._hears_load and endpoint.eligible:
            self._strategy.changed(endpoint)

    def give_back(self, endpoint: Endpoint, now: float) -> None:
        """One lease of `endpoint` has ended."""
        endpoint.in_flight -= 1
        if endpoint.eligible:
            if self._hears_load:
                self._strategy.changed(endpoint)
        elif endpoint.in_rotation and endpoint.in_flight < self._limit:
            endpoint.eligible = True
            self._strategy.added(endpoint)
        if self._limited and endpoint.in_rotation:
            self._admission.free(now)

    # Waiting

    def wait(
        self,
        request: RequestInfo,
        excluded: Collection[Endpoint],
        explain: bool,
        granted: Granted,
        refused: Refused,
    ) -> Ticket:
        """Join the queue for an endpoint below its limit, with what `lease` was asked and raised AllAtLimit for.

        One of `granted` and `refused` is called, once, unless the ticket's `leave()` comes first. Raises QueueFull.
        """
        return self._admission.queue.join(request, excluded, explain, granted, refused)

    def _grant(self, ticket: Ticket, now: float) -> bool:
        """Lease for one who waits, or refuse; False when it goes on waiting."""
        while True:
            try:
                lease = self._lease(ticket.request, now, ticket.excluded, ticket.explain)
            except AllTried:
                # Another endpoint is better than the same again, which is better than none.
                ticket.excluded = ()
            except AllAtLimit:
                return False
            except NoEndpoint as error:
                ticket.queue.end(ticket)
                ticket.refused(error, now)
                return True
            else:
                ticket.queue.end(ticket)
                ticket.granted(lease, now)
                return True

    @property
    def queued(self) -> int:
        """How many wait in the queue."""
        return self._admission.queue.waiting

    # Membership

    def replace(self, snapshot: Snapshot, now: float) -> None:
        """Make `snapshot` the membership; endpoints in both keep all their state."""
        for _ in self.replacing(snapshot, now):
            pass
        self._admission.dispatch(now)

    def replacing(self, snapshot: Snapshot, now: float) -> Iterator[None]:
        """The same in pieces: it is done when this is exhausted, and nothing else may replace the membership before.

        Between two pieces the pool is whole, with some of the changes made, and serves on: those who come come first,
        those who go go last. Who waits in the queue is served by the next `tick`.
        """
        changes = Changes()
        yield from self._members.compare(snapshot, changes)
        slowly = self.policy.slow_start > 0 and len(changes.joining) < changes.total
        yield
        for key, spec in changes.joining:
            self._join(self._members.join(key, spec, now), slowly, now)
            yield
        for endpoint, spec in changes.respecified:
            self._respecify(endpoint, spec, now)
            yield
        for key, endpoint in changes.leaving:
            self._members.leave(key, endpoint, now)
            self._leave(endpoint)
            yield
        yield from self._members.arrange(snapshot)
        for endpoint in self._members.reorder():
            self.reweighed(endpoint)
            yield
        if self._decide():
            for endpoint in list(self._members.endpoints):
                self._apply(endpoint)
                yield

    def _join(self, endpoint: Endpoint, slowly: bool, now: float) -> None:
        endpoint.cluster = self.cluster
        self._outliers.resume(endpoint, now)
        if endpoint.work is NOTHING_KNOWN:
            endpoint.work = self._costs.join()
        else:
            self._costs.join_again(endpoint.work)
        self._eligibility.count(endpoint, 1)
        for subscriber in self._subscribers:
            subscriber.joined(endpoint)
        self.notify(endpoint, "joined", "")
        if endpoint.spec.draining:
            self.notify(endpoint, "draining", "")
        if slowly:
            self._outliers.start_slowly(endpoint, now)
        self._apply(endpoint)

    def _leave(self, endpoint: Endpoint) -> None:
        self._eligibility.count(endpoint, -1)
        self._apply(endpoint)
        self._outliers.forget(endpoint)
        self._costs.leave(endpoint.work)
        for subscriber in self._subscribers:
            subscriber.left(endpoint)
        self.notify(endpoint, "left", "")

    def _respecify(self, endpoint: Endpoint, spec: EndpointSpec, now: float) -> None:
        """Discovery says something new of `endpoint`: its weight, its zone, that it is draining."""
        self._eligibility.count(endpoint, -1)
        drains = spec.draining and not endpoint.spec.draining
        endpoint.spec = spec
        self._eligibility.count(endpoint, 1)
        self._outliers.weigh(endpoint, now)
        if drains:
            self.notify(endpoint, "draining", "")
        self._apply(endpoint)

    # Eligibility: the rules are in eligibility.py, here they are applied

    def _decide(self) -> bool:
        """Apply the rules anew and tell what changed; True when another set of endpoints is to be used."""
        rules = self._eligibility
        panic = rules.panic
        zone_only = rules.zone_only
        changed = rules.decide()
        if rules.panic != panic:
            self.panics += rules.panic
            self.notify(
                None, "panic" if rules.panic else "calm", f"{rules.healthy} of {rules.ready} endpoints are healthy"
            )
        if rules.zone_only != zone_only and rules.ready:
            self.notify(None, "zone_back" if rules.zone_only else "zone_left", self.policy.prefer_zone or "hints")
        return changed

    def _settle(self, now: float, endpoint: Endpoint | None = None) -> None:
        """Something changed, of `endpoint` only if it is given: bring the strategy's set in line."""
        if self._decide() or endpoint is None:
            self._apply_all()
        else:
            self._apply(endpoint)
        self._admission.dispatch(now)

    def _apply_all(self) -> None:
        for endpoint in self._members.endpoints:
            self._apply(endpoint)

    def _apply(self, endpoint: Endpoint) -> None:
        in_rotation = endpoint.discovered and self._eligibility.admits(endpoint)
        if in_rotation != endpoint.in_rotation:
            endpoint.in_rotation = in_rotation
            self._admission.count(endpoint, 1 if in_rotation else -1)
        eligible = in_rotation and endpoint.in_flight < self._limit
        if eligible != endpoint.eligible:
            endpoint.eligible = eligible
            if eligible:
                self._strategy.added(endpoint)
            else:
                self._strategy.removed(endpoint)

    def update_health(self, endpoint: Endpoint, now: float) -> None:
        """Its health, ejection or backing off has changed."""
        healthy = is_healthy(endpoint)
        if healthy == endpoint.healthy:
            return
        if not endpoint.discovered:
            endpoint.healthy = healthy
            return
        self._eligibility.count(endpoint, -1)
        endpoint.healthy = healthy
        self._eligibility.count(endpoint, 1)
        self._settle(now, endpoint)

    def set_health(self, endpoint: Endpoint, healthy: bool, now: float, why: str = "") -> None:
        """What the active probes say; `why` they fail, in a few words."""
        endpoint.probe_fault = why
        if endpoint.passing_probes == healthy:
            return
        endpoint.passing_probes = healthy
        self.notify(endpoint, "healthy" if healthy else "unhealthy", why)
        if healthy:
            self._outliers.start_slowly(endpoint, now)
        self.update_health(endpoint, now)

    def drain(self, endpoint: Endpoint, drained: bool, now: float) -> None:
        """Drain an endpoint by hand, or take it back."""
        if endpoint.drained == drained:
            return
        if endpoint.discovered:
            self._eligibility.count(endpoint, -1)
        endpoint.drained = drained
        self.notify(endpoint, "drained" if drained else "undrained", "")
        if not drained:
            self._outliers.start_slowly(endpoint, now)
        if endpoint.discovered:
            self._eligibility.count(endpoint, 1)
            self._settle(now, endpoint)

    # Failure, saturation, time

    def failed(self, endpoint: Endpoint, now: float) -> None:
        """A lease of `endpoint` ended in a failure."""
        self._outliers.failed(endpoint, now)

    def back_off(self, endpoint: Endpoint, seconds: float, now: float) -> None:
        """`endpoint` asked us to back off for some seconds."""
        self._outliers.back_off(endpoint, seconds, now)

    def answers_again(self, endpoint: Endpoint, now: float) -> None:
        """`endpoint`, which asked us to back off, has answered a later request well."""
        self._outliers.answers_again(endpoint, now)

    def outvoted(self, endpoint: Endpoint, now: float) -> None:
        """Most replicas of this balancer have ejected `endpoint`."""
        self._outliers.outvoted(endpoint, now)

    def tick(self, now: float) -> None:
        """Let time pass: ejections end, slow starts go on. Called every 100 ms."""
        self._outliers.tick(now)
        self._members.forget(now)
        self._report_failures(now)
        if self._eligibility.zone_exhausted and now >= self._spill_until:
            self._eligibility.zone_exhausted = False
            self._settle(now)
        self._admission.dispatch(now)

    def _report_failures(self, now: float) -> None:
        strategy = self._strategy
        if not isinstance(strategy, Guarded) or now < self._report_from:
            return
        failures = strategy.failures - self._failures_reported
        if failures > 0:
            self._failures_reported = strategy.failures
            self._report_from = now + _REPORT_EVERY
            self.notify(None, "strategy_failed", f"{strategy.failure}; {failures} times, the default chose instead")

    def may_leave_out_another(self, out: int) -> bool:
        """Whether the rules leave room for leaving out one more than the `out` that are ready and left out."""
        return ejection.may_eject(out, self._eligibility.ready, self.policy.eject_max_share)

    def reweighed(self, endpoint: Endpoint) -> None:
        """The weight in force of `endpoint` or its place in the order has changed: tell the strategy, if it cares."""
        if endpoint.eligible and self._hears_changes:
            self._strategy.changed(endpoint)

    # Strategy

    def use(self, strategy: Strategy, name: str, now: float) -> None:
        """Switch the strategy: the new one's index is built, nothing of the endpoints' state is lost."""
        for endpoint in sorted(self._eligible_ones(), key=_chosen_at):
            strategy.added(endpoint)
        before = self.strategy_name
        self._chosen_by = self.chosen_by
        self._choices_before = self._choices
        self._strategy = strategy
        self.strategy_name = name
        self._failures_reported = 0
        self._report_from = 0.0
        self._hears_load = hears_load(strategy)
        self._hears_changes = hears_changes(strategy)
        self._follows_work = follows_work(strategy)
        self._explainer.use(strategy, name)
        self.notify(None, "strategy", f"{before} → {name}")

    def explain(self, request: RequestInfo, now: float, chosen: Endpoint | None = None) -> Decision:
        """Candidates, their scores and why the others are out; changes nothing."""
        view = self._explainer.survey(self._members.endpoints, View(request, (), now), True)
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

    def notify(self, endpoint: Endpoint | None, event: str, detail: str) -> None:
        """Tell the subscribers of a transition, of the pool itself where `endpoint` is None."""
        for subscriber in self._subscribers:
            subscriber.transition(endpoint, event, detail)

    @property
    def endpoints(self) -> Iterable[Endpoint]:
        """Every endpoint of the last snapshot, eligible or not, in its order."""
        return self._members.endpoints

    def _eligible_ones(self) -> list[Endpoint]:
        return [endpoint for endpoint in self._members.endpoints if endpoint.eligible]

    @property
    def in_panic(self) -> bool:
        """So few endpoints are healthy that all are used."""
        return self._eligibility.panic

    def find(self, address: str) -> Endpoint | None:
        """The endpoint at `host:port`, or None."""
        return self._members.find(address)

    def ineligible_reason(self, endpoint: Endpoint, now: float) -> str | None:
        """Why it is not eligible, in a few words (`ejected for 7 s more`), or None if it is."""
        return None if endpoint.eligible else self._eligibility.ineligible_reason(endpoint, self._limit, now)


def _chosen_at(endpoint: Endpoint) -> int:
    return endpoint.chosen_at
