"""The admin port's HTTP server: every path, and what stands before them all."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from balancer.admin import dashboard, exposition, health
from balancer.admin.api import BODY_LIMIT, Api
from balancer.admin.auth import guard, protect
from balancer.admin.feed import Feed
from balancer.admin.status import Running
from balancer.hosts import to_listen_at

CLOSE_TIMEOUT = 1.0
"""Seconds that a request in progress is given when the port closes."""


def application(running: Running, feed: Feed, phase: Callable[[], health.Phase]) -> web.Application:
    """Every path of the admin port."""
    app = web.Application(middlewares=[guard], client_max_size=BODY_LIMIT)
    app.on_response_prepare.append(protect)
    app.add_routes(
        [
            web.get("/healthz", health.healthz),
            web.get("/readyz", health.readyz(running, phase)),
            web.get("/metrics", exposition.handler(running), allow_head=False),
            *Api(running, feed).routes(),
            *dashboard.routes(),
            *(running.peers.routes() if running.peers is not None else ()),
        ]
    )
    return app


async def listen(app: web.Application, hosts: list[str], port: int) -> tuple[web.AppRunner, int]:
    """Serve `app` at `port` of every host; gives the port in use. Raises OSError when it cannot be had."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=CLOSE_TIMEOUT)
    await runner.setup()
    try:
        for host in to_listen_at(hosts):
            await web.TCPSite(runner, host, port).start()
            port = port or runner.addresses[0][1]
    except BaseException:
        await runner.cleanup()
        raise
    return runner, port
