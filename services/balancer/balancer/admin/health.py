"""/healthz and /readyz: whether the process lives, and whether Kubernetes should send it clients."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable

from aiohttp import web

from balancer.admin.status import Running


class Phase(enum.Enum):
    """How far the process is between its start and its end."""

    STARTING = "waiting for its ports"
    """The data plane does not listen yet: a client would be refused."""
    SERVING = "ready"
    DRAINING = "draining"
    """From SIGTERM on."""


async def healthz(_request: web.Request) -> web.Response:
    """The process lives: its event loop could answer."""
    return web.json_response({"status": "ok"})


def readiness(running: Running, phase: Phase) -> tuple[int, dict[str, object]]:
    """The status and body of /readyz: 200 from when the ports listen and a snapshot can be served until SIGTERM.

    A start that finds no such Service or port is not ready, so that a rollout stops at it; nor is one that has not yet
    read the Gateways that it is to serve. Later an empty fleet or a stale discovery is a detail in the body and no
    failure: this replica would then do no better by being taken out, and taking all of them out would turn a fault of
    the discovery into an outage.
    """
    now, discovery = running.clock(), running.discovery
    endpoints = list(running.pool.endpoints)
    eligible = sum(endpoint.eligible for endpoint in endpoints)
    serving = phase is Phase.SERVING
    waits = "snapshot" if discovery.fresh_at is None else "" if running.planned() else "plan of the Gateways"
    ready = serving and not waits
    return 200 if ready else 503, {
        "status": f"waiting for the first {waits}" if serving and waits else phase.value,
        "notes": _notes(running, phase, len(endpoints), eligible),
        "endpoints": {"total": len(endpoints), "eligible": eligible},
        "discovery": {
            "source": discovery.source,
            "age_seconds": None if discovery.fresh_at is None else round(max(0.0, now - discovery.fresh_at), 3),
            "stale": discovery.stale,
            "error": discovery.error,
        },
        "replica": running.proxy.replica,
    }


def _notes(running: Running, phase: Phase, total: int, eligible: int) -> list[str]:
    notes = []
    if phase is Phase.DRAINING:
        notes.append("Stopping: requests are served on through LB_DRAIN_DELAY and those in flight finished.")
    if not running.planned():
        notes.append("The Gateways, routes and Services of the cluster have not all been read yet: see the log.")
    if running.discovery.fresh_at is None:
        notes.append("Discovery has not yet found a set of endpoints that could be served: see its error.")
    elif total == 0:
        notes.append("Discovery has found no endpoint: every request gets 503.")
    elif eligible == 0:
        notes.append("No endpoint is eligible: see /api/endpoints for each one's reason.")
    if running.discovery.stale and running.discovery.fresh_at is not None:
        notes.append("Discovery is stale: the last set of endpoints is used on.")
    return notes


def readyz(running: Running, phase: Callable[[], Phase]) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Answers GET /readyz."""

    async def answer(_request: web.Request) -> web.Response:
        status, body = readiness(running, phase())
        return web.json_response(body, status=status)

    return answer
