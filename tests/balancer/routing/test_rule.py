"""What a rule changes, and where it sends a client."""

from __future__ import annotations

from collections import Counter

import pytest

from balancer.routing.rule import Backend, Edits, Mirror, PathChange, Redirect, Rule


@pytest.mark.parametrize(
    ("path", "prefix", "replacement", "expected"),
    [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/foo", "/", "/xyz", "/xyz/foo"),
    ],
)
def test_a_prefix_is_replaced_as_the_api_tells(path: str, prefix: str, replacement: str, expected: str) -> None:
    change = PathChange(replacement.encode(), prefix.encode())
    assert change.applied(path.encode()).decode() == expected


def test_the_whole_path_is_replaced() -> None:
    assert PathChange(b"/one").applied(b"/foo/bar") == b"/one"
    assert PathChange(b"").applied(b"/foo/bar") == b"/"


def test_fields_are_set_added_and_removed() -> None:
    edits = Edits(set=[(b"a", b"new")], add=[(b"b", b"more"), (b"c", b"first")], remove=[b"d"])
    fields = [(b"a", b"1"), (b"a", b"2"), (b"b", b"old"), (b"d", b"gone"), (b"e", b"stays")]
    assert sorted(edits.applied(fields)) == [
        (b"a", b"new"),
        (b"b", b"old,more"),
        (b"c", b"first"),
        (b"e", b"stays"),
    ]


@pytest.mark.parametrize(
    ("redirect", "expected"),
    [
        (Redirect(host=b"other.org"), "http://other.org:8080/a/b?q=1"),
        (Redirect(scheme=b"https"), "https://shop.example.com/a/b?q=1"),
        (Redirect(scheme=b"http", port=80), "http://shop.example.com/a/b?q=1"),
        (Redirect(port=8443, scheme=b"https"), "https://shop.example.com:8443/a/b?q=1"),
        (Redirect(port=80), "http://shop.example.com/a/b?q=1"),
        (Redirect(path=PathChange(b"/x", b"/a")), "http://shop.example.com:8080/x/b?q=1"),
    ],
)
def test_a_redirect_keeps_what_it_does_not_name(redirect: Redirect, expected: str) -> None:
    location = redirect.location(b"http", b"shop.example.com", 8080, b"/a/b", b"q=1")
    assert location.decode() == expected


def test_a_mirror_takes_its_share_of_the_requests_of_each_backend() -> None:
    rule = Rule("web", [Backend("a"), Backend("b")], mirrors=[Mirror("copy", 0.5)])
    mirrored: Counter[str] = Counter()
    for _ in range(1000):
        backend = rule.choose()
        assert backend is not None
        if rule.mirrors[0].due():
            mirrored[backend.cluster] += 1
    assert sum(mirrored.values()) == pytest.approx(500, abs=2)
    assert mirrored["a"] == pytest.approx(250, abs=10)
    assert all(Mirror("copy").due() for _ in range(10))
