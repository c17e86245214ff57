"""An admin port over a real pool, and its clients."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from tests.balancer.admin.world import TOKEN, Alone, MakeWorld, World

from balancer.settings import Settings


@pytest.fixture
async def make_world() -> AsyncIterator[MakeWorld]:
    """Makes admin ports; settings as keywords, and `others`, the other replicas."""
    made: list[World] = []

    async def make(others: Alone | None = None, **settings: object) -> World:
        told = {"backends": "10.0.0.1:8000", "admin_port": 0, "admin_token": TOKEN}
        told |= {"strategy": "round-robin", **settings}
        world = World(Settings.model_validate(told), peers=others)
        await world.admin.start()
        world.url = f"http://127.0.0.1:{world.admin.port}"
        made.append(world)
        return world

    yield make
    for world in made:
        await world.admin.stop()


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    """An admin port with a token and two endpoints."""
    made = await make_world()
    made.fleet("pi-a", "pi-b")
    return made


@pytest.fixture
async def client(world: World) -> AsyncIterator[aiohttp.ClientSession]:
    """Someone who may only read."""
    async with aiohttp.ClientSession(base_url=world.url) as session:
        yield session


@pytest.fixture
async def operator(world: World) -> AsyncIterator[aiohttp.ClientSession]:
    """Someone who has the token."""
    async with aiohttp.ClientSession(base_url=world.url, headers={"Authorization": f"Bearer {TOKEN}"}) as session:
        yield session
