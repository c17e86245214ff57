"""LB_TOTAL_TIMEOUT charges an endpoint only where that was waited for, and for the most of the time."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from tests.balancer.proxy.test_blame import GET, Charges
from tests.balancer.proxy.wire.ends import OK, Accepted, Client, Endpoint
from tests.balancer.proxy.wire.process import Start


async def hears_and_hangs(connection: Accepted) -> None:
    await connection.request()
    await connection.to_end()


async def test_the_total_time_charges_no_endpoint_that_an_upload_left_no_time(start: Start) -> None:
    balancer = start(total_timeout=1, retries=0)
    charges = Charges(balancer)
    async with Endpoint(balancer.endpoints[0], hears_and_hangs), await Client.connect(balancer.port) as client:
        await client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nh")
        await asyncio.sleep(0.75)
        await client.send("i")
        assert (await client.response()).status == 504
    assert charges.since() == {}


async def test_the_total_time_charges_no_endpoint_that_the_queue_left_no_time(start: Start) -> None:
    balancer = start(total_timeout=1, retries=0, endpoint_max_requests=1)
    charges = Charges(balancer)

    async def once(connection: Accepted) -> None:
        await connection.request()
        await asyncio.sleep(0.75)
        await connection.send(OK)
        await connection.to_end()

    async with (
        Endpoint(balancer.endpoints[0], once),
        await Client.connect(balancer.port) as first,
        await Client.connect(balancer.port) as second,
    ):
        await first.send(GET)
        await asyncio.sleep(0.05)
        await second.send(GET)
        assert (await first.response()).status == 200
        assert (await second.response()).status == 504
    assert charges.since() == {}


async def test_the_total_time_charges_an_endpoint_that_never_says_continue(start: Start) -> None:
    balancer = start(total_timeout=1, retries=0)
    charges = Charges(balancer)

    async def heard(connection: Accepted) -> None:
        await connection.head()
        await connection.to_end()

    async with Endpoint(balancer.endpoints[0], heard), await Client.connect(balancer.port) as client:
        await client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (await client.response()).status == 504
    assert charges.since() == {"response timed out": 1}


async def test_the_total_time_charges_an_endpoint_that_never_accepts(start: Start) -> None:
    balancer = start(total_timeout=0.6, connect_timeout=5, retries=0)
    charges = Charges(balancer)
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        full.bind(("127.0.0.1", balancer.endpoints[0]))
        full.listen(0)  # a listener whose queue is full answers no SYN
        for _ in range(8):
            blocker = stack.enter_context(socket.socket())
            blocker.setblocking(False)
            blocker.connect_ex(full.getsockname())
        async with await Client.connect(balancer.port) as client:
            assert (await client.ask(GET)).status == 504
    assert charges.since() == {"connection timed out": 1}
