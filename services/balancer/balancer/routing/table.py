"""The compiled table: from a request's head to its rule in a few look-ups, however many rules there are.

A host finds its bucket by its name, then by each shorter wildcard; in it the path finds its candidates by itself, then
each prefix from the longest; among the rules of one path, those that ask for the same fields by name are found by the
values.

A table never changes. A new one is made of it and of what came and went: hosts and paths to which nothing was added are
shared, so that one route's change costs what that route costs, whatever there is beside it.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from balancer.routing.candidates import Candidates, Entry, Rank
from balancer.routing.match import EXACT, MAX_HOST, PATTERN, RouteRequest, host_rank
from balancer.routing.rule import Rule

STEP: Final = 64
"""Entries that are put in their place without a pause: some 0.2 ms."""

Changes = tuple[list[Entry], list[Entry]]
"""Entries that go, and entries that come."""


def in_order(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, the one that goes first first."""
    by_rank = sorted(entries, key=rank_of)
    return sorted(by_rank, key=lambda entry: (host_rank(entry.host), entry.match.kind), reverse=True)


def rank_of(entry: Entry) -> Rank:
    """Where an entry stands among those of its host and kind of path."""
    return entry.rank


class Table:
    """All rules of one listener, or of several that share an address, compiled."""

    __slots__ = ("_any", "_names", "_wildcards")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._names: dict[bytes, Paths] = {}
        self._wildcards: dict[bytes, Paths] = {}
        self._any: Paths | None = None
        for _ in self._fill([], entries):
            pass

    def changing(self, gone: Iterable[Entry], come: Iterable[Entry]) -> Iterator[Table | None]:
        """In small steps, the table with other entries: None until it is there, last the table."""
        table = Table()
        table._names = dict(self._names)
        table._wildcards = dict(self._wildcards)
        table._any = self._any
        yield from table._fill(gone, come)
        yield table

    def _fill(self, gone: Iterable[Entry], come: Iterable[Entry]) -> Iterator[None]:
        hosts: dict[bytes, Changes] = {}
        taken = 0
        for entry in gone:
            _changes(hosts, entry.host)[0].append(entry)
        for entry in come:
            _changes(hosts, entry.host)[1].append(entry)
            taken += 1
            if taken >= STEP:
                taken = 0
                yield None
        for host, (leaving, coming) in hosts.items():
            paths = Paths()
            for count in paths.filling(self._bucket(host), leaving, coming):
                taken += count
                if taken >= STEP:
                    taken = 0
                    yield None
            self._put(host, paths)

    def _bucket(self, host: bytes) -> Paths | None:
        if not host:
            return self._any
        return self._wildcards.get(host[1:]) if host.startswith(b"*.") else self._names.get(host)

    def _put(self, host: bytes, paths: Paths) -> None:
        if not host:
            self._any = None if paths.empty else paths
            return
        where, key = (self._wildcards, host[1:]) if host.startswith(b"*.") else (self._names, host)
        if not paths.empty:
            where[key] = paths
        elif key in where:
            del where[key]

    def entries(self) -> Iterator[Entry]:
        """Every entry, for people: host by host, names before wildcards before all others."""
        for hosts in (self._names, self._wildcards):
            for paths in hosts.values():
                yield from paths.entries()
        if self._any is not None:
            yield from self._any.entries()

    def route(self, request: RouteRequest) -> Rule | None:
        """The rule that a request goes by, or None."""
        host = request.host
        paths = self._names.get(host)
        if paths is not None and (rule := paths.find(request)) is not None:
            return rule
        if self._wildcards and len(host) <= MAX_HOST:
            dot = host.find(b".")
            while dot >= 0:
                # Of a wildcard at least one label is left (its first may not be empty).
                paths = self._wildcards.get(host[dot:]) if dot else None
                if paths is not None and (rule := paths.find(request)) is not None:
                    return rule
                dot = host.find(b".", dot + 1)
        return self._any.find(request) if self._any is not None else None


class Paths:
    """The rules of one host, by path."""

    __slots__ = ("_always", "_depth", "_exact", "_patterns", "_prefixes", "empty")

    def __init__(self) -> None:
        self._exact: dict[bytes, Candidates] = {}
        self._patterns: list[Entry] = []
        self._prefixes: dict[bytes, Candidates] = {}
        self._depth = 0
        """How many slashes the longest prefix has: deeper into a path nothing is looked for."""
        self._always: Rule | None = None
        """The only rule, where it takes every path and asks for nothing else: hosts mostly have one."""
        self.empty = True

    def entries(self) -> Iterator[Entry]:
        """Every entry: exact paths, patterns, prefixes."""
        for candidates in self._exact.values():
            yield from candidates.entries
        yield from self._patterns
        for candidates in self._prefixes.values():
            yield from candidates.entries

    def filling(self, before: Paths | None, gone: list[Entry], come: list[Entry]) -> Iterator[int]:
        """Become what `before` is, but for these entries; yields in steps how many it has looked at."""
        if before is not None:
            self._exact = dict(before._exact)
            self._prefixes = dict(before._prefixes)
            leaving = frozenset(gone)
            self._patterns = [entry for entry in before._patterns if entry not in leaving]
        yield len(self._patterns)
        exact: dict[bytes, Changes] = {}
        prefixes: dict[bytes, Changes] = {}
        for entry in gone:
            if entry.match.kind != PATTERN:
                _changes(exact if entry.match.kind == EXACT else prefixes, entry.match.path)[0].append(entry)
        for entry in come:
            if entry.match.kind == PATTERN:
                insort(self._patterns, entry, key=rank_of)
            else:
                _changes(exact if entry.match.kind == EXACT else prefixes, entry.match.path)[1].append(entry)
            yield 1
        yield from _filling(self._exact, exact)
        yield from _filling(self._prefixes, prefixes)
        self._depth = max([path.count(b"/") for path in self._prefixes], default=0)
        self.empty = not (self._exact or self._patterns or self._prefixes)
        self._always = self._only()

    def _only(self) -> Rule | None:
        everything = self._prefixes.get(b"")
        if everything is None or self._exact or self._patterns or len(self._prefixes) > 1:
            return None
        first = everything.entries[0]
        asks = first.match.method or first.match.headers or first.match.parameters
        return None if asks else first.rule

    def find(self, request: RouteRequest) -> Rule | None:
        """The rule that a request for this host goes by, or None."""
        path = request.path
        if self._always is not None:
            return self._always if path[:1] in (b"", b"/") else None
        candidates = self._exact.get(path)
        if candidates is not None and (rule := candidates.find(request)) is not None:
            return rule
        for entry in self._patterns:
            if entry.match.matches(request):
                return entry.rule
        prefixes = self._prefixes
        if not prefixes:
            return None
        end = self._cut(path)
        while end > 0:
            candidates = prefixes.get(path[:end])
            if candidates is not None and (rule := candidates.find(request)) is not None:
                return rule
            end = path.rfind(b"/", 0, end)
        candidates = prefixes.get(b"")
        return candidates.find(request) if candidates is not None and path[:1] in (b"", b"/") else None

    def _cut(self, path: bytes) -> int:
        """The end of the part of a path that prefixes can reach: a path of a thousand slashes costs no more."""
        end = -1
        for _ in range(self._depth + 1):
            end = path.find(b"/", end + 1)
            if end < 0:
                return len(path)
        return end


def _changes(places: dict[bytes, Changes], key: bytes) -> Changes:
    found = places.get(key)
    if found is None:
        found = places[key] = ([], [])
    return found


def _filling(places: dict[bytes, Candidates], changes: dict[bytes, Changes]) -> Iterator[int]:
    """Replace what changes; every other path's candidates stay the objects that they are."""
    for path, (gone, come) in changes.items():
        before = places.get(path)
        staying = before.without(frozenset(gone)) if before is not None else []
        if not staying and not come:
            places.pop(path, None)
            continue
        candidates = places[path] = Candidates()
        for entries in (staying, come):
            for entry in entries:
                candidates.add(entry)
                yield 1
