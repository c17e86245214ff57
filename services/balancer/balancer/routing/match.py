"""What a rule asks of a request: host, path, method, header fields, query. The plain definition of a match.

The words and the order of precedence are those of the Gateway API (HTTPRouteMatch): the most specific host, an exact
path, a pattern, the longest prefix, a method, the most header fields, the most query parameters, the oldest route, the
first by name, the first rule in it. `Table` finds in a few look-ups what a scan by `Match.matches` finds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

EXACT: Final = 2
PATTERN: Final = 1
PREFIX: Final = 0

MAX_PATTERN_PATH: Final = 2048
"""Bytes of the longest path that a pattern is tried on: what a pattern may cost grows with it."""
MAX_HOST: Final = 255
"""Bytes of the longest host that a wildcard covers: no name of DNS is longer."""

Fields = Sequence[tuple[bytes, bytes]]


class RouteRequest:
    """A request's head, as far as rules ask for it. Names of `headers` in lower case."""

    __slots__ = ("_parameters", "headers", "host", "method", "path", "query")

    def __init__(
        self, host: bytes, path: bytes, method: bytes = b"GET", query: bytes = b"", headers: Fields = ()
    ) -> None:
        self.host = host
        """In lower case, without a port."""
        self.path = path
        self.method = method
        self.query = query
        self.headers = headers
        self._parameters: dict[bytes, bytes] | None = None

    def header(self, name: bytes) -> bytes | None:
        """The value of a field; of one that comes several times all, with commas between (RFC 9110 §5.3)."""
        found: bytes | None = None
        for field, value in self.headers:
            if field == name:
                found = value if found is None else b"%b,%b" % (found, value)
        return found

    def parameter(self, name: bytes) -> bytes | None:
        """The first value of a query parameter, decoded."""
        if self._parameters is None:
            self._parameters = {}
            for pair in self.query.split(b"&"):
                key, _, value = pair.partition(b"=")
                self._parameters.setdefault(_decoded(key), _decoded(value))
        return self._parameters.get(name)


class Wanted:
    """A header field or query parameter that must be there with a value: equal, or matched whole by a pattern."""

    __slots__ = ("name", "pattern", "value")

    def __init__(self, name: bytes, value: bytes, is_pattern: bool = False) -> None:
        """Raises re.error."""
        self.name = name
        self.value = value
        self.pattern: re.Pattern[bytes] | None = re.compile(value) if is_pattern else None

    def agrees(self, value: bytes | None) -> bool:
        """Whether a field's value is one that is wanted."""
        if value is None:
            return False
        if self.pattern is not None:
            return len(value) <= MAX_PATTERN_PATH and self.pattern.fullmatch(value) is not None
        return value == self.value


class Match:
    """All that one match of a rule asks; what is empty asks nothing."""

    __slots__ = ("headers", "kind", "method", "parameters", "path", "pattern")

    def __init__(
        self,
        path: bytes = b"/",
        kind: int = PREFIX,
        method: bytes = b"",
        headers: Sequence[Wanted] = (),
        parameters: Sequence[Wanted] = (),
    ) -> None:
        """`kind` is EXACT, PATTERN or PREFIX; a prefix ends at a slash or where the path ends. Raises re.error."""
        self.kind = kind
        self.path = path.rstrip(b"/") if kind == PREFIX else path
        self.pattern: re.Pattern[bytes] | None = re.compile(path) if kind == PATTERN else None
        self.method = method
        self.headers = tuple(headers)
        self.parameters = tuple(parameters)

    def matches(self, request: RouteRequest) -> bool:
        """Whether a request (whatever its host) is one that is meant."""
        return self.path_matches(request.path) and self.rest_matches(request)

    def path_matches(self, path: bytes) -> bool:
        """Whether the path is one that is meant."""
        if self.pattern is not None:
            return len(path) <= MAX_PATTERN_PATH and self.pattern.fullmatch(path) is not None
        if self.kind == EXACT:
            return path == self.path
        return path.startswith(self.path) and path[len(self.path) : len(self.path) + 1] in (b"", b"/")

    def rest_matches(self, request: RouteRequest) -> bool:
        """Whether method, header fields and parameters are those that are meant."""
        if self.method and self.method != request.method:
            return False
        for wanted in self.headers:
            if not wanted.agrees(request.header(wanted.name)):
                return False
        return all(wanted.agrees(request.parameter(wanted.name)) for wanted in self.parameters)

    @property
    def rank(self) -> tuple[int, int, int, int, int]:
        """How specific it is: the higher goes first."""
        length = 0 if self.kind == EXACT else len(self.path)
        return self.kind, length, int(bool(self.method)), len(self.headers), len(self.parameters)


def host_matches(pattern: bytes, host: bytes) -> bool:
    """Whether a host is of a name or a wildcard: `*.example.com` is all that ends so, but not `example.com` itself.

    An empty pattern is every host.
    """
    if not pattern:
        return True
    if pattern.startswith(b"*."):
        return host.endswith(pattern[1:]) and len(pattern) <= len(host) <= MAX_HOST
    return host == pattern


def host_rank(pattern: bytes) -> tuple[int, int]:
    """How specific a host is: names before wildcards, the longer before the shorter, none last."""
    return int(bool(pattern) and not pattern.startswith(b"*.")), len(pattern)


def _decoded(part: bytes) -> bytes:
    return unquote_to_bytes(part.replace(b"+", b" ")) if b"%" in part or b"+" in part else part
