"""The merging of slices, by the API's definitions."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.discovery.endpointslices import Merged, merge, parse

Json = dict[str, Any]


def endpoint(address: str, uid: str = "", **fields: Any) -> Json:
    made: Json = {"addresses": [address], **fields}
    if uid:
        made["targetRef"] = {"kind": "Pod", "name": f"pod-{uid}", "uid": uid}
    return made


def slice_of(name: str, *endpoints: Json, family: str = "IPv4", ports: Any = None) -> Json:
    ports = [{"name": "http", "port": 8000, "protocol": "TCP"}] if ports is None else ports
    return {"metadata": {"name": name}, "addressType": family, "ports": ports, "endpoints": list(endpoints)}


def merged(*slices: Json, port: str | None = None, prefer: str = "IPv4") -> Merged:
    return merge([parse(each, port) for each in slices], prefer)


def states(*slices: Json, prefer: str = "IPv4") -> dict[str, str]:
    found = merged(*slices, prefer=prefer).endpoints
    return {spec.address: "draining" if spec.draining else "ready" for spec in found}


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        (None, "ready"),
        ({}, "ready"),
        ({"ready": None}, "ready"),
        ({"ready": True, "serving": True, "terminating": False}, "ready"),
        ({"ready": False}, None),
        ({"ready": False, "serving": True}, None),
        ({"ready": False, "serving": True, "terminating": True}, "draining"),
        ({"ready": False, "serving": False, "terminating": True}, None),
        ({"ready": False, "terminating": True}, None),
        ({"ready": True, "terminating": True}, "ready"),
    ],
)
def test_conditions_and_what_absent_ones_mean(conditions: Json | None, state: str | None) -> None:
    found = states(slice_of("a", endpoint("10.0.0.1", "x", conditions=conditions)))
    assert found == ({} if state is None else {"10.0.0.1:8000": state})


def test_an_endpoint_knows_its_pod_zone_and_node() -> None:
    (spec,) = merged(slice_of("a", endpoint("10.0.0.1", "x", zone="west", nodeName="n1"))).endpoints
    assert (spec.name, spec.uid, spec.zone, spec.node) == ("pod-x", "x", "west", "n1")


def test_endpoints_are_in_the_order_of_their_names_whatever_the_order_of_the_slices() -> None:
    slices = [
        slice_of("s2", endpoint("10.0.0.1", "c"), endpoint("10.0.0.9", "a")),
        slice_of("s1", endpoint("10.0.0.5", "b")),
    ]
    for order in permutations(slices):
        assert [spec.uid for spec in merged(*order).endpoints] == ["a", "b", "c"]


def test_a_pod_in_two_slices_is_one_endpoint_in_its_latest_condition() -> None:
    old = slice_of("s1", endpoint("10.0.0.1", "x"))
    new = slice_of("s2", endpoint("10.0.0.1", "x", zone="east"))
    (spec,) = merged(old, new).endpoints
    assert spec.zone == "east"


def test_an_address_that_is_used_again_belongs_to_the_pod_that_is_ready() -> None:
    leaving = slice_of(
        "s1", endpoint("10.0.0.1", "old", conditions={"ready": False, "serving": True, "terminating": True})
    )
    coming = slice_of("s2", endpoint("10.0.0.1", "new"))
    for order in ((leaving, coming), (coming, leaving)):
        (spec,) = merged(*order).endpoints
        assert spec.uid == "new"


def test_a_dual_stack_pod_is_one_endpoint_at_the_preferred_family() -> None:
    v4 = slice_of("s1", endpoint("10.0.0.1", "x"), endpoint("10.0.0.2", "only-v4"))
    v6 = slice_of("s2", endpoint("fd00::1", "x"), endpoint("fd00::3", "only-v6"), family="IPv6")
    for order in ((v4, v6), (v6, v4)):
        assert set(states(*order)) == {"10.0.0.1:8000", "10.0.0.2:8000", "[fd00::3]:8000"}
        assert set(states(*order, prefer="IPv6")) == {"[fd00::1]:8000", "10.0.0.2:8000", "[fd00::3]:8000"}


def test_endpoints_without_a_pod_are_told_apart_by_address() -> None:
    v4 = slice_of("s1", endpoint("10.0.0.1"), endpoint("10.0.0.1"), endpoint("10.0.0.2"))
    v6 = slice_of("s2", endpoint("fd00::1"), family="IPv6")
    names = slice_of("s3", endpoint("db.example.org"), family="FQDN")
    assert set(states(v4, v6, names)) == {"10.0.0.1:8000", "10.0.0.2:8000", "[fd00::1]:8000", "db.example.org:8000"}


TWO = [{"name": "http", "port": 8000}, {"name": "admin", "port": 8001, "protocol": "TCP"}]


@pytest.mark.parametrize(
    ("ports", "wanted", "number"),
    [
        (TWO, "http", 8000),
        (TWO, "8001", 8001),
        (TWO, "admin", 8001),
        (TWO[:1], None, 8000),
        ([{"port": 9000}], None, 9000),
        ([{"name": None, "port": 9000}], "9000", 9000),
        ([{"name": "8001", "port": 9000}, *TWO], "8001", 9000),
        ([*TWO[:1], {"name": "dns", "port": 53, "protocol": "UDP"}], None, 8000),
        ([{"name": "any", "port": None}], "7000", 7000),
    ],
)
def test_the_port_is_found_by_name_or_number_or_is_the_only_one(ports: Any, wanted: str | None, number: int) -> None:
    (spec,) = merged(slice_of("a", endpoint("10.0.0.1"), ports=ports), port=wanted).endpoints
    assert spec.port == number


@pytest.mark.parametrize(
    ("ports", "wanted"), [(TWO, None), (TWO, "web"), (TWO, "9"), ([{"port": 53, "protocol": "UDP"}], None)]
)
def test_a_port_that_is_not_there_is_a_problem_that_names_those_that_are(ports: Any, wanted: str | None) -> None:
    found = merged(slice_of("a", endpoint("10.0.0.1"), ports=ports), port=wanted)
    assert not found.endpoints
    assert found.problem == "no_port"
    assert found.ports == (("admin (8001)", "http (8000)") if ports is TWO else ())


@pytest.mark.parametrize(
    ("said", "protocol"),
    [("kubernetes.io/h2c", "h2c"), ("grpc", "h2c"), ("kubernetes.io/ws", "http1"), ("http", "http1"), (None, ""),
     ("mysql", "")],
)  # fmt: skip
def test_an_endpoint_knows_what_its_port_speaks(said: str | None, protocol: str) -> None:
    ports = [{"name": "http", "port": 8000, "appProtocol": said}]
    (spec,) = merged(slice_of("a", endpoint("10.0.0.1"), ports=ports)).endpoints
    assert spec.protocol == protocol


def test_a_service_scaled_to_nothing_is_no_problem() -> None:
    empty = {"metadata": {"name": "a"}, "addressType": "IPv4", "ports": None, "endpoints": None}
    assert merged(empty, port="http") == Merged(())


def test_no_slice_at_all_is_a_problem() -> None:
    assert merged().problem == "no_slices"


def test_a_slice_without_the_port_does_not_hide_those_that_have_it() -> None:
    found = merged(
        slice_of("a", endpoint("10.0.0.1"), ports=[{"name": "old", "port": 1}]),
        slice_of("b", endpoint("10.0.0.2")),
        port="http",
    )
    assert [spec.address for spec in found.endpoints] == ["10.0.0.2:8000"]
    assert not found.problem


POD = st.tuples(st.integers(1, 5), st.sampled_from("abc"), st.sampled_from([None, False, True]), st.booleans())


@given(st.lists(st.lists(POD, max_size=6), min_size=1, max_size=4))
def test_whatever_the_slices_say_no_address_is_there_twice_and_no_ready_pod_is_lost(slices: list[Any]) -> None:
    made = [
        slice_of(
            f"s{number}",
            *(
                endpoint(f"10.0.0.{address}", uid, conditions={"ready": ready, "serving": True, "terminating": leaving})
                for address, uid, ready, leaving in pods
            ),
        )
        for number, pods in enumerate(slices)
    ]
    found = merged(*made).endpoints
    assert len({spec.address for spec in found}) == len(found)
    ready = {f"10.0.0.{address}:8000" for pods in slices for address, _, state, _ in pods if state is not False}
    assert {spec.address for spec in found if not spec.draining} == ready
