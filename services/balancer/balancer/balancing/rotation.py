"""The endpoints in rotation: which ones the rules admit, the strategy that chooses among them, and who waits for one.

`Pool` extends it, and says what discovery, health and time do to the endpoints.

Above 300 lines because leases, queue and strategy keep the same counts, which one call of the hot path changes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from balancer.balancing.admission import Admission
from balancer.balancing.costs import Costs
from balancer.balancing.decision import Decision, DecisionLog
from balancer.balancing.eligibility import Eligibility
from balancer.balancing.endpoint import Endpoint
from balancer.balancing.errors import AllAtLimit, AllEjected, AllTried, NoEndpoint
from balancer.balancing.events import LoadChanges, Subscribers
from balancer.balancing.explain import Explainer, View
from balancer.balancing.lease import Lease, Owner
from balancer.balancing.membership import Membership
from balancer.balancing.policy import Policy
from balancer.balancing.queue import Granted, Refused, Ticket
from balancer.balancing.request import RequestInfo
from balancer.balancing.rng import Random
from balancer.balancing.strategies import FALLBACK
from balancer.balancing.strategies.guarded import Guarded
from balancer.balancing.strategies.strategy import Strategy, follows_work, hears_changes, hears_load
from balancer.balancing.variability import Variability

_REPORT_EVERY: Final = 10.0
"""A user's strategy that goes on failing is reported once in this time (s)."""

_SPILL: Final = 1.0
"""How long (s) the other zones stay in use once no endpoint of the preferred zone could take a request."""


class Rotation(Owner):
    """Chooses endpoints and hands out leases; keeps the strategy's set in line with the rules."""

    def __init__(
        self,
        strategy: Strategy,
        strategy_name: str,
        policy: Policy,
        random: Random,
        cluster: str,
        decisions: DecisionLog | None,
    ) -> None:
        """`decisions`: the log of several pools together; None: one of its own."""
        self.cluster = cluster
        """The cluster of these endpoints: metrics, logs and the API show this name."""
        self.policy = policy
        self.decisions = DecisionLog() if decisions is None else decisions
        self.strategy_name = strategy_name
        self.panics = 0
        """How often panic began."""
        self._subscribers = Subscribers()
        self._load_changes: LoadChanges | None = None
        self._members = Membership()
        self._costs = Costs(policy.cost_key, policy.mode == "tcp")
        self._variability = Variability()
        self._eligibility = Eligibility(policy.panic_share, policy.prefer_zone)
        self._spill_until = 0.0

        self._strategy = strategy
        self._hears_load = hears_load(strategy)
        self._hears_changes = hears_changes(strategy)
        self._follows_work = follows_work(strategy)
        self._explainer = Explainer(random, policy.hash_key, self.ineligible_reason)
        self._explainer.cluster = cluster
        self._explainer.use(strategy, strategy_name)
        self._choices = 0
        self._chosen_by: dict[str, int] = {}
        """Choices made by each strategy that was in force before."""
        self._choices_before = 0
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
            lease.job = endpoint.work.begin(request, endpoint.elsewhere)
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
        if self._load_changes is not None:
            self._load_changes.add(endpoint)
        return lease

    def _record(self, view: View, chosen: Endpoint | None, why_none: str | None) -> Decision:
        strategy = self._strategy
        why = why_none
        if why is None and isinstance(strategy, Guarded) and strategy.instead:
            why = f"{FALLBACK} chose instead: {strategy.instead}"
        decision = self._explainer.decide(view, chosen, why)
        if self.decisions.due(view.at):
            self.decisions.add(decision, view.pause)
        return decision

    def _second_choice(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        """No eligible endpoint is left for this request: use other zones if that helps."""
        if not self._eligibility.zone_only:
            return None
        self._eligibility.zone_exhausted = True
        self._spill_until = now + _SPILL
        self._refresh(None)
        self._admission.dispatch(now)
        return self._strategy.choose(request, excluded, now)

    def _refusal(self, excluded: Collection[Endpoint], view: View | None) -> NoEndpoint:
        """What to raise where no endpoint is left, recorded.

        Returned, not raised here: an exception raised from a local variable and its traceback refer to each other.
        """
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
        """The load or latency of `endpoint` has changed: pass it on to a strategy that watches that."""
        if self._load_changes is not None:
            self._load_changes.add(endpoint)  # One that waits no longer, perhaps: it may last.
        if self._hears_load and endpoint.eligible:
            self._strategy.changed(endpoint)

    def give_back(self, endpoint: Endpoint, now: float) -> None:
        """One lease of `endpoint` has ended."""
        endpoint.in_flight -= 1
        if self._load_changes is not None:
            self._load_changes.add(endpoint)
        if endpoint.eligible:
            if self._hears_load:
                self._strategy.changed(endpoint)
        elif endpoint.in_rotation and endpoint.in_flight < self._limit:
            endpoint.eligible = True
            self._strategy.added(endpoint)
        if self._limited and endpoint.in_rotation:
            self._admission.free(now)

    def follow_load(self, first: Callable[[], None]) -> LoadChanges:
        """Endpoints whose requests in flight change, for one who follows that; `first` is called for the first."""
        self._load_changes = LoadChanges(first)
        return self._load_changes

    # Waiting

    def wait(
        self,
        request: RequestInfo,
        excluded: Collection[Endpoint],
        explain: bool,
        granted: Granted,
        refused: Refused,
    ) -> Ticket:
        """Join the queue for an endpoint below its limit, after `lease` with the same arguments raised AllAtLimit.

        One of `granted` and `refused` is called, once, unless the ticket's `leave()` comes first. Raises QueueFull.
        """
        queue = self._admission.queue
        ticket = Ticket(queue, request, excluded, explain, granted, refused)
        queue.join(ticket)
        return ticket

    def _grant(self, ticket: Ticket, now: float) -> bool:
        """Lease for a request that waits, or refuse it; False when it goes on waiting."""
        while True:
            try:
                lease = self._lease(ticket.request, now, ticket.excluded, ticket.explain)
            except AllTried:
                # Every endpoint was tried: one of them again is better than none.
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
        """How many requests wait in the queue."""
        return self._admission.queue.waiting

    # Which endpoints are eligible: the rules are in eligibility.py, here they are applied

    def _refresh(self, endpoint: Endpoint | None) -> None:
        """`endpoint` has changed, and is recounted; None: any may have. Bring the strategy's set in line."""
        if self._decide() or endpoint is None:
            for each in self._members.endpoints:
                self._align(each)
        else:
            self._align(endpoint)

    def _decide(self) -> bool:
        """Apply the rules again and report what changed; True when another set of endpoints is to be used."""
        rules = self._eligibility
        panic = rules.panic
        zone_only = rules.zone_only
        changed = rules.decide()
        if rules.panic != panic:
            self.panics += rules.panic
            healthy = f"{rules.healthy} of {rules.ready} endpoints are healthy"
            self._subscribers.report(None, "panic" if rules.panic else "calm", healthy)
        if rules.zone_only != zone_only and rules.ready:
            zone = self.policy.prefer_zone or "hints"
            self._subscribers.report(None, "zone_back" if rules.zone_only else "zone_left", zone)
        return changed

    def _align(self, endpoint: Endpoint) -> None:
        """Put `endpoint` into rotation or take it out, as the rules decided."""
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

    def _reweighed(self, endpoint: Endpoint) -> None:
        """The weight in force of `endpoint` or its place in the order has changed: pass it on to the strategy."""
        if endpoint.eligible and self._hears_changes:
            self._strategy.changed(endpoint)

    def _end_spill(self, now: float) -> None:
        """Try the preferred zone alone again, once the others have helped for a while."""
        if self._eligibility.zone_exhausted and now >= self._spill_until:
            self._eligibility.zone_exhausted = False
            self._refresh(None)

    def ineligible_reason(self, endpoint: Endpoint, now: float) -> str | None:
        """Why it is not eligible, in a few words (`ejected for 7 s more`), or None if it is."""
        return None if endpoint.eligible else self._eligibility.ineligible_reason(endpoint, self._limit, now)

    @property
    def in_panic(self) -> bool:
        """So few endpoints are healthy that all are used."""
        return self._eligibility.panic

    # The strategy

    def use(self, strategy: Strategy, name: str, now: float) -> None:
        """Switch the strategy: the new one's index is built, nothing of the endpoints' state is lost."""
        if follows_work(strategy) and not self._follows_work:
            self._follow_from()
        eligible = [endpoint for endpoint in self._members.endpoints if endpoint.eligible]
        for endpoint in sorted(eligible, key=_chosen_at):
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
        self._subscribers.report(None, "strategy", f"{before} → {name}")

    def _follow_from(self) -> None:
        """Count the requests that wait at the endpoints as work, which nobody has followed so far.

        What they ask for is not known any more: all are of one kind, which no request has.
        """
        for endpoint in self._members.endpoints:
            pending = endpoint.oldest
            while pending is not None:
                if pending.job is None and pending.sent_at is not None:
                    pending.job = endpoint.work.begin(_UNKNOWN, endpoint.elsewhere)
                    pending.job.sent(pending.sent_at)
                pending = pending.newer

    def explain(self, request: RequestInfo, now: float, chosen: Endpoint | None = None) -> Decision:
        """Candidates, their scores and why the others are out; changes nothing."""
        view = self._explainer.survey(self._members.endpoints, View(request, (), now), True)
        if chosen is None:
            chosen = view.best
        return self._explainer.decide(view, chosen, None if chosen is not None else self._why_none(()).reason)

    @property
    def costs(self) -> Costs:
        """What is learned of requests, where the strategy follows that."""
        return self._costs

    @property
    def follows_work(self) -> bool:
        """Whether the strategy uses the expected costs of requests, so that they are learned."""
        return self._follows_work

    @property
    def counts_waiting(self) -> bool:
        """Whether requests count as load while they wait for their response alone: what lasts is then no work."""
        return self._follows_work and not self._costs.connections

    @property
    def chosen_by(self) -> dict[str, int]:
        """Choices made so far, by strategy."""
        counts = dict(self._chosen_by)
        counts[self.strategy_name] = counts.get(self.strategy_name, 0) + self._choices - self._choices_before
        return counts

    def _report_failures(self, now: float) -> None:
        """Report what a user's strategy raised since the last report."""
        strategy = self._strategy
        if not isinstance(strategy, Guarded) or now < self._report_from:
            return
        failures = strategy.failures - self._failures_reported
        if failures > 0:
            self._failures_reported = strategy.failures
            self._report_from = now + _REPORT_EVERY
            detail = f"{strategy.failure}; {failures} time{'s' if failures > 1 else ''}, {FALLBACK} chose instead"
            strategy.failure = ""
            self._subscribers.report(None, "strategy_failed", detail)


_UNKNOWN: Final = RequestInfo(method="?")


def _chosen_at(endpoint: Endpoint) -> int:
    return endpoint.chosen_at
