"""The compiled table finds what a scan by the plain definition finds, and costs the same among many rules."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from balancer.routing.candidates import Entry
from balancer.routing.match import EXACT, PATTERN, PREFIX, Match, RouteRequest, Wanted, host_matches
from balancer.routing.rule import Backend, Rule
from balancer.routing.table import Table, in_order

HOSTS = ["", "a.com", "b.a.com", "c.b.a.com", "*.a.com", "*.b.a.com", "*.com"]
PATHS = ["/", "/v1", "/v2", "/v2example", "/v2/", "/v2/x", "/v2/x/y", "//", "/v2//x", ""]
NAMES = [b"x", b"y", b"z"]
VALUES = [b"1", b"2", b"12"]

wanted = st.builds(Wanted, st.sampled_from(NAMES), st.sampled_from(VALUES))
patterns = st.builds(Wanted, st.sampled_from(NAMES), st.sampled_from([b"1.*", b"[12]"]), st.just(True))
several = st.lists(wanted | patterns, max_size=3, unique_by=lambda each: each.name)
matches = st.builds(
    Match,
    path=st.sampled_from(PATHS[:-1]).map(str.encode),
    kind=st.sampled_from([EXACT, PREFIX]),
    method=st.sampled_from([b"", b"", b"GET", b"POST"]),
    headers=several,
    parameters=several,
) | st.builds(Match, path=st.sampled_from([b"/v.*", b"/v2/[xy]+"]), kind=st.just(PATTERN), headers=several)
entries = st.lists(
    st.builds(
        Entry,
        host=st.sampled_from(HOSTS).map(str.encode),
        match=matches,
        rule=st.builds(Rule, st.just("r")),
        age=st.sampled_from(["2026-01-01", "2026-01-02"]),
        name=st.sampled_from(["ns/a", "ns/b"]),
        place=st.integers(0, 30),
    ),
    max_size=40,
    # Only matches of one rule are alike in all of these.
    unique_by=lambda each: (each.age, each.name, each.place),
)
fields = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=4)
asked = st.builds(
    RouteRequest,
    host=st.sampled_from(
        ["a.com", "b.a.com", "c.b.a.com", "d.c.b.a.com", ".a.com", "b.com", "com", "", "x..a.com"]
    ).map(str.encode),
    path=st.sampled_from([*PATHS, "/v3", "/v2/x/y/z", "/v2x", "/v2/xy", "*"]).map(str.encode),
    method=st.sampled_from([b"GET", b"POST"]),
    query=st.sampled_from([b"", b"x=1", b"x=1&y=2", b"y=2&y=1&z=12", b"%78=%31", b"x"]),
    headers=fields,
)


def scan(rules: list[Entry], request: RouteRequest) -> Rule | None:
    """The plain definition: the first, in the order of precedence, that matches."""
    for entry in in_order(rules):
        if host_matches(entry.host, request.host) and entry.match.matches(request):
            return entry.rule
    return None


@settings(max_examples=200, deadline=None)
@given(entries, st.lists(asked, min_size=1, max_size=8))
@example([Entry(b"", Match(b"/v2"), Rule("r"))], [RouteRequest(b"a", b"/v2example")])
def test_the_table_finds_what_a_scan_finds(rules: list[Entry], requests: list[RouteRequest]) -> None:
    table = Table(rules)
    for request in requests:
        assert table.route(request) is scan(rules, request)


@settings(max_examples=200, deadline=None)
@given(entries, st.lists(st.tuples(st.booleans(), st.booleans()), min_size=40, max_size=40), st.lists(asked))
def test_a_table_made_of_another_is_as_one_made_anew(
    rules: list[Entry], present: list[tuple[bool, bool]], requests: list[RouteRequest]
) -> None:
    before = [entry for entry, (was, _) in zip(rules, present, strict=False) if was]
    after = [entry for entry, (_, stays) in zip(rules, present, strict=False) if stays]
    old = Table(before)
    gone, come = [entry for entry in before if entry not in after], [entry for entry in after if entry not in before]
    *steps, new = old.changing(gone, come)
    assert not any(steps)
    assert new is not None
    for request in requests:
        assert new.route(request) is scan(after, request)
        assert old.route(request) is scan(before, request)


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        ("shop.example.com", "/", "exact host"),
        ("a.example.com", "/", "wildcard"),
        ("b.a.example.com", "/", "wildcard"),
        ("example.com", "/", "any"),
        ("shop.example.com", "/v2", "path"),
        ("shop.example.com", "/v2/", "prefix"),
        ("shop.example.com", "/v2/x", "prefix"),
        ("shop.example.com", "/v2example", "exact host"),
    ],
)
def test_the_most_specific_goes_first(host: str, path: str, expected: str) -> None:
    table = Table(
        [
            Entry(b"", Match(), Rule("any")),
            Entry(b"*.example.com", Match(), Rule("wildcard")),
            Entry(b"shop.example.com", Match(), Rule("exact host")),
            Entry(b"shop.example.com", Match(b"/v2", PREFIX), Rule("prefix")),
            Entry(b"shop.example.com", Match(b"/v2", EXACT), Rule("path")),
        ]
    )
    rule = table.route(RouteRequest(host.encode(), path.encode()))
    assert rule is not None
    assert rule.name == expected


def test_the_order_of_precedence_beyond_the_path_is_that_of_the_api() -> None:
    one, two = Wanted(b"x", b"1"), Wanted(b"y", b"2")
    in_turn = [
        Entry(b"", Match(method=b"GET"), Rule("method"), "2", "z"),
        Entry(b"", Match(headers=[one, two]), Rule("two fields"), "2", "z"),
        Entry(b"", Match(headers=[one], parameters=[one]), Rule("field and parameter"), "2", "z"),
        Entry(b"", Match(headers=[one]), Rule("field"), "2", "z"),
        Entry(b"", Match(parameters=[one]), Rule("parameter"), "2", "z"),
        Entry(b"", Match(), Rule("oldest"), "1", "z"),
        Entry(b"", Match(), Rule("first by name"), "2", "a"),
        Entry(b"", Match(), Rule("first rule"), "2", "b", 0),
        Entry(b"", Match(), Rule("second rule"), "2", "b", 1),
    ]
    request = RouteRequest(b"", b"/", b"GET", b"x=1", [(b"x", b"1"), (b"y", b"2")])
    found = []
    left = list(reversed(in_turn))
    while (rule := Table(left).route(request)) is not None:
        found.append(rule.name)
        left = [entry for entry in left if entry.rule is not rule]
    assert found == [entry.rule.name for entry in in_turn]


def test_weights_are_kept_to_the_request() -> None:
    rule = Rule("r", [Backend("a", 70), Backend("b", 30), Backend("c", 0)])
    chosen = [backend.cluster for _ in range(500) if (backend := rule.choose()) is not None]
    assert abs(chosen.count("a") - 350) <= 2
    assert chosen.count("a") + chosen.count("b") == 500


def test_without_a_weight_there_is_no_backend() -> None:
    assert Rule("r", [Backend("a", 0)]).choose() is None
    assert Rule("r", [Backend("a", 0), Backend("b", 0)]).choose() is None
    assert Rule("r").choose() is None


def by_host(number: int) -> Entry:
    return Entry(b"h%d.example.com" % number, Match(), Rule("r"))


def by_path(number: int) -> Entry:
    return Entry(b"example.com", Match(b"/p%d" % number), Rule("r"))


def by_field(number: int) -> Entry:
    return Entry(b"example.com", Match(headers=[Wanted(b"tenant", b"%d" % number)]), Rule("r"))


@pytest.mark.parametrize("kind", [by_host, by_path, by_field])
def test_ten_thousand_routes_cost_little_more_than_a_few(kind: Callable[[int], Entry]) -> None:
    few, many = (Table([kind(number) for number in range(count)]) for count in (8, 10_000))
    request = RouteRequest(
        b"h5.example.com" if kind is by_host else b"example.com", b"/p5/x", headers=[(b"tenant", b"5")]
    )

    def cost(table: Table) -> float:
        begun = time.perf_counter()
        for _ in range(50):
            assert table.route(request) is not None
        return time.perf_counter() - begun

    # A scan would cost a thousand times as much: wide, for a machine that does other things too.
    assert min(cost(many) for _ in range(30)) < 10 * min(cost(few) for _ in range(30))
