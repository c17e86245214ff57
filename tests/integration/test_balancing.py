"""The balancer before real backends: each strategy as a client sees it, and no request lost when something dies."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import aiohttp
import pytest
from tests.integration.conftest import Balancer, Start

StartBalancer = Callable[..., Balancer]


@pytest.fixture(scope="module")
def with_a_slow_one(pis: list[str], start_pi: Start) -> list[str]:
    """Two quick backends and one that waits half a second before each answer."""
    start_pi("slow", PI_DELAY_MS="500")
    return ["slow", *pis[:2]]


async def test_n_to_one_uses_the_first(start_balancer: StartBalancer, pis: list[str]) -> None:
    balancer = start_balancer(pis, LB_STRATEGY="n-to-one")

    assert set(await balancer.served_by(12, clients=3)) == {"pi-1"}


async def test_round_robin_takes_turns(start_balancer: StartBalancer, pis: list[str]) -> None:
    balancer = start_balancer(pis, LB_STRATEGY="round-robin")
    served = await balancer.served_by(12)

    assert len(set(served[:3])) == 3
    assert served == served[:3] * 4


async def test_round_robin_follows_weights(start_balancer: StartBalancer, pis: list[str]) -> None:
    balancer = start_balancer(pis, LB_BACKENDS="pi-1:8000;weight=2,pi-2:8000", LB_STRATEGY="round-robin")

    assert Counter(await balancer.served_by(12)) == {"pi-1": 8, "pi-2": 4}


@pytest.mark.parametrize("strategy", ["least-connections", "least-response-time", "least-work", "random-of-two"])
async def test_a_slow_backend_gets_less(
    start_balancer: StartBalancer, with_a_slow_one: list[str], strategy: str
) -> None:
    balancer = start_balancer(with_a_slow_one, LB_STRATEGY=strategy)
    served = Counter(await balancer.served_by(120, clients=6))

    assert served["slow"] / 120 < 0.2
    assert served["pi-1"]
    assert served["pi-2"]


async def test_consistent_hash_keeps_each_key_where_it_was(start_balancer: StartBalancer, pis: list[str]) -> None:
    balancer = start_balancer(pis, LB_STRATEGY="consistent-hash", LB_HASH_KEY="header:X-User")
    places = {f"user-{n}": await balancer.served_by(3, headers={"X-User": f"user-{n}"}) for n in range(12)}

    assert all(len(set(place)) == 1 for place in places.values())
    assert len({place[0] for place in places.values()}) > 1


async def test_a_backend_killed_under_load_costs_no_request(
    start_balancer: StartBalancer, pis: list[str], start_pi: Start
) -> None:
    doomed = start_pi("doomed")
    balancer = start_balancer([*pis[:2], "doomed"])
    in_use = asyncio.Event()
    load = asyncio.create_task(
        balancer.served_by(600, clients=6, watch=lambda name: in_use.set() if name == "doomed" else None)
    )
    await in_use.wait()
    await asyncio.to_thread(doomed.get_wrapped_container().kill)
    await load  # fails at any answer that is wrong

    assert set(await balancer.served_by(60, clients=6)) == {"pi-1", "pi-2"}


async def test_sigterm_lets_what_is_in_flight_end(start_balancer: StartBalancer, start_pi: Start) -> None:
    start_pi("patient", PI_DELAY_MS="1500")
    balancer = start_balancer(["patient"])
    container = balancer.container.get_wrapped_container()
    in_flight = [asyncio.create_task(balancer.served_by(1)) for _ in range(5)]
    await asyncio.sleep(0.7)  # they are on their way, and wait for the backend
    await asyncio.to_thread(container.kill, signal="SIGTERM")

    assert await asyncio.gather(*in_flight) == [["patient"]] * 5
    assert (await asyncio.to_thread(container.wait, timeout=10))["StatusCode"] == 0
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"{balancer.url}/10")


async def test_tcp_mode_passes_bytes_through(start_balancer: StartBalancer, pis: list[str]) -> None:
    balancer = start_balancer(pis, LB_MODE="tcp")
    served = [(await balancer.served_by(1))[0] for _ in range(6)]

    assert set(served) == set(pis)
    assert all(first != second for first, second in pairwise(served))
