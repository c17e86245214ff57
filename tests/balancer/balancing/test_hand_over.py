"""What one pool has learned, another takes over: what it knows less of, in its own scale, and no more than that."""

from __future__ import annotations

from math import isfinite, log

import pytest
from tests.balancer.balancing.world import Fleet

from balancer.balancing.cost import MAX_KINDS, RequestKind
from balancer.balancing.costs import CostsLearned
from balancer.balancing.hand_over import (
    HELD,
    LONGEST_NAME,
    MOST_KINDS,
    MOST_REQUESTS,
    PIECE,
    EndpointLearned,
    KindLearned,
    Learned,
)
from balancer.balancing.outcome import Outcome
from balancer.balancing.pace import MOST_SAMPLES
from balancer.balancing.request import RequestInfo

OK = Outcome.answered(200)
PACES = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 8.0}


def get(path: str) -> RequestInfo:
    return RequestInfo("192.0.2.1", "GET", path)


def fleet(names: str = "a b c d", strategy: str = "least-work", **policy: object) -> Fleet:
    return Fleet(strategy, names, **policy)


def ask(at: Fleet, name: str, path: str, took: float, times: int = 1) -> None:
    """Let requests take so long at the endpoint of that name."""
    for _ in range(times):
        lease = at.pool.lease_at(at[name], get(path), at.now)
        assert lease is not None
        lease.sent(at.now)
        at.now += took
        lease.first_byte(at.now)
        lease.close(OK, at.now)


def teach(at: Fleet, times: int = 60) -> Fleet:
    """`/cheap` takes 10 ms and `/dear` 1 s, at d eight times as long."""
    for _ in range(times):
        for name in at.specs:
            for path, took in (("/cheap", 0.01), ("/dear", 1.0)):
                ask(at, name, path, took * PACES[name])
    return at


def hand_over(giver: Fleet, taker: Fleet) -> tuple[int, int]:
    """Endpoints and kinds of which the taker knows more."""
    taken = [taker.pool.take_over(piece, taker.now) for piece in giver.pool.learned(giver.now)]
    return sum(endpoints for endpoints, _ in taken), sum(kinds for _, kinds in taken)


def kind(at: Fleet, path: str) -> RequestKind:
    return at.pool._costs.kinds.of(get(path))


def seconds(at: Fleet, name: str, path: str) -> float:
    """What a request is expected to take at an endpoint."""
    return kind(at, path).expected * at[name].work.pace.factor


def test_a_newcomer_expects_what_the_other_does_and_leaves_the_slow_endpoint_alone() -> None:
    giver, taker = teach(fleet()), fleet()
    assert hand_over(giver, taker) == (4, 2)
    for name in PACES:
        for path in ("/cheap", "/dear"):
            assert seconds(taker, name, path) == pytest.approx(seconds(giver, name, path), rel=0.01)
    assert set(taker.chosen(20)) == {"a", "b", "c"}
    assert "d" in fleet().chosen(4)


def test_what_an_endpoint_works_on_at_once_is_handed_over_once_it_is_known() -> None:
    giver, taker = teach(fleet()), fleet()
    hand_over(giver, taker)
    assert not taker.pool._costs.bounded
    for _ in range(30):
        leases = [giver.pool.lease_at(giver["a"], get("/cheap"), giver.now) for _ in range(3)]
        for lease in leases:
            assert lease is not None
            lease.sent(giver.now)
        for lease in leases:
            assert lease is not None
            giver.now += 0.01
            lease.first_byte(giver.now)
            lease.close(OK, giver.now)
    later = fleet()
    hand_over(giver, later)
    assert later.pool._costs.bounded
    assert later["a"].work.concurrency.servers == 1


def test_the_scale_is_the_takers_own_where_its_endpoints_are_others() -> None:
    giver, taker = teach(fleet()), fleet("a b")
    assert hand_over(giver, taker) == (2, 2)
    assert seconds(taker, "a", "/dear") == pytest.approx(1.0, rel=0.01)
    assert kind(taker, "/dear").mean == pytest.approx(1.0, rel=0.02)
    assert kind(giver, "/dear").mean > 1.5  # A typical one is slower where d is among them.


def test_paces_on_another_scale_are_compared_by_the_endpoints_that_both_know() -> None:
    giver, taker = teach(fleet()), fleet()
    for name in "abc":
        ask(taker, name, "/other", 0.5, 12)
    for name in "abc":
        taker[name].work.pace.logarithm += 3.0
        taker.pool._costs.shift(3.0)
    own = taker["a"].work.pace.logarithm
    hand_over(giver, taker)
    assert taker["a"].work.pace.logarithm == pytest.approx(own, abs=0.05)
    assert taker["d"].work.pace.logarithm - own == pytest.approx(log(8.0), abs=0.1)
    assert seconds(taker, "d", "/dear") == pytest.approx(8.0, rel=0.1)


def test_the_pieces_of_several_on_other_scales_may_come_in_turn() -> None:
    taker = fleet()
    for name, scale in (("one", 0.0), ("other", 1.0)):
        taker.pool.take_over(Learned("", scale, CostsLearned(0.0, 0.0, 1.0, 1.0, 50, False)), taker.now, name)
    for piece in ("ab", "cd"):
        for name, scale in (("one", 0.0), ("other", 1.0)):
            paces = tuple(EndpointLearned(f"{each}:80", scale, MOST_SAMPLES, 0.0, 1.0) for each in piece)
            taker.pool.take_over(Learned("", scale, endpoints=paces), taker.now, name)
    assert [taker[name].work.pace.factor for name in "abcd"] == pytest.approx([1.0] * 4)


def test_own_knowledge_stays_and_soon_outweighs_what_was_taken_over() -> None:
    giver, taker = teach(fleet()), fleet()
    for name in "abc":
        ask(taker, name, "/cheap", 0.04, 20)
    before = kind(taker, "/cheap").mean
    hand_over(giver, taker)
    assert kind(taker, "/cheap").mean == before
    assert kind(taker, "/dear").count == MOST_REQUESTS
    assert taker["d"].work.pace.samples <= MOST_SAMPLES
    for name in "abc" * 40:
        ask(taker, name, "/dear", 3.0)
    assert kind(taker, "/dear").mean * taker["a"].work.pace.factor == pytest.approx(3.0, rel=0.25)


def test_twice_is_as_once() -> None:
    giver, taker = teach(fleet()), fleet()
    hand_over(giver, taker)
    assert hand_over(giver, taker) == (0, 0)
    assert hand_over(taker, giver) == (0, 0)


def test_endpoints_that_join_later_have_their_pace_and_those_that_come_too_late_have_none() -> None:
    giver, taker = teach(fleet()), fleet("")
    hand_over(giver, taker)
    taker.add(*"abd")
    assert set(taker.chosen(20)) == {"a", "b"}
    assert seconds(taker, "d", "/cheap") == pytest.approx(seconds(giver, "d", "/cheap"), rel=0.5)
    taker.now += HELD + 1.0
    taker.add("c")
    assert taker["c"].work.pace.samples == 0
    assert not taker.pool._taken_over._held


def test_kinds_by_another_key_are_passed_over_and_paces_are_not() -> None:
    giver, taker = teach(fleet()), fleet(cost_key="path:/(.*)")
    assert hand_over(giver, taker) == (4, 0)
    assert len(taker.pool._costs.kinds) == 0
    assert taker.pool._costs.mean == 0.0


def test_lengthy_requests_are_known_as_such() -> None:
    giver, taker = teach(fleet()), fleet()
    kind(giver, "/cheap").lengthy = True
    hand_over(giver, taker)
    assert kind(taker, "/cheap").lengthy
    assert not kind(taker, "/dear").lengthy


def test_nothing_is_handed_over_by_one_that_knows_little_or_whose_strategy_learns_nothing() -> None:
    giver = fleet()
    ask(giver, "a", "/cheap", 0.01, 10)
    assert not giver.pool.has_learned
    assert not list(giver.pool.learned(giver.now))
    plain = teach(fleet(strategy="least-connections"))
    assert not plain.pool.has_learned
    assert not list(plain.pool.learned(plain.now))


def test_one_whose_strategy_learns_nothing_keeps_it_for_the_next_that_does() -> None:
    giver, taker = teach(fleet()), fleet(strategy="round-robin")
    hand_over(giver, taker)
    from balancer.balancing.strategies import load

    taker.pool.use(load("least-work", taker.random), "least-work", taker.now)
    assert seconds(taker, "d", "/cheap") == pytest.approx(seconds(giver, "d", "/cheap"), rel=0.01)


def test_the_most_frequent_kinds_are_handed_over_in_pieces_without_names_that_are_too_long() -> None:
    giver, taker = fleet(cost_key="path:/(.*)"), fleet(cost_key="path:/(.*)")
    for number in range(MAX_KINDS - 10):
        ask(giver, "a", f"/{number}", 0.01, 2 if number < 100 else 1)
    ask(giver, "a", "/" + "x" * (LONGEST_NAME + 1), 0.01, 5)
    pieces = list(giver.pool.learned(giver.now))
    assert all(len(piece.kinds) <= PIECE and len(piece.endpoints) <= PIECE for piece in pieces)
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    hand_over(giver, taker)
    names = {name for name, _ in taker.pool._costs.kinds.by_traffic()}
    assert {str(number) for number in range(100)} <= names
    assert len(names) == MOST_KINDS - 1


def test_a_taker_with_many_kinds_forgets_none_for_others() -> None:
    giver, taker = fleet(cost_key="path:/(.*)"), fleet(cost_key="path:/(.*)")
    for number in range(200):
        ask(giver, "a", f"/{number}", 0.01)
    for number in range(MAX_KINDS - 20):
        ask(taker, "a", f"/own-{number}", 0.01)
    hand_over(giver, taker)
    names = {name for name, _ in taker.pool._costs.kinds.by_traffic()}
    assert len(names) <= MAX_KINDS
    assert {f"own-{number}" for number in range(MAX_KINDS - 20)} <= names


@pytest.mark.parametrize("pace", [-50.0, 50.0])
@pytest.mark.parametrize("cost", [1e-9, 1e9])
def test_the_farthest_figures_that_are_read_leave_a_pool_that_chooses(pace: float, cost: float) -> None:
    taker = fleet()
    known = KindLearned("GET /x", "", cost, cost, 1 << 52)
    taker.pool.take_over(Learned("", -pace, CostsLearned(1024.0, pace, cost, cost, 1 << 52, True)), taker.now)
    paces = tuple(EndpointLearned(f"{name}:80", pace, 1 << 52, 1024.0, 1e9) for name in "ab")
    taker.pool.take_over(Learned("", -pace, endpoints=paces), taker.now)
    taker.pool.take_over(Learned("", -pace, kinds=(known,), all=known, last=True), taker.now)
    assert isfinite(taker.pool._costs.typical)
    assert isfinite(kind(taker, "/x").square)
    for name in "abcd":
        ask(taker, name, "/x", 0.01, 5)
    assert len(taker.chosen(20)) == 20
    assert all(isfinite(seconds(taker, name, "/x")) for name in "abcd")
