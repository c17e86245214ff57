"""The living set of endpoints: where discovery, health and selection meet, and nowhere else.

What happens to endpoints is here; how one is chosen is in rotation.py, which `Pool` extends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from balancer.balancing.costs import Bound
from balancer.balancing.decision import DecisionLog
from balancer.balancing.endpoint import Endpoint, EndpointSpec, Snapshot, Transition
from balancer.balancing.events import Subscriber
from balancer.balancing.hand_over import Learned, TakenOver, pieces
from balancer.balancing.health import Change
from balancer.balancing.lease import Lease
from balancer.balancing.load_weights import LoadWeights
from balancer.balancing.membership import Changes
from balancer.balancing.outlier_detection import OutlierDetection
from balancer.balancing.policy import Policy
from balancer.balancing.rng import Random
from balancer.balancing.rotation import Rotation
from balancer.balancing.slow_start import SlowStart
from balancer.balancing.strategies.strategy import Strategy
from balancer.balancing.work import NOTHING_KNOWN, Work

__all__ = ["Lease", "Policy", "Pool"]

DEFAULT_CLUSTER: Final = "default"
"""The cluster of LB_DISCOVERY's endpoints."""


class Pool(Rotation):
    """All endpoints, what discovery and health do to them, and the strategy that chooses among the eligible ones."""

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
        super().__init__(strategy, strategy_name, policy, random, cluster, decisions)
        self._outliers = OutlierDetection(policy)
        self._slow_start = SlowStart(policy.slow_start)
        self._taken_over = TakenOver(self._costs)
        self.loads: LoadWeights | None = None
        """What endpoints report of their load, where that is asked for."""
        if policy.endpoint_load:
            self.loads = LoadWeights(policy.endpoint_load_blackout, policy.endpoint_load_expiry)

    # Membership: what discovery says

    def replace(self, snapshot: Snapshot, now: float) -> None:
        """Make `snapshot` the membership; endpoints in both keep all their state."""
        for _ in self.replacing(snapshot, now):
            pass
        self._admission.dispatch(now)

    def replacing(self, snapshot: Snapshot, now: float) -> Iterator[None]:
        """The same in pieces: it is done when this is exhausted, and nothing else may replace the membership before.

        Between two pieces the pool is whole, with some of the changes made, and serves on: first new endpoints join,
        last others leave. The next `tick` serves the queue.
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
            self._reweighed(endpoint)
            yield
        if self._decide():
            for endpoint in list(self._members.endpoints):
                self._align(endpoint)
                yield

    def _join(self, endpoint: Endpoint, slowly: bool, now: float) -> None:
        endpoint.cluster = self.cluster
        # What it was before it left, without the events and the slow start of a change: nothing happens to it now.
        for transition in self._outliers.recall(endpoint, now):
            endpoint.health.apply(transition.change)
        endpoint.variability = self._variability
        if endpoint.work is NOTHING_KNOWN:
            endpoint.work = Work(self._costs)
        endpoint.work.pace.joined()
        has_more = self._taken_over.joined(endpoint, now)
        self._eligibility.recount(endpoint)
        self._subscribers.joined(endpoint)
        if endpoint.spec.draining:
            self._subscribers.report(endpoint, "draining")
        if slowly and self._slow_start.begin(endpoint, now):
            self._reweighed(endpoint)
        self._align(endpoint)
        if has_more:
            self.changed(endpoint)

    def _leave(self, endpoint: Endpoint) -> None:
        self._eligibility.recount(endpoint)
        self._align(endpoint)
        self._outliers.forget(endpoint)
        self._slow_start.forget(endpoint)
        if self.loads is not None:
            self.loads.left(endpoint)
            endpoint.weight = endpoint.spec.weight
        endpoint.work.pace.left()
        self._subscribers.left(endpoint)

    def _respecify(self, endpoint: Endpoint, spec: EndpointSpec, now: float) -> None:
        """Discovery says something new of `endpoint`: its weight, its zone, that it is draining."""
        drains = spec.draining and not endpoint.spec.draining
        endpoint.spec = spec
        self._eligibility.recount(endpoint)
        if self._slow_start.weigh(endpoint, now):
            self._reweighed(endpoint)
        if drains:
            self._subscribers.report(endpoint, "draining")
        self._align(endpoint)

    # Health: each of these decides transitions, and `_apply` makes them

    def _apply(self, transitions: list[Transition], now: float) -> None:
        """Change the health of endpoints, and what follows from it."""
        if not transitions:
            return
        for transition in transitions:
            endpoint = transition.endpoint
            rule = endpoint.health.apply(transition.change, transition.until)
            if rule.event:
                self._subscribers.report(endpoint, rule.event, transition.detail)
            if rule.starts_slowly and self._slow_start.begin(endpoint, now):
                self._reweighed(endpoint)
            self._eligibility.recount(endpoint)
            self._refresh(endpoint)
        self._admission.dispatch(now)

    def set_health(self, endpoint: Endpoint, healthy: bool, now: float, why: str = "") -> None:
        """The active probes say that `endpoint` is healthy, or that it is not and `why`, in a few words."""
        endpoint.health.probe_fault = why
        if endpoint.health.passing_probes != healthy:
            change = Change.PROBES_PASS if healthy else Change.PROBES_FAIL
            self._apply([Transition(endpoint, change, why)], now)

    def drain(self, endpoint: Endpoint, drained: bool, now: float) -> None:
        """Drain an endpoint by hand, or take it back."""
        if endpoint.health.drained != drained:
            self._apply([Transition(endpoint, Change.DRAIN if drained else Change.UNDRAIN)], now)

    def failed(self, endpoint: Endpoint, now: float) -> None:
        """A lease of `endpoint` ended in a failure."""
        self._apply(self._outliers.failed(endpoint, self._eligibility.ready, now), now)

    def saturated(self, endpoint: Endpoint, seconds: float, now: float) -> None:
        """`endpoint` wants us to back off for some seconds."""
        self._apply(self._outliers.saturated(endpoint, seconds, self._eligibility.ready, now), now)

    def succeeded(self, endpoint: Endpoint, opened_at: float, now: float) -> None:
        """`endpoint`, which is not healthy, has answered well a request that was chosen for it at `opened_at` (s)."""
        self._apply(self._outliers.succeeded(endpoint, opened_at), now)

    def reported(self, endpoint: Endpoint, field: bytes, value: bytes, now: float) -> None:
        """A response of `endpoint` says how loaded it is, in a field of this name."""
        if self.loads is not None and endpoint.discovered:
            self.loads.heard(endpoint, field, value, now)

    def outvoted(self, endpoint: Endpoint, now: float) -> None:
        """Most replicas of this balancer have ejected `endpoint`."""
        self._apply(self._outliers.outvoted(endpoint, self._eligibility.ready, now), now)

    def tick(self, now: float) -> None:
        """Let time pass: ejections end, slow starts go on. Called every 100 ms."""
        self._apply(self._outliers.expired(now), now)
        for endpoint in self._slow_start.tick(now):
            self._reweighed(endpoint)
        if self.loads is not None:
            for endpoint in self.loads.tick(now):
                if self._slow_start.weigh(endpoint, now):
                    self._reweighed(endpoint)
        self._apply(self._outliers.compare_rates(self._members.endpoints, self._eligibility.ready, now), now)
        self._members.forget(now)
        self._report_failures(now)
        self._end_spill(now)
        self._admission.dispatch(now)

    # What other replicas have learned

    @property
    def has_learned(self) -> bool:
        """Whether its strategy follows what requests cost, and knows something of that."""
        return self._follows_work and self._costs.knows

    @property
    def bound(self) -> Bound | None:
        """What has shown how much its endpoints work on at once; None where its strategy does not ask for that."""
        return self._costs.shown if self._follows_work else None

    def corroborate(self, others: Iterable[Bound]) -> None:
        """Count what has shown that at other replicas."""
        if self._follows_work:
            self._costs.corroborate(others)

    def lasting(self, endpoint: Endpoint) -> int:
        """Requests in flight there that do not wait for a worker, as far as the strategy asks what they wait for.

        Where it does not, those whose response has begun.
        """
        return endpoint.in_flight - endpoint.work.taken if self._follows_work else endpoint.lasting

    def work_to_report(self, endpoint: Endpoint) -> float:
        """Expected seconds, at a typical endpoint, of the requests that wait there.

        0 where the strategy goes by their number: it does not ask, or all are alike as far as it knows.
        """
        work = endpoint.work
        knows = self._follows_work and self._costs.distinct and work.concurrency.is_bounded
        return work.taken_cost if knows else 0.0

    def learned(self, now: float) -> Iterator[Learned]:
        """What this pool has learned of requests and endpoints, in pieces; nothing where its strategy learns none."""
        if not self._follows_work:
            return iter(())
        return pieces(self._costs, list(self._members.endpoints), now)

    def take_over(self, learned: Learned, now: float, sender: str = "") -> tuple[int, int]:
        """Take a piece of what another replica has learned: the number of endpoints and kinds that it adds to."""
        endpoints, kinds = self._taken_over.take(learned, self._members.find, now, sender)
        for endpoint in endpoints:
            self.changed(endpoint)
        return len(endpoints), kinds

    # Reading

    def subscribe(self, subscriber: Subscriber) -> None:
        """Let `subscriber` hear of endpoints that join and leave, and of every event."""
        self._subscribers.add(subscriber)

    @property
    def endpoints(self) -> Iterable[Endpoint]:
        """Every endpoint of the last snapshot, eligible or not, in its order."""
        return self._members.endpoints

    @property
    def ejected(self) -> frozenset[str]:
        """Addresses of the endpoints that are ejected."""
        return self._outliers.ejected

    def find(self, address: str) -> Endpoint | None:
        """The endpoint at `host:port`, or None."""
        return self._members.find(address)
