"""File descriptors: as many as we may have, and how many connections that allows."""

from __future__ import annotations

import contextlib
import resource
from typing import Final

import structlog

RESERVED: Final = 64
"""File descriptors for everything but connections: the admin port stays reachable whatever the others suffer."""

FEW: Final = 1000
"""Connections of clients below which a limit of open files is worth a word, though nobody asked for more."""

log = structlog.get_logger()


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one; what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft


def allowed_connections(wanted: int, asked: bool = True) -> int:
    """Lower `wanted` connections of clients to what the limit of open files allows, two files each.

    Says so when the user has `asked` for that many, or when few are left: the default alone is no promise.
    """
    files = raise_limit()
    if files >= 2 * wanted + RESERVED:
        return wanted
    allowed = max(1, (files - RESERVED) // 2)
    if asked:
        remedy = "raise the limit of open files (ulimit -n), or lower LB_MAX_CONNECTIONS"
        log.warning("fewer connections than LB_MAX_CONNECTIONS", allowed=allowed, open_files=files, remedy=remedy)
    elif allowed < FEW:
        remedy = "raise the limit of open files (ulimit -n)"
        log.warning("few connections allowed", allowed=allowed, open_files=files, remedy=remedy)
    return allowed
