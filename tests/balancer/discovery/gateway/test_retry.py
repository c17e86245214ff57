"""An HTTPRoute's own retries, on a whole balancer with one endpoint: it is asked again, as often as the route says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from aiohttp import web
from tests.balancer.discovery.gateway.cluster import backend, only_port, planned, route, service, world
from tests.balancer.discovery.gateway.pods import Pod
from tests.balancer.discovery.gateway.replicas import ROUTES, SERVICES, SLICES, until
from tests.balancer.discovery.gateway.test_traffic import Here, running

from balancer.routing.match import RouteRequest


def rule(path: str, **retry: Any) -> dict[str, Any]:
    return {"matches": [{"path": {"value": path}}], "retry": retry, "backendRefs": [backend("flaky")]}


RULES = [
    rule("/500", codes=[500], attempts=3),
    rule("/all", codes=[500, 502, 503, 504], attempts=2),
    rule("/slow", codes=[500], attempts=3, backoff="300ms"),
]


class Flaky(Pod):
    """Answers each path (/rule/id/status/times) with a status until it has been asked for it so often."""

    name, host = "flaky", "127.0.0.7"

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()

    async def answer(self, request: web.Request) -> web.Response:
        await request.read()
        self.asked[request.path] += 1
        status, times = request.path.split("/")[3:]
        return web.Response(status=200 if self.asked[request.path] > int(times) else int(status))


@pytest.fixture
async def flaky() -> AsyncIterator[Flaky]:
    there = Flaky()
    await there.start()
    yield there
    await there.stop()


@pytest.fixture
async def here(flaky: Flaky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Here]:
    async with running(tmp_path, monkeypatch, {"LB_EJECT_AFTER": "0"}) as here:
        here.api.put(SERVICES, dict(service("flaky")))
        here.api.put(SLICES, flaky.slice())
        here.api.put(ROUTES, route(*RULES))
        assert here.balancer.gateways is not None
        fleets = here.balancer.gateways.fleets
        await until(lambda: "shop/flaky:8080" in fleets and list(fleets["shop/flaky:8080"].cluster.pool.endpoints))
        await until(lambda: here.balancer.control is not None and "shop/web:8080" not in fleets)
        yield here


async def ask(here: Here, path: str, method: str = "GET") -> int:
    async with here.client.request(method, here.url("shop/door", path)) as answer:
        return answer.status


@pytest.mark.parametrize(
    ("path", "method", "status", "attempts"),
    [
        ("/500/a/500/2", "GET", 200, 3),
        ("/500/b/500/4", "GET", 500, 4),
        ("/500/c/503/2", "GET", 503, 1),
        ("/500/d/500/1", "POST", 500, 1),
        ("/500/e/500/1", "PUT", 200, 2),
        ("/all/f/504/2", "GET", 200, 3),
        ("/all/g/502/3", "GET", 502, 3),
        ("/all/h/400/1", "GET", 400, 1),
    ],
)
async def test_a_route_says_on_what_and_how_often(
    here: Here, flaky: Flaky, path: str, method: str, status: int, attempts: int
) -> None:
    assert await ask(here, path, method) == status
    assert flaky.asked[path] == attempts


async def test_it_waits_between_attempts_longer_each_time(here: Here, flaky: Flaky) -> None:
    began = monotonic()
    assert await ask(here, "/slow/a/500/2") == 200
    assert monotonic() - began >= 0.9
    assert flaky.asked["/slow/a/500/2"] == 3


async def test_a_client_that_leaves_while_it_waits_leaves_nothing_behind(here: Here, flaky: Flaky) -> None:
    asking = asyncio.get_running_loop().create_task(ask(here, "/slow/b/500/3"))
    await until(lambda: flaky.asked["/slow/b/500/3"])
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: here.balancer._counters.requests_in_flight == 0)
    asked = flaky.asked["/slow/b/500/3"]
    await asyncio.sleep(0.6)  # Longer than the wait would have been.
    assert flaky.asked["/slow/b/500/3"] == asked <= 2
    assert not here.balancer._counters.faults


async def test_the_budget_bounds_a_routes_retries_too(here: Here, flaky: Flaky) -> None:
    statuses = await asyncio.gather(*(ask(here, f"/500/n{number}/500/9") for number in range(40)))
    assert set(statuses) == {500}
    # A fifth of the requests, and ten a second on top.
    assert sum(flaky.asked.values()) < 40 + 8 + 10 + 30
    assert here.balancer._counters.retries_denied > 0


def test_what_a_route_does_not_say_stays_as_set_for_all() -> None:
    found = planned(world(routes=[route({"retry": {"backoff": "1s"}, "backendRefs": [backend()]})]))
    taken = only_port(found).site.route(RouteRequest(b"", b"/"))
    assert taken is not None
    assert taken.retry is not None
    assert (taken.retry.statuses, taken.retry.attempts, taken.retry.backoff) == (None, -1, 1.0)
