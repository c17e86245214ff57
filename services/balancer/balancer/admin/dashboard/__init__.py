"""The dashboard: one page and its parts, served as they are from this folder. No build step, no other host."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files

from aiohttp import web

from balancer.admin.compression import compress

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def routes() -> list[web.RouteDef]:
    """The page at `/`, its parts below `/dashboard/`."""
    made = []
    for part in sorted(files(__package__).iterdir(), key=lambda part: part.name):
        suffix = "." + part.name.rpartition(".")[2]
        if suffix in TYPES:
            path = "/" if part.name == "index.html" else f"/dashboard/{part.name}"
            made.append(web.get(path, _serve(part.read_bytes(), TYPES[suffix])))
    return made


def _serve(body: bytes, content_type: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    etag = hashlib.sha256(body).hexdigest()[:32]

    async def serve(request: web.Request) -> web.Response:
        # Asked again each time, so that the page is never older than the balancer that it shows.
        headers = {"Cache-Control": "no-cache", "ETag": f'"{etag}"'}
        if any(tag.value == etag for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        response = web.Response(body=body, content_type=content_type, charset="utf-8", headers=headers)
        compress(response, request)
        return response

    return serve
