"""How connections are kept, used again and closed, on both sides."""

from __future__ import annotations

import asyncio

import pytest
from tests.balancer.proxy.wire.ends import OK, Accepted, Client, Endpoint, always, answering
from tests.balancer.proxy.wire.messages import Closed
from tests.balancer.proxy.wire.process import Start

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n"


async def test_both_sides_are_kept_for_the_next_request(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        for _ in range(20):
            assert (await client.ask(GET)).body == b"ok"
    assert endpoint.accepted == 1
    assert len(endpoint.requests) == 20


async def test_an_endpoint_connection_serves_client_after_client(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint:
        for _ in range(5):
            async with await Client.connect(balancer.port) as client:
                assert (await client.ask(GET)).body == b"ok"
    assert endpoint.accepted == 1


async def test_pipelined_requests_are_answered_in_order(start: Start) -> None:
    balancer = start()
    echo = answering(
        lambda request: f"HTTP/1.1 200 OK\r\nContent-Length: {len(request.target)}\r\n\r\n{request.target}"
    )
    async with Endpoint(balancer.endpoints[0], echo), await Client.connect(balancer.port) as client:
        await client.send("".join(f"GET /{n} HTTP/1.1\r\nHost: lb.test\r\n\r\n" for n in range(100)))
        for n in range(100):
            assert (await client.response()).body == f"/{n}".encode()


async def test_pipelined_requests_over_unequal_endpoints_stay_in_order(start: Start) -> None:
    balancer = start(endpoints=2)

    async def slow(connection: Accepted) -> None:
        while True:
            request = await connection.request()
            await asyncio.sleep(0.05)
            await connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(request.target)}\r\n\r\n{request.target}")

    fast = answering(
        lambda request: f"HTTP/1.1 200 OK\r\nContent-Length: {len(request.target)}\r\n\r\n{request.target}"
    )
    async with (
        Endpoint(balancer.endpoints[0], slow),
        Endpoint(balancer.endpoints[1], fast),
        await Client.connect(balancer.port) as client,
    ):
        await client.send("".join(f"GET /{n} HTTP/1.1\r\nHost: lb.test\r\n\r\n" for n in range(10)))
        assert [(await client.response()).body for _ in range(10)] == [f"/{n}".encode() for n in range(10)]


async def test_close_is_said_and_done_when_the_client_asks(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]), await Client.connect(balancer.port) as client:
        response = await client.ask("GET / HTTP/1.1\r\nHost: lb.test\r\nConnection: close\r\n\r\n")
        assert response.get("connection") == "close"
        assert await client.to_end() == b""


async def test_a_1_0_client_gets_one_response_and_the_end(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        response = await client.ask("GET / HTTP/1.0\r\nHost: lb.test\r\n\r\n")
        assert response.body == b"ok"
        assert await client.to_end() == b""
    assert endpoint.requests[0].start == b"GET / HTTP/1.1"


async def test_a_1_0_client_may_ask_to_be_kept(start: Start) -> None:
    balancer = start()
    request = "GET / HTTP/1.0\r\nHost: lb.test\r\nConnection: keep-alive\r\n\r\n"
    async with Endpoint(balancer.endpoints[0]), await Client.connect(balancer.port) as client:
        for _ in range(2):
            response = await client.ask(request)
            assert (response.get("connection") or "").lower() == "keep-alive"
            assert response.body == b"ok"


async def test_a_1_0_client_is_never_sent_chunks(start: Start) -> None:
    balancer = start()
    answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n"
    async with Endpoint(balancer.endpoints[0], always(answer)), await Client.connect(balancer.port) as client:
        await client.send("GET / HTTP/1.0\r\nHost: lb.test\r\nConnection: keep-alive\r\n\r\n")
        head = await client.head()
        assert head.get("transfer-encoding") is None
        assert head.get("content-length") is None
        assert await client.to_end() == b"hello world"


async def test_an_endpoint_that_says_close_is_not_used_again(start: Start) -> None:
    balancer = start()
    answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    async with Endpoint(balancer.endpoints[0], always(answer)) as endpoint:
        async with await Client.connect(balancer.port) as client:
            for _ in range(3):
                response = await client.ask(GET)
                assert response.get("connection") is None, "the endpoint's wish is not the client's affair"
    assert endpoint.accepted == 3


async def test_a_1_0_endpoint_is_not_used_again(start: Start) -> None:
    balancer = start()
    answer = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with Endpoint(balancer.endpoints[0], always(answer)) as endpoint:
        async with await Client.connect(balancer.port) as client:
            assert [(await client.ask(GET)).body for _ in range(2)] == [b"ok", b"ok"]
    assert endpoint.accepted == 2


async def test_an_unused_client_connection_is_closed_in_time(start: Start) -> None:
    balancer = start(keepalive_timeout=0.3)
    async with Endpoint(balancer.endpoints[0]), await Client.connect(balancer.port) as client:
        await client.ask(GET)
        before = asyncio.get_running_loop().time()
        assert await client.to_end() == b""
        assert 0.25 < asyncio.get_running_loop().time() - before < 2


async def test_an_unused_endpoint_connection_is_closed_in_time(start: Start) -> None:
    balancer = start(upstream_keepalive_timeout=0.3)
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(GET)
        connection = await endpoint.accept()
        await connection.request()
        await connection.send(OK)
        assert (await client.response()).body == b"ok"
        before = asyncio.get_running_loop().time()
        assert await connection.to_end() == b""
        assert 0.25 < asyncio.get_running_loop().time() - before < 2
        await connection.close()


async def test_a_slow_endpoint_does_not_hold_up_other_clients(start: Start) -> None:
    balancer = start()
    async with (
        Endpoint(balancer.endpoints[0], None) as endpoint,
        await Client.connect(balancer.port) as waiting,
        await Client.connect(balancer.port) as quick,
    ):
        await waiting.send(GET)
        hung = await endpoint.accept()
        await hung.request()
        await quick.send(GET)
        other = await endpoint.accept()
        await other.request()
        await other.send(OK)
        assert (await quick.response()).body == b"ok"
        await hung.send(OK)
        assert (await waiting.response()).body == b"ok"
        for connection in (hung, other):
            await connection.close()


@pytest.mark.parametrize("step", [1, 7])
async def test_a_request_may_come_byte_by_byte(step: int, start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.dribble("POST /a HTTP/1.1\r\nHost: lb.test\r\nContent-Length: 5\r\n\r\nhello", step)
        assert (await client.response()).body == b"ok"
        await client.dribble(
            "POST /b HTTP/1.1\r\nHost: lb.test\r\nTransfer-Encoding: chunked\r\n\r\n"
            "5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n",
            step,
        )
        assert (await client.response()).body == b"ok"
    assert [request.body for request in endpoint.requests] == [b"hello", b"hello"]
    assert endpoint.requests[1].trailers == [(b"A", b"b")]


async def test_a_response_may_come_byte_by_byte(start: Start) -> None:
    balancer = start()

    async def script(connection: Accepted) -> None:
        await connection.request()
        await connection.dribble(
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            "5\r\nhello\r\n0\r\nA: b\r\n\r\n"
        )
        await connection.request()

    async with Endpoint(balancer.endpoints[0], script), await Client.connect(balancer.port) as client:
        assert (await client.ask(GET)).status == 103
        response = await client.response()
        assert response.body == b"hello"
        assert response.trailers == [(b"A", b"b")]


async def test_a_port_scan_leaves_nothing(start: Start) -> None:
    balancer = start()
    for _ in range(50):
        client = await Client.connect(balancer.port)
        client.reset()
    async with Endpoint(balancer.endpoints[0]), await Client.connect(balancer.port) as client:
        assert (await client.ask(GET)).status == 200


async def test_nothing_is_read_after_the_last_response(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.send("GET / HTTP/1.1\r\nHost: lb.test\r\nConnection: close\r\n\r\n" + GET)
        await client.response()
        with pytest.raises(Closed):
            await client.response()
    assert len(endpoint.requests) == 1
