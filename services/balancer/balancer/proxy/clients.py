"""LB_MAX_CONNECTIONS_PER_CLIENT: how many connections each client's address has open.

A client that connects to us counts by connection, from the moment it is accepted. A trusted proxy carries many
clients over the connections that it keeps, so there each request in flight counts as a connection of the client that
it names, and the proxy's own connections count for nobody (as nginx's limit_conn and HAProxy's src_conn_cur do).
"""

from __future__ import annotations


class Clients:
    """The count of each address; nothing is kept of one that has none."""

    __slots__ = ("_limit", "_open")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: dict[str, int] = {}

    def enter(self, address: str) -> bool:
        """Count one more, if there may be that many: False, and nothing counted, if not."""
        number = self._open.get(address, 0)
        if number >= self._limit:
            return False
        self._open[address] = number + 1
        return True

    def leave(self, address: str) -> None:
        """One less of those that were counted."""
        left = self._open.get(address, 0) - 1
        if left > 0:
            self._open[address] = left
        else:
            self._open.pop(address, None)
