"""What a client may send, how much and how slowly; and what it receives when it is too much."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.balancer.proxy.wire.ends import OK, Accepted, Client, Endpoint
from tests.balancer.proxy.wire.messages import Closed
from tests.balancer.proxy.wire.process import Balancer, Start

from balancer.proxy.timers import TICK

HOST = "Host: lb.test\r\n"
MANY = "X: y\r\n" * 200
GET = f"GET / HTTP/1.1\r\n{HOST}\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (f"GET /{'a' * 20000} HTTP/1.1\r\n{HOST}\r\n", 414),
        (f"GET / HTTP/1.1\r\n{HOST}X-A: {'a' * 70000}\r\n\r\n", 431),
        (f"GET / HTTP/1.1\r\n{HOST}{MANY}\r\n", 431),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        (f"GET / HTTP/3.0\r\n{HOST}\r\n", 505),
        (f"GET / HTTP/1.1\r\n{HOST}Expect: tea\r\n\r\n", 417),
    ],
    ids=["long target", "large field", "many fields", "no host", "unknown version", "unknown expectation"],
)
async def test_refusals_tell_their_reason_and_close(request_: str, status: int, start: Start) -> None:
    balancer = start()
    before = balancer.metric("lb_client_faults_total")
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(request_)
        response = await client.response()
        assert response.status == status
        assert response.get("connection") == "close"
        assert "error=" in (response.get("proxy-status") or "")
        assert await client.to_end() == b""
    assert endpoint.accepted == 0
    assert balancer.metric("lb_client_faults_total") == before + 1


async def test_limits_can_be_set(start: Start) -> None:
    balancer = start(max_uri_bytes=50, max_headers=3, max_header_bytes=300)
    for request, status in (
        (f"GET /{'a' * 60} HTTP/1.1\r\n{HOST}\r\n", 414),
        (f"GET / HTTP/1.1\r\n{HOST}A: 1\r\nB: 2\r\nC: 3\r\n\r\n", 431),
        (f"GET / HTTP/1.1\r\n{HOST}A: {'1' * 300}\r\n\r\n", 431),
        (f"GET / HTTP/1.1\r\n{HOST}A: {'1' * 100}\r\n\r\n", 200),
    ):
        async with Endpoint(balancer.endpoints[0]), await Client.connect(balancer.port) as client:
            assert (await client.ask(request)).status == status


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_too_large_is_refused(framing: str, start: Start) -> None:
    balancer = start(max_body_bytes=1000)
    body = "x" * 2000
    if framing == "length":
        request = f"POST / HTTP/1.1\r\n{HOST}Content-Length: 2000\r\n\r\n{body}"
    else:
        request = f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n7d0\r\n{body}\r\n0\r\n\r\n"
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(request)
        assert (await client.response()).status == 413
        assert await client.to_end() == b""
    assert endpoint.requests == [], "no whole request reached the endpoint"


async def test_a_body_too_large_is_refused_before_it_is_sent(start: Start) -> None:
    balancer = start(max_body_bytes=1000)
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 2000\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.response()).status == 413
    assert endpoint.accepted == 0


async def test_errors_are_problem_json_for_whoever_accepts_it(start: Start) -> None:
    balancer = start()
    async with await Client.connect(balancer.port) as client:
        response = await client.ask(f"GET / HTTP/1.1\r\n{HOST}Accept: application/json\r\n\r\n")
        assert response.get("content-type") == "application/problem+json"
        problem = json.loads(response.body)
        assert problem["status"] == response.status == 502
        response = await client.ask(GET)
        assert (response.get("content-type") or "").startswith("text/plain")
        assert response.body.count(b"\n") == 1
    async with await Client.connect(balancer.port) as client:
        refused = await client.ask("GET / HTTP/1.1\r\nAccept: application/json\r\n\r\n")
        assert json.loads(refused.body)["status"] == 400


async def test_errors_follow_the_weights_of_accept(start: Start) -> None:
    balancer = start()
    for accept, json_wanted in (
        ("application/json;q=0, text/plain", False),
        ("text/plain, application/json;q=0.5", False),
        ("application/json, text/plain;q=0.5", True),
    ):
        async with await Client.connect(balancer.port) as client:
            response = await client.ask(f"GET / HTTP/1.1\r\n{HOST}Accept: {accept}\r\n\r\n")
            assert ("json" in (response.get("content-type") or "")) == json_wanted
            refused = await client.ask(f"GET / HTTP/1.1\r\nAccept: {accept}\r\n\r\n")
            assert refused.status == 400
            assert ("json" in (refused.get("content-type") or "")) == json_wanted


async def test_an_error_for_head_has_no_body(start: Start) -> None:
    balancer = start()
    async with await Client.connect(balancer.port) as client:
        response = await client.ask(f"HEAD / HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n", "HEAD")
        assert response.status == 502
        assert await client.to_end() == b""


async def test_an_error_leaves_a_kept_connection_usable(start: Start) -> None:
    balancer = start()
    async with await Client.connect(balancer.port) as client:
        assert (await client.ask(GET)).status == 502
        async with Endpoint(balancer.endpoints[0]):
            assert (await client.ask(GET)).status == 200


async def test_a_header_that_comes_too_slowly_gets_408(start: Start) -> None:
    balancer = start(request_timeout=0.5)
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        dribbling = asyncio.create_task(dribble_forever(client))
        response = await client.response()
        dribbling.cancel()
        assert response.status == 408
        assert await client.to_end() == b""
    assert endpoint.accepted == 0


async def dribble_forever(client: Client) -> None:
    try:
        await client.send("GET / HTTP/1.1\r\n")
        while True:
            await client.send("X")
            await asyncio.sleep(0.05)
    except ConnectionError:
        pass


async def test_a_client_that_says_nothing_is_let_go(start: Start) -> None:
    balancer = start(request_timeout=0.5)
    async with await Client.connect(balancer.port) as client:
        got = await client.to_end()
        assert got == b"" or got.startswith(b"HTTP/1.1 408")


async def test_a_second_header_has_its_own_time(start: Start) -> None:
    balancer = start(request_timeout=0.5)
    async with Endpoint(balancer.endpoints[0]), await Client.connect(balancer.port) as client:
        assert (await client.ask(GET)).status == 200
        await asyncio.sleep(0.7)  # idle for longer than a header may take: that is another clock
        await client.send("GET / HTTP/1.1\r\nHo")
        assert (await client.response()).status == 408


async def test_a_body_that_stops_coming_gets_408_and_the_endpoint_is_let_go(start: Start) -> None:
    balancer = start(idle_timeout=0.5)
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 100\r\n\r\nsome")
        connection = await endpoint.accept()
        assert (await connection.until("some")).endswith(b"\r\n\r\nsome")  # before the reset, which discards it here
        assert (await client.response()).status == 408
        assert await client.to_end() == b""
        assert (await connection.to_end()).removesuffix(b"(reset)") == b""
        await connection.close()
    assert balancer.metric("lb_endpoint_failures_total") == 0, "a client's fault is not the endpoint's"


async def test_a_slow_body_that_keeps_coming_is_served(start: Start) -> None:
    balancer = start(idle_timeout=0.5)
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 8\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(0.15)
            await client.send("x")
        assert (await client.response()).status == 200
    assert endpoint.requests[0].body == b"x" * 8


async def test_a_response_that_stops_in_its_midst_is_cut(start: Start) -> None:
    balancer = start(idle_timeout=0.5)

    async def stalls(connection: Accepted) -> None:
        await connection.request()
        await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
        await connection.to_end()

    async with Endpoint(balancer.endpoints[0], stalls), await Client.connect(balancer.port) as client:
        await client.send(GET)
        with pytest.raises(Closed):
            await client.response()


async def test_a_client_that_does_not_read_is_cut_and_the_endpoint_let_go(start: Start) -> None:
    balancer = start(idle_timeout=0.5)

    async def pours(connection: Accepted) -> None:
        await connection.request()
        await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            await connection.send(b"x" * 65536)

    async with Endpoint(balancer.endpoints[0], pours):
        client = await Client.connect(balancer.port, receive_buffer=4096)
        await client.send(GET)
        await asyncio.sleep(0.3)
        deadline = asyncio.get_running_loop().time() + 8
        while balancer.metric("lb_requests_in_flight"):
            assert asyncio.get_running_loop().time() < deadline, "never cut"
            await asyncio.sleep(0.1)
        with pytest.raises(ConnectionResetError):  # an orderly end would make what came look whole
            await client.reader.read(-1)
        await client.close()


async def test_connections_in_all_are_limited(start: Start) -> None:
    balancer = start(max_connections=3)
    async with Endpoint(balancer.endpoints[0]):
        clients = [await Client.connect(balancer.port) for _ in range(3)]
        for client in clients:
            assert (await client.ask(GET)).status == 200
        extra = await Client.connect(balancer.port)
        await extra.send(GET)
        try:
            got = await extra.some(within=1)
        except Closed:
            got = b""
        assert not got.startswith(b"HTTP/1.1 200"), "one too many was served"
        await clients.pop().close()
        if got == b"":  # it waits in the listener's queue, and has its turn now
            assert (await extra.response()).status == 200
        for client in [*clients, extra]:
            await client.close()


async def test_connections_of_one_client_are_limited(start: Start) -> None:
    balancer = start(max_connections_per_client=2)
    async with Endpoint(balancer.endpoints[0]):
        clients = [await Client.connect(balancer.port) for _ in range(2)]
        for client in clients:
            assert (await client.ask(GET)).status == 200
        extra = await Client.connect(balancer.port)
        got = await extra.to_end()
        assert got == b"" or got.startswith((b"HTTP/1.1 503", b"HTTP/1.1 429"))
        assert sum(v for k, v in balancer.metrics().items() if "connections_refused" in k) > 0 or got
        for client in [*clients, extra]:
            await client.close()
        async with await Client.connect(balancer.port) as again:
            assert (await again.ask(GET)).status == 200


async def test_an_access_log_that_cannot_be_written_loses_lines_and_no_request(tmp_path: Path) -> None:
    balancer = Balancer(tmp_path / "log", forked=False, stdout=Path("/dev/full"))
    try:
        async with Endpoint(balancer.endpoints[0]), await Client.connect(balancer.port) as client:
            for _ in range(20):
                assert (await client.ask(GET)).status == 200
        deadline = asyncio.get_running_loop().time() + 5
        while balancer.metric("lb_log_lines_dropped_total", log="access") != 20:
            assert asyncio.get_running_loop().time() < deadline, "the lost lines were not counted"
            await asyncio.sleep(0.02)
        assert balancer.metric("lb_log_lines_dropped_total", log="messages") == 0
    finally:
        balancer.stop()


async def test_an_endpoint_at_its_cap_makes_requests_wait_in_order(start: Start) -> None:
    balancer = start(endpoint_max_requests=1)
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        clients = [await Client.connect(balancer.port) for _ in range(4)]
        for number, client in enumerate(clients):
            await client.send(f"GET /{number} HTTP/1.1\r\n{HOST}\r\n")
            await asyncio.sleep(0.02)
        connection = await endpoint.accept()
        assert balancer.metric("lb_queue_length") == 3
        for number, client in enumerate(clients):
            request = await connection.request()
            assert request.target == f"/{number}"
            await connection.send(OK)
            assert (await client.response()).status == 200
        assert endpoint.accepted == 1
        for client in clients:
            await client.close()
        await connection.close()


async def test_a_retry_whose_other_endpoints_are_full_waits_for_one_of_them(start: Start) -> None:
    """It once kept the process busy for ever: woken for the endpoint that it had tried, it joined the queue again."""
    balancer = start(endpoints=2, endpoint_max_requests=1)

    async def resets(connection: Accepted) -> None:
        await connection.request()
        connection.reset()

    async with Endpoint(balancer.endpoints[0], None) as busy, Endpoint(balancer.endpoints[1], resets) as broken:
        first, second = await Client.connect(balancer.port), await Client.connect(balancer.port)
        await first.send(GET)
        connection = await busy.accept()
        await connection.request()
        await second.send(GET)
        while balancer.metric("lb_queue_length") != 1:  # noqa: ASYNC110 (another process's figure)
            await asyncio.sleep(0.01)
        await asyncio.sleep(3 * TICK)  # each tick serves those who wait
        assert balancer.admin("/healthz")[0] == 200
        await connection.send(OK)
        assert (await first.response()).status == 200
        await connection.request()
        await connection.send(OK)
        assert (await second.response()).status == 200
        assert broken.accepted == 1
        for end in (first, second, connection):
            await end.close()


async def test_a_full_queue_says_so_at_once(start: Start) -> None:
    balancer = start(endpoint_max_requests=1, queue_size=1)
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        clients = [await Client.connect(balancer.port) for _ in range(3)]
        for client in clients:
            await client.send(GET)
            await asyncio.sleep(0.02)
        response = await clients[2].response()
        assert response.status == 503
        assert int(response.get("retry-after") or 0) >= 1
        assert "queue full" in (response.get("proxy-status") or "")
        connection = await endpoint.accept()
        for client in clients[:2]:
            await connection.request()
            await connection.send(OK)
            assert (await client.response()).status == 200
        for client in clients:
            await client.close()
        await connection.close()
    assert balancer.metric("lb_errors_total", reason="queue full") >= 1


async def test_waiting_in_the_queue_has_an_end(start: Start) -> None:
    balancer = start(endpoint_max_requests=1, queue_timeout=0.4)
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        first = await Client.connect(balancer.port)
        second = await Client.connect(balancer.port)
        await first.send(GET)
        connection = await endpoint.accept()
        await connection.request()
        await second.send(GET)
        response = await second.response()
        assert response.status == 503
        assert response.get("retry-after")
        await connection.send(OK)
        assert (await first.response()).status == 200
        for end in (first, second, connection):
            await end.close()


async def test_a_client_that_leaves_the_queue_frees_its_place(start: Start) -> None:
    balancer = start(endpoint_max_requests=1, queue_size=1)
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        first, second, third = [await Client.connect(balancer.port) for _ in range(3)]
        await first.send(GET)
        connection = await endpoint.accept()
        await connection.request()
        await second.send("GET /second HTTP/1.1\r\nHost: lb.test\r\n\r\n")
        await wait_for_queue(balancer, 1)
        await second.close()
        await wait_for_queue(balancer, 0)
        await third.send("GET /third HTTP/1.1\r\nHost: lb.test\r\n\r\n")
        await wait_for_queue(balancer, 1)
        await connection.send(OK)
        assert (await first.response()).status == 200
        assert (await connection.request()).target == "/third"
        await connection.send(OK)
        assert (await third.response()).status == 200
        for end in (first, third, connection):
            await end.close()


async def wait_for_queue(balancer: Balancer, length: int) -> None:
    deadline = asyncio.get_running_loop().time() + 5
    while balancer.metric("lb_queue_length") != length:
        assert asyncio.get_running_loop().time() < deadline, f"the queue never became {length} long"
        await asyncio.sleep(0.02)
