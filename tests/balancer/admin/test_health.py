from __future__ import annotations

import aiohttp
import pytest
from aiohttp import ClientSession
from tests.balancer.admin.world import MakeWorld, World

from balancer.admin import Phase


async def test_the_process_lives_even_before_it_is_ready(make_world: MakeWorld) -> None:
    world = await make_world()
    async with aiohttp.ClientSession(world.url) as client, client.get("/healthz") as response:
        assert (response.status, await response.json()) == (200, {"status": "ok"})


async def test_is_ready_from_the_first_snapshot_until_sigterm(make_world: MakeWorld) -> None:
    world = await make_world()
    world.admin.phase = Phase.STARTING
    async with aiohttp.ClientSession(world.url) as client:

        async def ready() -> tuple[int, str]:
            async with client.get("/readyz") as response:
                return response.status, (await response.json())["status"]

        assert await ready() == (503, "waiting for its ports")
        world.admin.phase = Phase.SERVING
        assert await ready() == (503, "waiting for the first snapshot")
        assert not world.admin.ready
        world.fleet("pi-a")
        assert await ready() == (200, "ready")
        assert world.admin.ready
        world.admin.phase = Phase.DRAINING
        assert await ready() == (503, "draining")
        assert not world.admin.ready


async def test_is_not_ready_before_the_gateways_are_listened_for(make_world: MakeWorld) -> None:
    world = await make_world()
    world.planned = False
    world.fleet("pi-a")
    async with aiohttp.ClientSession(world.url) as client:
        async with client.get("/readyz") as response:
            said = await response.json()
            assert (response.status, said["status"]) == (503, "waiting for the first plan of the Gateways")
            assert "Gateways" in said["notes"][0]
        assert not world.admin.ready
        world.planned = True
        async with client.get("/readyz") as response:
            assert response.status == 200


@pytest.mark.parametrize(
    ("fleet", "error", "words"),
    [
        ((), None, "Discovery has found no endpoint"),
        (("pi-a",), "connection refused by the API server", "Discovery is stale"),
    ],
    ids=["an empty fleet", "a stale discovery"],
)
async def test_what_taking_this_replica_out_would_not_mend_is_a_detail_and_no_failure(
    world: World, client: ClientSession, fleet: tuple[str, ...], error: str | None, words: str
) -> None:
    world.fleet(*fleet)
    world.discovery.error, world.discovery.stale = error, error is not None
    world.now += 42
    async with client.get("/readyz") as response:
        body = await response.json()
    assert response.status == 200
    assert any(words in note for note in body["notes"])
    assert body["discovery"] == {
        "source": "static",
        "age_seconds": 42.0,
        "stale": error is not None,
        "error": error,
    }


async def test_readiness_tells_how_many_endpoints_can_be_chosen(world: World, client: ClientSession) -> None:
    world.pool.drain(world.endpoint(1), True, world.now)
    async with client.get("/readyz") as response:
        assert (await response.json())["endpoints"] == {"total": 2, "eligible": 1}
