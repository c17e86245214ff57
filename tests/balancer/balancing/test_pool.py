"""Leases are counted and given back exactly once; membership, switching and counting lose nothing."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as draw
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule
from tests.balancer.balancing.world import REQUEST, Fleet

from balancer.balancing import outcome
from balancer.balancing.endpoint import Endpoint, EndpointSpec
from balancer.balancing.errors import AllAtLimit, AllEjected, AllTried, NoEndpoint, QueueFull
from balancer.balancing.outcome import Outcome
from balancer.balancing.pool import Lease
from balancer.balancing.queue import Ticket
from balancer.balancing.strategies import STRATEGIES, Strategy, load

OK = Outcome.answered(200)


def test_a_lease_counts_from_selection_until_it_is_closed_and_only_once() -> None:
    fleet = Fleet(names="a")
    lease = fleet.lease()
    assert fleet["a"].in_flight == 1
    lease.sent(fleet.now)
    lease.first_byte(fleet.now)
    assert fleet["a"].in_flight == 1
    lease.close(OK, fleet.now)
    lease.close(OK, fleet.now)
    lease.sent(fleet.now)
    lease.first_byte(fleet.now)
    assert fleet["a"].in_flight == 0
    assert fleet["a"].waiting == {}
    assert fleet["a"].stats.answered[2] == 1


def test_an_empty_pool_says_so() -> None:
    with pytest.raises(NoEndpoint) as raised:
        Fleet().lease()
    assert type(raised.value) is NoEndpoint
    assert raised.value.reason == "no endpoints"


def test_a_request_that_has_tried_all_is_told_so() -> None:
    with pytest.raises(AllTried):
        Fleet(names="a b").lease("a", "b")


def test_one_that_is_tried_and_one_at_its_limit_leave_the_request_to_wait() -> None:
    fleet = Fleet(names="a b", endpoint_max_requests=1)
    fleet.lease("b")
    with pytest.raises(AllAtLimit):
        fleet.lease("b")


def test_all_drained_by_hand_is_no_panic() -> None:
    fleet = Fleet(names="a b")
    for name in "ab":
        fleet.pool.drain(fleet[name], True, fleet.now)
    assert fleet.ineligible_reason("a") == "drained by hand"
    with pytest.raises(AllEjected):
        fleet.lease()
    fleet.pool.drain(fleet["a"], False, fleet.now)
    assert fleet.share() == {"a": 1.0}


def test_a_snapshot_keeps_the_state_of_those_that_stay() -> None:
    fleet = Fleet(names="a b")
    lease = fleet.lease("b")
    before = fleet["a"]
    fleet.add("c")
    fleet.remove("b")
    assert fleet["a"] is before
    assert fleet["a"].in_flight == 1
    assert fleet.gone == ["b"]
    assert [e.address for e in fleet.pool.endpoints] == ["a:80", "c:80"]
    assert fleet.pool.find("b:80") is None
    lease.close(OK, fleet.now)
    assert fleet["a"].in_flight == 0


def test_a_lease_of_one_that_left_is_closed_in_peace() -> None:
    fleet = Fleet("least-connections", names="a b")
    lease = fleet.lease("b")
    lease.sent(fleet.now)
    fleet.remove("a")
    lease.first_byte(fleet.now)
    lease.close(OK, fleet.now)
    assert lease.endpoint.in_flight == 0
    assert fleet.share() == {"b": 1.0}


def test_one_that_returns_within_a_minute_finds_its_state_again() -> None:
    fleet = Fleet(names="a b")
    fleet.measure(a=0.3)
    lease = fleet.lease("b")
    before = fleet["a"]
    fleet.remove("a")
    fleet.wait(59)
    fleet.add("a")
    assert fleet["a"] is before
    lease.close(OK, fleet.now)
    assert fleet["a"].in_flight == 0


@pytest.mark.parametrize(("away", "uid"), [(61.0, ""), (1.0, "another pod")])
def test_after_a_minute_or_as_another_pod_it_starts_anew(away: float, uid: str) -> None:
    fleet = Fleet(names="a b")
    before = fleet["a"]
    fleet.remove("a")
    fleet.wait(away)
    fleet.add("a", uid=uid)
    assert fleet["a"] is not before


def test_one_that_returns_while_ejected_serves_the_rest_of_its_time() -> None:
    fleet = Fleet(names="a b c")
    fleet.end("a", outcome.REFUSED, times=5)
    fleet.remove("a")
    fleet.wait(4)
    fleet.add("a")
    assert fleet.ineligible_reason("a") == "ejected for 6 s more"
    fleet.wait(6)
    assert fleet.ineligible_reason("a") is None


def test_one_whose_ejection_ended_while_it_was_away_is_eligible_at_once() -> None:
    fleet = Fleet(names="a b c")
    fleet.end("a", outcome.REFUSED, times=5)
    fleet.end("b", Outcome.answered(503, 3.0))
    fleet.remove("a", "b")
    fleet.wait(20)
    fleet.add("a", "b")
    assert fleet.ineligible_reason("a") is None
    assert fleet.ineligible_reason("b") is None


def test_the_same_endpoint_named_twice_is_one() -> None:
    fleet = Fleet()
    fleet.pool.replace([EndpointSpec("a", 80), EndpointSpec("a", 80), EndpointSpec("b", 80)], fleet.now)
    assert fleet.share() == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize("old", STRATEGIES)
@pytest.mark.parametrize("new", STRATEGIES)
def test_a_switch_under_load_keeps_every_count(old: str, new: str) -> None:
    fleet = Fleet(old, names="a b c d", endpoint_max_requests=3)
    leases = [fleet.lease() for _ in range(8)]
    fleet.measure(a=0.1, b=0.2)
    before = {e.address: (e.in_flight, e.latency.average(fleet.now)) for e in fleet.pool.endpoints}
    fleet.pool.use(load(new, Random(1)), new, fleet.now)
    assert {e.address: (e.in_flight, e.latency.average(fleet.now)) for e in fleet.pool.endpoints} == before
    assert fleet.pool.strategy_name == new
    leases += [fleet.lease() for _ in range(4)]
    for lease in leases:
        lease.close(OK, fleet.now)
    assert [e.in_flight for e in fleet.pool.endpoints] == [0, 0, 0, 0]


def test_a_switch_that_fails_changes_nothing() -> None:
    class Broken(Strategy):
        def added(self, endpoint: Endpoint) -> None:
            raise RuntimeError("no")

    fleet = Fleet(names="a b")
    with pytest.raises(RuntimeError):
        fleet.pool.use(Broken(Random(1)), "broken", fleet.now)
    assert fleet.pool.strategy_name == "round-robin"
    assert fleet.chosen(4) == ["a", "b", "a", "b"]


def test_outcomes_are_counted_by_class_and_reason() -> None:
    fleet = Fleet(names="a b", eject_after=0)
    for end in (OK, Outcome.answered(204), Outcome.answered(404), Outcome.answered(503), Outcome.answered(999)):
        fleet.end("a", end)
    for end in (outcome.REFUSED, outcome.RESET, outcome.RESET, outcome.CLIENT_LEFT, outcome.UNUSED):
        fleet.end("a", end)
    assert fleet["a"].stats.answered == [0, 0, 2, 0, 1, 2]
    assert fleet["a"].stats.failed == {"connection refused": 1, "connection closed": 2, "client left": 1}


def test_subscribers_hear_of_transitions_in_order() -> None:
    fleet = Fleet(names="a b")
    fleet.pool.drain(fleet["a"], True, fleet.now)
    fleet.pool.set_health(fleet["b"], False, fleet.now)
    fleet.pool.set_health(fleet["b"], False, fleet.now)
    fleet.pool.set_health(fleet["b"], True, fleet.now)
    fleet.pool.drain(fleet["a"], False, fleet.now)
    fleet.add("b", draining=True)
    fleet.remove("b")
    fleet.pool.use(load("n-to-one", Random(1)), "n-to-one", fleet.now)
    assert fleet.events == [
        ("a", "joined"),
        ("b", "joined"),
        ("a", "drained"),
        ("b", "unhealthy"),
        ("pool", "panic"),
        ("b", "healthy"),
        ("pool", "calm"),
        ("a", "undrained"),
        ("b", "draining"),
        ("b", "left"),
        ("pool", "strategy"),
    ]


class PoolMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order: counts are those of the open leases, nobody who waits is forgotten."""

    leases = Bundle("leases")
    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet("least-connections", eject_after=2, eject_time=1.0, endpoint_max_requests=2, queue_size=3)
        self.open: set[Lease] = set()
        self.waiting: dict[Ticket, list[Endpoint]] = {}
        """Who waits, and what each has tried."""

    @rule(name=draw.sampled_from("abcd"), weight=draw.sampled_from([1.0, 2.0]), draining=draw.booleans())
    def add(self, name: str, weight: float, draining: bool) -> None:
        self.fleet.add(name, weight=weight, draining=draining)

    @rule(name=draw.sampled_from("abcd"))
    def remove(self, name: str) -> None:
        if name in self.fleet.specs:
            self.fleet.remove(name)

    @rule(name=draw.sampled_from("abcd"), drained=draw.booleans())
    def hold(self, name: str, drained: bool) -> None:
        if name in self.fleet.specs:
            self.fleet.pool.drain(self.fleet[name], drained, self.fleet.now)

    @rule(name=draw.sampled_from("abcd"), healthy=draw.booleans())
    def health(self, name: str, healthy: bool) -> None:
        if name in self.fleet.specs:
            self.fleet.pool.set_health(self.fleet[name], healthy, self.fleet.now)

    @rule(name=draw.sampled_from(list(STRATEGIES)))
    def switch(self, name: str) -> None:
        self.fleet.pool.use(load(name, Random(1)), name, self.fleet.now)

    @rule(target=leases, tried=draw.sets(draw.sampled_from("abcd"), max_size=2))
    def lease(self, tried: set[str]) -> Lease | None:
        excluded = self._known(tried)
        try:
            lease = self.fleet.pool.lease(REQUEST, self.fleet.now, excluded)
        except NoEndpoint:
            return None
        assert all(lease.endpoint in others for others in self.waiting.values()), "overtook one that waits"
        assert lease.endpoint not in excluded
        self.open.add(lease)
        return lease

    @rule(target=tickets, tried=draw.sets(draw.sampled_from("abcd"), max_size=2))
    def wait(self, tried: set[str]) -> Ticket | None:
        excluded = self._known(tried)
        try:
            self.fleet.pool.lease(REQUEST, self.fleet.now, excluded).close(outcome.UNUSED, self.fleet.now)
        except AllAtLimit:
            pass
        except NoEndpoint:
            return None
        else:
            return None
        ticket: list[Ticket] = []

        def granted(lease: Lease, _now: float) -> None:
            del self.waiting[ticket[0]]
            self.open.add(lease)

        def refused(_error: NoEndpoint, _now: float) -> None:
            del self.waiting[ticket[0]]

        try:
            ticket.append(self.fleet.pool.wait(REQUEST, excluded, False, granted, refused))
        except QueueFull:
            assert len(self.waiting) == 3
            return None
        self.waiting[ticket[0]] = excluded
        return ticket[0]

    def _known(self, names: set[str]) -> list[Endpoint]:
        return [self.fleet[name] for name in sorted(names) if name in self.fleet.specs]

    @rule(ticket=consumes(tickets))
    def leave(self, ticket: Ticket | None) -> None:
        if ticket is not None:
            self.waiting.pop(ticket, None)
            ticket.leave()
            ticket.leave()

    @precondition(lambda self: self.open)
    @rule(data=draw.data())
    def finish(self, data: draw.DataObject) -> None:
        """Close one of the open leases, those granted to one who waited among them."""
        oldest = sorted(self.open, key=lambda lease: (lease.opened_at, lease.endpoint.address))
        self.close(data.draw(draw.sampled_from(oldest)), OK)

    @rule(lease=leases)
    def proceed(self, lease: Lease | None) -> None:
        if lease is not None:
            lease.sent(self.fleet.now)
            self.fleet.now += 0.01
            lease.first_byte(self.fleet.now)

    @rule(
        lease=leases,
        end=draw.sampled_from(
            [OK, Outcome.answered(500), Outcome.answered(503, 0.5), outcome.RESET, outcome.CLIENT_LEFT, outcome.UNUSED]
        ),
    )
    def close(self, lease: Lease | None, end: Outcome) -> None:
        if lease is not None:
            self.open.discard(lease)
            lease.close(end, self.fleet.now)

    @rule(seconds=draw.sampled_from([0.1, 1.0, 5.0]))
    def tick(self, seconds: float) -> None:
        self.fleet.wait(seconds)

    @invariant()
    def counts_are_those_of_the_open_leases(self) -> None:
        for endpoint in {lease.endpoint for lease in self.open} | set(self.fleet.pool.endpoints):
            assert endpoint.in_flight == sum(lease.endpoint is endpoint for lease in self.open)

    @invariant()
    def nobody_is_above_the_limit(self) -> None:
        assert all(endpoint.in_flight <= 2 for endpoint in self.fleet.pool.endpoints)

    @invariant()
    def nobody_waits_for_what_is_free(self) -> None:
        free = {endpoint for endpoint in self.fleet.pool.endpoints if endpoint.eligible}
        assert self.fleet.pool.queued == len(self.waiting)
        for tried in self.waiting.values():
            assert free <= set(tried), f"{free} are free, and one who has tried {tried} waits"

    @invariant()
    def the_listed_ones_are_those_with_no_reason_to_be_out(self) -> None:
        for endpoint in self.fleet.pool.endpoints:
            if not endpoint.eligible:
                assert self.fleet.pool.ineligible_reason(endpoint, self.fleet.now) is not None


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_choices_are_counted_by_the_strategy_that_made_them() -> None:
    fleet = Fleet(names="a")
    for name in ("round-robin", "n-to-one", "round-robin"):
        fleet.pool.use(load(name, Random(1)), name, fleet.now)
        fleet.pool.lease(REQUEST, fleet.now).close(Outcome.answered(200), fleet.now)
    assert fleet.pool.chosen_by == {"round-robin": 2, "n-to-one": 1}
