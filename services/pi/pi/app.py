"""What each request is answered: paths, methods, statuses, headers."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from urllib.parse import unquote

from aiohttp import web

from pi import load, page
from pi.negotiation import prefers_html
from pi.settings import Settings
from pi.workers import Pool, QueueFullError, WorkerDiedError

log = logging.getLogger("pi.app")

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; base-uri 'none'"
_MOST_ECHOED = 40


class Service:
    """The handler of every request. `draining`: readiness fails and each response is the last on its connection."""

    def __init__(self, settings: Settings, pool: Pool) -> None:
        self._settings = settings
        self._pool = pool
        self.draining = False
        self._load = load.Load(settings.workers, time.monotonic())

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The response to any request, with the headers that all have."""
        response = await self._respond(request)
        response.headers["X-Served-By"] = self._settings.name
        response.headers[load.FIELD] = self._load.report(time.monotonic())
        response.headers["Server"] = "lb-pi"
        response.headers["X-Content-Type-Options"] = "nosniff"
        # The digits never change, but each request is to reach a backend and show which one it was.
        response.headers.setdefault("Cache-Control", "no-store")
        if self.draining:
            response.headers["Connection"] = "close"
            response.force_close()
        return response

    async def _respond(self, request: web.BaseRequest) -> web.Response:
        path = request.rel_url.raw_path
        if path.count("/") > 1:
            return self._refusal(request, 404, f"There is nothing here. {self._usage}")
        if request.method not in {"GET", "HEAD"}:
            response = self._refusal(request, 405, "Only GET and HEAD are possible.")
            response.headers["Allow"] = "GET, HEAD"
            return response
        match path:
            case "/":
                return self._root(request)
            case "/healthz":
                return web.Response(text="ok\n")
            case "/readyz":
                return self._readiness()
            case "/favicon.ico":
                return web.Response(status=204, headers={"Cache-Control": "max-age=86400"})
        segment = unquote(path.removeprefix("/"))
        decimals = self._decimals(segment)
        if decimals is None:
            echoed = segment if len(segment) <= _MOST_ECHOED else f"{segment[:_MOST_ECHOED]}…"
            return self._refusal(request, 400, f"{echoed!r} is not possible. {self._usage}")
        return await self._digits(request, decimals)

    async def _digits(self, request: web.BaseRequest, decimals: int) -> web.Response:
        self._load.began(time.monotonic())
        failed = True
        try:
            response = await self._computed(request, decimals)
            failed = response.status >= 500
        finally:
            self._load.ended(time.monotonic(), failed=failed)
        return response

    async def _computed(self, request: web.BaseRequest, decimals: int) -> web.Response:
        if self._settings.delay_ms:
            await asyncio.sleep(self._settings.delay_ms / 1000)
        if random.random() < self._settings.fail_rate:
            return self._refusal(request, 500, "This failure was asked for, by PI_FAIL_RATE.")
        for_page = _wants_page(request)
        try:
            answer = await self._pool.compute(decimals, for_page=for_page)
        except QueueFullError as full:
            response = self._refusal(request, 503, f"Too many requests are waiting. Retry in {full.retry_after} s.")
            response.headers["Retry-After"] = str(full.retry_after)
            return response
        except WorkerDiedError:
            return self._refusal(request, 500, "The process that computed this answer died. Another takes its place.")
        body = answer.payload
        if for_page:
            body = page.number(body, self._facts(decimals, answer.queued, answer.computed))
        response = _response(200, body, for_page=for_page)
        phases = (("queue", answer.queued), ("compute", answer.computed), ("layout", answer.laid_out))
        response.headers["Server-Timing"] = ", ".join(f"{name};dur={1000 * taken:.3f}" for name, taken in phases)
        return response

    def _facts(self, decimals: int, queued: float, computed: float) -> page.Facts:
        settings = self._settings
        return page.Facts(decimals, settings.max_digits, settings.name, computed=computed, queued=queued)

    def _root(self, request: web.BaseRequest) -> web.Response:
        asked = request.rel_url.query.get("decimals")
        if asked is not None:
            decimals = self._decimals(asked.strip())
            if decimals is None:
                return self._refusal(request, 400, f"{asked[:_MOST_ECHOED]!r} is not possible. {self._usage}")
            return web.Response(status=303, headers={"Location": f"/{decimals}"})
        for_page = _wants_page(request)
        body = page.start(self._settings.max_digits, self._settings.name) if for_page else f"{self._usage}\n".encode()
        return _response(200, body, for_page=for_page)

    def _readiness(self) -> web.Response:
        if self.draining:
            return web.Response(status=503, text="draining\n")
        state = f"{self._pool.ready} of {self._settings.workers} workers are ready\n"
        return web.Response(status=200 if self._pool.ready else 503, text=state)

    @property
    def _usage(self) -> str:
        most = self._settings.max_digits
        return f"GET /N answers the first N decimals of Pi, N from 0 to {most}: /10 is 3.1415926535."

    def _decimals(self, text: str) -> int | None:
        """The number of decimals that a path asks for, if it is one and not too many: ASCII digits only."""
        if not (text.isascii() and text.isdigit()):
            return None
        digits = text.lstrip("0") or "0"
        if len(digits) > len(str(self._settings.max_digits)):
            return None
        decimals = int(digits)
        return decimals if decimals <= self._settings.max_digits else None

    def _refusal(self, request: web.BaseRequest, status: int, reason: str) -> web.Response:
        if not _wants_page(request):
            return _response(status, f"{reason}\n".encode(), for_page=False)
        return _response(status, page.refusal(status, reason, self._settings.name), for_page=True)


def _wants_page(request: web.BaseRequest) -> bool:
    return prefers_html(",".join(request.headers.getall("Accept", ["*/*"])))


def _response(status: int, body: bytes, *, for_page: bool) -> web.Response:
    response = web.Response(
        status=status, body=body, content_type="text/html" if for_page else "text/plain", charset="utf-8"
    )
    response.headers["Vary"] = "Accept"
    if for_page:
        response.headers["Content-Security-Policy"] = _POLICY
    return response
