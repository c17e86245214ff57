"""Who connects: which client a connection comes from, whether it is trusted, and how many it has open."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from balancer.counters import Counters, count
from balancer.proxy.listener import Listener


class Clients:
    """Keeps count of the connections of each client, and of all."""

    __slots__ = ("_counters", "_limit", "_open", "_trusted", "listener")

    def __init__(
        self, counters: Counters, trusted: Sequence[IPv4Network | IPv6Network], limit_per_client: int | None
    ) -> None:
        self._counters = counters
        self._trusted = trusted
        self._limit = limit_per_client
        self._open: dict[str, int] = {}
        self.listener: Listener | None = None

    def is_trusted(self, address: str) -> bool:
        """Whether `address` is in LB_TRUSTED_PROXIES."""
        if not self._trusted:
            return False
        ip = ip_address(address.partition("%")[0])
        return any(ip in network for network in self._trusted)

    def opened(self, address: str) -> bool:
        """A connection from `address` was accepted; False when it has more than it may. Call `closed` in any case."""
        if self.listener is not None:
            self.listener.opened()
        if self._limit is None:
            return True
        open_now = self._open.get(address, 0) + 1
        self._open[address] = open_now
        if open_now > self._limit:
            count(self._counters.connections_refused, "too many connections from this client")
            return False
        return True

    def closed(self, address: str) -> None:
        """A connection from `address` has ended."""
        if self.listener is not None:
            self.listener.closed()
        if self._limit is not None:
            left = self._open.get(address, 0) - 1
            if left > 0:
                self._open[address] = left
            else:
                self._open.pop(address, None)


def address_of(transport: asyncio.Transport) -> str:
    """The IP address at the far end; empty when it is gone already."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if peer else ""
