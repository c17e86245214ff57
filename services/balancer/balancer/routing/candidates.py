"""The rules of one host and path: the first, in the order of precedence, whose other conditions hold."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from typing import Final

from balancer.routing.match import Match, RouteRequest, Wanted
from balancer.routing.rule import Rule

FEW: Final = 4
"""So many candidates are tried one after the other: sorting by fields would cost more."""

Rank = tuple[int, int, int, int, str, str, int]
"""What orders the rules of one host and one kind of path: the lowest goes first."""

_Signature = tuple[bool, tuple[bytes, ...], tuple[bytes, ...]]
"""Whether a method is wanted, and the names of the fields and parameters that must have a certain value."""


class Entry:
    """One match of a rule, for one host. `age` (text that sorts) and `name` are the route's, `place` the rule's."""

    __slots__ = ("age", "host", "match", "name", "place", "rank", "rule")

    def __init__(self, host: bytes, match: Match, rule: Rule, age: str = "", name: str = "", place: int = 0) -> None:
        self.host = host
        """In lower case; empty for every host, `*.` before what a wildcard ends in."""
        self.match = match
        self.rule = rule
        self.age = age
        self.name = name
        self.place = place
        _, length, method, headers, parameters = match.rank
        self.rank: Rank = (-length, -method, -headers, -parameters, age, name, place)


class Candidates:
    """Entries that differ in what they ask beside host and path, or not at all; many are sorted by the fields."""

    __slots__ = ("_groups", "_ranks", "entries")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        """In the order of precedence."""
        self._ranks: list[Rank] = []
        self._groups: dict[_Signature, _Group] = {}

    def add(self, entry: Entry) -> None:
        """One more, in its place."""
        place = bisect_right(self._ranks, entry.rank)  # Of equals the first added goes first.
        self._ranks.insert(place, entry.rank)
        self.entries.insert(place, entry)
        if len(self.entries) > FEW:
            for each in [entry] if self._groups else self.entries:
                self._group(each)

    def without(self, gone: Collection[Entry]) -> list[Entry]:
        """The entries but these."""
        return [entry for entry in self.entries if entry not in gone]

    def _group(self, entry: Entry) -> None:
        key = _signature(entry.match)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(key, entry)
        else:
            group.add(entry)

    def find(self, request: RouteRequest) -> Rule | None:
        """The rule that a request goes by, or None."""
        if not self._groups:
            for entry in self.entries:
                if entry.match.rest_matches(request):
                    return entry.rule
            return None
        best: Entry | None = None
        for group in self._groups.values():
            if best is None or group.first < best.rank:
                found = group.find(request)
                if found is not None and (best is None or found.rank < best.rank):
                    best = found
        return best.rule if best is not None else None


def _signature(match: Match) -> _Signature:
    """Which fields a match asks for an exact value of."""
    return bool(match.method), _exact_names(match.headers), _exact_names(match.parameters)


def _exact_names(wanted: Sequence[Wanted]) -> tuple[bytes, ...]:
    return tuple(sorted(each.name for each in wanted if each.pattern is None))


class _Group:
    """Rules that ask for the same fields: what they ask of them finds the rule."""

    __slots__ = ("_by_values", "first", "key")

    def __init__(self, key: _Signature, entry: Entry) -> None:
        self.key = key
        self.first = entry.rank
        """The lowest rank in it."""
        self._by_values: dict[tuple[bytes, ...], list[Entry]] = {}
        self.add(entry)

    def add(self, entry: Entry) -> None:
        match = entry.match
        values = [match.method] if self.key[0] else []
        for wanted in (match.headers, match.parameters):
            values.extend(each.value for each in sorted(wanted, key=_name) if each.pattern is None)
        same = self._by_values.setdefault(tuple(values), [])
        place = len(same)
        while place and entry.rank < same[place - 1].rank:
            place -= 1
        same.insert(place, entry)
        self.first = min(self.first, entry.rank)

    def find(self, request: RouteRequest) -> Entry | None:
        with_method, headers, parameters = self.key
        values = [request.method] if with_method else []
        for name in headers:
            value = request.header(name)
            if value is None:
                return None
            values.append(value)
        for name in parameters:
            value = request.parameter(name)
            if value is None:
                return None
            values.append(value)
        for entry in self._by_values.get(tuple(values), ()):
            if entry.match.rest_matches(request):
                return entry
        return None


def _name(wanted: Wanted) -> bytes:
    return wanted.name
