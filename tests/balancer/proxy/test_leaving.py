"""Who leaves first: clients in mid-request, endpoints between and amid responses."""

from __future__ import annotations

import asyncio
import random
import socket
from pathlib import Path

import pytest
from tests.balancer.proxy.wire.ends import OK, Accepted, Client, Endpoint
from tests.balancer.proxy.wire.messages import PATIENCE
from tests.balancer.proxy.wire.process import Balancer, Start

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n"


async def wait_until_ended(balancer: Balancer) -> None:
    deadline = asyncio.get_running_loop().time() + 5
    while balancer.metric("lb_requests_in_flight"):
        assert asyncio.get_running_loop().time() < deadline, "still in flight"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_leaves_closes_the_request_at_the_endpoint(how: str, start: Start) -> None:
    balancer = start()
    before = balancer.metric("lb_client_faults_total", kind="client left")
    blamed = balancer.metric("lb_endpoint_failures_total", reason="connection closed")
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client = await Client.connect(balancer.port)
        await client.send(GET)
        connection = await endpoint.accept()
        await connection.request()
        if how == "close":
            await client.close()
        else:
            client.reset()
        assert await connection.to_end() in (b"", b"(reset)")
        await wait_until_ended(balancer)
        await connection.close()
    assert balancer.metric("lb_client_faults_total", kind="client left") == before + 1
    assert balancer.metric("lb_endpoint_failures_total", reason="connection closed") == blamed


async def test_a_client_that_leaves_amid_its_upload_leaves_no_whole_request(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client = await Client.connect(balancer.port)
        await client.send("POST / HTTP/1.1\r\nHost: lb.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        connection = await endpoint.accept()
        await connection.head()
        await client.close()
        got = await connection.to_end()
        assert b"0\r\n\r\n" not in got
        await connection.close()


def unread(port: int, client: int) -> int:
    """Bytes that the kernel has of a client's (by its port), and that the balancer has not read."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{port:04X}") and fields[2].endswith(f":{client:04X}"):
            return int(fields[4].partition(":")[2], 16)
    return 0


async def test_a_client_that_leaves_while_its_upload_waits_for_the_endpoint_is_noticed(start: Start) -> None:
    """It closes in order: the end stands behind bytes that nobody reads, as long as the endpoint takes none."""
    balancer = start()
    blamed = balancer.metric("lb_endpoint_failures_total", reason="connection closed")
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", balancer.endpoints[0])) as server, socket.socket() as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.setblocking(False)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", balancer.port))
        await loop.sock_sendall(client, b"PUT / HTTP/1.1\r\nHost: lb.test\r\nContent-Length: 1000000000\r\n\r\n")
        connection, _ = await loop.sock_accept(server)
        with connection:
            own = client.getsockname()[1]
            async with asyncio.timeout(30):
                looks = 0
                while looks < 5:  # as often in a row there was something unread: reading is paused
                    if unread(balancer.port, own):
                        looks += 1
                        await asyncio.sleep(0.01)
                    else:
                        looks = 0
                        await loop.sock_sendall(client, bytes(65536))
            client.close()
            await wait_until_ended(balancer)
    assert balancer.metric("lb_endpoint_failures_total", reason="connection closed") == blamed


async def test_a_client_that_leaves_amid_a_download_stops_it(start: Start) -> None:
    balancer = start()
    sent = 0

    async def pours(connection: Accepted) -> None:
        nonlocal sent
        await connection.request()
        await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while sent < 100_000_000:
            await connection.send(b"x" * 100_000)
            sent += 100_000

    async with Endpoint(balancer.endpoints[0], pours):
        client = await Client.connect(balancer.port)
        await client.send(GET)
        await client.exactly(200_000)
        client.reset()
        await wait_until_ended(balancer)
    assert sent < 50_000_000


async def test_a_client_that_leaves_before_its_endpoint_is_connected(start: Start) -> None:
    balancer = start(endpoint_max_requests=1)
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        holder = await Client.connect(balancer.port)
        await holder.send(GET)
        connection = await endpoint.accept()
        await connection.request()
        for _ in range(20):
            client = await Client.connect(balancer.port)
            await client.send(GET)
            client.reset()
        await connection.send(OK)
        assert (await holder.response()).status == 200
        await holder.close()
        await connection.close()


async def test_clients_that_leave_while_their_endpoint_is_being_connected_leave_nothing(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]):
        for _ in range(10):
            clients = [await Client.connect(balancer.port) for _ in range(20)]
            for client in clients:
                client.writer.write(GET.encode())
                client.reset()
            await asyncio.sleep(0.01)
        async with await Client.connect(balancer.port) as client:
            assert (await client.ask(GET)).status == 200


async def test_an_endpoint_that_closes_an_idle_connection_is_not_blamed(start: Start) -> None:
    balancer = start()

    async def once(connection: Accepted) -> None:
        await connection.request()
        await connection.send(OK)

    before = balancer.metric("lb_endpoint_failures_total", reason="connection closed")
    async with Endpoint(balancer.endpoints[0], once), await Client.connect(balancer.port) as client:
        for _ in range(20):
            assert (await client.ask(GET)).status == 200
            await asyncio.sleep(0.002)
        assert balancer.metric("lb_endpoint_failures_total", reason="connection closed") == before


@pytest.mark.timeout(300)
async def test_get_under_load_loses_nothing_to_idle_connections_closed_at_random(start: Start) -> None:
    """100,000 requests against endpoints that close kept connections at random moments: no error reaches a client."""
    balancer = start(endpoints=2, access_log="off", log_level="warning", retry_budget=1)
    chance = random.Random(1)
    total, at_once, burst = 100_000, 16, 25

    async def fickle(connection: Accepted) -> None:
        left = chance.randrange(1, 400)
        while left > 0 and (data := await connection.reader.read(65536)):
            asked = data.count(b"\r\n\r\n")
            connection.writer.write(OK * asked)
            left -= asked
        await asyncio.sleep(chance.random() * 0.002)

    failed: list[bytes] = []

    async def load(requests: int) -> None:
        async with await Client.connect(balancer.port) as client:
            for _ in range(requests // burst):
                client.writer.write(GET.encode() * burst)
                got = b""
                while got.count(b"\r\n\r\nok") < burst:
                    got += await client.some(within=PATIENCE)
                    if got.count(b"HTTP/1.1 ") != got.count(b"HTTP/1.1 200 "):
                        failed.append(got)
                        return

    async with Endpoint(balancer.endpoints[0], fickle) as one, Endpoint(balancer.endpoints[1], fickle) as two:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(load(total // at_once))
        assert one.accepted + two.accepted > 100, "the endpoints closed their connections"
    assert failed == []


async def test_an_endpoint_that_speaks_before_it_is_asked_is_not_used(start: Start) -> None:
    balancer = start()

    async def talks(connection: Accepted) -> None:
        await connection.request()
        await connection.send(OK)
        await asyncio.sleep(0.05)
        await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        await connection.request()

    async with Endpoint(balancer.endpoints[0], talks) as endpoint, await Client.connect(balancer.port) as client:
        assert (await client.ask(GET)).body == b"ok"
        await asyncio.sleep(0.15)
        assert (await client.ask(GET)).body == b"ok"
        assert endpoint.accepted == 2


async def test_an_endpoint_that_leaves_the_list_finishes_what_it_has(start: Start, tmp_path: Path) -> None:
    backends = tmp_path / "backends"
    probe = start()  # for two ports of its own
    first, second = probe.endpoints[0], probe.endpoints[0] + 1
    backends.write_text(f"127.0.0.1:{first}\n")
    balancer = start(fresh=True, backends="", backends_file=backends)
    async with Endpoint(first, None) as old, Endpoint(second) as new, await Client.connect(balancer.port) as client:
        await client.send(GET)
        connection = await old.accept()
        await connection.request()
        backends.write_text(f"127.0.0.1:{second}\n")
        deadline = asyncio.get_running_loop().time() + 10
        while f"127.0.0.1:{first}" in str(balancer.metrics().keys()):
            assert asyncio.get_running_loop().time() < deadline, "the file's change was not seen"
            await asyncio.sleep(0.05)
        await connection.send(OK)
        assert (await client.response()).body == b"ok"
        assert await connection.to_end() == b"", "its connection is not kept"
        assert (await client.ask(GET)).body == b"ok"
        assert len(new.requests) == 1
        await connection.close()
