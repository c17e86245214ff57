from __future__ import annotations

import aiohttp
import pytest
from aiohttp import ClientSession
from tests.balancer.admin.world import MakeWorld, World

from balancer.admin.auth import Refusal, refuse_foreign_host

SWITCH = {"strategy": "least-connections"}


async def test_nothing_changes_without_the_token(world: World, client: ClientSession) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic b3Blbi1zZXNhbWU="}):
        async with client.put("/api/strategy", json=SWITCH, headers=headers) as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
        async with client.post("/api/endpoints/10.0.0.1:8000/drain", headers=headers) as response:
            assert response.status == 401
    assert world.pool.strategy_name == "round-robin"
    assert not world.endpoint(1).health.drained


async def test_where_no_token_is_set_every_change_is_refused_with_the_remedy(make_world: MakeWorld) -> None:
    world = await make_world(admin_token=None)
    world.fleet("pi-a")
    for token in ("", "None", "open-sesame"):
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(world.url) as client,
            client.put("/api/strategy", json=SWITCH, headers=headers) as response,
        ):
            assert response.status == 403
            assert "LB_ADMIN_TOKEN" in (await response.json())["error"]


async def test_the_refusal_does_not_tell_whether_an_endpoint_exists(client: ClientSession) -> None:
    async with client.post("/api/endpoints/10.9.9.9:1/drain") as response:
        assert response.status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
    ids=str,
)
async def test_a_page_of_another_site_may_neither_read_nor_change_even_with_the_token(
    world: World, operator: ClientSession, headers: dict[str, str]
) -> None:
    async with operator.get("/api/decisions", headers=headers) as response:
        assert response.status == 403
        assert not any(name.startswith("Access-Control") for name in response.headers)
    async with operator.put("/api/strategy", json=SWITCH, headers=headers) as response:
        assert response.status == 403
    assert world.pool.strategy_name == "round-robin"


async def test_the_dashboards_own_page_may_change_with_the_token(world: World, operator: ClientSession) -> None:
    headers = {"Origin": world.url, "Sec-Fetch-Site": "same-origin"}
    async with operator.put("/api/strategy", json=SWITCH, headers=headers) as response:
        assert response.status == 200


async def test_a_form_of_another_site_cannot_pass_for_json(operator: ClientSession) -> None:
    body = b'{"strategy": "least-connections"}'
    async with operator.put("/api/strategy", data=body, headers={"Content-Type": "text/plain"}) as response:
        assert response.status == 415


async def test_a_link_from_another_site_may_open_the_dashboard(client: ClientSession) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    async with client.get("/", headers=headers) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8081",
        "[::1]:8081",
        "10.244.1.7:8081",
        "localhost:8081",
        "lb:8081",
        "lb.shop.svc",
        "lb.shop.svc.cluster.local:8081",
        "LB.Shop.SVC.cluster.local.",
        "",
    ],
)
def test_names_that_public_dns_cannot_give_are_answered(host: str) -> None:
    refuse_foreign_host(host)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8081", "127.0.0.1.evil.example", "svc.evil.example"])
def test_a_public_name_is_refused_for_it_may_be_rebound(host: str) -> None:
    with pytest.raises(Refusal, match="DNS rebinding"):
        refuse_foreign_host(host)


async def test_programs_may_ask_for_health_and_metrics_under_any_name(client: ClientSession) -> None:
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/api/config", 421), ("/", 421)):
        async with client.get(path, headers={"Host": "lb.example.com"}) as response:
            assert response.status == status, path


async def test_every_response_forbids_framing_scripts_of_others_and_sniffing(client: ClientSession) -> None:
    for path in ("/", "/api/config", "/api/endpoints", "/nowhere", "/healthz", "/metrics", "/dashboard/app.js"):
        async with client.get(path) as response:
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["X-Frame-Options"] == "DENY"
