"""Endpoints that a person listed: in LB_BACKENDS, or one a line in a file that is read again when it changes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from balancer.balancing.endpoint import Snapshot
from balancer.discovery.status import Status
from balancer.settings.backends import parse_backends_file
from balancer.settings.kinds import ItemsError

POLL = 1.0
"""Seconds between looks at the file. A look is one stat, which sees what inotify misses: the swapped symlink of a
Kubernetes ConfigMap, a bind mount, a network file system."""
SETTLE = 0.1
"""A file younger than this (s) may still be written: it is read once it is older, or has been awaited `POLL` long."""
FAULTS_TOLD = 5


class ListDiscovery:
    """A list that never changes."""

    def __init__(self, backends: Snapshot, status: Status) -> None:
        self.status = status
        self._backends = backends

    async def snapshots(self) -> AsyncGenerator[Snapshot, None]:
        """The list, once. Ends by being closed."""
        self.status.fresh()
        self.status.count("snapshot")
        yield self._backends
        while True:
            await asyncio.sleep(POLL)
            self.status.fresh()


class FileDiscovery:
    """A file with `host:port[;weight=N]` a line, `#` before comments, that may be edited or replaced at any time.

    A file that is missing, malformed or empty leaves the last good list in force, and is logged with the wrong line.
    """

    def __init__(self, path: Path, status: Status, now: Callable[[], float] = time.time) -> None:
        self.status = status
        self.poll = POLL
        self._path = path
        self._now = now

    async def snapshots(self) -> AsyncGenerator[Snapshot, None]:
        """The list after each change of the file. Ends by being closed."""
        seen: tuple[int, ...] | None = None
        given: Snapshot | None = None
        while True:
            try:
                seen, text = await self._read(seen)
                if text is not None:
                    given, before = _parse(text), given
                    self.status.fresh()
                    if given != before:
                        self.status.count("snapshot")
                        yield given
                elif not self.status.stale:
                    self.status.fresh()
            except OSError as error:
                seen = None
                self.status.fault("unreadable", self._words(f"cannot be read: {error.strerror or error}"))
            except ValueError as error:
                self.status.fault("malformed", self._words(str(error)))
            await asyncio.sleep(self.poll)

    async def _read(self, seen: tuple[int, ...] | None) -> tuple[tuple[int, ...] | None, str | None]:
        """What the file is now, and its text if that is not what was `seen`. Raises OSError, UnicodeDecodeError."""
        found = self._path.stat()
        if _identity(found) == seen:
            return seen, None
        if abs(self._now() - found.st_mtime) < SETTLE:
            await asyncio.sleep(SETTLE)
        before = _identity(self._path.stat())
        text = self._path.read_text(encoding="utf-8")
        # Written while it was read: what was read counts, and it is read again at the next look.
        return (before if _identity(self._path.stat()) == before else None), text

    def _words(self, fault: str) -> str:
        after = (
            "The last good list goes on serving." if self.status.fresh_at is not None else "No endpoint is known yet."
        )
        return f"{self._path} {fault}. {after}"


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _parse(text: str) -> Snapshot:
    """The list. Raises ValueError that names the wrong lines."""
    try:
        backends = parse_backends_file(text)
    except ItemsError as error:
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
        shown = [f"line {_line(lines, item)}, {item!r}: {why}" for item, why in error.faults[:FAULTS_TOLD]]
        more = len(error.faults) - len(shown)
        raise ValueError("is malformed: " + "; ".join(shown) + (f"; and {more} more" if more else "")) from None
    if not backends:
        # Emptied for an instant by an editor that writes in place, or by mistake: nobody means to serve nothing.
        raise ValueError("lists no endpoint")
    return backends


def _line(lines: list[str], item: str) -> int:
    """The number of the last line that reads `item`: of an endpoint that is given twice, the second."""
    return len(lines) - lines[::-1].index(item)
