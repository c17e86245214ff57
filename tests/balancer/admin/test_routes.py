"""Listeners, routes and clusters of Gateways: found by text, a page at a time, however many there are."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from aiohttp import ClientSession
from tests.balancer.admin.world import World

from balancer.routing.candidates import Entry
from balancer.routing.match import EXACT, Match
from balancer.routing.rule import Backend, Redirect, Rule
from balancer.routing.site import Site
from balancer.routing.table import Table


@dataclass
class Port:
    gateway: str
    port: int
    tls: bool
    site: Site
    streams: Site = field(default_factory=lambda: Site({}))

    @property
    def protocol(self) -> str:
        return "TLS" if self.tls else "HTTP"


def many(count: int) -> Site:
    """`count` routes, of a host each."""
    entries = [
        Entry(
            f"h{number}.example.com".encode(),
            Match(b"/v1"),
            Rule(f"HTTPRoute a/r{number}", [Backend(f"a/s{number}:80")]),
        )
        for number in range(count)
    ]
    return Site({b"": Table(entries)})


async def test_without_gateways_there_are_none(client: ClientSession) -> None:
    async with client.get("/api/routes") as response:
        body = await response.json()
    assert body == {"listeners": [], "total": 0, "matched": 0, "routes": [], "clusters_matched": 0, "clusters": []}


async def test_a_route_is_shown_with_all_that_it_asks_and_where_it_leads(world: World, client: ClientSession) -> None:
    split = Rule("HTTPRoute a/split", [Backend("a/blue:80", 9), Backend("a/green:80", 1)])
    moved = Rule("HTTPRoute a/moved", redirect=Redirect(301))
    entries = [Entry(b"*.example.com", Match(b"/v1", method=b"GET"), split), Entry(b"", Match(b"/old", EXACT), moved)]
    world.ports.append(Port("infra/web", 443, True, Site({b"": Table(entries)})))
    async with client.get("/api/routes") as response:
        body = await response.json()
    assert body["listeners"] == [{"gateway": "infra/web", "port": 443, "protocol": "TLS", "tls": True, "routes": 2}]
    first, second = body["routes"]
    assert (first["host"], first["path"], first["kind"], first["method"]) == ("*.example.com", "/v1", "prefix", "GET")
    assert first["backends"] == [{"cluster": "a/blue:80", "weight": 9}, {"cluster": "a/green:80", "weight": 1}]
    assert (second["host"], second["kind"], second["redirect"]) == ("*", "exact", 301)


async def test_a_route_of_connections_is_shown_beside_those_of_requests(world: World, client: ClientSession) -> None:
    streams = Site({b"*.db.test": Table([Entry(b"a.db.test", Match(), Rule("a/db", [Backend("a/db:5432@tcp")]))])})
    world.ports.append(Port("infra/web", 443, True, many(1), streams))
    async with client.get("/api/routes", params={"filter": "5432"}) as response:
        body = await response.json()
    assert (body["total"], body["matched"], body["listeners"][0]["routes"]) == (2, 1, 2)
    (found,) = body["routes"]
    assert (found["host"], found["path"], found["kind"], found["route"]) == ("a.db.test", "", "connection", "a/db")
    assert found["backends"] == [{"cluster": "a/db:5432@tcp", "weight": 1}]


@pytest.mark.parametrize(
    ("query", "matched", "listed"),
    [
        ("", 5000, 100),
        ("?limit=7", 5000, 7),
        ("?filter=H4999.", 1, 1),
        ("?filter=a/s12", 111, 100),
        ("?filter=none", 0, 0),
    ],
)
async def test_thousands_are_searched_and_few_are_sent(
    world: World, client: ClientSession, query: str, matched: int, listed: int
) -> None:
    world.ports.append(Port("infra/web", 80, False, many(5000)))
    async with client.get(f"/api/routes{query}") as response:
        body = await response.json()
    assert (body["total"], body["matched"], len(body["routes"])) == (5000, matched, listed)
