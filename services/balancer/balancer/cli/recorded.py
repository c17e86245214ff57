"""The files that the lab reads: access logs, gzipped or not, and the standard input."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

_GZIP: Final = b"\x1f\x8b"
_OFTEN: Final = 10_000
"""Lines between two calls of `progress`."""
LONGEST: Final = 1 << 20
"""Bytes of a line that are read: what follows counts as another, bad one."""


def size(names: Sequence[str]) -> int:
    """Bytes of all files as far as that is known; raises ValueError for one that is none."""
    total = 0
    for name in names:
        path = Path(name)
        if name == "-":
            continue
        if path.is_dir():
            raise ValueError(f"{name} is a directory: name its files, as in {name.rstrip('/')}/*.log")
        if not path.exists():
            raise ValueError(f"{name}: no such file")
        total += path.stat().st_size
    return total


def lines(names: Sequence[str], progress: Callable[[int], None]) -> Iterator[str]:
    """Every line of every file in turn; `progress` hears now and then how many bytes of the files are read since.

    Raises ValueError for what cannot be read, and names it.
    """
    for name in names:
        try:
            with sys.stdin.buffer if name == "-" else Path(name).open("rb") as file:
                yield from _lines(file, progress)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{name}: {getattr(error, 'strerror', None) or error}") from error


def _lines(file: BinaryIO, progress: Callable[[int], None]) -> Iterator[str]:
    zipped = isinstance(file, io.BufferedReader) and file.peek(2)[:2] == _GZIP
    source = gzip.GzipFile(fileobj=file) if zipped else file
    seekable = file.seekable()
    before = 0
    number = 0
    while line := source.readline(LONGEST):
        yield line.decode("utf-8", "replace")
        number += 1
        if seekable and number % _OFTEN == 0:
            progress(file.tell() - before)
            before = file.tell()
