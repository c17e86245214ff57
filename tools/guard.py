"""Ends the processes of `make run` when the runner itself was killed and could not.

It reads lines on standard input: `+PID` when the runner has started a process group, `-PID` when that has ended. The
input ends when the runner does, however that came about, and what is left then is stopped.
"""

from __future__ import annotations

import os
import signal
import sys
import time

GRACE = 3.0
"""Seconds between asking a group to stop and killing it."""


def left_of(groups: set[int], number: int) -> set[int]:
    """Send a signal (0: none) to each group; those that still exist."""
    left = set()
    for group in groups:
        try:
            os.killpg(group, number)
            left.add(group)
        except ProcessLookupError:
            continue
    return left


def main() -> None:
    """Read until the runner is gone, then stop what it left."""
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        groups = groups | {group} if line[0] == "+" else groups - {group}
    groups = left_of(groups, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while groups and time.monotonic() < deadline:
        time.sleep(0.05)
        groups = left_of(groups, 0)
    left_of(groups, signal.SIGKILL)


if __name__ == "__main__":
    main()
