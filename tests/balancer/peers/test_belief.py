"""What a replica makes of the others' news: it fades, it decides ties, and it is forgotten with its replica."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.balancer.balancing.world import Fleet

from balancer.balancing.costs import ONE_BY_ONE, Bound
from balancer.balancing.outcome import Outcome
from balancer.balancing.request import RequestInfo
from balancer.peers.belief import CUT_OFF, FIRST_DURATION, HALVED, LATE, OVERDUE, SILENCE, Belief, Replica
from balancer.peers.report import BUSY, LONGEST_ADDRESS, MOST_ADDRESSES, REST, Report

"""Of a request: what an endpoint of the other of two replicas counts for."""


@pytest.fixture
def fleet() -> Fleet:
    return Fleet("least-connections", "a b c d")


@pytest.fixture
def belief(fleet: Fleet) -> Belief:
    return Belief(fleet.pool, "lb-1")


def test_an_endpoint_that_another_replica_keeps_busy_gets_no_request(fleet: Fleet, belief: Belief) -> None:
    belief.take(Report("lb-2", {"a:80": 5, "c:80": 5}, whole=True), fleet.now)
    assert set(fleet.chosen(20)) == {"b", "d"}


def test_while_a_replica_reports_what_it_did_not_name_is_as_it_was(fleet: Fleet, belief: Belief) -> None:
    belief.take(Report("lb-2", {"a:80": 10}, whole=True), fleet.now)
    belief.tick(fleet.now + 20 * FIRST_DURATION)
    assert fleet["a"].elsewhere.requests == pytest.approx(10.0)


def test_news_of_a_replica_that_should_have_reported_fades_with_the_time_that_a_request_takes(
    fleet: Fleet, belief: Belief
) -> None:
    belief.take(Report("lb-2", {"a:80": 10}, whole=True), fleet.now)
    belief.tick(fleet.now + LATE + FIRST_DURATION)
    assert fleet["a"].elsewhere.requests == pytest.approx(3.68, rel=0.01)
    belief.tick(fleet.now + LATE + 20 * FIRST_DURATION)
    assert fleet["a"].elsewhere.requests == pytest.approx(0.0, abs=0.001)
    belief.take(Report("lb-2", {"c:80": 1}), fleet.now + SILENCE)
    assert fleet["a"].elsewhere.requests == pytest.approx(10.0)


def test_one_that_reports_often_is_late_soon(fleet: Fleet, belief: Belief) -> None:
    for number in range(100):
        belief.take(Report("lb-2", {"a:80": 10 + number % 2}, whole=not number), fleet.now)
        fleet.now += 0.005
    belief.tick(fleet.now - 0.005 + OVERDUE * 0.005 + FIRST_DURATION)
    assert fleet["a"].elsewhere.requests == pytest.approx(11 * 0.368, rel=0.05)


def send(fleet: Fleet, belief: Belief, a_second: int, seconds: int) -> None:
    """Let so many requests begin here a second, which end at once: each replica sends as many."""
    for _ in range(10 * seconds):
        fleet.now += 0.1
        fleet.chosen(a_second // 10)
        belief.tick(fleet.now)
        belief.take(Report("lb-2", {}), fleet.now)


def test_news_counts_half_where_the_others_send_so_many_requests_before_the_next(fleet: Fleet, belief: Belief) -> None:
    belief.take(Report("lb-2", {"a:80": 1, "b:80": 10}, delay=HALVED / 200, whole=True), fleet.now)
    send(fleet, belief, 200, 1)
    assert fleet["a"].elsewhere.requests == pytest.approx(0.5, abs=0.03)
    assert fleet["b"].elsewhere.requests == pytest.approx(9.1, abs=0.05), "of many, that is a smaller part"


def test_news_of_replicas_that_send_little_counts_nearly_whole(fleet: Fleet, belief: Belief) -> None:
    belief.take(Report("lb-2", {"a:80": 10}, delay=0.002, whole=True), fleet.now)
    send(fleet, belief, 10, 5)
    assert fleet["a"].elsewhere.requests == pytest.approx(10.0, abs=0.6)


def test_the_work_that_others_report_fades_less_than_their_number() -> None:
    """Most of it is that of the longest requests, which are there still when many others have come and gone."""
    fleet = Fleet("least-work", "a b")
    belief = Belief(fleet.pool, "lb-1")
    belief.take(Report("lb-2", {"a:80": 1}, delay=HALVED / 200, whole=True, work={"a:80": 1_000_000}), fleet.now)
    send(fleet, belief, 200, 5)
    assert fleet["a"].elsewhere.requests == pytest.approx(0.5, abs=0.03)
    assert fleet["a"].elsewhere.seconds == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("strategy", ["least-work", "least-connections"])
def test_where_a_replica_has_requests_itself_old_news_and_preferences_decide_no_tie(strategy: str) -> None:
    """When its own were sent says more: all replicas together chose by what they had heard."""
    fleet = Fleet(strategy, "a b c d")
    belief = Belief(fleet.pool, "lb-1")
    send(fleet, belief, 1000, 1)

    def sent() -> list[str]:
        found = []
        for _ in range(4):
            fleet.now += 0.001
            lease = fleet.lease()
            lease.sent(fleet.now)
            found.append(lease.endpoint.address)
        return found

    first = sent()
    in_flight = {address: place for place, address in enumerate(first)}  # most where the last was sent
    belief.take(Report("lb-2", in_flight, delay=0.1, whole=True), fleet.now)
    assert 0.0 < fleet[first[-1][0]].elsewhere.requests < 1.0
    assert sent() == first[::-1]


def test_connections_that_last_are_believed_however_many_there_are(fleet: Fleet, belief: Belief) -> None:
    """300 WebSockets counted as 5 where a request takes 5 ms: they looked like requests that have ended long ago."""
    belief.take(Report("lb-2", {"a:80": 300}, delay=0.02, whole=True), fleet.now)
    send(fleet, belief, 20, 5)
    assert fleet["a"].elsewhere.requests > 200


def test_what_news_is_worth_changes_between_whole_reports_too(fleet: Fleet, belief: Belief) -> None:
    belief.take(Report("lb-2", {"a:80": 10}, delay=0.1, whole=True), fleet.now)
    send(fleet, belief, 10, 2)
    before = fleet["a"].elsewhere.requests
    send(fleet, belief, 1000, 1)
    assert fleet["a"].elsewhere.requests < before / 5
    send(fleet, belief, 10, 4)
    assert fleet["a"].elsewhere.requests > before / 2


@pytest.mark.parametrize("strategy", ["least-work", "least-connections"])
def test_what_lasts_elsewhere_is_no_work_that_waits(strategy: str) -> None:
    """Other replicas' WebSockets kept least-work from an endpoint as requests that wait there would."""
    fleet = Fleet(strategy, "a b")
    belief = Belief(fleet.pool, "lb-1")
    belief.take(Report("lb-2", {"a:80": 32, "b:80": 2}, whole=True, lasting={"a:80": 30}), fleet.now)
    assert fleet["a"].elsewhere.requests - fleet["b"].elsewhere.requests == pytest.approx(
        0.0 if strategy == "least-work" else 30.0, abs=0.3
    )
    belief.take(Report("lb-2", {"a:80": 30}), fleet.now)
    belief.take(Report("lb-2", {}, lasting={"a:80": 0}), fleet.now)
    assert fleet["a"].elsewhere.requests == pytest.approx(30.0)


@pytest.mark.parametrize("strategy", ["least-work", "least-connections"])
def test_connections_of_other_replicas_count_as_ones_own_in_tcp_mode(strategy: str) -> None:
    """All of them last, and under least-work what lasts elsewhere did not count: each replica divided its own alone."""
    fleet = Fleet(strategy, "a b", mode="tcp")
    belief = Belief(fleet.pool, "lb-1")
    others = {"a:80": 40, "b:80": 10}
    belief.take(Report("lb-2", others, whole=True, lasting=others), fleet.now)
    for _ in range(50):
        lease = fleet.lease(request=RequestInfo("192.0.2.1"))
        lease.sent(fleet.now)
        lease.first_byte(fleet.now)
    assert (fleet["a"].in_flight, fleet["b"].in_flight) == (10, 40)


def test_the_work_that_others_tell_is_counted_and_of_the_rest_the_number() -> None:
    fleet = Fleet("least-work", "a b")
    belief = Belief(fleet.pool, "lb-1")
    belief.take(Report("lb-2", {"a:80": 2, "b:80": 1}, whole=True, work={"a:80": 1_500_000}), fleet.now)
    belief.take(Report("lb-3", {"a:80": 3}, whole=True), fleet.now)
    a, b = fleet["a"].elsewhere, fleet["b"].elsewhere
    assert (a.requests, a.unknown_cost, a.seconds) == pytest.approx((5.0, 3.0, 1.5), rel=0.01)
    assert (b.requests, b.unknown_cost, b.seconds) == pytest.approx((1.0, 1.0, 0.0), rel=0.01)
    belief.take(Report("lb-2", {"a:80": 1}, work={"a:80": 0}), fleet.now)
    assert (a.requests, a.unknown_cost, a.seconds) == pytest.approx((4.0, 4.0, 0.0), rel=0.01)


def test_replicas_that_send_too_little_learn_together_how_much_endpoints_work_on_at_once() -> None:
    fleet = Fleet("least-work", "a b")
    belief, costs = Belief(fleet.pool, "lb-1"), fleet.pool.costs
    belief.take(Report("lb-2", bound=Bound(1.0, 3 * ONE_BY_ONE // 4)), fleet.now)
    assert not costs.bounded
    for number in range(ONE_BY_ONE // 4):
        assert not costs.bounded, number
        costs.bound(1, 2)
        belief.take(Report("lb-3", bound=Bound(1.0, 0)), fleet.now)
    assert costs.bounded
    assert costs.workers == 1.0


def test_one_replica_that_has_seen_more_at_once_is_believed() -> None:
    fleet = Fleet("least-work", "a b")
    belief, costs = Belief(fleet.pool, "lb-1"), fleet.pool.costs
    belief.take(Report("lb-2", bound=Bound(1.0, 3 * ONE_BY_ONE // 4)), fleet.now)
    belief.take(Report("lb-3", bound=Bound(4.0, 3 * ONE_BY_ONE // 4)), fleet.now)
    assert (costs.bounded, costs.workers) == (False, 4.0)
    belief.take(Report("lb-3", bound=Bound(4.0, ONE_BY_ONE)), fleet.now)
    assert (costs.bounded, costs.workers) == (True, 4.0)


def test_what_was_found_to_be_no_work_is_not_learned_again_from_replicas_that_counted_it() -> None:
    """Long polls had made endpoints look as if they worked on 33 at once; each replica had that back from another."""
    fleet = Fleet("least-work", "a b")
    belief, costs = Belief(fleet.pool, "lb-1"), fleet.pool.costs
    belief.take(Report("lb-2", bound=Bound(33.0, 500)), fleet.now)
    assert (costs.bounded, costs.workers) == (True, 33.0)
    costs.begin_again()
    belief.take(Report("lb-2", bound=Bound(33.0, 500)), fleet.now)
    assert (costs.bounded, costs.workers) == (False, 1.0)


def test_a_replica_that_saw_an_odd_answer_believes_those_that_are_certain() -> None:
    fleet = Fleet("least-work", "a b")
    belief, costs = Belief(fleet.pool, "lb-1"), fleet.pool.costs
    costs.bound(9, 20)
    belief.take(Report("lb-2", bound=Bound(4.2, 500)), fleet.now)
    assert (costs.bounded, costs.workers) == (True, 4.2)


def test_a_replica_that_took_the_bound_over_passes_it_on() -> None:
    fleet, other = Fleet("least-work", "a b"), Fleet("least-work", "a b")
    Belief(fleet.pool, "lb-1").take(Report("lb-2", bound=Bound(4.0, 500)), fleet.now)
    Belief(other.pool, "lb-3").take(Report("lb-1", bound=fleet.pool.bound), other.now)
    assert other.pool.costs.bounded


def test_a_strategy_that_follows_no_work_asks_for_no_bound(fleet: Fleet, belief: Belief) -> None:
    belief.take(Report("lb-2", bound=Bound(4.0, ONE_BY_ONE)), fleet.now)
    assert fleet.pool.bound is None
    assert not fleet.pool.costs.bounded


def test_weights_decide_where_they_differ_whatever_other_replicas_there_are() -> None:
    """Each of two replicas sent all to the endpoint of its own part: one of weight 1 beside 9 got half."""
    shares = Counter[str]()
    for name in ("lb-1", "lb-2"):
        fleet = Fleet("least-work")
        fleet.add("a", weight=9.0)
        fleet.add("b")
        belief = Belief(fleet.pool, name)
        belief.take(Report("lb-2" if name == "lb-1" else "lb-1", {}, whole=True), fleet.now)
        shares.update(fleet.chosen(1000))
    assert shares["b"] == pytest.approx(200, abs=20)


def test_a_weight_that_changes_ends_what_was_preferred(fleet: Fleet, belief: Belief) -> None:
    belief.take(Report("lb-2", {}, whole=True), fleet.now)
    assert any(fleet[name].elsewhere.bias for name in "abcd")
    fleet.add("a", weight=3.0)
    for tenths in range(12):
        belief.tick(fleet.now + tenths / 10)
    assert not any(fleet[name].elsewhere.bias for name in "abcd")


def test_of_equally_idle_endpoints_two_replicas_prefer_different_ones(fleet: Fleet) -> None:
    other = Fleet("least-connections", "a b c d")
    one, two = Belief(fleet.pool, "lb-1"), Belief(other.pool, "lb-2")
    one.take(Report("lb-2", whole=True), fleet.now)
    two.take(Report("lb-1", whole=True), other.now)
    assert set(fleet.chosen(20)) == {"a", "c"}
    assert set(other.chosen(20)) == {"b", "d"}


def test_replicas_with_nothing_idle_in_their_own_parts_go_on_to_different_ones() -> None:
    fleets = [Fleet("least-connections", "a b c d e f") for _ in range(3)]
    names = ["lb-1", "lb-2", "lb-3"]
    for own, fleet in zip(names, fleets, strict=True):
        belief = Belief(fleet.pool, own)
        for other in names:
            if other != own:
                belief.take(Report(other, whole=True), fleet.now)
    for parts in (["ad", "be", "cf"], ["be", "cf", "ad"], ["cf", "ad", "be"]):  # Each keeps what it has chosen busy.
        chosen = [{fleet.lease().endpoint.spec.host, fleet.lease().endpoint.spec.host} for fleet in fleets]
        assert chosen == [set(part) for part in parts]


@pytest.mark.parametrize("replicas", [2, 3, 4, 5])
def test_replicas_that_are_more_than_the_endpoints_prefer_each_as_often(replicas: int) -> None:
    names = [f"lb-{number}" for number in range(replicas)]
    chosen: Counter[str] = Counter()
    for own in names:
        fleet = Fleet("least-connections", "a b")
        belief = Belief(fleet.pool, own)
        for other in names:
            if other != own:
                belief.take(Report(other, whole=True), fleet.now)
        chosen.update(fleet.chosen(20))
    assert chosen["a"] == chosen["b"]


def test_the_parts_follow_the_endpoints_that_come_and_go(fleet: Fleet, belief: Belief) -> None:
    belief.take(Report("lb-2", whole=True), fleet.now)
    fleet.remove("a")
    fleet.add("e")
    belief.tick(fleet.now)
    assert set(fleet.chosen(20)) == {"b", "d"}


def test_news_that_ended_or_faded_counts_no_more(fleet: Fleet, belief: Belief) -> None:
    belief.take(Report("lb-2", {"a:80": 4, "c:80": 2}, whole=True), fleet.now)
    belief.tick(fleet.now)
    belief.take(Report("lb-2", {"c:80": 0}), fleet.now)
    belief.tick(fleet.now + LATE + 20 * FIRST_DURATION)
    assert fleet["a"].elsewhere.requests == fleet["c"].elsewhere.requests == 0.0
    belief.forget("lb-2")
    belief.tick(fleet.now)
    assert all(endpoint.elsewhere.requests == 0.0 for endpoint in fleet.pool.endpoints)


def test_a_preferred_endpoint_that_is_busy_is_left_for_an_idle_one(fleet: Fleet, belief: Belief) -> None:
    belief.take(Report("lb-2", whole=True), fleet.now)
    busy = [fleet.lease().endpoint.spec.host for _ in range(4)]
    assert sorted(busy) == ["a", "b", "c", "d"]


def test_without_other_replicas_nothing_is_preferred(fleet: Fleet, belief: Belief) -> None:
    belief.tick(fleet.now)
    assert set(fleet.chosen(20)) == {"a", "b", "c", "d"}


def test_a_replica_that_left_is_forgotten(fleet: Fleet, belief: Belief) -> None:
    belief.take(Report("lb-2", {"a:80": 10}, whole=True), fleet.now)
    belief.forget("lb-2")
    assert [fleet[name].elsewhere.requests for name in "abcd"] == [0.0] * 4
    assert not list(belief.replicas)


def test_a_silent_replica_is_forgotten(fleet: Fleet, belief: Belief) -> None:
    belief.take(Report("lb-2", {"a:80": 10}, whole=True), fleet.now)
    belief.tick(fleet.now + SILENCE + 0.1)
    assert not list(belief.replicas)
    assert fleet["a"].elsewhere.requests == 0.0


def test_what_a_replica_had_in_flight_counts_no_more_soon_after_it_should_have_reported_however_long_requests_take(
    fleet: Fleet, belief: Belief
) -> None:
    belief.take(Report("lb-2", {"a:80": 300}, whole=True, next_within=BUSY), fleet.now)
    belief.take(Report("lb-2", {"a:80": 0}, next_within=REST), fleet.now + BUSY)
    fleet.now += 1.0
    belief.take(Report("lb-2", {"a:80": 301}), fleet.now)
    belief.tick(fleet.now + BUSY + CUT_OFF)
    assert fleet["a"].elsewhere.requests > 0.0, "it rests no more, and is due as soon as it ever was"
    belief.tick(fleet.now + BUSY + CUT_OFF + 0.1)
    assert fleet["a"].elsewhere.requests == 0.0
    assert [dict(replica.believed) for replica in belief.replicas] == [{}]
    belief.take(Report("lb-2", {"c:80": 1}), fleet.now + 1.0)
    assert fleet["a"].elsewhere.requests == pytest.approx(301.0), "it was away for a moment"


def test_a_replica_that_reports_once_a_second_is_believed_between(fleet: Fleet, belief: Belief) -> None:
    belief.take(Report("lb-2", {"a:80": 10}, whole=True), fleet.now)
    belief.tick(fleet.now + 1.2)
    assert fleet["a"].elsewhere.requests == pytest.approx(10.0)


def test_a_report_names_only_what_changed(fleet: Fleet, belief: Belief) -> None:
    belief.take(Report("lb-2", {"a:80": 4, "c:80": 2}, whole=True), fleet.now)
    belief.take(Report("lb-2", {"a:80": 0}), fleet.now)
    assert (fleet["a"].elsewhere.requests, fleet["c"].elsewhere.requests) == (0.0, 2.0)
    belief.take(Report("lb-2", {"a:80": 1}, whole=True), fleet.now)
    assert (fleet["a"].elsewhere.requests, fleet["c"].elsewhere.requests) == (1.0, 0.0)


def test_an_endpoint_that_is_not_known_yet_counts_once_it_is(fleet: Fleet, belief: Belief) -> None:
    belief.take(Report("lb-2", {"e:80": 4}, whole=True), fleet.now)
    fleet.add("e")
    belief.tick(fleet.now)
    assert fleet["e"].elsewhere.requests >= 4.0


def test_the_duration_of_a_request_is_measured(fleet: Fleet, belief: Belief) -> None:
    belief.tick(fleet.now)
    for _ in range(200):  # One begins and one ends every 10 ms, four at a time: 40 ms each.
        leases = [fleet.lease() for _ in range(4)]
        fleet.now += 0.04
        belief.tick(fleet.now)
        for lease in leases:
            lease.close(Outcome.answered(200), fleet.now)
    assert belief.duration == pytest.approx(0.04, rel=0.05)


def test_an_endpoint_that_most_replicas_have_ejected_is_ejected_here_too(fleet: Fleet, belief: Belief) -> None:
    for number in (2, 3):
        belief.take(Report(f"lb-{number}", ejected=frozenset({"a:80"}), whole=True), fleet.now)
    belief.tick(fleet.now)
    assert ("a", "ejected") in fleet.events
    assert "a" not in fleet.chosen(20)


def test_an_endpoint_that_one_replica_cannot_reach_stays_in_for_the_others(fleet: Fleet, belief: Belief) -> None:
    belief.take(Report("lb-2", ejected=frozenset({"a:80"}), whole=True), fleet.now)
    belief.take(Report("lb-3", whole=True), fleet.now)
    belief.tick(fleet.now)
    assert ("a", "ejected") not in fleet.events


def test_of_two_replicas_neither_outvotes_the_other(fleet: Fleet, belief: Belief) -> None:
    belief.take(Report("lb-2", ejected=frozenset({"a:80"}), whole=True), fleet.now)
    belief.tick(fleet.now)
    assert ("a", "ejected") not in fleet.events


def test_one_that_returned_gets_its_chance_whatever_the_others_still_say(fleet: Fleet, belief: Belief) -> None:
    for number in (2, 3):
        belief.take(Report(f"lb-{number}", ejected=frozenset({"a:80"}), whole=True), fleet.now)
    belief.tick(fleet.now)
    fleet.wait(10.1)
    assert fleet.events.count(("a", "returned")) == 1
    for number in (2, 3):
        belief.take(Report(f"lb-{number}", ejected=frozenset({"a:80"}), whole=True), fleet.now)
    belief.tick(fleet.now)
    assert fleet.events.count(("a", "ejected")) == 1


def test_one_that_names_ever_other_endpoints_takes_no_more_memory_and_those_known_are_still_counted() -> None:
    replica = Replica("lb-2")
    for begin in range(0, 2 * MOST_ADDRESSES, 10_000):
        replica.hear(Report("lb-2", {f"a:{port}": 1 for port in range(begin, begin + 10_000)}), 0.0)
    assert len(replica.in_flight) == MOST_ADDRESSES
    replica.hear(Report("lb-2", {"a:0": 7, "a:1": 0, "b:1": 2}), 0.0)
    assert [replica.in_flight.get(address) for address in ("a:0", "a:1", "b:1")] == [7, None, 2]
    replica.hear(Report("lb-2", {"b:1": 1}, whole=True), 0.0)
    assert replica.in_flight == {"b:1": 1}


def test_what_is_too_long_for_an_address_is_not_kept() -> None:
    replica = Replica("lb-2")
    replica.hear(Report("lb-2", {"a" * LONGEST_ADDRESS: 1, "b" * (LONGEST_ADDRESS + 1): 1}), 0.0)
    assert list(replica.in_flight) == ["a" * LONGEST_ADDRESS]
