"""A whole balancer, a stand-in for the API and endpoints: what is written in objects is seen in answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from benchmarks.clusterapi import ClusterApiServer
from benchmarks.ports import free_port
from tests.balancer.discovery.gateway.replicas import KINDS, ROUTES, SERVICES, SLICES, until

from balancer.app import Balancer
from balancer.discovery.gateway import addresses
from balancer.log import Output
from balancer.settings import load

INGRESSES = "/apis/networking.k8s.io/v1/ingresses"
POLICIES = "/apis/policy.lb/v1alpha1/loadbalancingpolicies"

INGRESS = """
metadata:
  name: shop
  namespace: shop
  annotations:
    nginx.ingress.kubernetes.io/proxy-body-size: 1k
    nginx.ingress.kubernetes.io/affinity: cookie
    nginx.ingress.kubernetes.io/session-cookie-name: stay
    nginx.ingress.kubernetes.io/use-regex: "true"
    nginx.ingress.kubernetes.io/rewrite-target: /$2
spec:
  ingressClassName: lb
  rules:
    - host: shop.example.com
      http:
        paths:
          - path: /shop(/|$)(.*)
            pathType: ImplementationSpecific
            backend: {service: {name: web, port: {number: 8080}}}
"""


class Endpoints:
    """Programs that answer with their number and the path that they were asked for, each at an address of loopback."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.port = 0
        self.sick: set[int] = set()
        """Those that answer 503 at /health."""
        self._runners: list[web.AppRunner] = []

    async def start(self) -> None:
        for number in range(1, self.count + 1):
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", self._answering(number))
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, f"127.0.0.{number}", self.port).start()
            self.port = self.port or runner.addresses[0][1]
            self._runners.append(runner)

    def _answering(self, number: int) -> Callable[[web.Request], Any]:
        async def answer(request: web.Request) -> web.Response:
            await request.read()
            if request.path == "/health" and number in self.sick:
                raise web.HTTPServiceUnavailable
            return web.json_response({"endpoint": number, "path": request.path})

        return answer

    async def stop(self) -> None:
        for runner in self._runners:
            await runner.cleanup()

    def slice(self) -> dict[str, Any]:
        return {
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": self.port}],
            "endpoints": [
                {"addresses": [f"127.0.0.{number}"], "conditions": {"ready": True}}
                for number in range(1, self.count + 1)
            ],
        }


class Here:
    """All of it, running."""

    def __init__(
        self, api: ClusterApiServer, balancer: Balancer, client: aiohttp.ClientSession, endpoints: Endpoints
    ) -> None:
        self.api = api
        self.balancer = balancer
        self.client = client
        self.endpoints = endpoints

    def port(self, gateway: str) -> int:
        """Ours for the port 80 of a Gateway."""
        assert self.balancer.gateways is not None
        (found,) = [
            ours for ours, each in self.balancer.gateways.ports.items() if each.plan.gateway.startswith(gateway)
        ]
        return found

    def url(self, gateway: str, path: str) -> str:
        return f"http://127.0.0.1:{self.port(gateway)}{path}"


@asynccontextmanager
async def running(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: Mapping[str, str] | None = None,
    kinds: Mapping[str, list[Any]] | None = None,
    ports: int = 2,
) -> AsyncIterator[Here]:
    """A balancer with a Gateway and an Ingress, once all `ports` are served; `more`: settings; `kinds`: objects."""
    endpoints = Endpoints(4)
    await endpoints.start()
    listed: dict[str, list[Any]] = {path: [dict(each) for each in items] for path, items in KINDS.items()}
    listed |= {INGRESSES: [yaml.safe_load(INGRESS)], POLICIES: [], SLICES: [endpoints.slice()]}
    api = ClusterApiServer({**listed, **(kinds or {})})
    await api.start()
    (tmp_path / "kubeconfig").write_text(api.kubeconfig())
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    first = free_port()  # Other runs of these tests have ports of their own.
    monkeypatch.setattr(addresses, "FIRST_PORT", first)
    monkeypatch.setattr(addresses, "LAST_PORT", first + 20)
    settings = {
        "LB_GATEWAY_CLASS": "lb",
        "LB_INGRESS_CLASS": "lb",
        "LB_OWN_SERVICE": "front",
        "LB_BACKENDS": "127.0.0.1:9",
        "LB_HOST": "127.0.0.1",
        "LB_PORT": "0",
        "LB_ADMIN_HOST": "127.0.0.1",
        "LB_ADMIN_PORT": "0",
        "LB_ACCESS_LOG": "off",
        "LB_STRATEGY": "round-robin",
        **(more or {}),
    }
    balancer = Balancer(load(settings), Output(1))
    await balancer.start()
    assert balancer.gateways is not None
    gateways = balancer.gateways
    async with aiohttp.ClientSession() as client:
        await until(lambda: len(gateways.ports) == ports)
        await until(lambda: all(list(pool.endpoints) for pool in gateways.pools()))
        yield Here(api, balancer, client, endpoints)
    gateways.stop_listening()
    gateways.cut()
    await balancer.stop()
    await api.stop()
    await endpoints.stop()


@pytest.fixture
async def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Here]:
    async with running(tmp_path, monkeypatch) as there:
        yield there


async def test_objects_become_traffic_and_change_without_a_lost_request(here: Here) -> None:
    async def ask(method: str, url: str, **more: Any) -> tuple[int, Any, Any]:
        async with here.client.request(method, url, allow_redirects=False, **more) as answer:
            body = await answer.json() if answer.status == 200 else None
            return answer.status, body, answer

    # An HTTPRoute, and a policy that changes the strategy of its Service alone, while requests go on.
    counts: Counter[int] = Counter()
    for _ in range(8):
        status, body, _ = await ask("GET", here.url("shop/door", "/x"))
        assert status == 200
        counts[body["endpoint"]] += 1
    assert counts == {1: 2, 2: 2, 3: 2, 4: 2}
    policy = {
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "targetRefs": [{"kind": "Service", "name": "web"}],
            "strategy": "consistent-hash",
            "hashKey": "header:X-User",
        },
    }
    here.api.put(POLICIES, policy)
    for _ in range(400):
        answers = [await ask("GET", here.url("shop/door", "/x"), headers={"X-User": "7"}) for _ in range(4)]
        assert all(status == 200 for status, _, _ in answers)
        if len({body["endpoint"] for _, body, _ in answers}) == 1:
            break
    else:
        raise AssertionError("the policy's strategy is not in force")
    assert here.api.kinds[POLICIES]["shop", "web"] is not None

    # What each port has counted: this Gateway's alone, and the Ingresses' port nothing.
    assert here.balancer.gateways is not None
    counts_of = {
        gateway: (requests, responses) for gateway, _, requests, responses in here.balancer.gateways.listeners()
    }
    requests, responses = counts_of["shop/door"]
    assert requests == responses[2] > 8
    assert [sum(each[1]) for gateway, each in counts_of.items() if gateway != "shop/door"] == [0]
    async with here.client.get(f"http://127.0.0.1:{here.balancer._admin.port}/metrics") as answer:
        metrics = await answer.text()
    assert f'lb_gateway_requests_total{{gateway="shop/door",port="80"}} {requests}' in metrics
    assert f'lb_gateway_responses_total{{class="2xx",gateway="shop/door",port="80"}} {requests}' in metrics

    # A route that goes: no rule is left, and nothing else changes.
    here.api.delete(ROUTES, ("shop", "route"))
    for _ in range(2000):
        if (await ask("GET", here.url("shop/door", "/x")))[0] == 404:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the route is still there")


async def test_a_policy_has_the_pods_of_a_route_checked(here: Here) -> None:
    spec = {
        "targetRefs": [{"kind": "Service", "name": "web"}],
        "healthPath": "/health",
        "healthInterval": 0.1,
        "healthFall": 1,
        "healthRise": 1,
    }
    here.endpoints.sick = {2, 3}
    here.api.put(POLICIES, {"metadata": {"name": "web", "namespace": "shop"}, "spec": spec})
    gateways = here.balancer.gateways
    assert gateways is not None

    def passing() -> int:
        return sum(each.health.passing_probes for each in gateways.fleets["shop/web:8080"].cluster.pool.endpoints)

    async def answer() -> int:
        async with here.client.get(here.url("shop/door", "/x")) as got:
            return int((await got.json())["endpoint"])

    await until(lambda: passing() == 2)
    assert {await answer() for _ in range(12)} == {1, 4}
    here.endpoints.sick = set()
    await until(lambda: passing() == 4)
    assert {await answer() for _ in range(12)} == {1, 2, 3, 4}
    here.endpoints.sick = {1, 2, 3, 4}
    await until(lambda: passing() == 0)
    # Without the policy nobody is checked, and all are taken for healthy again.
    here.api.delete(POLICIES, ("shop", "web"))
    await until(lambda: passing() == 4)


async def test_an_ingress_is_served(here: Here) -> None:
    url, host = here.url("lb-system/ingress", "/shop/a/b?c=d"), {"Host": "shop.example.com"}
    first: int | None = None
    cookie = ""
    for _ in range(5):
        async with here.client.get(url, headers={**host, **({"Cookie": cookie} if cookie else {})}) as answer:
            body = await answer.json()
            assert answer.status == 200
            assert body["path"] == "/a/b"
            first = first or body["endpoint"]
            assert body["endpoint"] == first
            assert ("Set-Cookie" in answer.headers) is (not cookie)
            cookie = cookie or answer.headers["Set-Cookie"].partition(";")[0]
    async with here.client.post(url, headers=host, data=b"x" * 1025) as answer:
        assert answer.status == 413

    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 256

    async with here.client.post(url, headers=host, data=chunks(4)) as answer:
        assert answer.status == 200
    async with here.client.post(url, headers=host, data=chunks(5)) as answer:
        assert answer.status == 413
    async with here.client.get(url, headers={"Host": "other.example.com"}) as answer:
        assert answer.status == 404
    service = here.api.kinds[SERVICES]
    await until(lambda: here.api.kinds[INGRESSES]["shop", "shop"].get("status"))
    (balanced,) = here.api.kinds[INGRESSES]["shop", "shop"]["status"]["loadBalancer"]["ingress"]
    assert balanced["ip"].startswith("10.96.")
    assert len([name for _, name in service if name.startswith("lb-gateway-")]) == 2
