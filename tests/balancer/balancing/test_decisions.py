"""Every choice can be explained: who was there, what they scored, why others were out, who won and by what."""

from __future__ import annotations

import pytest
from tests.balancer.balancing.world import REQUEST, Fleet

from balancer.balancing.decision import Decision, DecisionLog
from balancer.balancing.endpoint import EndpointSpec
from balancer.balancing.errors import AllEjected, NoEndpoint
from balancer.balancing.events import EVENTS
from balancer.balancing.explain import DRAWN, NOT_KNOWN, SCORED
from balancer.balancing.outcome import REFUSED, Outcome
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies import STRATEGIES, load

OK = Outcome.answered(200)


def decision_of(fleet: Fleet, *tried: str) -> Decision:
    lease = fleet.pool.lease(REQUEST, fleet.now, [fleet[name] for name in tried], explain=True)
    lease.close(OK, fleet.now)
    assert lease.decision is not None
    assert lease.decision.chosen == lease.endpoint.address
    return lease.decision


def test_a_lease_tells_why_when_it_is_asked_to() -> None:
    fleet = Fleet("least-response-time", names="fast slow gone tried")
    fleet.measure(fast=0.1, slow=0.4, tried=0.2)
    fleet.end("gone", REFUSED, times=5)
    fleet.lease("slow", "tried")  # fast holds one
    decision = decision_of(fleet, "tried")
    assert decision.strategy == "least-response-time"
    assert (decision.client, decision.method, decision.path) == ("192.0.2.1", "GET", "/")
    assert decision.chosen == "fast:80"
    assert decision.by == "lowest score 0.2"
    told = {candidate.address: candidate for candidate in decision.candidates}
    assert list(told) == ["fast:80", "slow:80", "gone:80", "tried:80"]
    assert told["fast:80"].score == pytest.approx(0.2)
    assert told["fast:80"].in_flight == 1
    assert told["slow:80"].score == pytest.approx(0.4)
    assert told["slow:80"].latency == pytest.approx(0.4)
    assert told["gone:80"].ineligible_reason == "ejected for 10 s more"
    assert told["gone:80"].score is None
    assert told["tried:80"].ineligible_reason == "this request has tried it"


def test_what_least_work_expected_is_told_in_seconds() -> None:
    fleet = Fleet("least-work", names="a b")
    for _ in range(8):
        lease = fleet.pool.lease(REQUEST, fleet.now)
        lease.sent(fleet.now)
        fleet.now += 0.2
        lease.first_byte(fleet.now)
        lease.close(OK, fleet.now)
    decision = decision_of(fleet)
    assert decision.cost == pytest.approx(0.2)
    assert [candidate.wait for candidate in decision.candidates] == [0.0, 0.0]
    assert [candidate.pace for candidate in decision.candidates] == pytest.approx([1.0, 1.0])
    assert next(iter(fleet.pool.decisions)).cost == pytest.approx(0.2)


def test_a_strategy_that_follows_no_work_tells_no_cost() -> None:
    fleet = Fleet("least-work", names="a b")
    fleet.pool.use(load("least-connections", fleet.random), "least-connections", fleet.now)
    decision = decision_of(fleet)
    assert decision.cost is None
    assert {(candidate.wait, candidate.pace) for candidate in decision.candidates} == {(None, None)}


def test_not_asked_it_tells_nothing() -> None:
    assert Fleet(names="a").lease().decision is None


def test_what_the_others_would_have_chosen_is_told_where_it_can_be_known() -> None:
    fleet = Fleet("least-connections", names="a b c")
    fleet.measure(a=0.3, b=0.2, c=0.1)
    fleet.chosen(3)
    fleet.lease("b", "c")
    others = decision_of(fleet).others
    assert set(others) == set(STRATEGIES) - {"least-connections"}
    assert others["n-to-one"] == "a:80"
    assert others["round-robin"] == "b:80"
    assert others["least-response-time"] == "c:80"
    assert others["random-of-two"] == DRAWN
    assert others["consistent-hash"] in {"a:80", "b:80", "c:80"}
    fleet.add("c", weight=2)
    assert decision_of(fleet).others["round-robin"] == NOT_KNOWN


def test_consistent_hash_is_told_by_the_pools_hash_key() -> None:
    fleet = Fleet(names=" ".join(f"e{i}" for i in range(50)), hash_key="path")
    same = {fleet.pool.explain(RequestInfo(f"{i}", path="/x"), fleet.now).others["consistent-hash"] for i in range(20)}
    assert len(same) == 1


@pytest.mark.parametrize(
    ("strategy", "names", "by"),
    [
        ("round-robin", "a", "the only candidate"),
        ("least-connections", "a b", "tie, chosen longest ago"),
        ("n-to-one", "a b", "lowest score 0"),
    ],
)
def test_by_what_it_won(strategy: str, names: str, by: str) -> None:
    assert decision_of(Fleet(strategy, names=names)).by == by


@pytest.mark.parametrize(
    ("strategy", "why"),
    [("round-robin", "chosen longest ago"), ("least-connections", "its oldest request is the youngest")],
)
def test_a_tie_of_busy_endpoints_goes_by_the_turn_or_by_what_waits_there(strategy: str, why: str) -> None:
    fleet = Fleet(strategy, names="a b")
    for _ in "ab":
        fleet.lease().sent(fleet.now)
        fleet.now += 0.1
    assert decision_of(fleet).by == f"tie, {why}"


def test_a_draw_is_called_one() -> None:
    fleet = Fleet("random-of-two", names="a b c d")
    fleet.lease("a", "b", "c")
    fleet.lease("a", "b", "d")
    fleet.lease("a", "c", "d")
    told = {decision_of(fleet).by for _ in range(60)}
    assert "less loaded of two drawn at random, score 2" in told


@pytest.mark.parametrize("name", STRATEGIES)
def test_explaining_changes_nothing(name: str) -> None:
    fleet, twin = (Fleet(name, names="a b c d") for _ in range(2))
    fleet.measure(a=0.1, b=0.2)
    twin.measure(a=0.1, b=0.2)
    hosts = []
    for _ in range(30):
        fleet.pool.explain(REQUEST, fleet.now)
        hosts.append((fleet.lease().endpoint.spec.host, twin.lease().endpoint.spec.host))
        fleet.now += 0.003
        twin.now += 0.003
    assert all(one == other for one, other in hosts)


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - {"random-of-two"}))
def test_an_explanation_foretells_the_next_choice(name: str) -> None:
    fleet = Fleet(name, names="a b c d e")
    for i in range(40):
        request = RequestInfo(f"client-{i}")
        told = fleet.pool.explain(request, fleet.now).chosen
        assert fleet.lease(request=request).endpoint.address == told


def test_of_many_sixteen_are_shown_the_best_first_and_some_of_those_that_are_out() -> None:
    fleet = Fleet("least-connections", names=" ".join(f"e{i}" for i in range(40)))
    for i in range(30, 40):
        fleet.pool.drain(fleet[f"e{i}"], True, fleet.now)
    decision = decision_of(fleet)
    assert len(decision.candidates) == 16
    assert decision.candidates[0].address == decision.chosen
    assert [candidate.ineligible_reason for candidate in decision.candidates] == [None] * 12 + ["drained by hand"] * 4


def test_no_endpoint_is_a_decision_too() -> None:
    fleet = Fleet(names="a")
    fleet.pool.drain(fleet["a"], True, fleet.now)
    with pytest.raises(AllEjected):
        fleet.lease()
    (decision,) = fleet.pool.decisions
    assert decision.chosen is None
    assert decision.by == "all ejected"
    assert decision.candidates[0].ineligible_reason == "drained by hand"
    assert fleet.pool.explain(REQUEST, fleet.now).by == "all ejected"
    with pytest.raises(NoEndpoint):
        Fleet().lease()
    assert Fleet().pool.explain(REQUEST, 0.0).by == "no endpoints"


def test_at_most_a_hundred_a_second_are_recorded_newest_first() -> None:
    fleet = Fleet(names="a b")
    for _ in range(5000):
        fleet.chosen(1)
        fleet.now += 0.001
    recorded = list(fleet.pool.decisions)
    assert 400 <= len(recorded) <= 501
    assert recorded[0].at > recorded[-1].at


def test_the_last_thousand_are_kept() -> None:
    log = DecisionLog()
    fleet = Fleet(names="a")
    for i in range(1200):
        assert log.due(float(i))
        log.add(fleet.pool.explain(REQUEST, float(i)))
        assert not log.due(i + 0.005)
    assert len(log) == 1000
    assert next(iter(log)).at == 1199.0


def test_a_large_fleet_is_explained_by_a_part_of_it_and_less_often() -> None:
    fleet = Fleet("least-connections")
    fleet.pool.replace([EndpointSpec(f"e{i}", 80) for i in range(3 * SCORED)], fleet.now)
    for _ in range(1000):
        fleet.chosen(1)
        fleet.now += 0.001
    recorded = list(fleet.pool.decisions)
    assert 35 <= len(recorded) <= 50
    assert recorded[0].by.endswith(f"({SCORED} of {3 * SCORED} candidates looked at again)")
    assert recorded[0].candidates[0].address == recorded[0].chosen


def test_who_asks_is_told_of_all_of_it() -> None:
    fleet = Fleet("least-connections")
    fleet.pool.replace([EndpointSpec(f"e{i}", 80) for i in range(3 * SCORED)], fleet.now)
    assert "looked at again" not in decision_of(fleet).by
    assert "looked at again" not in fleet.pool.explain(REQUEST, fleet.now).by


def test_every_transition_has_a_name_in_the_list() -> None:
    fleet = Fleet(names="a b c", slow_start=5.0, prefer_zone="here")
    fleet.add("h", "i", zone="here")
    fleet.end("h", REFUSED, times=5)
    fleet.end("i", Outcome.answered(503, 1.0))
    for name in "abchi":
        fleet.pool.set_health(fleet[name], False, fleet.now)
    fleet.wait(20)
    for name in "abchi":
        fleet.pool.set_health(fleet[name], True, fleet.now)
        fleet.pool.drain(fleet[name], True, fleet.now)
        fleet.pool.drain(fleet[name], False, fleet.now)
    fleet.add("a", draining=True)
    fleet.remove("a")
    elsewhere = {"strategy", "strategy_failed"}  # of the strategy itself: a switch, and one of your own that raises
    assert {event for _, event in fleet.events} == set(EVENTS) - elsewhere
