"""Whatever is asked of the fleet, by whom and in whatever order it is heard: all replicas come to want the same."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.balancer.balancing.world import Fleet

from balancer.peers import intent as intents
from balancer.peers.fleet import FleetIntent
from balancer.peers.intent import Intent, Wish, as_json, read

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The first example takes seconds on a busy machine."""
TIMES = st.sampled_from([0.0, 1.0, 2.0, 1e11]) | st.floats(0, 1e11)
DRAINS = st.builds(Wish, TIMES, st.just(True), st.sampled_from(["", "old pod", "new"]))
WISHES = st.dictionaries(
    st.sampled_from([f"{name}:80" for name in "abcdef"]), DRAINS | st.builds(Wish, TIMES, st.just(False), st.just(""))
)
INTENTS = st.builds(Intent, TIMES, st.sampled_from(["", "round-robin", "least-work"]), WISHES)


@pytest.fixture(scope="module", params=[3, 5000])
def most(request: pytest.FixtureRequest) -> int:
    """Wishes that are kept."""
    return int(request.param)


class Replica:
    """One that knows of two endpoints, and whose clock a test moves."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.now = 100.0
        self.fleet = Fleet(names="a b")
        self.switched: list[str] = []
        self.knows = FleetIntent(self.fleet.pool, self.switched.append, lambda: self.now)

    def drain(self, name: str, drained: bool = True) -> None:
        """Somebody asks for it here, as of the admin port."""
        self.fleet.pool.drain(self.fleet[name], drained, 0.0)
        self.knows.drain(f"{name}:80", drained)

    def hear(self, other: Replica) -> None:
        """Take what the other says, as it comes over the wire."""
        self.knows.take(read(json.loads(json.dumps(as_json(other.knows.intent)))), other.name, 0.0)

    def drained(self) -> str:
        return "".join(name for name in "ab" if self.fleet[name].health.drained)


def tell_each_other(one: Replica, two: Replica) -> None:
    said, one_knew = two.knows.intent, one.knows.intent
    one.knows.take(said, two.name, 0.0)
    two.knows.take(one_knew, one.name, 0.0)


@pytest.fixture
def one() -> Replica:
    return Replica("one")


@pytest.fixture
def two() -> Replica:
    return Replica("two")


@patient
@given(a=INTENTS, b=INTENTS, c=INTENTS)
def test_replicas_agree_in_whatever_order_and_however_often_they_hear_of_it(
    most: int, a: Intent, b: Intent, c: Intent
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intents, "MOST", most)
        a, b, c = (Intent().merged(each) for each in (a, b, c))
        assert a.merged(b) == b.merged(a)
        assert a.merged(b).merged(c) == a.merged(b.merged(c))
        assert a.merged(a) == a
        assert a.merged(b).merged(b) == a.merged(b)


@patient
@given(INTENTS)
def test_an_intent_is_read_as_it_was_said(intent: Intent) -> None:
    assert read(json.loads(json.dumps(as_json(intent)))) == intent


def test_two_drains_at_once_at_different_replicas_both_count(one: Replica, two: Replica) -> None:
    one.drain("a")
    two.drain("b")
    tell_each_other(one, two)
    assert one.drained() == two.drained() == "ab"


def test_a_switch_and_a_drain_at_once_both_count(one: Replica, two: Replica) -> None:
    one.knows.strategy("least-connections")
    two.drain("b")
    tell_each_other(one, two)
    assert two.switched == ["least-connections"]
    assert one.drained() == two.drained() == "b"


def test_what_was_taken_back_while_another_was_cut_off_stays_so(one: Replica, two: Replica) -> None:
    one.drain("a")
    two.hear(one)
    two.now += 60
    two.drain("a", False)
    one.now += 30
    one.drain("b")
    tell_each_other(one, two)
    assert one.drained() == two.drained() == "b"


def test_a_drain_does_not_switch_a_replica_back_that_was_switched_alone(one: Replica, two: Replica) -> None:
    one.knows.strategy("least-connections")
    two.hear(one)
    one.drain("a")
    two.hear(one)
    assert (two.switched, two.drained()) == (["least-connections"], "a")


def test_nothing_new_changes_nothing(one: Replica, two: Replica) -> None:
    one.drain("a")
    two.hear(one)
    known = two.knows.intent
    two.hear(one)
    assert two.knows.intent is known


def test_a_pod_at_the_address_of_one_that_is_gone_is_not_meant_by_a_wish_of_before(one: Replica, two: Replica) -> None:
    """What forgets the gone pod counts for less than a wish that another replica has heard at the same time."""
    for each in (one, two):
        each.fleet.add("p", uid="old")
    one.drain("p")
    two.hear(one)
    for each in (one, two):
        each.fleet.remove("p")
        each.fleet.add("p", uid="new")
    two.drain("p")
    one.now += 1
    one.drain("a")
    tell_each_other(one, two)
    assert one.fleet["p"].health.drained
    assert two.fleet["p"].health.drained


def test_the_latest_wishes_are_kept() -> None:
    many = Intent(wishes={f"{number}:80": Wish(number, True) for number in range(6000)})
    kept = Intent().merged(many).addresses
    assert (len(kept), "999:80" in kept, "1000:80" in kept) == (5000, False, True)


def test_an_older_replica_is_understood_and_is_told_what_it_understands() -> None:
    old = {"at": 5.0, "strategy": "", "drained": ["a:80", "b:80 uid"]}
    assert read(old) == Intent(0.0, "", {"a:80": Wish(5.0, True), "b:80": Wish(5.0, True, "uid")})
    assert old.items() <= as_json(read(old)).items()
    assert read({"at": 5, "strategy": "least-work"}) == Intent(5.0, "least-work")


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        ({"at": -1}, "no time"),
        ({"strategy": 1}, "no strategy"),
        ({"drained": [1]}, "drained is no list of names"),
        ({"drained": ["a"], "since": []}, "since when"),
        ({"drained": ["a"], "since": ["b"]}, "no time"),
        ({"taken_back": []}, "since when"),
        ({"taken_back": {"a": True}}, "no time"),
        ({"switched": float("nan")}, "no time"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_fault(bad: dict[str, object], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        read({"at": 1.0, "strategy": ""} | bad)
