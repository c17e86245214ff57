"""A client's place: taken when its connection is accepted, given back when that is gone, once each.

The transport holds it and gives it back, whatever became of protocol and handshake; so no count can leak that no
descriptor leaks.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import trait

from balancer.proxy.transport import Guard, Transport

Addresses = tuple[str, int, str, int]
"""Source address and port, destination address and port."""

REQUESTS: Final = 0
"""Requests, by TLS or without."""
PASSED: Final = 1
"""A TLS connection whose bytes go to an endpoint as they are."""
TERMINATED: Final = 2
"""A TLS connection that ends here, and whose bytes go to an endpoint."""


@trait
class Keeper:
    """Counts the places that are taken."""

    def released(self, place: Place) -> None:
        """A connection has ended: `place` calls this once."""
        raise NotImplementedError


class Place(Guard):
    """One connection's, among those that are open."""

    __slots__ = (
        "_keeper",
        "_released",
        "address",
        "addresses",
        "allowed",
        "alpn",
        "began",
        "carries",
        "counted",
        "name",
        "scheme",
        "transport",
        "trusted",
    )

    def __init__(self, keeper: Keeper, address: str, scheme: bytes, began: float) -> None:
        self._keeper = keeper
        self._released = False
        self.address = address
        """The client's IP address: the peer's, or the one in a trusted proxy's PROXY header."""
        self.addresses: Addresses | None = None
        """All that the PROXY header says; None: there was none."""
        self.scheme = scheme
        """`http` or `https`."""
        self.alpn = ""
        """The protocol agreed on in the TLS handshake; empty: none."""
        self.carries = REQUESTS
        """What is made of its bytes: REQUESTS, or a tunnel (PASSED, TERMINATED)."""
        self.name = ""
        """The name that the client's first TLS message asks for, where that is read before anything else."""
        self.began = began
        """When (s) it was taken."""
        self.transport: Transport | None = None
        """The connection, until it is gone."""
        self.counted = False
        """Whether it counts among the client's connections, where these are limited."""
        self.trusted = False
        """Whether the client is in LB_TRUSTED_PROXIES."""
        self.allowed = True
        """Whether the client has no more connections than it may."""

    def release(self) -> None:
        """Give it back."""
        if not self._released:
            self._released = True
            self.transport = None
            self._keeper.released(self)
