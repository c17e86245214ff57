"""TLS clients of one port who want different things, requests or bytes carried: the name asked for says which."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from balancer.proxy.opening import Protocols
from balancer.proxy.place import PASSED, REQUESTS, TERMINATED
from balancer.proxy.sni import most_specific


class Sorter:
    """Says what becomes of a TLS client before anything of TLS is done."""

    __slots__ = ("_by_host", "_others", "context", "streams")

    def __init__(self, streams: Protocols, context: ssl.SSLContext) -> None:
        self.streams = streams
        """Makes the protocol of a connection whose bytes are carried."""
        self.context = context
        """For TLS that ends here, of such connections."""
        self._by_host: dict[str, int] = {}
        self._others = PASSED

    def use(self, by_host: Mapping[str, int]) -> None:
        """From now on go by these host names and wildcards (empty: every name): REQUESTS, PASSED or TERMINATED.

        A name that none of them covers ends by an alert where TLS ends here for requests, and by a reset where bytes
        are passed on.
        """
        self._by_host = dict(by_host)
        kinds = set(self._by_host.values())
        self._others = next((kind for kind in (REQUESTS, PASSED, TERMINATED) if kind in kinds), PASSED)

    def sort(self, name: str) -> int:
        """What a client wants that asks for `name`, in lower case; empty: for none."""
        found = most_specific(self._by_host, name)
        return self._others if found is None else found

    @property
    def takes_requests(self) -> bool:
        """Whether anybody here wants requests."""
        return self._others == REQUESTS
