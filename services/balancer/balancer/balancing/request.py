"""What a strategy may know of a request."""

from __future__ import annotations

from collections.abc import Sequence

from mypy_extensions import mypyc_attr


@mypyc_attr(acyclic=True)
class RequestInfo:
    """One request (or, in TCP mode, one connection) as a strategy sees it."""

    __slots__ = ("client", "headers", "method", "path")

    def __init__(
        self, client: str = "", method: str = "", path: str = "", headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        self.client = client
        """The client's IP address."""
        self.method = method
        self.path = path
        """The path without the query; empty in TCP mode."""
        self.headers = headers
        """Name and value of each header field, in the order received; names in the case received."""

    def header(self, name: str) -> str | None:
        """The first value of the header field `name` (any case), or None."""
        wanted = name.lower().encode()
        for field, value in self.headers:
            if field.lower() == wanted:
                return value.decode("latin-1")
        return None

    def cookie(self, name: str) -> str | None:
        """The value of the cookie `name`, without quotes, from whichever Cookie field has it; or None."""
        for field, line in self.headers:
            if field.lower() != b"cookie":
                continue
            for pair in line.decode("latin-1").split(";"):
                key, _, value = pair.partition("=")
                if key.strip() == name:
                    value = value.strip()
                    quoted = len(value) > 1 and value[0] == value[-1] == '"'  # RFC 6265 §4.1.1: it may be, or not
                    return value[1:-1] if quoted else value
        return None
