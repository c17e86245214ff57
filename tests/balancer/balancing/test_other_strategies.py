"""What n-to-one, least-connections, random-of-two and consistent-hash promise, each in its own words."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as draw
from tests.balancer.balancing.world import Fleet, Simulation

from balancer.balancing.endpoint import EndpointSpec
from balancer.balancing.kit import check_strategy
from balancer.balancing.outcome import Outcome
from balancer.balancing.pool import Policy, Pool
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies import load
from balancer.balancing.strategies.consistent_hash import FACTOR, ConsistentHash

OK = Outcome.answered(200)


class TestNToOne:
    def test_all_go_to_the_first_configured_and_fail_over_and_back(self) -> None:
        fleet = Fleet("n-to-one", names="z b a")
        assert fleet.share() == {"z": 1.0}
        fleet.pool.set_health(fleet["z"], False, fleet.now)
        assert fleet.share() == {"b": 1.0}
        fleet.pool.set_health(fleet["z"], True, fleet.now)
        assert fleet.share() == {"z": 1.0}

    def test_a_retry_goes_to_the_next(self) -> None:
        fleet = Fleet("n-to-one", names="a b c")
        assert fleet.lease("a").endpoint.spec.host == "b"
        assert fleet.lease("a", "b").endpoint.spec.host == "c"

    def test_pods_are_preferred_by_name_whatever_order_they_are_discovered_in(self) -> None:
        fleet = Fleet("n-to-one")
        for name in "cab":
            fleet.add(name, name=f"pod-{name}")
        assert fleet.share() == {"a": 1.0}
        fleet.remove("a")
        assert fleet.share() == {"b": 1.0}
        fleet.add("a", name="pod-a")
        assert fleet.share() == {"a": 1.0}

    def test_a_new_order_takes_effect(self) -> None:
        fleet = Fleet("n-to-one", names="a b")
        fleet.pool.replace([EndpointSpec("b", 80), EndpointSpec("a", 80)], fleet.now)
        assert fleet.share() == {"b": 1.0}


class TestLeastConnections:
    def test_takes_the_fewest_in_flight_from_the_moment_of_selection(self) -> None:
        fleet = Fleet("least-connections", names="a b c")
        leases = [fleet.lease() for _ in range(9)]
        assert Counter(lease.endpoint.spec.host for lease in leases) == {"a": 3, "b": 3, "c": 3}
        for lease in leases[:6]:
            if lease.endpoint.spec.host == "b":
                lease.close(OK, fleet.now)
        assert [fleet.lease().endpoint.spec.host for _ in range(2)] == ["b", "b"]

    def test_by_weight(self) -> None:
        fleet = Fleet("least-connections", names="a")
        fleet.add("b", weight=3)
        assert Counter(fleet.lease().endpoint.spec.host for _ in range(40)) == {"a": 10, "b": 30}

    def test_ties_take_turns(self) -> None:
        fleet = Fleet("least-connections", names="a b c d")
        assert fleet.chosen(12) == list("abcd" * 3)


class Scripted:
    """A random source with prepared answers."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = list(numbers)

    def random(self) -> float:
        return self.numbers.pop(0)

    def randrange(self, stop: int, /) -> int:
        return int(self.random() * stop)


class TestRandomOfTwo:
    @given(draw.lists(draw.integers(0, 5), min_size=2, max_size=6), draw.floats(0, 0.999), draw.floats(0, 0.999))
    def test_takes_the_less_loaded_of_the_two_drawn(self, loads: list[int], one: float, other: float) -> None:
        strategy_random = Scripted()
        pool = Pool(load("random-of-two", strategy_random), "random-of-two", Policy(), strategy_random)
        pool.replace([EndpointSpec(f"e{i}", 80) for i in range(len(loads))], 0.0)
        endpoints = list(pool.endpoints)
        for endpoint, in_flight in zip(endpoints, loads, strict=True):
            endpoint.in_flight = in_flight
        first = int(one * len(loads))
        rest = [i for i in range(len(loads)) if i != first]
        second = rest[int(other * len(rest))]
        strategy_random.numbers = [one, other]
        chosen = pool.lease(RequestInfo(), 0.0).endpoint
        assert chosen in (endpoints[first], endpoints[second])
        assert chosen.in_flight - 1 == min(loads[first], loads[second])

    def test_draws_uniformly(self) -> None:
        fleet = Fleet("random-of-two", names="a b c d e")
        for share in fleet.share(20_000).values():
            assert share == pytest.approx(0.2, abs=0.015)

    def test_draws_uniformly_among_those_not_tried_and_after_changes(self) -> None:
        fleet = Fleet("random-of-two", names="a b c d e f")
        fleet.remove("b")
        got: Counter[str] = Counter()
        for _ in range(12_000):
            lease = fleet.lease("d", "f")
            got[lease.endpoint.spec.host] += 1
            lease.close(OK, fleet.now)
        assert set(got) == {"a", "c", "e"}
        assert all(count == pytest.approx(4000, rel=0.06) for count in got.values())

    def test_spreads_load_far_better_than_one_draw_would(self) -> None:
        fleet = Fleet("random-of-two", names=" ".join(f"e{i}" for i in range(100)))
        for _ in range(1000):
            fleet.lease()
        assert max(endpoint.in_flight for endpoint in fleet.pool.endpoints) <= 13  # one draw: about 20


class TestConsistentHash:
    def keys(self, fleet: Fleet, count: int = 2000) -> dict[str, str]:
        placed = {}
        for i in range(count):
            lease = fleet.lease(request=RequestInfo(client=f"client-{i}"))
            placed[f"client-{i}"] = lease.endpoint.spec.host
            lease.close(OK, fleet.now)
        return placed

    def test_the_same_key_goes_to_the_same_endpoint(self) -> None:
        fleet = Fleet("consistent-hash", names=" ".join(f"e{i}" for i in range(10)))
        assert self.keys(fleet) == self.keys(fleet)

    @pytest.mark.parametrize("size", [2, 5, 20])
    def test_losing_one_of_n_moves_its_keys_only(self, size: int) -> None:
        fleet = Fleet("consistent-hash", names=" ".join(f"e{i}" for i in range(size)))
        before = self.keys(fleet)
        fleet.remove("e0")
        after = self.keys(fleet)
        moved = [key for key in before if before[key] != after[key]]
        assert all(before[key] == "e0" for key in moved)
        assert len(moved) / len(before) < 2 / size
        fleet.add("e0")
        assert self.keys(fleet) == before

    def test_keys_are_spread_by_weight(self) -> None:
        fleet = Fleet("consistent-hash")
        for i in range(20):
            fleet.add(f"light{i}")
        for i in range(20):
            fleet.add(f"heavy{i}", weight=3)
        placed = Counter(self.keys(fleet, 8000).values())
        heavy = sum(count for name, count in placed.items() if name.startswith("heavy")) / 8000
        assert heavy == pytest.approx(0.75, abs=0.04)

    def test_another_weight_moves_no_more_keys_than_it_must(self) -> None:
        fleet = Fleet("consistent-hash", names=" ".join(f"e{i}" for i in range(10)))
        before = self.keys(fleet)
        fleet.add("e0", weight=2)
        after = self.keys(fleet)
        assert all(after[key] == "e0" for key in before if before[key] != after[key])

    @given(draw.integers(2, 12), draw.integers(1, 120))
    def test_bounded_load_holds_even_when_all_ask_for_the_same(self, size: int, requests: int) -> None:
        fleet = Fleet("consistent-hash", names=" ".join(f"e{i}" for i in range(size)))
        for number in range(requests):
            lease = fleet.lease()
            assert lease.endpoint.in_flight < FACTOR * (number + 1) / size + 1

    @pytest.mark.parametrize(
        ("hash_key", "same", "other"),
        [
            ("client-ip", RequestInfo("10.1.1.1", path="/x"), RequestInfo("10.1.1.2", path="/x")),
            ("path", RequestInfo("10.1.1.1", path="/x"), RequestInfo("10.1.1.1", path="/y")),
            (
                "header:X-User",
                RequestInfo("10.1.1.1", headers=[(b"x-USER", b"ann")]),
                RequestInfo("10.1.1.1", headers=[(b"x-user", b"bob")]),
            ),
            (
                "cookie:session",
                RequestInfo("10.1.1.1", headers=[(b"Cookie", b"a=1; session=ann")]),
                RequestInfo("10.1.1.1", headers=[(b"Cookie", b"a=1; session=bob")]),
            ),
            ("header:X-User", RequestInfo("10.1.1.1"), RequestInfo("10.1.1.2")),
        ],
    )
    def test_hashes_what_it_is_told_to(self, hash_key: str, same: RequestInfo, other: RequestInfo) -> None:
        fleet = Fleet(names=" ".join(f"e{i}" for i in range(300)))
        fleet.pool.use(load("consistent-hash", fleet.random, hash_key), "consistent-hash", fleet.now)
        places = set()
        for request in (same, same, other):
            lease = fleet.lease(request=request)
            places.add(lease.endpoint)
            lease.close(OK, fleet.now)
        assert len(places) == 2

    @pytest.mark.parametrize("hash_key", ["", "ip", "header", "header:", "cookie:", "client-ip:x"])
    def test_an_unknown_key_is_refused_with_what_is_allowed(self, hash_key: str) -> None:
        with pytest.raises(ValueError, match="header:NAME"):
            load("consistent-hash", Fleet().random, hash_key)

    def test_places_are_the_same_in_every_process(self) -> None:
        fleet = Fleet("consistent-hash", names="10.0.0.1 10.0.0.2 10.0.0.3")
        placed = [name.removeprefix("10.0.0.") for name in self.keys(fleet, 8).values()]
        assert placed == ["3", "2", "1", "2", "3", "2", "3", "2"]

    @pytest.mark.parametrize("hash_key", ["path", "header:x"])
    def test_keeps_its_promises_by_any_key(self, hash_key: str) -> None:
        check_strategy(lambda random: ConsistentHash(random, hash_key), examples=40)

    def test_many_that_come_and_go_leave_nothing_behind(self) -> None:
        fleet = Fleet("consistent-hash", names="a b c")
        before = self.keys(fleet, 200)
        for i in range(300):
            fleet.add(f"passing{i}")
            fleet.lease(request=RequestInfo(str(i))).close(OK, fleet.now)
            fleet.remove(f"passing{i}")
        assert self.keys(fleet, 200) == before


@pytest.mark.parametrize("strategy", ["least-connections", "random-of-two"])
def test_a_slow_endpoint_is_spared_by_whoever_looks_at_load(strategy: str) -> None:
    world = Simulation(strategy, rate=60.0, eject_after=0)
    world.add("a", "b", "c", seconds=0.05, workers=2)
    world.add("slow", seconds=0.5, workers=2)
    world.run(20)
    assert world.run(60).share_of("slow") < 0.15
