"""Long work in short pieces: the admin port shares its event loop with the data plane."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

T = TypeVar("T")

PIECE = 100
"""Endpoints handled in one go: about a millisecond of work."""


async def in_pieces(items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """`items` in pieces of PIECE; the event loop runs between two of them."""
    for start in range(0, len(items), PIECE):
        if start:
            await asyncio.sleep(0)
        yield items[start : start + PIECE]
