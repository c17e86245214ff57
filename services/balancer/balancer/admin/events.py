"""What happens, sent at once to every listener: the stream behind the dashboard.

Server-sent events. A listener that does not keep up gets fewer events, counted in `missed`, and is dropped when it
takes none for long; what is kept for it never grows beyond BACKLOG.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from aiohttp import web

from balancer.admin.auth import Refusal
from balancer.admin.views import to_json

BACKLOG = 64
"""Events kept for one listener."""
LISTENERS = 32
"""At most so many streams at once."""
STUCK_AFTER = 30.0
"""Seconds in which a listener takes nothing before it is dropped."""
KEEPALIVE = 15.0
"""Seconds of silence before a comment shows both sides that the connection lives."""


class Listener:
    """One stream's backlog."""

    def __init__(self) -> None:
        self._backlog: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._missed = 0
        self.over = False

    def publish(self, event: bytes) -> None:
        """Keep `event` for the stream, or count it as missed when its backlog is full."""
        if len(self._backlog) < BACKLOG:
            self._backlog.append(event)
            self._news.set()
        else:
            self._missed += 1

    def end(self) -> None:
        """The stream ends after what is kept for it."""
        self.over = True
        self._news.set()

    async def take(self) -> bytes | None:
        """All that is kept, as one piece; a comment after long silence; None at the end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(KEEPALIVE):
                await self._news.wait()
        self._news.clear()
        if self._missed:
            self._backlog.append(encode("missed", {"count": self._missed}))
            self._missed = 0
        if self._backlog:
            piece = b"".join(self._backlog)
            self._backlog.clear()
            if self.over:
                self._news.set()
            return piece
        return None if self.over else b": still here\n\n"


class Hub:
    """All listeners. Telling costs nothing while there are none."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def publish(self, event: str, data: object) -> None:
        """Send to every listener; `data` is made into JSON once."""
        if self._listeners:
            piece = encode(event, data)
            for listener in self._listeners:
                listener.publish(piece)

    def end(self) -> None:
        """Every stream ends."""
        for listener in self._listeners:
            listener.end()

    async def stream(self, request: web.Request, *first: bytes) -> web.StreamResponse:
        """Answer with the stream of events, beginning with `first`, until the client leaves. Refusal when too many."""
        if len(self._listeners) >= LISTENERS:
            raise Refusal(503, f"{LISTENERS} clients follow the events already.", {"Retry-After": "10"})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        listener = Listener()
        self._listeners.add(listener)
        try:
            await response.prepare(request)
            await response.write(b"".join((b"retry: 1000\n\n", *first)))
            while (piece := await listener.take()) is not None:
                async with asyncio.timeout(STUCK_AFTER):
                    await response.write(piece)
        except (TimeoutError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._listeners.discard(listener)
        return response


def encode(event: str, data: object) -> bytes:
    """One server-sent event. JSON has no line breaks, so that one `data` line holds it."""
    return f"event: {event}\ndata: {to_json(data)}\n\n".encode()
