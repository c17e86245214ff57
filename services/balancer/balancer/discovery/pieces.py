"""Long work in short pieces: discovery shares its event loop with the data plane."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Generator
from typing import Any, Final, TypeVar

T = TypeVar("T")

PIECE: Final = 0.002
"""Seconds of work after which the event loop runs what else waits for it."""


class Pieces:
    """Ends a piece of work once it has taken `PIECE`, and goes on with the next in another turn of the event loop."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()

    @property
    def over(self) -> bool:
        """Whether it is time for the others to have their turn."""
        return time.perf_counter() - self._begun >= PIECE

    async def pause(self) -> None:
        """Between two steps: let the others have their turn, if it is time."""
        if self.over:
            await asyncio.sleep(0)
            self._begun = time.perf_counter()


async def in_pieces(steps: Generator[None, None, T]) -> T:
    """What `steps` returns at its end; the loop has turns in between."""
    pieces = Pieces()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        await pieces.pause()


async def read_list(body: bytes, take: Callable[[Any], None]) -> dict[str, Any]:
    """A Kubernetes list, as `json.loads` reads it, but in pieces, and the items to `take`.

    Raises ValueError, also if it is no object, and what `take` raises. Slices of 5,000 endpoints are 2 MB of JSON and
    50,000 objects. Read in one go they would hold up every request for 20 to 50 ms, and kept until all are read they
    would make the garbage collector look at each.
    """
    text, decode, pieces = body.decode(), json.JSONDecoder().raw_decode, Pieces()
    read: dict[str, Any] = {}
    at = _expect(text, _blank(text, 0), "{")
    while text[at : at + 1] != "}":
        key, at = decode(text, at)
        at = _expect(text, _blank(text, at), ":")
        if key == "items" and text[at : at + 1] == "[":
            at = _blank(text, at + 1)
            while text[at : at + 1] != "]":
                item, at = decode(text, at)
                take(item)
                at = _next(text, at, "]")
                await pieces.pause()
            at += 1
        else:
            read[key], at = decode(text, at)
        at = _next(text, at, "}")
    return read


def _blank(text: str, at: int) -> int:
    while text[at : at + 1] in {" ", "\n", "\r", "\t"}:
        at += 1
    return at


def _expect(text: str, at: int, sign: str) -> int:
    """The place after `sign`, and after the blanks behind it."""
    if text[at : at + 1] != sign:
        raise json.JSONDecodeError(f"Expecting {sign!r}", text, at)
    return _blank(text, at + 1)


def _next(text: str, at: int, end: str) -> int:
    """The place of the next value, or of `end`."""
    at = _blank(text, at)
    return at if text[at : at + 1] == end else _expect(text, at, ",")
