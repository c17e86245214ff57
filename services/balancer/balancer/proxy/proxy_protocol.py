"""The PROXY protocol: who the client is, said by a trusted proxy before the connection's first byte, or by us.

Source: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from balancer.proxy.place import Addresses

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
MAX_V1: Final = 107
"""Bytes of the longest version 1 header, its CRLF included."""
_CRC32C: Final = 0x03
"""The type of the extension that holds a checksum of the whole header."""
_POLYNOMIAL: Final = 0x82F63B78
_SIZES: Final = {0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}
"""Bytes of both addresses and their ports, by family and transport; extensions may follow."""
_TCP: Final = (0x11, 0x21)
"""Those that are ours: two addresses and two ports of 2 bytes each."""


class BadProxyHeader(Exception):
    """What came is no PROXY protocol header; the text says why."""


def parse(data: bytes) -> tuple[Addresses | None, int] | None:
    """Read a header, version 1 or 2, from the beginning of `data`.

    The addresses (None when the proxy speaks for itself) and the header's length; None while it is not whole.
    Raises BadProxyHeader.
    """
    if data.startswith(SIGNATURE):
        return _parse_v2(data)
    if SIGNATURE.startswith(data[: len(SIGNATURE)]):
        return None
    return _parse_v1(data)


def _parse_v1(data: bytes) -> tuple[Addresses | None, int] | None:
    if not b"PROXY "[: len(data)] == data[:6]:
        raise BadProxyHeader("no PROXY protocol header")
    end = data.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        if len(data) >= MAX_V1:
            raise BadProxyHeader("PROXY header too long")
        return None
    words = data[:end].split(b" ")
    if words[1:2] == [b"UNKNOWN"]:
        return None, end + 2
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise BadProxyHeader("malformed PROXY header")
    try:
        source, target = ip_address(words[2].decode()), ip_address(words[3].decode())
        ports = [int(word) for word in words[4:] if word.isdigit()]
    except ValueError:
        raise BadProxyHeader("malformed address in the PROXY header") from None
    if len(ports) != 2 or max(ports) > 65535 or {source.version, target.version} != {int(words[1][3:])}:
        raise BadProxyHeader("malformed PROXY header")
    return _addresses(source, ports[0], target, ports[1]), end + 2


def _parse_v2(data: bytes) -> tuple[Addresses | None, int] | None:
    if len(data) < 16:
        return None
    command, family = data[12], data[13]
    length = int.from_bytes(data[14:16], "big")
    if command >> 4 != 2 or command & 15 > 1:
        raise BadProxyHeader("unknown version or command in the PROXY header")
    if len(data) < 16 + length:
        return None
    if command & 15 == 0:
        return None, 16 + length  # LOCAL: what it says is to be ignored (its section 2.2)
    said = _SIZES.get(family, length)
    _check_extensions(data[: 16 + length], 16 + said)
    if family not in _TCP:
        return None, 16 + length
    if length < said:
        raise BadProxyHeader("PROXY header too short for its addresses")
    size = (said - 4) // 2
    body = data[16:]
    source, target = ip_address(body[:size]), ip_address(body[size : 2 * size])
    ports = body[2 * size : 2 * size + 4]
    return (
        _addresses(source, int.from_bytes(ports[:2], "big"), target, int.from_bytes(ports[2:], "big")),
        16 + length,
    )


def _addresses(source: IPv4Address | IPv6Address, port: int, target: IPv4Address | IPv6Address, own: int) -> Addresses:
    """IPv4 that a proxy's socket for both families has mapped into IPv6 is IPv4, as networks, logs, limits say."""
    if isinstance(source, IPv6Address) and isinstance(target, IPv6Address):
        client, server = source.ipv4_mapped, target.ipv4_mapped
        if client is not None and server is not None:
            return str(client), port, str(server), own
    return str(source), port, str(target), own


def _check_extensions(header: bytes, position: int) -> None:
    """Whether what stands behind the addresses is whole extensions, and their checksum the header's (its section 2.2).

    Raises BadProxyHeader.
    """
    while position < len(header):
        end = position + 3 + int.from_bytes(header[position + 1 : position + 3], "big")
        if end > len(header) or position + 3 > len(header):
            raise BadProxyHeader("an extension beyond the end of the PROXY header")
        if header[position] == _CRC32C:
            said = header[position + 3 : end]
            blank = header[: position + 3] + bytes(len(said)) + header[end:]
            if len(said) != 4 or _crc32c(blank) != int.from_bytes(said, "big"):
                raise BadProxyHeader("wrong checksum in the PROXY header")
        position = end


def _crc32c(data: bytes) -> int:
    """RFC 3309, appendix B: a proxy's header is short, and few have a checksum."""
    rest = 0xFFFFFFFF
    for byte in data:
        rest ^= byte
        for _ in range(8):
            rest = (rest >> 1) ^ _POLYNOMIAL if rest & 1 else rest >> 1
    return rest ^ 0xFFFFFFFF


def render(version: str, addresses: Addresses) -> bytes:
    """The header of `version` (`v1` or `v2`) that describes a connection to an endpoint."""
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
