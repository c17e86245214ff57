"""Weights of Accept and Accept-Encoding (RFC 9110 §12)."""

from __future__ import annotations

import pytest

from balancer.accept import coding, preference, prefers_json, ranges


@pytest.mark.parametrize(
    ("field", "weight"),
    [
        ("", 0.0),
        ("text/plain", 1.0),
        ("TEXT/Plain ; Q=0.5", 0.5),
        ("text/plain;q=0, */*", 0.0),
        ("*/*;q=0.1, text/*;q=0.4", 0.4),
        ("text/plain;version=0.0.4;q=0.2, text/plain;q=0.3", 0.3),
        ('text/plain;a="x,y;q=0";q=0.7', 0.7),
        ("text/plain;q=x", 0.0),
        ("text/plain;q=nan", 0.0),
        ("text/plain;q=7", 1.0),
        ("application/json", 0.0),
    ],
)
def test_the_most_specific_range_gives_the_weight(field: str, weight: float) -> None:
    assert preference(ranges(field), "text/plain")[0] == weight


@pytest.mark.parametrize(
    ("field", "json"),
    [
        ("application/json", True),
        ("application/problem+json", True),
        ("application/json, text/plain, */*", True),
        ("text/plain, application/json;q=0.5", False),
        ("application/json;q=0", False),
        ("application/json;q=0.2, */*;q=0.1", True),
        ("application/json;q=0.2, */*;q=0.3", False),
        ("*/*", False),
    ],
)
def test_errors_are_json_where_that_weighs_no_less_than_text(field: str, json: bool) -> None:
    assert prefers_json(field) == json


@pytest.mark.parametrize(
    ("field", "chosen"),
    [
        ("", ""),
        ("gzip", "gzip"),
        ("gzip;q=0", ""),
        ("gzip;q=0, deflate", "deflate"),
        ("*", "gzip"),
        ("*;q=0", ""),
        ("gzip;q=0.5, identity", ""),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("x-gzip-like", ""),
    ],
)
def test_codings_are_chosen_by_weight(field: str, chosen: str) -> None:
    assert coding(field) == chosen
