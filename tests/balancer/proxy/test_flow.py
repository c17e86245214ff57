"""Bytes stream: memory stays bounded whichever side is slow, and nobody's slowness is another's."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
from tests.balancer.proxy.wire.ends import Accepted, Client, Endpoint
from tests.balancer.proxy.wire.process import Start

MIB = 1 << 20
GIB = 1 << 30
BLOCK = os.urandom(MIB)
GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n"


async def swallow(connection: Client | Accepted, size: int, *, pauses: bool) -> None:
    """Read `size` bytes; with pauses, stop now and then, so that the sender runs far ahead if it is let."""
    left, at = size, 0
    while left:
        data = await connection.reader.read(min(left, MIB))
        assert data, f"ended with {left} bytes missing"
        left -= len(data)
        if pauses and at % 200 == 0:
            await asyncio.sleep(0.01)
        at += 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("direction", ["upload", "download"])
async def test_a_gigabyte_with_the_other_side_slow_adds_little_memory(direction: str, start: Start) -> None:
    balancer = start(access_log="off")
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client = await Client.connect(balancer.port)
        if direction == "upload":
            await client.send(f"POST / HTTP/1.1\r\nHost: lb.test\r\nContent-Length: {GIB}\r\n\r\n")
        else:
            await client.send(GET)
        connection = await endpoint.accept()
        await connection.head()
        if direction == "download":
            await connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n")
            await client.head()
        source, sink = (client, connection) if direction == "upload" else (connection, client)
        before = peak = balancer.memory()
        reading = asyncio.create_task(swallow(sink, GIB, pauses=True))
        for _ in range(GIB // MIB):
            source.writer.write(BLOCK)
            async with asyncio.timeout(30):
                await source.writer.drain()
            peak = max(peak, balancer.memory())
        await reading
        if direction == "upload":
            await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            assert (await client.response()).status == 200
        await connection.close()
        await client.close()
    assert peak - before < 20 * MIB, f"{(peak - before) / MIB:.1f} MiB"


@pytest.mark.parametrize("direction", ["upload", "download"])
async def test_a_side_that_does_not_read_stops_the_other(direction: str, start: Start) -> None:
    balancer = start(access_log="off")
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client = await Client.connect(balancer.port)
        if direction == "upload":
            await client.send(f"POST / HTTP/1.1\r\nHost: lb.test\r\nContent-Length: {GIB}\r\n\r\n")
        else:
            await client.send(GET)
        connection = await endpoint.accept()
        await connection.head()
        if direction == "download":
            await connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n")
        source, sink = (client, connection) if direction == "upload" else (connection, client)
        sink.reader._transport.pause_reading()  # type: ignore[attr-defined]
        before = balancer.memory()
        written = 0
        try:
            while written < 64:
                source.writer.write(BLOCK)
                async with asyncio.timeout(1):
                    await source.writer.drain()
                written += 1
        except TimeoutError:
            pass
        assert written < 32, "the sender was never stopped"
        assert balancer.memory() - before < 20 * MIB
        used = balancer.cpu()
        await asyncio.sleep(0.5)
        assert balancer.cpu() - used < 0.2, "waiting must cost nothing"
        source.reset()
        sink.reset()


async def test_a_slow_reader_gets_all_of_it(start: Start) -> None:
    balancer = start()
    body = os.urandom(300_000)

    async def script(connection: Accepted) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + body)
        await connection.request()

    async with Endpoint(balancer.endpoints[0], script):
        async with await Client.connect(balancer.port, receive_buffer=4096) as client:
            await client.send(GET)
            await client.until("\r\n\r\n")
            got = b""
            while len(got) < len(body):
                got += await client.reader.read(10_000)
                await asyncio.sleep(0.002)
            assert got == body


@pytest.mark.timeout(180)
async def test_a_thousand_slow_clients_leave_a_fast_one_alone(start: Start) -> None:
    balancer = start(access_log="off", max_connections=5000)
    slow = 1000

    async def p99(client: Client) -> float:
        took = []
        for _ in range(400):
            before = time.perf_counter()
            assert (await client.ask(GET)).status == 200
            took.append(time.perf_counter() - before)
        return sorted(took)[int(len(took) * 0.99)]

    async def dribble(client: Client) -> None:
        await client.send("GET / HTTP/1.1\r\nHost: lb.test\r\nX-Slow: ")
        while True:
            client.writer.write(b"x")
            await asyncio.sleep(1)

    async with Endpoint(balancer.endpoints[0]), await Client.connect(balancer.port) as fast:
        alone = await p99(fast)
        clients = [await Client.connect(balancer.port) for _ in range(slow)]
        dribbling = [asyncio.create_task(dribble(client)) for client in clients]
        await asyncio.sleep(0.5)
        assert balancer.metric("lb_downstream_connections_open") == slow + 1
        beside = await p99(fast)
        for task in dribbling:
            task.cancel()
        await asyncio.gather(*dribbling, return_exceptions=True)
        for client in clients:
            client.reset()
    # Two cores that others use too: only harm of another order counts.
    assert beside < max(10 * alone, 0.1), f"p99 {beside * 1000:.1f} ms beside them, {alone * 1000:.1f} ms alone"


async def test_file_descriptors_run_out_and_the_balancer_recovers(start: Start) -> None:
    balancer = start(open_files=120, max_connections=10000)
    async with Endpoint(balancer.endpoints[0]):
        clients = []
        for _ in range(200):
            client = await Client.connect(balancer.port)
            client.writer.write(GET.encode())
            clients.append(client)
        await asyncio.sleep(0.5)
        used, begun = balancer.cpu(), time.monotonic()
        await asyncio.sleep(1.0)
        share = (balancer.cpu() - used) / (time.monotonic() - begun)
        assert share < 0.5, f"busy loop: {share:.0%} of a core while nothing can be accepted"
        assert balancer.alive
        for client in clients:
            client.reset()
        deadline = time.monotonic() + 5
        while True:
            try:
                async with await Client.connect(balancer.port) as client:
                    assert (await client.ask(GET)).status == 200
                    break
            except Exception:  # noqa: BLE001 (whatever the crowd's leaving does to one connection)
                assert time.monotonic() < deadline, balancer.log()[-2000:]
                await asyncio.sleep(0.1)
