"""One address: its listeners by host name, each with a table of its own. The most specific listener takes a request."""

from __future__ import annotations

from collections.abc import Mapping

from balancer.routing.match import MAX_HOST, RouteRequest
from balancer.routing.rule import Rule
from balancer.routing.table import Table


class Site:
    """The tables of one port. A request whose listener has no rule for it is not tried at another listener."""

    __slots__ = ("tables",)

    def __init__(self, tables: Mapping[bytes, Table]) -> None:
        """`tables` by the listeners' host names: a name, a wildcard (`*.example.com`), or empty for every host."""
        self.tables = dict(tables)

    def route(self, request: RouteRequest) -> Rule | None:
        """The rule that a request goes by, or None."""
        table = self._table(request.host)
        return table.route(request) if table is not None else None

    def _table(self, host: bytes) -> Table | None:
        tables = self.tables
        if len(tables) == 1 and b"" in tables:
            return tables[b""]
        found = tables.get(host)
        dot = host.find(b".", 1) if len(host) <= MAX_HOST else -1
        while found is None and dot > 0:
            found = tables.get(b"*" + host[dot:])
            dot = host.find(b".", dot + 1)
        return found if found is not None else tables.get(b"")
