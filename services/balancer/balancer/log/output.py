"""Lines for a file descriptor, written without ever holding up the event loop.

nginx writes its access log with a blocking call and stalls when nobody reads the pipe; HAProxy drops the line and
counts it. We do as HAProxy does: lines go to a bounded buffer that a thread writes out, and what does not fit is
dropped and counted. The descriptor itself stays blocking, since it may be shared with the shell that started us.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from typing import Final

MAX_PENDING: Final = 8 << 20
"""Bytes that may wait to be written; what comes on top is dropped."""
BATCH: Final = 1 << 16
"""Bytes that are written without waiting for more: lines that the processor's cache still holds cost less to write."""


class Output:
    """Lines for one file descriptor, written by a thread so that a full pipe holds up nobody."""

    def __init__(self, fd: int, delay: float = 0.0, max_pending: int = MAX_PENDING) -> None:
        """`delay` (s): for how long lines are collected to be written together, unless a BATCH waits before."""
        self.dropped = 0
        """Lines lost because nobody read, or because writing failed."""
        self._fd = fd
        self._delay = delay
        self._max_pending = max_pending
        self._lines: deque[str] = deque()
        # Each of these two is changed by one thread only, so that neither needs a lock.
        self._accepted = 0
        self._written = 0
        self._wake = threading.Event()
        """Set while lines wait that the thread has not begun to take, and at the end."""
        self._enough = threading.Event()
        """Set when they make a BATCH, and at the end."""
        self._closing = False
        self._writer: threading.Thread | None = None

    def write(self, line: str) -> None:
        """Take one line, with its newline. Never blocks."""
        size = len(line)
        pending = self._accepted - self._written + size
        if pending > self._max_pending:
            self.dropped += 1
            return
        self._accepted += size
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()
            if self._writer is None:
                self._start()
        elif pending >= BATCH and not self._enough.is_set():
            self._enough.set()

    def close(self, timeout: float = 2.0) -> None:
        """Write what is left, for at most `timeout` seconds. Twice does nothing."""
        self._closing = True
        self._enough.set()
        self._wake.set()
        if self._writer is not None:
            self._writer.join(timeout)
            self._writer = None

    def _start(self) -> None:
        self._writer = threading.Thread(target=self._run, name=f"log writer {self._fd}", daemon=True)
        self._writer.start()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            if self._delay:
                self._enough.wait(self._delay)
            # Before the lines are taken: a line that comes later sets them again.
            self._enough.clear()
            self._wake.clear()
            self._write_pending()
            if self._closing:
                self._write_pending()
                return

    def _write_pending(self) -> None:
        while self._lines:
            batch: list[str] = []
            size = 0
            while self._lines and size < BATCH:
                batch.append(self._lines.popleft())
                size += len(batch[-1])
            data = "".join(batch).encode("utf-8", "backslashreplace")
            try:
                self._write_all(data)
            except OSError:  # the reader is gone or the disk is full: nobody reads a message about it
                self.dropped += len(batch)
            self._written += size

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                written = os.write(self._fd, view)  # by itself: mypyc 2.4 evaluates a bound of such a slice twice
                view = view[written:]
            except BlockingIOError:  # somebody who shares the descriptor has made it non-blocking
                select.select([], [self._fd], [], 1.0)
