"""CORS: who may ask from elsewhere, and what they are told."""

from __future__ import annotations

import pytest

from balancer.routing.cors import Cors
from balancer.routing.match import RouteRequest


def asked(origin: str, method: bytes = b"GET", **more: str) -> RouteRequest:
    fields = [(b"origin", origin.encode())] if origin else []
    fields += [(name.replace("_", "-").encode(), value.encode()) for name, value in more.items()]
    return RouteRequest(b"api.example.com", b"/", method, headers=fields)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://a.com", True),
        ("HTTPS://A.COM", True),
        ("http://a.com", False),
        ("https://a.com:444", False),
        ("https://x.b.com", True),
        ("https://x.y.b.com", True),
        ("https://b.com", False),
        ("https://evil.com/.b.com", False),
        ("null", False),
    ],
)
def test_origins_are_compared_whole_and_wildcards_cover_what_stands_before(origin: str, allowed: bool) -> None:
    assert Cors([b"https://a.com", b"https://*.b.com"]).allows(origin.encode()) is allowed


def test_a_preflight_is_told_what_is_allowed_and_other_requests_are_none() -> None:
    cors = Cors([b"https://a.com"], [b"GET", b"PUT"], [b"X-A", b"X-B"], credentials=True, max_age=60)
    preflight = asked("https://a.com", b"OPTIONS", access_control_request_method="PUT")
    assert cors.preflight(preflight) == [
        (b"access-control-allow-origin", b"https://a.com"),
        (b"access-control-allow-credentials", b"true"),
        (b"vary", b"Origin"),
        (b"access-control-allow-methods", b"GET, PUT"),
        (b"access-control-allow-headers", b"X-A, X-B"),
        (b"access-control-max-age", b"60"),
    ]
    assert cors.preflight(asked("https://b.com", b"OPTIONS", access_control_request_method="PUT")) == []
    assert cors.preflight(asked("https://a.com", b"OPTIONS")) is None
    assert cors.preflight(asked("https://a.com", b"PUT", access_control_request_method="PUT")) is None


def test_a_star_means_itself_where_credentials_are_sent() -> None:
    preflight = asked(
        "https://a.com", b"OPTIONS", access_control_request_method="PUT", access_control_request_headers="x-a"
    )
    with_credentials = dict(Cors([b"*"], [b"*"], [b"*"], credentials=True).preflight(preflight) or [])
    assert with_credentials[b"access-control-allow-origin"] == b"https://a.com"
    assert with_credentials[b"access-control-allow-methods"] == b"PUT"
    assert with_credentials[b"access-control-allow-headers"] == b"x-a"
    without = dict(Cors([b"*"], [b"*"], [b"*"]).preflight(preflight) or [])
    assert without[b"access-control-allow-origin"] == b"https://a.com"
    assert without[b"access-control-allow-methods"] == without[b"access-control-allow-headers"] == b"*"
    assert b"access-control-allow-credentials" not in without


def test_a_response_says_who_may_read_it_in_place_of_what_the_endpoint_says() -> None:
    edits = Cors([b"https://a.com"], exposed=[b"X-Count"]).edits(asked("https://a.com"))
    assert edits is not None
    there = [(b"Access-Control-Allow-Origin", b"*"), (b"Vary", b"Accept")]
    assert edits.applied(there) == [
        (b"Vary", b"Accept,Origin"),
        (b"access-control-allow-origin", b"https://a.com"),
        (b"access-control-expose-headers", b"X-Count"),
    ]
    assert Cors([b"https://a.com"]).edits(asked("https://b.com")) is None
    assert Cors([b"https://a.com"]).edits(asked("")) is None
