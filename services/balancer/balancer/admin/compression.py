"""Compressed answers, for clients that take them: aiohttp looks for a coding's name alone, and not at its weight."""

from __future__ import annotations

from aiohttp import hdrs, web

from balancer import accept


def compress(response: web.StreamResponse, request: web.Request) -> None:
    """Let `response` be compressed, if `request` asks for a coding with a weight above 0."""
    varies = response.headers.get(hdrs.VARY)
    response.headers[hdrs.VARY] = f"{varies}, {hdrs.ACCEPT_ENCODING}" if varies else hdrs.ACCEPT_ENCODING
    coding = accept.coding(",".join(request.headers.getall(hdrs.ACCEPT_ENCODING, [])))
    if coding:
        response.enable_compression(web.ContentCoding(coding))
