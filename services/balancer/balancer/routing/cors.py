"""Who may ask from another origin (CORS): what a preflight is answered, and what is said beside an endpoint's response.

Source: the Fetch standard's CORS protocol; the fields' meanings are those of the Gateway API's HTTPCORSFilter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from balancer.routing.match import RouteRequest
from balancer.routing.rule import Edits

EVERY: Final = b"*"

Fields = list[tuple[bytes, bytes]]


class Cors:
    """What pages of other origins may do."""

    __slots__ = ("_all", "_credentials", "_exposed", "_headers", "_max_age", "_methods", "_names", "_patterns")

    def __init__(
        self,
        origins: Sequence[bytes],
        methods: Sequence[bytes] = (),
        headers: Sequence[bytes] = (),
        exposed: Sequence[bytes] = (),
        credentials: bool = False,
        max_age: int = 5,
    ) -> None:
        """`origins` are whole (`https://a.com`), with a wildcard (`https://*.a.com`), or `*`; `max_age` in seconds."""
        self._all = EVERY in origins
        self._names = frozenset(each.lower() for each in origins if EVERY not in each)
        self._patterns = [
            re.compile(re.escape(each.lower()).replace(rb"\*", rb"[^/]+"))
            for each in origins
            if EVERY in each and each != EVERY
        ]
        self._methods = tuple(methods)
        self._headers = tuple(headers)
        self._exposed = tuple(exposed)
        self._credentials = credentials
        self._max_age = max_age

    def allows(self, origin: bytes) -> bool:
        """Whether pages of an origin may ask."""
        origin = origin.lower()
        return self._all or origin in self._names or any(each.fullmatch(origin) is not None for each in self._patterns)

    def preflight(self, request: RouteRequest) -> Fields | None:
        """The fields of the answer to a preflight; None: the request is none."""
        origin, method = request.header(b"origin"), request.header(b"access-control-request-method")
        if request.method != b"OPTIONS" or origin is None or method is None:
            return None
        if not self.allows(origin):
            return []
        fields = self._who(origin)
        wanted = request.header(b"access-control-request-headers")
        if self._methods:
            # With credentials a star means itself: the requested names are sent instead.
            every = EVERY in self._methods and self._credentials
            fields.append((b"access-control-allow-methods", method if every else b", ".join(self._methods)))
        if self._headers:
            every = EVERY in self._headers and self._credentials and wanted is not None
            listed = wanted if every and wanted is not None else b", ".join(self._headers)
            fields.append((b"access-control-allow-headers", listed))
        fields.append((b"access-control-max-age", b"%d" % self._max_age))
        return fields

    def edits(self, request: RouteRequest) -> Edits | None:
        """What a response to another origin says beside; None: nothing."""
        origin = request.header(b"origin")
        if origin is None or not self.allows(origin):
            return None
        fields = self._who(origin)
        return Edits(set=[field for field in fields if field[0] != b"vary"], add=[(b"vary", b"Origin")])

    def _who(self, origin: bytes) -> Fields:
        """The origin itself even where all are allowed: a response is then for one of them, and Vary says so."""
        fields: Fields = [(b"access-control-allow-origin", origin)]
        if self._credentials:
            fields.append((b"access-control-allow-credentials", b"true"))
        if self._exposed:
            fields.append((b"access-control-expose-headers", b", ".join(self._exposed)))
        fields.append((b"vary", b"Origin"))
        return fields
