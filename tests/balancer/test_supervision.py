"""A task that the balancer cannot do without ends the process when it fails."""

from __future__ import annotations

import asyncio

from balancer.app import Balancer
from balancer.balancing.endpoint import EndpointSpec
from balancer.log import Output
from balancer.settings import Settings


async def test_a_task_that_fails_ends_the_process_and_not_in_silence() -> None:
    async def fails() -> None:
        raise ValueError("broken")

    settings = Settings(discovery="static", backends=(EndpointSpec("127.0.0.1", 9),), port=0, admin_port=0)
    balancer = Balancer(settings, Output(2))
    await balancer.start()
    serving = asyncio.create_task(balancer.serve())
    await balancer._supervise(fails())
    await asyncio.wait_for(serving, 5)
    await balancer.stop()
    assert balancer.crashed
