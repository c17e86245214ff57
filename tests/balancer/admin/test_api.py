from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import structlog
from aiohttp import ClientSession
from tests.balancer.admin.world import TOKEN, Alone, MakeWorld, World

from balancer.balancing.endpoint import EndpointSpec
from balancer.balancing.pool import Policy, Pool
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies import STRATEGIES
from balancer.peers.intent import Intent, Wish


async def get(client: ClientSession, path: str, status: int = 200) -> Any:
    async with client.get(path) as response:
        assert response.status == status, await response.text()
        assert response.content_type == "application/json"
        return await response.json()


async def put(client: ClientSession, body: object, status: int, query: str = "") -> Any:
    async with client.put(f"/api/strategy{query}", json=body) as response:
        assert response.status == status, await response.text()
        return await response.json()


async def test_a_switch_is_at_once_and_forgets_nothing(world: World, operator: ClientSession) -> None:
    lease = world.pool.lease(RequestInfo("192.0.2.1", "GET", "/"), world.now)
    for _ in range(9):
        world.request(seconds=0.2)
    before = [(e.latency.average(world.now), e.stats.answered[2], e.in_flight) for e in world.pool.endpoints]
    told = await put(operator, {"strategy": "least-connections"}, 200)
    assert (told["strategy"], told["before"]) == ("least-connections", "round-robin")
    assert [(e.latency.average(world.now), e.stats.answered[2], e.in_flight) for e in world.pool.endpoints] == before
    free = next(e for e in world.pool.endpoints if e is not lease.endpoint)
    assert world.request() is free
    assert (await get(operator, "/api/strategy"))["strategy"] == "least-connections"


async def test_primary_backup_is_another_name_of_n_to_one(world: World, operator: ClientSession) -> None:
    told = await put(operator, {"strategy": "primary-backup"}, 200)
    assert told["strategy"] == world.pool.strategy_name == "n-to-one"


async def test_the_old_names_of_fields_stay_for_a_release(world: World, operator: ClientSession) -> None:
    world.pool.drain(world.endpoint(1), True, world.now)
    for endpoint in (await get(operator, "/api/endpoints"))["endpoints"]:
        assert (endpoint["why_out"], endpoint["held"]) == (endpoint["ineligible_reason"], endpoint["drained"])
        assert (endpoint["left_alone_for"], endpoint["healthy"]) == (
            endpoint["backoff_for"],
            endpoint["passing_probes"],
        )


async def test_an_unknown_strategy_is_refused_with_the_names_there_are(world: World, operator: ClientSession) -> None:
    error = (await put(operator, {"strategy": "fastest"}, 422))["error"]
    assert all(name in error for name in STRATEGIES)
    assert world.pool.strategy_name == "round-robin"


async def test_the_token_does_not_let_one_import_code(world: World, operator: ClientSession) -> None:
    await put(operator, {"strategy": "os:system"}, 422)
    assert world.pool.strategy_name == "round-robin"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"\xff",
        b'{"strategy": 1}',
        b"{}",
        b'{"strategy": "n-to-one", "x": 1}',
        b'{"strategy": ' + b"1" * 5000 + b"}",
    ],
    ids=lambda body: str(body[:40]),
)
async def test_any_other_body_is_refused(operator: ClientSession, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    async with operator.put("/api/strategy", data=body, headers=headers) as response:
        assert response.status == 400
        assert "error" in await response.json()


async def test_a_body_that_cannot_be_unpacked_is_refused(operator: ClientSession) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    async with operator.put("/api/strategy", data=b"no gzip", headers=headers) as response:
        assert response.status == 400
        assert "error" in await response.json()


@pytest.mark.parametrize("query", ["?scope=", "?scope=all", "?scope=fleet&scope=replica", "?cluster=default", "?fleet"])
async def test_a_query_that_would_be_passed_over_is_refused(world: World, operator: ClientSession, query: str) -> None:
    await put(operator, {"strategy": "least-connections"}, 400, query)
    assert world.pool.strategy_name == "round-robin"


async def test_a_long_body_is_refused_before_it_is_held(operator: ClientSession) -> None:
    await put(operator, {"strategy": "x" * 100_000}, 413)


async def test_an_endpoint_drained_by_hand_gets_no_request_until_it_is_taken_back(
    world: World, operator: ClientSession
) -> None:
    async with operator.post("/api/endpoints/10.0.0.1:8000/drain") as response:
        assert (await response.json())["state"] == "drained"
    assert {world.request().address for _ in range(10)} == {"10.0.0.2:8000"}
    async with operator.post("/api/endpoints/10.0.0.1%3A8000/undrain") as response:
        assert (await response.json())["state"] == "ready"
    assert {world.request().address for _ in range(10)} == {"10.0.0.1:8000", "10.0.0.2:8000"}


async def test_what_the_fleet_wants_drained_is_not_taken_back_at_one_replica_for_a_moment(
    make_world: MakeWorld,
) -> None:
    peers = Alone()
    peers.intent = Intent(wishes={"10.0.0.1:8000": Wish(1.0, True)})
    world = await make_world(others=peers)
    world.fleet("pi-a", "pi-b")
    world.pool.drain(world.endpoint(1), True, world.now)
    async with ClientSession(base_url=world.url, headers={"Authorization": f"Bearer {TOKEN}"}) as operator:
        async with operator.post("/api/endpoints/10.0.0.1:8000/undrain") as response:
            assert response.status == 409
            assert "?scope=fleet" in (await response.json())["error"]
        assert world.endpoint(1).health.drained
        async with operator.post("/api/endpoints/10.0.0.1:8000/undrain?scope=fleet") as response:
            assert (await response.json())["state"] == "ready"


async def test_what_the_fleet_wants_drained_is_taken_back_while_it_is_gone(make_world: MakeWorld) -> None:
    peers = Alone()
    peers.intent = Intent(wishes={"10.0.0.9:8000": Wish(1.0, True, "some-pod")})
    world = await make_world(others=peers)
    async with ClientSession(base_url=world.url, headers={"Authorization": f"Bearer {TOKEN}"}) as operator:
        for action, status in (("drain", 404), ("undrain", 204)):
            async with operator.post(f"/api/endpoints/10.0.0.9:8000/{action}?scope=fleet") as response:
                assert response.status == status
    assert not peers.intent.addresses


async def test_an_endpoint_of_a_route_is_not_said_to_be_drained_in_the_whole_fleet(make_world: MakeWorld) -> None:
    world = await make_world(others=Alone())
    shop = Pool(world.strategy("round-robin"), "round-robin", Policy(), world.random, "shop")
    shop.replace([EndpointSpec("10.1.0.1", 80)], world.now)
    world.others.append(shop)
    async with ClientSession(base_url=world.url, headers={"Authorization": f"Bearer {TOKEN}"}) as operator:
        async with operator.post("/api/endpoints/10.1.0.1:80/drain?scope=fleet&cluster=shop") as response:
            assert response.status == 409
        async with operator.post("/api/endpoints/10.1.0.1:80/drain?cluster=shop") as response:
            assert (await response.json())["state"] == "drained"


async def test_an_ipv6_endpoint_is_found_by_its_address(world: World, operator: ClientSession) -> None:
    world.pool.replace([EndpointSpec("fd00::7", 8000)], world.now)
    assert (await get(operator, "/api/endpoints/%5Bfd00%3A%3A7%5D%3A8000"))["address"] == "[fd00::7]:8000"


async def test_an_unknown_endpoint_is_said_to_be(operator: ClientSession) -> None:
    await get(operator, "/api/endpoints/10.9.9.9:1", 404)
    async with operator.post("/api/endpoints/10.9.9.9:1/drain") as response:
        assert response.status == 404


async def test_each_change_is_logged_with_who_and_what(
    world: World, operator: ClientSession, client: ClientSession
) -> None:
    with structlog.testing.capture_logs() as logs:
        await put(operator, {"strategy": "least-connections"}, 200)
        async with operator.post("/api/endpoints/10.0.0.1:8000/drain", headers={"User-Agent": "curl/8"}):
            pass
        async with client.post("/api/endpoints/10.0.0.1:8000/undrain"):
            pass
    assert [(entry["event"], entry["by"]) for entry in logs] == [
        ("strategy switched", "127.0.0.1"),
        ("endpoint drained by hand", "127.0.0.1"),
        ("change refused", "127.0.0.1"),
    ]
    assert (logs[0]["before"], logs[0]["strategy"]) == ("round-robin", "least-connections")
    assert (logs[1]["endpoint"], logs[1]["agent"]) == ("10.0.0.1:8000", "curl/8")
    assert "open-sesame" not in json.dumps(logs)


async def test_endpoints_are_told_with_their_state_and_why(world: World, client: ClientSession) -> None:
    for _ in range(6):
        world.request(502)  # three failures in a row each: one is ejected, the other is the last
    told = (await get(client, "/api/endpoints"))["endpoints"]
    ejected = [view for view in told if view["state"] == "ejected"]
    assert len(ejected) == 1
    assert ejected[0]["ineligible_reason"]
    assert 0 < ejected[0]["ejected_for"] <= 10
    assert ejected[0]["answered"] == {"5xx": 3}
    ready = next(view for view in told if view["state"] == "ready")
    assert (ready["eligible"], ready["ineligible_reason"], ready["ejected_for"]) == (True, None, None)


async def test_a_big_fleet_is_told_whole(world: World, client: ClientSession) -> None:
    world.pool.replace([EndpointSpec(f"10.1.{i // 250}.{i % 250}", 80) for i in range(1001)], world.now)
    told = await get(client, "/api/endpoints")
    assert told["total"] == len(told["endpoints"]) == 1001


async def test_an_empty_fleet_is_told(world: World, client: ClientSession) -> None:
    world.fleet()
    assert await get(client, "/api/endpoints") == {"total": 0, "endpoints": []}


async def test_decisions_come_newest_first_with_candidates_and_the_others_choices(
    world: World, client: ClientSession
) -> None:
    for path in ("/first", "/second", "/third"):
        world.request(path=path)
    told = (await get(client, "/api/decisions?limit=2"))["decisions"]
    assert [decision["path"] for decision in told] == ["/third", "/second"]
    newest = told[0]
    assert newest["chosen"] in {candidate["address"] for candidate in newest["candidates"]}
    assert {"10.0.0.1:8000", "10.0.0.2:8000"} == {candidate["address"] for candidate in newest["candidates"]}
    assert set(newest["others"]) == set(STRATEGIES) - {"round-robin"}
    assert newest["strategy"] == "round-robin"
    assert newest["by"]


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "", "1e3", "²", "9" * 5000])
async def test_a_limit_that_is_none_is_refused(client: ClientSession, limit: str) -> None:
    async with client.get("/api/decisions", params={"limit": limit}) as response:
        assert response.status == 400


async def test_the_settings_in_force_are_told_and_the_token_is_not(world: World, client: ClientSession) -> None:
    async with client.get("/api/config") as response:
        text = await response.text()
    assert "open-sesame" not in text
    settings = json.loads(text)["settings"]
    assert settings["LB_ADMIN_TOKEN"] == "********"
    assert settings["LB_STRATEGY"] == "round-robin"


async def test_what_does_not_exist_is_answered_in_json(client: ClientSession) -> None:
    await get(client, "/api/nowhere", 404)
    async with client.delete("/api/strategy") as response:
        assert response.status == 405
        assert set(response.headers["Allow"].split(",")) >= {"GET", "PUT"}
        assert "error" in await response.json()


async def test_a_client_that_leaves_in_mid_answer_leaves_no_traceback(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.pool.replace([EndpointSpec(f"10.1.{i // 250}.{i % 250}", 80) for i in range(5000)], world.now)
    for _ in range(3):
        reader, writer = await asyncio.open_connection("127.0.0.1", world.admin.port)
        writer.write(b"GET /api/endpoints HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.read(100)
        writer.transport.abort()
        await asyncio.sleep(0.05)
    assert not caplog.records


async def test_what_least_work_has_learned_is_shown(make_world: MakeWorld) -> None:
    world = await make_world(strategy="least-work")
    world.fleet("pi-a", "pi-b")
    for _ in range(3):
        world.request(seconds=0.3, path="/report")
    for _ in range(6):
        world.request(seconds=0.02, path="/pi/1500")
    lease = world.pool.lease(RequestInfo("192.0.2.1", "GET", "/report"), world.now, explain=True)
    lease.sent(world.now)
    async with ClientSession(base_url=world.url) as client:
        busy = await get(client, f"/api/endpoints/{lease.endpoint.address}")
        told = await get(client, "/api/costs")
        one = await get(client, "/api/costs?limit=1&cluster=default")
        decision = (await get(client, "/api/decisions?limit=1"))["decisions"][0]
        await get(client, "/api/costs?cluster=shop/api:8080", 404)
        await get(client, "/api/costs?limit=0", 400)
    assert set(busy["work"]) == {"workers", "pace", "expected", "wait"}
    assert busy["work"]["pace"] == pytest.approx(1.0, abs=0.2)
    assert busy["work"]["expected"] == pytest.approx(0.25, abs=0.07)
    assert (told["cluster"], told["strategy"], told["learning"], told["total"]) == ("default", "least-work", True, 2)
    assert [kind["kind"] for kind in told["kinds"]] == ["GET /pi/{1024..2047}", "GET /report"]
    assert told["kinds"][0]["cost"] == pytest.approx(0.02, abs=0.005)
    assert one["kinds"] == told["kinds"][:1]
    assert decision["cost"] == pytest.approx(0.25, abs=0.07)
    assert all(candidate["pace"] > 0 and candidate["wait"] >= 0 for candidate in decision["candidates"])


async def test_where_the_strategy_follows_no_work_none_is_shown(world: World, client: ClientSession) -> None:
    world.request()
    assert [endpoint["work"] for endpoint in (await get(client, "/api/endpoints"))["endpoints"]] == [None, None]
    told = await get(client, "/api/costs")
    assert (told["learning"], told["kinds"]) == (False, [])
    assert (await get(client, "/api/decisions"))["decisions"][0]["cost"] is None
