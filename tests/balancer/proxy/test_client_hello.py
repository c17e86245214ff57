"""The name in a TLS client's first message: found however it comes, and nothing else is taken for one."""

from __future__ import annotations

import ssl
from random import Random

import pytest

from balancer.proxy.client_hello import MOST, BadHello, ClientHello, name_in


def hello(name: str | None = "Shop.Example.com", alpn: int = 0) -> bytes:
    """What OpenSSL sends first; `alpn`: protocols that make it longer, of 100 bytes each."""
    context = ssl.create_default_context()
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols([f"{number:0100}" for number in range(alpn)])
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


def in_records(message: bytes, size: int) -> bytes:
    """The same message in records of so many bytes."""
    pieces = [message[start : start + size] for start in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def extension(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body


def names(*names: bytes, kind: int = 0) -> bytes:
    listed = b"".join(bytes([kind]) + len(name).to_bytes(2, "big") + name for name in names)
    return extension(0, len(listed).to_bytes(2, "big") + listed)


def body(extensions: bytes, behind: bytes = b"") -> bytes:
    """A ClientHello's body with these extensions."""
    start = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0"
    return start + len(extensions).to_bytes(2, "big") + extensions + behind


def test_the_name_is_found_in_lower_case() -> None:
    found = ClientHello()
    assert found.feed(hello())
    assert found.name == "shop.example.com"


def test_a_client_that_asks_for_no_name_is_read_to_its_end() -> None:
    found = ClientHello()
    assert found.feed(hello(None))
    assert found.name == ""
    assert name_in(body(b"")[:-2]) == "", "without any extension, as SSL 3.0 has none"


@pytest.mark.parametrize("record", [1, 7, 100, 16384])
@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_it_may_come_in_many_records_and_pieces(record: int, piece: int) -> None:
    data = in_records(hello()[5:], record)
    found = ClientHello()
    whole = [found.feed(data[start : start + piece]) for start in range(0, len(data), piece)]
    assert whole == [False] * (len(whole) - 1) + [True]
    assert found.name == "shop.example.com"


def test_what_comes_behind_it_is_not_looked_at() -> None:
    found = ClientHello()
    assert found.feed(hello() + bytes(100_000))
    assert found.name == "shop.example.com"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x80\x2e\x01\x03\x01",  # SSL 2.0
        b"\x16\x02\x01\0\x05",
        b"\x16\x03\x01\0\0",  # no record of a handshake is empty (RFC 8446, section 5.1)
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\0\x04\x02\0\0\x10",  # a ServerHello
        b"\x16\x03\x01\0\x04\x01\x01\0\0",  # 64 KiB are announced
        b"\x15\x03\x01\0\x02\x02\x28",  # an alert
    ],
)
def test_what_is_none_is_refused_as_soon_as_that_is_seen(data: bytes) -> None:
    with pytest.raises(BadHello):
        ClientHello().feed(data)


def test_more_than_the_most_is_not_waited_for() -> None:
    assert ClientHello().feed(hello(alpn=100)), "10 KB are taken"
    found, data = ClientHello(), in_records(b"\x01\0\x3f\xff" + bytes(20_000), 1)
    for start in range(0, MOST - 5, 6):
        assert not found.feed(data[start : start + 6])
    with pytest.raises(BadHello, match="too long"):
        found.feed(data[:6])


@pytest.mark.parametrize(
    "extensions",
    [
        names(b"a.test") + names(b"b.test"),
        names(b"a.test", b"b.test"),
        names(b"a.test", kind=1),
        names(b""),
        names(b"a\0.test"),
        names("ä.test".encode()),
        names(b"a" * 256),
        extension(0, b""),
        extension(0, b"\0\x05\0\0\x01a"),
        names(b"a.test")[:-1],
    ],
)
def test_a_name_that_may_be_read_in_two_ways_is_refused(extensions: bytes) -> None:
    with pytest.raises(BadHello):
        name_in(body(extensions))


def test_something_behind_the_extensions_is_refused() -> None:
    assert name_in(body(names(b"a.test"))) == "a.test"
    with pytest.raises(BadHello):
        name_in(body(names(b"a.test"), b"\0"))


def test_damaged_ones_raise_nothing_else() -> None:
    random, good = Random(7), hello()
    for _ in range(3000):
        data = bytearray(good[: random.randrange(1, len(good) + 1)])
        for _ in range(random.randrange(4)):
            data[random.randrange(len(data))] = random.randrange(256)
        found = ClientHello()
        try:
            whole = found.feed(bytes(data))
        except BadHello:
            continue
        assert not whole or found.name.isascii()
