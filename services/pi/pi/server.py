"""Listens, serves, and leaves in order when a signal asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal

import uvloop
from aiohttp import web

from pi.app import Service
from pi.connections import Connections
from pi.hosts import to_listen_at
from pi.settings import Settings
from pi.workers import Pool

log = logging.getLogger("pi.server")

_KEEPALIVE_S = 75.0
"""Longer than the balancer keeps an unused connection (30 s), so that the balancer closes it, not we under its feet."""

_BACKLOG = 1024


def run(settings: Settings) -> int:
    """Serve until a signal ends it. Returns the exit status: 0 after an orderly end, 1 when it can't listen."""
    return uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    signals = _Signals()
    pool = Pool(size=settings.workers, queue=settings.queue, memory=settings.cache)
    service = Service(settings, pool)
    http = web.Server(service.handle, handler_cancellation=True, keepalive_timeout=_KEEPALIVE_S, access_log=None)
    connections = Connections(http)
    hosts = to_listen_at(host.strip() for host in settings.host.split(",") if host.strip())
    try:
        listening = await asyncio.get_running_loop().create_server(connections, hosts, settings.port, backlog=_BACKLOG)
    except OSError as error:
        log.error("can't listen: PI_HOST=%s PI_PORT=%d: %s", settings.host, settings.port, error.strerror or error)  # noqa: TRY400
        return 1
    try:
        pool.start()
        addresses = ", ".join(_url(*socket.getsockname()[:2]) for socket in listening.sockets)
        log.info(
            "listening on %s as %s, %d workers, queue of %d", addresses, settings.name, settings.workers, settings.queue
        )
        await _drain_delay(settings, service, signals)
        listening.close()
        await _finish(http, connections, settings, signals)
    finally:
        await pool.close()
    log.info("stopped")
    return 0


async def _drain_delay(settings: Settings, service: Service, signals: _Signals) -> None:
    """At the first signal fail readiness, and go on serving for as long as the cluster may take to notice.

    SIGINT skips that wait, and so does a second signal.
    """
    asked_by = await signals.next()
    service.draining = True
    delay = 0.0 if asked_by is signal.SIGINT else settings.drain_delay
    log.info("%s: draining, listening for another %g s", asked_by.name, delay)
    if delay:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await signals.next()


async def _finish(http: web.Server, connections: Connections, settings: Settings, signals: _Signals) -> None:
    """Close idle connections, let requests in flight end, and cut what is left at the limit or at one more signal."""
    http.pre_shutdown()
    ending = asyncio.ensure_future(http.shutdown(settings.drain_timeout))
    ended = asyncio.ensure_future(connections.wait_closed())
    interrupted = asyncio.ensure_future(signals.next())
    await asyncio.wait({ended, interrupted}, timeout=settings.drain_timeout, return_when=asyncio.FIRST_COMPLETED)
    if cut := connections.abort():
        log.warning("cut %d connections that had not ended within %g s", cut, settings.drain_timeout)
    interrupted.cancel()
    await asyncio.gather(ending, ended, interrupted, return_exceptions=True)


class _Signals:
    """SIGTERM and SIGINT as they come, one after the other."""

    def __init__(self) -> None:
        self._came: asyncio.Queue[signal.Signals] = asyncio.Queue()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._came.put_nowait, number)

    async def next(self) -> signal.Signals:
        return await self._came.get()


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
