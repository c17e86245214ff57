"""The C library's heap: kept warm while bytes stream, given back when the connections that used them have gone.

glibc returns the end of its heap to the kernel at every turn of a large piece, and takes it back a moment later: with
its thresholds raised, to encrypt 1 MB costs half as much (0.8 ms for 1.8).
In exchange memory is given back only on request. The interpreter's own arenas go when they are empty.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from typing import Final

from balancer.proxy.buffers import Buffers
from balancer.proxy.poller import Poller

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
KEPT: Final = 8 << 20
"""Bytes at the heap's end that are not given back at once."""
LARGE: Final = 1 << 20
"""Bytes from which on a piece has pages of its own."""
WORTH: Final = 4 << 20
"""Bytes less that wait now than did at most: then giving back is worth its milliseconds."""
CROWD: Final = 256
"""Sockets fewer than there were at most: what their connections held by themselves is worth the same."""
FEW: Final = 2048
"""Sockets up to which the interpreter's objects are looked through: some 2 µs for each."""
LATER: Final = 10.0
"""Seconds until that is done once more: those who left last, and what was remembered of the last seconds, have filled
the interpreter's lists of free objects again."""
EVERY: Final = 1.0
"""Seconds between two looks."""


class Heap:
    """What there is to say to the C library; nothing where it is another than glibc."""

    def __init__(self, buffers: Buffers, poller: Poller) -> None:
        self._buffers = buffers
        self._poller = poller
        self._most_files = 0
        self._again_at = 0.0
        """When (s) to give back once more; 0: there is no need."""
        self._looked_at = 0.0
        self._library: ctypes.CDLL | None = None
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            library.mallopt(M_TRIM_THRESHOLD, KEPT)
            library.mallopt(M_MMAP_THRESHOLD, LARGE)
            library.malloc_trim.argtypes = [ctypes.c_size_t]
            self._library = library

    def tick(self, now: float) -> None:
        """Give back what is free, if much waited to be sent, or many were connected, and no more."""
        if now - self._looked_at < EVERY:
            return
        self._looked_at = now
        buffers = self._buffers
        files = self._poller.open_files
        self._most_files = max(self._most_files, files)
        emptier = buffers.most - buffers.unsent > WORTH and buffers.unsent < buffers.most // 2
        fewer = self._most_files - files > CROWD and files < self._most_files // 2
        if emptier:
            buffers.most = buffers.unsent
        if fewer:
            self._most_files = files
        again = 0.0 < self._again_at <= now
        if fewer or again:
            self._again_at = now + LATER if fewer else 0.0
            if files <= FEW:
                _let_go()
        if (emptier or fewer or again) and self._library is not None:
            self._library.malloc_trim(0)


def _let_go() -> None:
    """Empty what the interpreter keeps for itself.

    A list for reuse, or a name by which it has found a method, holds all of an arena that is empty else.
    """
    gc.collect()  # empties the lists of free objects; of garbage there is next to none
    clear = getattr(sys, "_clear_type_cache", None)
    if clear is not None:
        clear()
