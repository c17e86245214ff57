"""One address with several listeners: the most specific takes a request, and keeps it."""

from __future__ import annotations

from balancer.routing.candidates import Entry
from balancer.routing.match import Match, RouteRequest
from balancer.routing.rule import Rule
from balancer.routing.site import Site
from balancer.routing.table import Table


def one(name: str, path: bytes = b"/") -> Table:
    return Table([Entry(b"", Match(path), Rule(name))])


def test_the_most_specific_listener_takes_a_request_and_keeps_it() -> None:
    site = Site({b"": one("any"), b"*.a.com": one("wild"), b"*.b.a.com": one("wilder"), b"c.a.com": one("name", b"/x")})

    def found(host: bytes, path: bytes = b"/") -> str:
        rule = site.route(RouteRequest(host, path))
        return rule.name if rule is not None else ""

    assert found(b"d.org") == "any"
    assert found(b"a.com") == "any"
    assert found(b"d.a.com") == "wild"
    assert found(b"d.b.a.com") == "wilder"
    assert found(b"c.a.com", b"/x") == "name"
    assert not found(b"c.a.com", b"/y")


def test_without_a_listener_for_a_host_there_is_no_rule() -> None:
    assert Site({b"a.com": one("a")}).route(RouteRequest(b"b.com", b"/")) is None
