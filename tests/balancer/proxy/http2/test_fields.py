"""What a header block may say: malformed messages are told apart before anything is made of them."""

from __future__ import annotations

import pytest

from balancer.proxy.http2 import fields
from balancer.proxy.http2.fields import Field, Malformed, Pair

GET: list[Pair] = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/a"), (b":authority", b"lb.test")]


def block(*pairs: Pair) -> list[Field]:
    return [Field(name, value, fields.classify(name, value)) for name, value in pairs]


def test_a_request_is_read() -> None:
    read = fields.request(
        block(*GET, (b"accept", b"*/*"), (b"cookie", b"a=1"), (b"te", b"trailers"), (b"cookie", b"b=2"))
    )

    assert (read.method, read.scheme, read.authority, read.path) == (b"GET", b"http", b"lb.test", b"/a")
    assert read.fields == [(b"accept", b"*/*"), (b"te", b"trailers"), (b"cookie", b"a=1; b=2")]
    assert read.length == -1


def test_host_stands_in_for_authority() -> None:
    assert fields.request(block(*GET[:3], (b"host", b"lb.test"))).authority == b"lb.test"
    assert fields.request(block(*GET, (b"host", b"LB.test"))).authority == b"lb.test"


def without(name: bytes) -> list[Pair]:
    return [pair for pair in GET if pair[0] != name]


@pytest.mark.parametrize(
    "pairs",
    [
        without(b":method"),
        without(b":scheme"),
        without(b":path"),
        [*without(b":path"), (b":path", b"")],
        [*without(b":path"), (b":path", b"a")],
        [*without(b":path"), (b":path", b"*")],
        [*without(b":path"), (b":path", b"/a b")],
        [*without(b":path"), (b":path", b"/a#b")],
        [*without(b":path"), (b":path", b"/a HTTP/1.1\r\nx: y")],
        [*without(b":path"), (b":path", b"http://other/")],
        [*without(b":method"), (b":method", b"GE T")],
        [*without(b":method"), (b":method", b"CONNECT")],
        [*without(b":scheme"), (b":scheme", b"file")],
        [*without(b":authority"), (b":authority", b"a/b")],
        [*without(b":authority"), (b":authority", b"user@host")],
        [*GET, (b":method", b"GET")],
        [*GET, (b":status", b"200")],
        [*GET, (b":unknown", b"1")],
        [*GET, (b":protocol", b"websocket")],
        [*GET[:3], (b"x", b"y"), GET[3]],
        [*GET, (b"host", b"other.test")],
        [*GET[:3], (b"host", b"a.test"), (b"host", b"b.test")],
        [*GET, (b"Upper", b"1")],
        [*GET, (b"", b"1")],
        [*GET, (b"a b", b"1")],
        [*GET, (b"a:b", b"1")],
        [*GET, (b"a\r\n", b"1")],
        [*GET, (b"a", b"1\r\nb: 2")],
        [*GET, (b"a", b"1\n")],
        [*GET, (b"a", b"\x00")],
        [*GET, (b"a", b" 1")],
        [*GET, (b"a", b"1\t")],
        [*GET, (b"connection", b"close")],
        [*GET, (b"keep-alive", b"1")],
        [*GET, (b"proxy-connection", b"1")],
        [*GET, (b"transfer-encoding", b"chunked")],
        [*GET, (b"upgrade", b"h2c")],
        [*GET, (b"te", b"gzip")],
        [*GET, (b"content-length", b"1"), (b"content-length", b"1")],
        [*GET, (b"content-length", b"+1")],
        [*GET, (b"content-length", b"1, 1")],
        [*GET, (b"content-length", b"")],
        [*GET, (b"content-length", b"01")],
    ],
    ids=str,
)
def test_a_malformed_request_is_refused(pairs: list[Pair]) -> None:
    with pytest.raises(Malformed):
        fields.request(block(*pairs))


def test_an_extended_connect_has_a_target_and_a_plain_one_only_an_authority() -> None:
    websocket = fields.request(block((b":method", b"CONNECT"), *GET[1:], (b":protocol", b"websocket")))
    plain = fields.request(block((b":method", b"CONNECT"), (b":authority", b"a:1")))

    assert (websocket.protocol, websocket.path) == (b"websocket", b"/a")
    assert (plain.protocol, plain.path) == (b"", b"")


def test_a_response_is_read() -> None:
    read = fields.response(block((b":status", b"200"), (b"content-length", b"2"), (b"a", b"b")))

    assert (read.status, read.length) == (200, 2)
    assert read.fields == [(b"content-length", b"2"), (b"a", b"b")]


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [(b"a", b"b")],
        [(b":status", b"101")],
        [(b":status", b"20")],
        [(b":status", b"099")],
        [(b":status", b"1000")],
        [(b":status", b"200"), (b"content-length", b"1"), (b"content-length", b"2")],
        [(b":status", b"200"), (b"content-length", b"1,")],
        [(b":status", b"200"), (b"content-length", b"+1")],
        [(b":status", b"200"), (b":status", b"200")],
        [(b"a", b"b"), (b":status", b"200")],
        [(b":status", b"200"), (b":path", b"/")],
        [(b":status", b"200"), (b"connection", b"close")],
        [(b":status", b"200"), (b"a", b"\r")],
    ],
    ids=str,
)
def test_a_malformed_response_is_refused(pairs: list[Pair]) -> None:
    with pytest.raises(Malformed):
        fields.response(block(*pairs))


def test_trailers_have_no_pseudo_fields() -> None:
    assert fields.trailers(block((b"grpc-status", b"0"))) == [(b"grpc-status", b"0")]
    for pair in [(b":path", b"/"), (b":status", b"200"), (b"connection", b"x"), (b"A", b"b")]:
        with pytest.raises(Malformed):
            fields.trailers(block(pair))
