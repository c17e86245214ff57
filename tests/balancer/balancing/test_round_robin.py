"""Round-robin: exact cycles, smooth weights, and nobody loses a turn."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

from hypothesis import given
from hypothesis import strategies as draw
from tests.balancer.balancing.world import Fleet


def longest_run(names: list[str], name: str) -> int:
    return max(len(list(group)) for key, group in groupby(names) if key == name)


@given(draw.integers(1, 12), draw.integers(1, 5))
def test_equal_weights_give_exact_cycles(size: int, cycles: int) -> None:
    fleet = Fleet(names=" ".join(f"e{i}" for i in range(size)))
    assert fleet.chosen(size * cycles) == [f"e{i}" for i in range(size)] * cycles


def test_five_to_one_to_one_never_gives_the_first_more_than_four_in_a_row() -> None:
    fleet = Fleet()
    fleet.add("a", weight=5)
    fleet.add("b", "c")
    names = fleet.chosen(700)
    assert Counter(names) == {"a": 500, "b": 100, "c": 100}
    assert longest_run(names, "a") <= 4


@given(draw.lists(draw.sampled_from([0.5, 1.0, 2.0, 3.0, 7.0]), min_size=1, max_size=8))
def test_any_stretch_gives_each_its_share_to_within_a_turn_or_so(weights: list[float]) -> None:
    fleet = Fleet()
    for i, weight in enumerate(weights):
        fleet.add(f"e{i}", weight=weight)
    names = fleet.chosen(200)
    for start in (0, 37, 120):
        stretch = Counter(names[start : start + 60])
        for i, weight in enumerate(weights):
            assert abs(stretch[f"e{i}"] - 60 * weight / sum(weights)) <= 2


@given(draw.lists(draw.tuples(draw.sampled_from(["lease", "lease", "lease", "add", "remove"]), draw.integers(0, 7))))
def test_a_membership_change_loses_nobodys_turn(steps: list[tuple[str, int]]) -> None:
    """Whoever stays is served again before any other that stays is served twice more."""
    fleet = Fleet(names="e0 e1 e2")
    since: dict[str, Counter[str]] = {name: Counter() for name in fleet.specs}
    for step, number in steps:
        name = f"e{number}"
        if step == "add" and name not in fleet.specs:
            fleet.add(name, uid=str(len(fleet.events)))  # a new one each time, not one that is remembered
            since[name] = Counter()
        elif step == "remove" and name in fleet.specs and len(fleet.specs) > 1:
            fleet.remove(name)
            del since[name]
            for others in since.values():
                del others[name]
        elif step == "lease":
            (served,) = fleet.chosen(1)
            since[served] = Counter()
            for waiting, others in since.items():
                if waiting != served:
                    others[served] += 1
                    assert others[served] <= 1, f"{served} was served twice while {waiting} waited"


def test_a_heavy_endpoint_among_many_light_ones_gets_no_burst() -> None:
    fleet = Fleet()
    fleet.add("heavy", weight=20)
    for i in range(20):
        fleet.add(f"light{i}")
    chosen = fleet.chosen(400)
    assert chosen.count("heavy") == 200
    assert longest_run(chosen, "heavy") == 1


def test_one_that_returns_goes_to_its_place_not_to_the_front_of_those_that_waited_longer() -> None:
    fleet = Fleet(names="a b c d")
    fleet.chosen(2)
    fleet.pool.drain(fleet["b"], True, fleet.now)
    fleet.pool.drain(fleet["b"], False, fleet.now)
    assert fleet.chosen(4) == ["c", "d", "a", "b"]


def test_one_that_a_retry_passes_over_keeps_its_turn() -> None:
    fleet = Fleet(names="a b c")
    assert fleet.lease("a").endpoint.spec.host == "b"
    assert fleet.chosen(4) == ["a", "c", "b", "a"]


def test_a_choice_among_many_classes_passes_over_the_tried_ones() -> None:
    fleet = Fleet()
    fleet.add("a", weight=9)
    fleet.add("b", weight=2)
    fleet.add("c", weight=1)
    assert fleet.lease("a", "b").endpoint.spec.host == "c"
    assert fleet.lease("a", "c").endpoint.spec.host == "b"


def test_a_new_weight_takes_effect_with_the_next_turns() -> None:
    fleet = Fleet(names="a b")
    fleet.chosen(10)
    fleet.add("a", weight=3)
    assert fleet.share(400) == {"a": 0.75, "b": 0.25}


def test_a_class_that_grows_waits_no_longer_than_its_new_weight_says() -> None:
    fleet = Fleet(names="a")
    fleet.add("b0", weight=0.05)
    fleet.chosen(2)
    for i in range(1, 20):
        fleet.add(f"b{i}", weight=0.05)
    assert 4 <= fleet.chosen(10).count("a") <= 6


def test_slow_start_rises_in_a_line_and_ends_without_a_surge() -> None:
    fleet = Fleet(names="a b c", slow_start=30.0)
    fleet.wait(60)
    fleet.add("new")
    shares = []
    for _ in range(8):
        served = []
        for _ in range(50):
            served += fleet.chosen(10)
            fleet.wait(0.1)
        shares.append(Counter(served)["new"] / 500)
    weights = [0.1 + 0.9 * (t + 0.5) * 5 / 30 for t in range(6)] + [1.0, 1.0]
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share - weight / (3 + weight)) < 0.02
