"""The PROXY protocol: who the client is, said by a trusted proxy before the connection's first byte, or by us.

Source: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from balancer.proxy.clients import Clients, address_of
from balancer.proxy.listener import Accepting
from balancer.proxy.timers import Timed, TimerWheel

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
MAX_V1: Final = 107
"""Bytes of the longest version 1 header, its CRLF included."""
PREFACE_TIMEOUT: Final = 5.0
"""Seconds for the header to come: whoever sends it does so at once."""

Addresses = tuple[str, int, str, int]
"""Source address and port, destination address and port."""


class BadPreface(Exception):
    """What came is no PROXY protocol header; the text says why."""


def parse(data: bytes) -> tuple[Addresses | None, int] | None:
    """Read a header, version 1 or 2, from the beginning of `data`.

    The addresses (None when the proxy speaks for itself) and the header's length; None while it is not whole.
    Raises BadPreface.
    """
    if data.startswith(SIGNATURE):
        return _parse_v2(data)
    if SIGNATURE.startswith(data[: len(SIGNATURE)]):
        return None
    return _parse_v1(data)


def _parse_v1(data: bytes) -> tuple[Addresses | None, int] | None:
    if not b"PROXY "[: len(data)] == data[:6]:
        raise BadPreface("no PROXY protocol header")
    end = data.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        if len(data) >= MAX_V1:
            raise BadPreface("PROXY header too long")
        return None
    words = data[:end].split(b" ")
    if words[1:2] == [b"UNKNOWN"]:
        return None, end + 2
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise BadPreface("malformed PROXY header")
    try:
        source, target = ip_address(words[2].decode()), ip_address(words[3].decode())
        ports = [int(word) for word in words[4:] if word.isdigit()]
    except ValueError:
        raise BadPreface("malformed address in the PROXY header") from None
    if len(ports) != 2 or max(ports) > 65535 or {source.version, target.version} != {int(words[1][3:])}:
        raise BadPreface("malformed PROXY header")
    return (str(source), ports[0], str(target), ports[1]), end + 2


def _parse_v2(data: bytes) -> tuple[Addresses | None, int] | None:
    if len(data) < 16:
        return None
    command, family = data[12], data[13]
    length = int.from_bytes(data[14:16], "big")
    if command >> 4 != 2 or command & 15 > 1:
        raise BadPreface("unknown version or command in the PROXY header")
    if len(data) < 16 + length:
        return None
    size = {0x11: 4, 0x21: 16}.get(family)
    if command & 15 == 0 or size is None:
        return None, 16 + length  # LOCAL, or a family that is none of ours
    if length < 2 * size + 4:
        raise BadPreface("PROXY header too short for its addresses")
    body = data[16:]
    source, target = ip_address(body[:size]), ip_address(body[size : 2 * size])
    ports = body[2 * size : 2 * size + 4]
    return (
        str(source),
        int.from_bytes(ports[:2], "big"),
        str(target),
        int.from_bytes(ports[2:], "big"),
    ), 16 + length


def render(version: str, addresses: Addresses) -> bytes:
    """The header of `version` (`v1` or `v2`) that tells an endpoint of a connection."""
    source, target = ip_address(addresses[0]), ip_address(addresses[2])
    if version == "v1":
        if source.version != target.version:
            return b"PROXY UNKNOWN\r\n"
        words = f"PROXY TCP{source.version} {source} {target} {addresses[1]} {addresses[3]}\r\n"
        return words.encode()
    if source.version != target.version:
        return SIGNATURE + b"\x20\x00\x00\x00"
    body = source.packed + target.packed + addresses[1].to_bytes(2, "big") + addresses[3].to_bytes(2, "big")
    family = b"\x11" if source.version == 4 else b"\x21"
    return SIGNATURE + b"\x21" + family + len(body).to_bytes(2, "big") + body


def addresses_of(transport: asyncio.Transport, client: str) -> Addresses:
    """Who is connected to us on `transport`; `client` is its address where a PROXY header told another."""
    peer = transport.get_extra_info("peername") or ("0.0.0.0", 0)  # noqa: S104 — not bound, told
    own = transport.get_extra_info("sockname") or ("0.0.0.0", 0)  # noqa: S104
    return client or str(peer[0]), int(peer[1]), str(own[0]), int(own[1])


class Preface(Timed):
    """A connection whose PROXY header is awaited, before the real protocol takes over.

    A client that is not trusted says nothing of others: its connection goes on as it is.
    """

    __slots__ = ("_clients", "_clock", "_held", "_make", "_transport", "_wheel")

    def __init__(
        self, clients: Clients, wheel: TimerWheel, clock: Callable[[], float], make: Callable[[str], Accepting]
    ) -> None:
        super().__init__()
        self._clients = clients
        self._wheel = wheel
        self._clock = clock
        self._make = make
        self._held = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        if self._clients.is_trusted(address_of(transport)):
            self._wheel.arm(self, self._clock() + PREFACE_TIMEOUT)
        else:
            self._take_over("", b"")

    def data_received(self, data: bytes) -> None:
        self._held += data
        try:
            found = parse(self._held)
        except BadPreface:
            self._transport.abort()
            return
        if found is not None:
            addresses, length = found
            self._take_over(addresses[0] if addresses is not None else "", self._held[length:])

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        self._wheel.forget(self)

    def pause_writing(self) -> None:
        """Never called: nothing is written here."""

    def resume_writing(self) -> None:
        """Never called: nothing is written here."""

    def expired(self, now: float) -> None:
        self._transport.abort()

    def _take_over(self, address: str, rest: bytes) -> None:
        self._wheel.forget(self)
        protocol = self._make(address)
        transport = self._transport
        transport.set_protocol(protocol)  # type: ignore[arg-type]  # a protocol by its methods
        protocol.connection_made(transport)
        if rest and not transport.is_closing():
            protocol.data_received(rest)
