"""What a host to listen at stands for on this machine: `::` is every address that it can have, of both families.

A socket for `::` could take IPv4 clients too, and would then show their addresses as `::ffff:10.0.0.1`, which no
trusted network and no log expects. So there is a socket for each family, and where there is no IPv6 only one.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

EVERY_IPV4 = "0.0.0.0"  # noqa: S104
EVERY = "::"


def to_listen_at(hosts: Iterable[str]) -> list[str]:
    """The hosts, each once, with what `::` stands for here in its place; beside an IPv4 host it is IPv6 alone."""
    wanted = list(dict.fromkeys(hosts))
    if EVERY not in wanted:
        return wanted
    others = [host for host in wanted if host != EVERY]
    ipv4 = [] if any(":" not in host for host in others) else [EVERY_IPV4]
    return ([EVERY] if has_ipv6() else []) + ipv4 + others


def has_ipv6() -> bool:
    """Whether a socket can be bound to `::`: a kernel without IPv6 refuses one or the other."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((EVERY, 0))
    except OSError:
        return False
    return True
