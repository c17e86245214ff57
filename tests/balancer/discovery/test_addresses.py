"""What an EndpointSlice may call an address or a port, and what it may not."""

from __future__ import annotations

from typing import Any

import pytest
from tests.balancer.discovery.test_endpointslices import endpoint, slice_of

from balancer.discovery.addresses import read_address, read_port
from balancer.discovery.endpointslices import Merged, merge, parse


@pytest.mark.parametrize(
    ("text", "family", "read"),
    [
        ("10.0.0.1", "IPv4", "10.0.0.1"),
        ("010.0.0.1", "IPv4", None),
        ("10.1", "IPv4", None),
        ("0x0a.0.0.1", "IPv4", None),
        ("10.0.0.1 ", "IPv4", None),
        ("167772161", "IPv4", None),
        ("::ffff:10.0.0.1", "IPv4", None),
        ("localhost", "IPv4", None),
        (167772161, "IPv4", None),
        (None, "IPv4", None),
        ("fd00:0:0::1", "IPv6", "fd00::1"),
        ("FD00::1", "IPv6", "fd00::1"),
        ("::ffff:10.0.0.1", "IPv6", None),
        ("fe80::1%eth0", "IPv6", None),
        ("10.0.0.1", "IPv6", None),
        ("db.example.org", "FQDN", "db.example.org"),
        ("10.0.0.1", "FQDN", None),
        ("127.1", "FQDN", None),
        ("x.0x7f", "FQDN", None),
        ("a b", "FQDN", None),
        ("10.0.0.1", "Unix", None),
    ],
)
def test_an_address_is_read_or_left_out_and_never_guessed_at(text: object, family: str, read: str | None) -> None:
    assert read_address(text, family) == read


@pytest.mark.parametrize("number", [0, -1, 65536, 73536, 1 << 32, "80", None, 80.5])
def test_what_is_no_port(number: object) -> None:
    assert read_port(number) is None


def merged(*slices: dict[str, Any], port: str | None = None) -> Merged:
    return merge([parse(each, port) for each in slices])


def test_one_address_in_two_forms_is_one_endpoint() -> None:
    slices = [slice_of(name, endpoint(text), family="IPv6") for name, text in (("a", "fd00::1"), ("b", "fd00:0::1"))]
    assert [spec.address for spec in merged(*slices).endpoints] == ["[fd00::1]:8000"]


@pytest.mark.parametrize("wanted", [None, "http", "73536", "8000"])
def test_a_port_beyond_65535_is_no_port_and_is_told(wanted: str | None) -> None:
    ports = [{"name": "http", "port": 73536}]  # modulo 65536 it would be 8000
    found = merged(slice_of("a", endpoint("10.0.0.1"), ports=ports), port=wanted)
    assert not found.endpoints
    assert (found.problem, found.ports) == ("no_port", ("http (73536, which is no port)",))


HTTP, METRICS = [{"name": "http", "port": 8000}], [{"name": "metrics", "port": 9100}]


def test_slices_whose_only_ports_have_different_names_are_not_mixed() -> None:
    found = merged(slice_of("a", endpoint("10.0.0.1"), ports=HTTP), slice_of("b", endpoint("10.0.0.1"), ports=METRICS))
    assert not found.endpoints
    assert (found.problem, found.ports) == ("no_port", ("http (8000)", "metrics (9100)"))


def test_one_name_with_different_numbers_is_one_port() -> None:
    other = [{"name": "http", "port": 8080}]
    found = merged(slice_of("a", endpoint("10.0.0.1"), ports=HTTP), slice_of("b", endpoint("10.0.0.2"), ports=other))
    assert [spec.address for spec in found.endpoints] == ["10.0.0.1:8000", "10.0.0.2:8080"]
    assert not found.problem


def test_a_number_is_taken_as_it_is_where_no_slice_has_ports() -> None:
    bare = slice_of("a", endpoint("10.0.0.1"), ports=[])
    assert [spec.address for spec in merged(bare, port="5432").endpoints] == ["10.0.0.1:5432"]
    assert merged(bare, port="pg").problem == "no_port"
    assert merged(bare).problem == "no_port"
    # A slice that lacks the port while others have some: its pods do not listen there.
    mixed = merged(bare, slice_of("b", endpoint("10.0.0.2"), ports=HTTP), port="8000")
    assert [spec.address for spec in mixed.endpoints] == ["10.0.0.2:8000"]


def test_the_name_that_was_the_only_one_stays_in_use() -> None:
    slices = [parse(slice_of("a", endpoint("10.0.0.1"), ports=[*HTTP, *METRICS]), None)]
    found = merge(slices, settled="http")
    assert [spec.address for spec in found.endpoints] == ["10.0.0.1:8000"]
    assert (found.problem, found.port_name) == ("several_ports", "http")
    renamed = merge([parse(slice_of("a", endpoint("10.0.0.1"), ports=METRICS), None)], settled="http")
    assert renamed.port_name == "metrics"
