"""Patterns are taken where their time stays in bounds, and only there."""

from __future__ import annotations

import pytest

from balancer.discovery.gateway.patterns import check_pattern


@pytest.mark.parametrize("pattern", ["/v[0-9]+/.*", "/(a|b)/c?", "/(?:x|y)", r"/\d{3}", "/[^/]+/users", r"/a\.b\*c"])
def test_what_routes_are_written_with_is_taken(pattern: str) -> None:
    assert not check_pattern(pattern)


@pytest.mark.parametrize(
    "pattern", ["(a+)+", "(a|b)*", "(ab){2,9}", ".*.*.*", "(?=a)b", r"(a)\1", "[", "(a|b)" * 9, "x" * 300]
)
def test_what_could_hold_up_all_requests_is_not(pattern: str) -> None:
    assert check_pattern(pattern)
