"""The compiled table: from a request's head to its rule in a few look-ups, however many rules there are.

A host finds its bucket by its name, then by each shorter wildcard; in it the path finds its candidates by itself, then
each prefix from the longest; among the rules of one path, those that ask for the same fields by name are found by the
values. The order of precedence is in the order of the steps, and in a number that every entry has where it is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from balancer.routing.match import EXACT, MAX_HOST, PATTERN, Asked, Match, Wanted, host_rank
from balancer.routing.rule import Rule

FEW: Final = 4
"""So many candidates are tried one after the other: sorting by fields would cost more."""

_Signature = tuple[bool, tuple[bytes, ...], tuple[bytes, ...]]
"""Whether a method is asked for, and the names of the fields and parameters that must have a certain value."""


class Entry:
    """One match of a rule, for one host. `age` (text that sorts) and `name` are the route's, `place` the rule's."""

    __slots__ = ("age", "host", "match", "name", "order", "place", "rule")

    def __init__(self, host: bytes, match: Match, rule: Rule, age: str = "", name: str = "", place: int = 0) -> None:
        self.host = host
        """In lower case; empty for every host, `*.` before what a wildcard ends in."""
        self.match = match
        self.rule = rule
        self.age = age
        self.name = name
        self.place = place
        self.order = 0
        """Where it stands among all of its table: the lowest that matches wins."""


def in_order(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, the one that goes first first."""
    by_age = sorted(entries, key=lambda entry: (entry.age, entry.name, entry.place))
    return sorted(by_age, key=lambda entry: (host_rank(entry.host), entry.match.rank), reverse=True)


class Table:
    """All rules of one listener, or of several that share an address, compiled."""

    __slots__ = ("_any", "_names", "_wildcards", "size")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.size = len(entries)
        """How many matches there are."""
        self._names: dict[bytes, _Paths] = {}
        self._wildcards: dict[bytes, _Paths] = {}
        self._any: _Paths | None = None
        for order, entry in enumerate(in_order(entries)):
            entry.order = order
            self._bucket(entry.host).add(entry)

    def route(self, asked: Asked) -> Rule | None:
        """The rule that a request goes by, or None."""
        host = asked.host
        paths = self._names.get(host)
        if paths is not None and (rule := paths.find(asked)) is not None:
            return rule
        if self._wildcards and len(host) <= MAX_HOST:
            dot = host.find(b".")
            while dot >= 0:
                # Of a wildcard at least one label is left (its first may not be empty).
                paths = self._wildcards.get(host[dot:]) if dot else None
                if paths is not None and (rule := paths.find(asked)) is not None:
                    return rule
                dot = host.find(b".", dot + 1)
        return self._any.find(asked) if self._any is not None else None

    def _bucket(self, host: bytes) -> _Paths:
        if not host:
            if self._any is None:
                self._any = _Paths()
            return self._any
        where, key = (self._wildcards, host[1:]) if host.startswith(b"*.") else (self._names, host)
        paths = where.get(key)
        if paths is None:
            paths = where[key] = _Paths()
        return paths


class _Paths:
    """The rules of one host, by path."""

    __slots__ = ("_depth", "_exact", "_patterns", "_prefixes")

    def __init__(self) -> None:
        self._exact: dict[bytes, _Candidates] = {}
        self._patterns: list[Entry] = []
        self._prefixes: dict[bytes, _Candidates] = {}
        self._depth = 0
        """How many slashes the longest prefix has: deeper into a path nothing is looked for."""

    def add(self, entry: Entry) -> None:
        """To be called in the entries' order."""
        match = entry.match
        if match.kind == PATTERN:
            self._patterns.append(entry)
            return
        if match.kind != EXACT:
            self._depth = max(self._depth, match.path.count(b"/"))
        where = self._exact if match.kind == EXACT else self._prefixes
        candidates = where.get(match.path)
        if candidates is None:
            candidates = where[match.path] = _Candidates()
        candidates.add(entry)

    def find(self, asked: Asked) -> Rule | None:
        path = asked.path
        candidates = self._exact.get(path)
        if candidates is not None and (rule := candidates.find(asked)) is not None:
            return rule
        for entry in self._patterns:
            if entry.match.matches(asked):
                return entry.rule
        prefixes = self._prefixes
        if not prefixes:
            return None
        end = self._cut(path)
        while end > 0:
            candidates = prefixes.get(path[:end])
            if candidates is not None and (rule := candidates.find(asked)) is not None:
                return rule
            end = path.rfind(b"/", 0, end)
        candidates = prefixes.get(b"")
        return candidates.find(asked) if candidates is not None and path[:1] in (b"", b"/") else None

    def _cut(self, path: bytes) -> int:
        """The end of the part of a path that prefixes can reach: a path of a thousand slashes costs no more."""
        end = -1
        for _ in range(self._depth + 1):
            end = path.find(b"/", end + 1)
            if end < 0:
                return len(path)
        return end


class _Candidates:
    """The rules of one host and path, the first to go first; many are sorted by the fields that they ask for."""

    __slots__ = ("_all", "_groups")

    def __init__(self) -> None:
        self._all: list[Entry] = []
        self._groups: dict[_Signature, _Group] = {}

    def add(self, entry: Entry) -> None:
        self._all.append(entry)
        if len(self._all) > FEW:
            for each in [entry] if self._groups else self._all:
                key = _signature(each.match)
                group = self._groups.get(key)
                if group is None:
                    # Entries come in their order, so that groups stand in the order of their first.
                    self._groups[key] = _Group(key, each)
                else:
                    group.add(each)

    def find(self, asked: Asked) -> Rule | None:
        if not self._groups:
            for entry in self._all:
                if entry.match.rest_matches(asked):
                    return entry.rule
            return None
        best: Entry | None = None
        for group in self._groups.values():
            if best is not None and best.order < group.first:
                break
            found = group.find(asked)
            if found is not None and (best is None or found.order < best.order):
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
        self.first = entry.order
        """The lowest order in it."""
        self._by_values: dict[tuple[bytes, ...], list[Entry]] = {}
        self.add(entry)

    def add(self, entry: Entry) -> None:
        match = entry.match
        values = [match.method] if self.key[0] else []
        for wanted in (match.headers, match.parameters):
            values.extend(each.value for each in sorted(wanted, key=_name) if each.pattern is None)
        self._by_values.setdefault(tuple(values), []).append(entry)

    def find(self, asked: Asked) -> Entry | None:
        with_method, headers, parameters = self.key
        values = [asked.method] if with_method else []
        for name in headers:
            value = asked.header(name)
            if value is None:
                return None
            values.append(value)
        for name in parameters:
            value = asked.parameter(name)
            if value is None:
                return None
            values.append(value)
        for entry in self._by_values.get(tuple(values), ()):
            if entry.match.rest_matches(asked):
                return entry
        return None


def _name(wanted: Wanted) -> bytes:
    return wanted.name
