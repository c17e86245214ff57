"""What Gateways and Ingresses lead where: listeners, routes and clusters, found by text, however many there are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from balancer.admin.status import ListenerStatus, Running
from balancer.admin.views import View
from balancer.balancing.pool import Pool
from balancer.routing.candidates import Entry
from balancer.routing.match import EXACT, PATTERN
from balancer.routing.rule import Rule

PIECE = 200
"""Routes looked at in one go: about a millisecond."""
KINDS = {EXACT: "exact", PATTERN: "pattern"}


async def routes_view(running: Running, text: str, limit: int) -> View:
    """The answer to GET /api/routes: at most `limit` routes and clusters that contain `text`, in any case."""
    wanted = text.strip().lower()
    total = matched = 0
    routes: list[View] = []
    listeners = list(running.open_ports())
    counts: dict[str, int] = {}
    for listener in listeners:
        name = f"{listener.gateway}:{listener.port}"
        for host, entry, carried in _entries(listener):
            total += 1
            counts[name] = counts.get(name, 0) + 1
            if total % PIECE == 0:
                await asyncio.sleep(0)
            if wanted and wanted not in _text(host, name, entry):
                continue
            matched += 1
            if len(routes) < limit:
                routes.append(_route(name, host, entry, carried))
    clusters = [pool for pool in running.others() if wanted in pool.cluster.lower()]
    return {
        "listeners": [
            {
                "gateway": listener.gateway,
                "port": listener.port,
                "protocol": listener.protocol,
                "tls": listener.tls,
                "routes": counts.get(f"{listener.gateway}:{listener.port}", 0),
            }
            for listener in listeners
        ],
        "total": total,
        "matched": matched,
        "routes": routes,
        "clusters_matched": len(clusters),
        "clusters": [_cluster(pool) for pool in clusters[:limit]],
    }


def _entries(listener: ListenerStatus) -> Iterator[tuple[bytes, Entry, bool]]:
    """Host, entry, and whether what goes there is connections."""
    for site, carried in ((listener.site, False), (listener.streams, True)):
        for host, table in site.tables.items():
            for entry in table.entries():
                yield entry.host or host, entry, carried


def _route(listener: str, host: bytes, entry: Entry, carried: bool) -> View:
    match, rule = entry.match, entry.rule
    conditions = [wanted.name.decode("latin-1") for wanted in (*match.headers, *match.parameters)]
    return {
        "listener": listener,
        "host": host.decode("latin-1") or "*",
        "path": "" if carried else match.path.decode("latin-1") or "/",
        "kind": "connection" if carried else KINDS.get(match.kind, "prefix"),
        "method": match.method.decode("latin-1"),
        "conditions": conditions,
        "route": rule.name,
        "backends": [{"cluster": each.cluster, "weight": each.weight} for each in rule.backends],
        "redirect": _redirect(rule),
        "mirrors": [mirror.cluster for mirror in rule.mirrors],
    }


def _redirect(rule: Rule) -> int | None:
    return rule.redirect.status if rule.redirect is not None else None


def _text(host: bytes, name: str, entry: Entry) -> str:
    """What a text is looked for in: all that names it, and where it leads."""
    rule, match = entry.rule, entry.match
    texts = (host, match.path, match.method, *(wanted.name for wanted in (*match.headers, *match.parameters)))
    led_to = [*(backend.cluster for backend in rule.backends), *(mirror.cluster for mirror in rule.mirrors)]
    redirect = "redirect" if rule.redirect is not None else ""
    return " ".join([name, *(part.decode("latin-1") for part in texts), rule.name, *led_to, redirect]).lower()


def _cluster(pool: Pool) -> View:
    endpoints = list(pool.endpoints)
    return {
        "name": pool.cluster,
        "strategy": pool.strategy_name,
        "endpoints": len(endpoints),
        "eligible": sum(endpoint.eligible for endpoint in endpoints),
        "in_flight": sum(endpoint.in_flight for endpoint in endpoints),
        "addresses": [endpoint.address for endpoint in endpoints[:20]],
    }
