"""The comparison of lab and wire: the lab's side runs every fleet, and what is far off or out of order is found."""

from __future__ import annotations

import pytest
from benchmarks.fleets import FLEETS, capacity
from benchmarks.validation import Pair, disorder, lab


@pytest.mark.parametrize("fleet", FLEETS)
def test_the_lab_runs_a_fleet_of_the_benchmark(fleet: str) -> None:
    mean, p99, failures = lab(fleet, "least-work", 0.7 * capacity(FLEETS[fleet]), 1.0, 1)
    assert 0.006 < mean < p99 < 0.5
    assert failures == 0


def test_what_is_far_off_is_found() -> None:
    assert Pair("a", 0.010, 0.009, 0.040, 0.044, (0, 0)).is_near
    assert not Pair("a", 0.010, 0.008, 0.040, 0.044, (0, 0)).is_near
    assert not Pair("a", 0.010, 0.009, 0.040, 0.047, (0, 0)).is_near


def test_another_order_is_found_where_there_is_one_at_all() -> None:
    def pair(name: str, wire: float, lab: float) -> Pair:
        return Pair(name, 0.01, 0.01, wire, lab, (0, 0))

    pairs = [pair("a", 0.040, 0.060), pair("b", 0.050, 0.050), pair("c", 0.0501, 0.0499)]
    assert disorder(pairs) == ["a and b", "a and c"]
