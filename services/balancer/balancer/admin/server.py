"""The admin port's HTTP server: every path, and what stands before them all."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from aiohttp import web

from balancer.admin import dashboard, exposition, health
from balancer.admin.api import BODY_LIMIT, Api
from balancer.admin.auth import guard, protect
from balancer.admin.callers import Callers, most_callers
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


class Listening:
    """The open port."""

    def __init__(self, runner: web.AppRunner, callers: Callers) -> None:
        self._runner = runner
        self._callers = callers
        self.port = 0

    def open(self, hosts: list[str], port: int) -> None:
        """Listen at `port` of every host. Raises OSError when it cannot be had."""
        server = self._runner.server
        if server is None:
            raise RuntimeError("the runner is not set up")
        self.port = port
        for host in to_listen_at(hosts):
            self.port = self._callers.listen(server, host, self.port)

    async def close(self) -> None:
        """Accept no more, and end what is under way."""
        self._callers.close()
        await self._runner.cleanup()


async def listen(app: web.Application, hosts: list[str], port: int, tls: ssl.SSLContext | None = None) -> Listening:
    """Serve `app` at `port` of every host, by TLS where `tls` is given. Raises OSError when it cannot be had."""
    callers = Callers(most_callers(), tls)
    app.middlewares.append(callers.middleware)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=CLOSE_TIMEOUT)
    await runner.setup()
    listening = Listening(runner, callers)
    try:
        listening.open(hosts, port)
    except BaseException:
        await listening.close()
        raise
    return listening
