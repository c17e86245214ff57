"""Hints and internalTrafficPolicy, case by case as kube-proxy's own tests have them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.balancer.discovery.test_endpointslices import endpoint, slice_of

from balancer.discovery.endpointslices import merge, parse
from balancer.discovery.topology import Place

Json = dict[str, Any]
HERE = Place("node-1", "west")
LEAVING = {"ready": False, "serving": True, "terminating": True}


def at(number: int, zones: str = "", nodes: str = "", node: str = "", **fields: Any) -> Json:
    hints = {
        "forZones": [{"name": name} for name in zones.split()],
        "forNodes": [{"name": name} for name in nodes.split()],
    }
    return endpoint(f"10.0.0.{number}", f"u{number}", hints=hints, nodeName=node or None, **fields)


def near(*endpoints: Json, place: Place = HERE) -> str:
    found = merge([parse(slice_of("s", *endpoints), None)], place=place).endpoints
    return " ".join(spec.host[-1] for spec in found if spec.near)


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        ([at(1, "west"), at(2, "east")], "1"),
        ([at(1, "west east"), at(2, "east"), at(3, "west")], "1 3"),
        ([at(1, "west"), at(2)], ""),  # one without a hint: none counts
        ([at(1, "east"), at(2, "east")], ""),  # none for our zone
        ([at(1, "west", "node-1"), at(2, "west", "node-2")], "1"),  # our node before our zone
        ([at(1, "west", "node-9"), at(2, "west", "node-2"), at(3, "east", "node-3")], "1 2"),
        ([at(1, "west", "node-1"), at(2, "west")], "1 2"),  # not all have nodes: zones
        ([at(1, "west"), at(2, conditions=LEAVING), at(3, "east")], "1"),  # of those that are ready
        ([at(1, conditions={"ready": False}), at(2, "west")], "2"),
    ],
)
def test_the_endpoints_that_hints_mean_for_us(endpoints: list[Json], expected: str) -> None:
    assert near(*endpoints) == expected


def test_without_a_place_nothing_is_near_and_without_a_zone_only_nodes_count() -> None:
    both = [at(1, "west", "node-1"), at(2, "west", "node-2")]
    assert not [spec for spec in merge([parse(slice_of("s", *both), None)]).endpoints if spec.near]
    assert near(*both, place=Place("node-2", "")) == "2"
    assert near(at(1, "west"), place=Place("node-2", "")) == ""


def test_internal_traffic_policy_local_leaves_those_of_our_node_draining_ones_too() -> None:
    endpoints = [at(1, node="node-1"), at(2, node="node-2"), at(3, node="node-1", conditions=LEAVING), at(4)]
    found = merge([parse(slice_of("s", *endpoints), None)], place=Place("node-1", "west", local=True)).endpoints
    assert [spec.host[-1] for spec in found] == ["1", "3"]
    assert not merge([parse(slice_of("s", *endpoints), None)], place=Place("", "west", local=True)).endpoints


def test_the_same_endpoint_told_of_by_two_slices_is_one_and_keeps_its_hint() -> None:
    slices = [parse(slice_of(name, at(1, "west"), at(2, "east")), None) for name in ("s1", "s2")]
    assert [(spec.host[-1], spec.near) for spec in merge(slices, place=HERE).endpoints] == [("1", True), ("2", False)]
