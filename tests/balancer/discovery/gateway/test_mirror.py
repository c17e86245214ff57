"""Mirrored requests on a whole balancer: what a mirror does, or does not, the client never sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.balancer.discovery.gateway.cluster import backend, route, service
from tests.balancer.discovery.gateway.pods import Pod
from tests.balancer.discovery.gateway.replicas import ROUTES, SERVICES, SLICES, until
from tests.balancer.discovery.gateway.test_traffic import Here, running

from balancer.balancing.endpoint import Endpoint
from balancer.proxy.interfaces import ClientStream, Receiver, Upstreams

MODIFY = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "X-Set", "value": "1"}]}}


class Copy(Pod):
    """A mirror that keeps what it is sent, and answers as it is told."""

    name, host = "copy", "127.0.0.9"

    def __init__(self) -> None:
        super().__init__()
        self.got: list[tuple[str, str, bytes, str]] = []
        """Method, path, body, and X-Set of every request."""
        self.wait = asyncio.Event()
        self.wait.set()
        self.status = 200

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.got.append((request.method, request.path, body, request.headers.get("X-Set", "")))
        await self.wait.wait()
        return web.Response(status=self.status, body=b"x" * 100_000)

    async def stop(self) -> None:
        self.wait.set()
        await super().stop()


@pytest.fixture
async def copy() -> AsyncIterator[Copy]:
    there = Copy()
    await there.start()
    yield there
    await there.stop()


@asynccontextmanager
async def mirroring(
    copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: Mapping[str, str]
) -> AsyncIterator[Here]:
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": backend("copy")}}
    rule = {"filters": [mirror, MODIFY], "backendRefs": [backend()]}
    async with running(tmp_path, monkeypatch, {"LB_RETRY_BUFFER": "1000", **more}) as here:
        here.api.put(SERVICES, dict(service("copy")))
        here.api.put(SLICES, copy.slice())
        here.api.put(ROUTES, route(rule))
        assert here.balancer.gateways is not None
        fleets = here.balancer.gateways.fleets
        await until(lambda: "shop/copy:8080" in fleets and list(fleets["shop/copy:8080"].cluster.pool.endpoints))
        yield here


@pytest.fixture
async def here(copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Here]:
    async with mirroring(copy, tmp_path, monkeypatch, {}) as there:
        yield there


@pytest.fixture
async def impatient(copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Here]:
    async with mirroring(copy, tmp_path, monkeypatch, {"LB_RESPONSE_TIMEOUT": "0.5"}) as there:
        yield there


async def ask(here: Here, path: str = "/x", method: str = "GET", data: Any = None) -> int:
    async with here.client.request(method, here.url("shop/door", path), data=data) as answer:
        await answer.read()
        return answer.status


def came(here: Here) -> dict[str, int]:
    return dict(here.balancer._counters.mirrored)


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
        await asyncio.sleep(0)


async def test_a_mirror_gets_what_the_endpoint_gets(here: Here, copy: Copy) -> None:
    assert await ask(here) == 200
    assert await ask(here, "/form", "POST", b"a=1") == 200
    assert await ask(here, "/parts", "PUT", chunks(b"one", b"two")) == 200
    await until(lambda: came(here) == {"answered": 3})
    assert sorted(copy.got) == [
        ("GET", "/x", b"", "1"),
        ("POST", "/form", b"a=1", "1"),
        ("PUT", "/parts", b"onetwo", "1"),
    ]


async def test_a_longer_body_than_what_is_kept_is_not_mirrored(here: Here, copy: Copy) -> None:
    assert await ask(here, "/long", "POST", b"x" * 200_000) == 200
    assert await ask(here) == 200
    await until(lambda: came(here) == {"answered": 1, "body too long": 1})
    assert [path for _, path, _, _ in copy.got] == ["/x"]


async def test_a_mirror_that_hangs_delays_nobody_and_holds_no_more_than_a_hundred(here: Here, copy: Copy) -> None:
    copy.wait.clear()
    # All are answered while the first mirrored request still hangs: it has 60 seconds.
    assert [await ask(here) for _ in range(150)] == [200] * 150
    assert here.balancer.gateways is not None
    cluster = here.balancer.gateways.fleets["shop/copy:8080"].cluster
    assert cluster.mirroring == 100
    assert came(here) == {"too many under way": 50}
    copy.wait.set()
    await until(lambda: came(here) == {"answered": 100, "too many under way": 50})
    assert cluster.mirroring == 0
    assert all(endpoint.in_flight == 0 for endpoint in cluster.pool.endpoints)


async def test_a_mirror_that_hangs_is_given_up(impatient: Here, copy: Copy) -> None:
    copy.wait.clear()
    assert await ask(impatient) == 200
    await until(lambda: came(impatient) == {"failed": 1})
    assert impatient.balancer.gateways is not None
    cluster = impatient.balancer.gateways.fleets["shop/copy:8080"].cluster
    assert cluster.mirroring == 0
    assert all(endpoint.in_flight == 0 for endpoint in cluster.pool.endpoints)


async def test_a_mirror_that_fails_or_is_not_there_is_nobodys_fault(here: Here, copy: Copy) -> None:
    copy.status = 500
    assert await ask(here) == 200
    await until(lambda: came(here) == {"answered": 1})
    await copy.stop()
    assert [await ask(here) for _ in range(3)] == [200] * 3
    await until(lambda: came(here).get("failed") == 3)
    here.api.put(SLICES, copy.slice(ready=False))
    for _ in range(2000):
        assert await ask(here) == 200
        if came(here).get("no endpoint"):
            break
    else:
        raise AssertionError("an endpoint that is not ready is still there")
    assert not here.balancer._counters.errors
    assert not here.balancer._counters.faults
    assert here.balancer.gateways is not None
    web_pool = next(each for each in here.balancer.gateways.pools() if each.cluster == "shop/web:8080")
    assert not any(endpoint.health.ejected for endpoint in web_pool.endpoints)


async def test_the_balancer_stops_with_a_mirror_that_hangs(here: Here, copy: Copy) -> None:
    copy.wait.clear()
    assert await ask(here) == 200
    await until(lambda: copy.got)
    assert here.balancer.gateways is not None
    here.balancer.gateways.cut()
    assert came(here) == {"failed": 1}


class Broken(Upstreams):
    """A fault of our own."""

    def take(self, endpoint: Endpoint, receiver: Receiver, idle_since: float) -> ClientStream | None:
        raise RuntimeError("injected")


async def test_a_fault_of_ours_in_a_mirror_costs_the_client_nothing(here: Here) -> None:
    assert here.balancer.gateways is not None
    cluster = here.balancer.gateways.fleets["shop/copy:8080"].cluster
    sound, cluster.upstreams = cluster.upstreams, Broken()
    assert await ask(here) == 200
    cluster.upstreams = sound
    assert here.balancer._counters.faults == 1
    assert came(here) == {"failed": 1}
    assert cluster.mirroring == 0
    assert all(endpoint.in_flight == 0 for endpoint in cluster.pool.endpoints)
