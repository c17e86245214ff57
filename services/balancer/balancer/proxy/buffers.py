"""How much may wait to be sent: one account for all connections, and what each may do with what is left of it.

The more bytes wait, the smaller the pieces that are read and the sooner a connection counts as full. Beyond the whole
account every connection with anything unsent is full: those who do not read are stopped first, those who read never
notice.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

LARGE: Final = 256 * 1024
"""Bytes read at once, and unsent on one connection, while little waits in all."""
MIDDLE: Final = 64 * 1024
SMALL: Final = 16 * 1024
LITTLE: Final = 2 << 20
"""Bytes that wait in all up to which pieces are large."""
SOME: Final = 6 << 20
"""Up to which they are of middling size."""

DEFAULT_SHARE: Final = 0.25
"""Of the memory that this container or machine has."""


class Buffers:
    """Bytes that wait in all, and the size of the next piece."""

    __slots__ = ("_more", "_much", "limit", "most", "piece", "unsent")

    def __init__(self, limit: int) -> None:
        """`limit`: LB_MAX_BUFFER_MEMORY (bytes)."""
        self.limit = limit
        self.unsent = 0
        """Bytes that wait to be sent, on all connections."""
        self.most = 0
        """The most that waited since this was last reset."""
        self.piece = LARGE
        """Bytes to read at once; also the high-water mark of each connection."""
        self._much = min(limit // 16, LITTLE)
        self._more = min(limit // 4, SOME)
        self.add(0)

    def add(self, size: int) -> None:
        """`size` bytes more wait; fewer, if it is negative."""
        unsent = self.unsent + size
        self.unsent = unsent
        if unsent > self.most:
            self.most = unsent
        if unsent <= self._much:
            self.piece = LARGE
        elif unsent <= self._more:
            self.piece = MIDDLE
        else:
            self.piece = SMALL


def default_limit() -> int:
    """A quarter of the memory that the container may use, or that the machine has (bytes)."""
    return int(_memory() * DEFAULT_SHARE)


def _memory() -> int:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(file).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            return min(machine, int(text))
    return machine
