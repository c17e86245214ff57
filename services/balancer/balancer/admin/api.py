"""The API: what the balancer knows, and the few things that may be changed while it runs.

Whatever changes something needs the admin token and is logged with who did it. /api/openapi.json describes it all.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from aiohttp import web

from balancer.admin.auth import Auth, Refusal, who
from balancer.admin.feed import Feed
from balancer.admin.fleet import fleet_view
from balancer.admin.openapi import document
from balancer.admin.routes import routes_view
from balancer.admin.slices import in_pieces
from balancer.admin.status import PeersStatus, Running
from balancer.admin.views import costs_view, endpoint_view, to_json
from balancer.balancing.endpoint import Endpoint
from balancer.balancing.strategies import ALIASES

BODY_LIMIT = 16_384
"""Bytes of a request's body; beyond it 413."""
DECISIONS_LIMIT = 1000

log = structlog.get_logger(__name__)


class Api:
    """The handlers, with what they share."""

    def __init__(self, running: Running, feed: Feed) -> None:
        self._running = running
        self._feed = feed
        self._auth = Auth(running.settings.admin_token)

    def routes(self) -> Sequence[web.RouteDef]:
        """Every path of the API."""
        return [
            web.get("/api/openapi.json", self.openapi),
            web.get("/api/endpoints", self.endpoints, allow_head=False),
            web.get("/api/endpoints/{address}", self.endpoint),
            web.post("/api/endpoints/{address}/drain", self.drain),
            web.post("/api/endpoints/{address}/undrain", self.undrain),
            web.get("/api/strategy", self.strategy),
            web.put("/api/strategy", self.switch),
            web.get("/api/decisions", self.decisions),
            web.get("/api/costs", self.costs),
            web.get("/api/history", self.history),
            web.get("/api/fleet", self.fleet),
            web.get("/api/routes", self.routes_of_gateways),
            web.get("/api/config", self.config),
            web.get("/api/events", self.events, allow_head=False),
        ]

    async def openapi(self, _request: web.Request) -> web.Response:
        """GET: this API's description."""
        return answer(document(self._feed.choices.names))

    async def endpoints(self, request: web.Request) -> web.StreamResponse:
        """GET: every endpoint, written piece by piece."""
        running, now = self._running, self._running.clock()
        everyone = running.endpoints
        response = web.StreamResponse(headers={"Content-Type": "application/json; charset=utf-8"})
        await response.prepare(request)
        await response.write(f'{{"total":{len(everyone)},"endpoints":['.encode())
        comma = ""
        async for piece in in_pieces(everyone):
            text = ",".join(to_json(endpoint_view(endpoint, running, now)) for endpoint in piece)
            await response.write((comma + text).encode())
            comma = ","
        await response.write_eof(b"]}")
        return response

    async def endpoint(self, request: web.Request) -> web.Response:
        """GET: one endpoint."""
        return self._told(self._find(request))

    async def drain(self, request: web.Request) -> web.Response:
        """POST: give the endpoint no new request; those in flight end as they would."""
        return self._drain(request, True)

    async def undrain(self, request: web.Request) -> web.Response:
        """POST: take the endpoint back."""
        return self._drain(request, False)

    async def strategy(self, _request: web.Request) -> web.Response:
        """GET: the strategy in force and those there are."""
        return answer(self._feed.choices.view())

    async def switch(self, request: web.Request) -> web.Response:
        """PUT: choose by another strategy from the next request on. Nothing known of the endpoints is lost."""
        self._auth.require(request)
        name = await wanted_strategy(request)
        name = ALIASES.get(name, name)
        names = self._feed.choices.names
        if name not in names:
            own = " A class of your own has to be the one that LB_STRATEGY named at the start." if ":" in name else ""
            raise Refusal(422, f"There is no strategy {name!r}. There are: {', '.join(names)}.{own}")
        before = self._running.pool.strategy_name
        peers = self._whole_fleet(request, "scope")
        self._running.switch_strategy(name)
        if peers is not None:
            peers.strategy_switched(name)
        log.info("strategy switched", strategy=name, before=before, fleet=peers is not None, **who(request))
        return answer({**self._feed.choices.view(), "before": before})

    async def decisions(self, request: web.Request) -> web.Response:
        """GET: the latest decisions, the newest first."""
        return answer(self._feed.choices.views(self._feed.choices.latest(limit_of(request))))

    async def costs(self, request: web.Request) -> web.Response:
        """GET: the kinds of request that were learned, and what each is expected to cost."""
        cluster = request.query.get("cluster", self._running.pool.cluster)
        for pool in self._running.pools:
            if pool.cluster == cluster:
                return answer(costs_view(pool, limit_of(request)))
        raise Refusal(404, "There is no cluster of that name: /api/routes lists them.")

    async def history(self, _request: web.Request) -> web.Response:
        """GET: the last five minutes, a second each, the oldest first."""
        return answer({"seconds": list(self._feed.meter.history)})

    async def config(self, _request: web.Request) -> web.Response:
        """GET: the settings in force, secrets masked."""
        return answer({"settings": self._running.settings.effective()})

    async def events(self, request: web.Request) -> web.StreamResponse:
        """GET: what happens, as it happens."""
        return await self._feed.hub.stream(request, *await self._feed.hello())

    async def routes_of_gateways(self, request: web.Request) -> web.Response:
        """GET: listeners, and the routes and clusters that contain a text."""
        return answer(await routes_view(self._running, request.query.get("filter", ""), limit_of(request)))

    async def fleet(self, _request: web.Request) -> web.Response:
        """GET: every replica, this one first, and what each has in flight."""
        return answer(fleet_view(self._running, self._feed.meter))

    def _whole_fleet(self, request: web.Request, *known: str) -> PeersStatus | None:
        """The other replicas, where `?scope=fleet` asks for them; None for this replica alone. `known` is what
        the query may say. Raises Refusal.
        """
        scopes = request.query.getall("scope", ["replica"])
        scope = scopes[0]
        if len(scopes) > 1 or scope not in {"replica", "fleet"} or request.query.keys() - set(known):
            beside = " and whose endpoint it is (cluster)" if "cluster" in known else ""
            raise Refusal(400, f"The query may say scope=replica or scope=fleet{beside}, and no more.")
        if scope == "replica":
            return None
        if self._running.peers is None:
            raise Refusal(409, "This replica knows of no other: set LB_PEERS (in the chart: peers.enabled).")
        return self._running.peers

    def _find(self, request: web.Request) -> Endpoint:
        address, cluster = request.match_info["address"], request.query.get("cluster")
        for pool in self._running.pools:
            if cluster in (None, pool.cluster) and (endpoint := pool.find(address)) is not None:
                return endpoint
        raise Refusal(404, "There is no endpoint of that address: /api/endpoints lists them.")

    def _drain(self, request: web.Request, drained: bool) -> web.Response:
        self._auth.require(request)
        running = self._running
        peers = self._whole_fleet(request, "scope", "cluster")
        address = request.match_info["address"]
        if peers is not None and not drained and self._is_drained_and_gone(address, peers):
            peers.drained(address, False)
            log.info("endpoint taken back", endpoint=address, fleet=True, **who(request))
            return web.Response(status=204)
        endpoint = self._find(request)
        pool = running.pool_of(endpoint)
        if peers is not None and pool is not running.pool:
            raise Refusal(409, "Replicas agree on the endpoints of LB_DISCOVERY alone: ask each for this one.")
        wanted = running.peers is not None and pool is running.pool and running.peers.drains(endpoint)
        if wanted and not drained and peers is None:
            raise Refusal(409, "It is drained in the whole fleet, and would be again at once: add ?scope=fleet.")
        pool.drain(endpoint, drained, running.clock())
        if peers is not None:
            peers.drained(endpoint.address, drained)
        event = "endpoint drained by hand" if drained else "endpoint taken back"
        log.info(event, endpoint=endpoint.address, fleet=peers is not None, **who(request))
        return self._told(endpoint)

    def _is_drained_and_gone(self, address: str, peers: PeersStatus) -> bool:
        """Whether the fleet would drain an endpoint that is not there now, should it come back."""
        return address in peers.intent.addresses and self._running.pool.find(address) is None

    def _told(self, endpoint: Endpoint) -> web.Response:
        return answer(endpoint_view(endpoint, self._running, self._running.clock()))


def limit_of(request: web.Request) -> int:
    """The query's `limit`, or 100. Raises Refusal."""
    text = request.query.get("limit", "100")
    if not (len(text) <= 4 and text.isascii() and text.isdigit() and 1 <= int(text) <= DECISIONS_LIMIT):
        raise Refusal(400, f"limit is a number from 1 to {DECISIONS_LIMIT}.")
    return int(text)


async def wanted_strategy(request: web.Request) -> str:
    """The name in `{"strategy": "NAME"}`. Raises Refusal for any other body."""
    if request.content_type != "application/json":
        raise Refusal(415, "The body must be JSON, and Content-Type must say so: application/json.")
    try:
        body = await request.json()
    except (ValueError, LookupError, RecursionError, web.RequestPayloadError) as error:
        raise Refusal(400, "The body is not JSON.") from error
    if not isinstance(body, dict) or set(body) != {"strategy"} or not isinstance(body["strategy"], str):
        raise Refusal(400, 'The body must be {"strategy": "NAME"}.')
    return body["strategy"]


def answer(value: object) -> web.Response:
    """A JSON response."""
    return web.Response(text=to_json(value), content_type="application/json")
