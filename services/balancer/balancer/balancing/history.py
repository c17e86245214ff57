"""What is remembered of the last moments, in memory that does not hold what has gone.

Python's allocator serves small pieces from arenas of a MiB, and gives an arena back when it is empty. What is made
while a crowd comes and lives longer than the crowd lies among its objects, and holds all those arenas: of 8,500 slow
clients 69 MiB stayed. So each value is kept as one piece of the C library's memory, which goes by pages.
"""

from __future__ import annotations

import marshal
from collections import deque
from collections.abc import Iterator
from typing import Any, Final, cast

LEAST: Final = 512
"""Bytes up to which Python's own allocator serves a piece."""


class History:
    """The last values of a kind, the oldest first: numbers, texts, None, and lists, tuples and dicts of these."""

    __slots__ = ("_kept",)

    def __init__(self, most: int) -> None:
        """`most`: how many are kept."""
        self._kept: deque[bytes] = deque(maxlen=most)

    def append(self, value: object) -> None:
        """Keep a value. Raises ValueError for what is no plain value."""
        self._kept.append(marshal.dumps(cast("Any", value)).ljust(LEAST))

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Any]:
        return map(marshal.loads, self._kept)

    def __reversed__(self) -> Iterator[Any]:
        return map(marshal.loads, reversed(self._kept))
