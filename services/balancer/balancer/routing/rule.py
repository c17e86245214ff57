"""What becomes of a request that a rule takes: where it goes, what is changed on the way, or where the client is sent.

A rule is made once, of a route, and only read from then on, but for the place in its split.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from itertools import accumulate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from balancer.routing.cors import Cors

Networks = Sequence[IPv4Network | IPv6Network]

GOLDEN: Final = 0.6180339887498949
"""Steps of this part of a circle fill it evenly from the first on (Weyl; Knuth's multiplicative hashing)."""

SILVER: Final = 0.41421356237309515
"""Steps that fill it as evenly, and are in no ratio to those: a share of all requests is one of each backend's too."""

DEFAULT_PORTS: Final = {b"http": 80, b"https": 443}


class Edits:
    """Changes of header fields. Names in lower case."""

    __slots__ = ("add", "remove", "set")

    def __init__(
        self,
        set: Sequence[tuple[bytes, bytes]] = (),  # noqa: A002 — the API's word
        add: Sequence[tuple[bytes, bytes]] = (),
        remove: Sequence[bytes] = (),
    ) -> None:
        self.set = tuple(set)
        self.add = tuple(add)
        self.remove = frozenset(remove)

    def __bool__(self) -> bool:
        return bool(self.set or self.add or self.remove)

    def then(self, others: Edits) -> Edits:
        """These changes and after them others, as one."""
        gone = others.remove | {name for name, _ in others.set}
        return Edits(
            [*(each for each in self.set if each[0] not in gone), *others.set],
            [*(each for each in self.add if each[0] not in gone), *others.add],
            [*self.remove, *others.remove],
        )

    def applied(self, fields: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The fields (names in any case) as changed: an addition to a field that is there goes into its line."""
        gone = self.remove | {name for name, _ in self.set}
        kept = [field for field in fields if field[0].lower() not in gone]
        kept.extend(self.set)
        for name, value in self.add:
            if name == b"set-cookie":  # The one field whose lines cannot be joined (RFC 9110 §5.3).
                kept.append((name, value))
                continue
            for place, (field, present) in enumerate(kept):
                if field.lower() == name:
                    kept[place] = (field, b"%b,%b" % (present, value))
                    break
            else:
                kept.append((name, value))
        return kept


class PathChange:
    """A path in place of another: the `whole`, or what `prefix` has matched of it."""

    __slots__ = ("prefix", "replacement")

    def __init__(self, replacement: bytes, prefix: bytes | None = None) -> None:
        """`prefix` None: the whole path is replaced."""
        self.replacement = replacement
        self.prefix = None if prefix is None else prefix.rstrip(b"/")

    def applied(self, path: bytes) -> bytes:
        """The path that takes the place of `path`."""
        if self.prefix is None:
            return self.replacement or b"/"
        rest = path[len(self.prefix) :]
        # What is before the rest ends in no slash of its own: the rest, if any, begins with one.
        return (self.replacement.rstrip(b"/") + rest if rest else self.replacement) or b"/"


class PatternChange(PathChange):
    """A path made of what a pattern has found in another: `$1` is its first group."""

    __slots__ = ("_parts", "_pattern")

    def __init__(self, pattern: bytes, target: bytes) -> None:
        """The pattern is looked for at the path's beginning, in any case. Raises re.error."""
        super().__init__(target)
        self._pattern = re.compile(pattern, re.IGNORECASE)
        self._parts = re.split(rb"\$(\d)", target)
        if any(int(number) > self._pattern.groups for number in self._parts[1::2]):
            raise re.error("the target names a group that the pattern does not have")

    def applied(self, path: bytes) -> bytes:
        found = self._pattern.match(path)
        if found is None:
            return path
        made = [found.group(int(part)) or b"" if odd % 2 else part for odd, part in enumerate(self._parts)]
        changed = b"".join(made)
        return changed if changed.startswith(b"/") else b"/" + changed


class Redirect:
    """The client is sent elsewhere; what is None stays as requested."""

    __slots__ = ("host", "path", "port", "scheme", "status")

    def __init__(
        self,
        status: int = 302,
        scheme: bytes | None = None,
        host: bytes | None = None,
        port: int | None = None,
        path: PathChange | None = None,
    ) -> None:
        self.status = status
        self.scheme = scheme
        self.host = host
        self.port = port
        self.path = path

    def location(self, scheme: bytes, host: bytes, port: int, path: bytes, query: bytes) -> bytes:
        """Where to; `scheme`, `host` (without a port), `port` (the listener's), `path` and `query` as requested."""
        to_scheme = self.scheme or scheme
        to_port = self.port or (DEFAULT_PORTS.get(to_scheme, port) if self.scheme else port)
        authority = self.host or host
        if to_port != DEFAULT_PORTS.get(to_scheme):
            authority = b"%b:%d" % (authority, to_port)
        to_path = self.path.applied(path) if self.path is not None else path
        location = b"%b://%b%b" % (to_scheme, authority, to_path)
        return b"%b?%b" % (location, query) if query else location


class Backend:
    """One place for a rule's requests: a cluster by name, and what is changed for this one alone.

    A cluster of no name is a backend that may not or cannot be had: its share is answered 500.
    """

    __slots__ = ("cluster", "request", "response", "weight")

    def __init__(
        self, cluster: str, weight: int = 1, request: Edits | None = None, response: Edits | None = None
    ) -> None:
        self.cluster = cluster
        self.weight = weight
        self.request = request
        self.response = response


class Mirror:
    """Requests are also sent to `cluster`, whose answer nobody sees; `share` of them, from 0 to 1."""

    __slots__ = ("_point", "cluster", "share")

    def __init__(self, cluster: str, share: float = 1.0) -> None:
        self.cluster = cluster
        self.share = share
        self._point = 0.0

    def due(self) -> bool:
        """Whether the next request is one of its share."""
        if self.share >= 1.0:
            return True
        self._point = (self._point + SILVER) % 1.0
        return self._point < self.share


class Retrying:
    """How often, and why, a rule's requests are sent again, where that is not as for all of their cluster."""

    __slots__ = ("attempts", "backoff", "statuses")

    def __init__(self, statuses: frozenset[int] | None = None, attempts: int = -1, backoff: float = 0.0) -> None:
        self.statuses = statuses
        """Statuses on which an idempotent request is sent again; None: as set for all."""
        self.attempts = attempts
        """Beyond the first; below 0: as set for all."""
        self.backoff = backoff
        """Seconds before the first of them; twice as many before each further one, up to eight times."""


class Limits:
    """Whose requests a rule takes, and how large."""

    __slots__ = ("allow", "deny", "max_body")

    def __init__(self, allow: Networks = (), deny: Networks = (), max_body: int = -1) -> None:
        self.allow = tuple(allow)
        """Clients' addresses; none: all."""
        self.deny = tuple(deny)
        self.max_body = max_body
        """Bytes of a request's body; below 0: as set for all."""

    def lets_in(self, client: str) -> bool:
        """Whether a client, by its address, may ask."""
        if not self.allow and not self.deny:
            return True
        try:
            address = ip_address(client)
        except ValueError:
            return False  # Nobody knows who it is.
        if any(address in network for network in self.deny):
            return False
        return not self.allow or any(address in network for network in self.allow)


class Affinity:
    """A client stays with its endpoint by a cookie that we give it. `attributes` stand behind the cookie's value."""

    __slots__ = ("attributes", "cookie")

    def __init__(self, cookie: str, attributes: str = "") -> None:
        self.cookie = cookie
        self.attributes = attributes


class Rule:
    """One rule of a route."""

    __slots__ = (
        "_bounds",
        "_point",
        "affinity",
        "backend_timeout",
        "backends",
        "cors",
        "host",
        "limits",
        "mirrors",
        "name",
        "path",
        "redirect",
        "request",
        "response",
        "retry",
        "timeout",
    )

    def __init__(
        self,
        name: str,
        backends: Sequence[Backend] = (),
        request: Edits | None = None,
        response: Edits | None = None,
        redirect: Redirect | None = None,
        host: bytes | None = None,
        path: PathChange | None = None,
        mirrors: Sequence[Mirror] = (),
        timeout: float | None = None,
        backend_timeout: float | None = None,
        limits: Limits | None = None,
        affinity: Affinity | None = None,
        cors: Cors | None = None,
        retry: Retrying | None = None,
    ) -> None:
        self.name = name
        """The route's, with its namespace: for people, logs and metrics."""
        self.backends = tuple(backends)
        self.request = request
        self.response = response
        self.redirect = redirect
        self.host = host
        """What Host says to the endpoint; None: what the client said."""
        self.path = path
        self.mirrors = tuple(mirrors)
        self.timeout = timeout
        """Seconds for the whole request; 0: no limit; None: as set for all."""
        self.backend_timeout = backend_timeout
        """Seconds for each attempt."""
        self.limits = limits
        self.affinity = affinity
        self.cors = cors
        self.retry = retry
        self._bounds = list(accumulate(backend.weight for backend in self.backends))
        self._point = 0.0

    def choose(self) -> Backend | None:
        """The backend whose turn it is, by the weights; None: there is none to choose from, or none of any weight.

        Steps of the golden ratio spread the turns as evenly as whole numbers allow, whatever the weights.
        """
        backends = self.backends
        if len(backends) == 1:
            only = backends[0]
            return only if only.weight else None
        if not backends or not self._bounds[-1]:
            return None
        self._point = (self._point + GOLDEN) % 1.0
        return backends[bisect_right(self._bounds, self._point * self._bounds[-1])]
