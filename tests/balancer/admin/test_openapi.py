"""The API and its description agree: schemathesis makes requests of the one and holds the answers to the other."""

from __future__ import annotations

import asyncio
from itertools import product
from typing import Any

import pytest
from aiohttp import ClientSession
from tests.balancer.admin.world import TOKEN, World

schemathesis = pytest.importorskip("schemathesis")


async def test_the_document_is_of_the_version_that_it_says(client: ClientSession) -> None:
    async with client.get("/api/openapi.json") as response:
        document = await response.json()
    assert document["openapi"] == "3.1.0"
    assert {"/api/endpoints", "/api/strategy", "/api/decisions", "/api/config", "/api/events"} <= set(document["paths"])


async def test_the_api_answers_as_its_document_says_whatever_is_asked(world: World) -> None:
    for path in ("/pi/1", "/pi/2"):
        world.request(path=path)
    await world.admin._feed._second()
    failures = await asyncio.to_thread(probe, world.url)
    assert failures == []


def probe(url: str) -> list[str]:
    """Ask everything that the document describes, rightly and wrongly; what was answered otherwise than described."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis import GenerationMode

    schema: Any = schemathesis.openapi.from_url(f"{url}/api/openapi.json")
    failures: list[str] = []
    operations = [result.ok() for result in schema.get_all_operations()]
    for operation, mode in product(operations, (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)):
        if operation.path == "/api/events":
            continue  # It has no end: test_events.py reads it.

        @settings(
            max_examples=15,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"})

        try:
            ask()
        except Unsatisfiable:
            continue  # There is no wrong way to ask: no parameter, no body.
        except Exception as failure:  # noqa: BLE001 - whatever a check raises is what this test is for
            failures.append(f"{operation.label}: {failure}")
    return failures
