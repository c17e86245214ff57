"""Bodies, their framing, and everything that comes before and behind them."""

from __future__ import annotations

import asyncio

import pytest
from tests.balancer.proxy.wire.ends import OK, Accepted, Client, Endpoint, always
from tests.balancer.proxy.wire.messages import ADDED_TO_RESPONSES, Closed
from tests.balancer.proxy.wire.process import Start

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n"
POST = "POST / HTTP/1.1\r\nHost: lb.test\r\n"


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 3_000_000])
async def test_a_body_with_a_length_keeps_it_both_ways(size: int, start: Start) -> None:
    balancer = start()
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body
    async with Endpoint(balancer.endpoints[0], always(answer)) as endpoint:
        async with await Client.connect(balancer.port) as client:
            response = await client.ask(f"{POST}Content-Length: {size}\r\n\r\n".encode() + body)
    assert response.body == body
    assert response.get("content-length") == str(size)
    assert endpoint.requests[0].body == body
    assert endpoint.requests[0].get("content-length") == str(size)


async def test_chunks_pass_both_ways_with_their_trailers(start: Start) -> None:
    balancer = start()
    chunks = "5\r\nhello\r\n7\r\n, world\r\n0\r\nX-Sum: 1\r\nX-Two: 2\r\n\r\n"
    answer = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n{chunks}"
    async with Endpoint(balancer.endpoints[0], always(answer)) as endpoint:
        async with await Client.connect(balancer.port) as client:
            response = await client.ask(f"{POST}Transfer-Encoding: chunked\r\n\r\n{chunks}")
    for message in (response, endpoint.requests[0]):
        assert message.body == b"hello, world"
        assert message.trailers == [(b"X-Sum", b"1"), (b"X-Two", b"2")]


async def test_a_chunk_is_passed_on_at_once(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(f"{POST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        connection = await endpoint.accept()
        await connection.head()
        assert await connection.until("hello\r\n") == b"5\r\nhello\r\n"
        await client.send("0\r\n\r\n")
        assert await connection.exactly(5) == b"0\r\n\r\n"
        await connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await client.head()
        assert await client.until("a\r\n") == b"1\r\na\r\n"
        await connection.send("0\r\n\r\n")
        assert await client.exactly(5) == b"0\r\n\r\n"
        await connection.close()


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("HEAD", "HTTP/1.1 404 Not Found\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", 'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 1000\r\n\r\n'),
        ("GET", 'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n'),
    ],
)
async def test_responses_without_a_body_leave_the_connection_usable(method: str, answer: str, start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], always(answer)) as endpoint:
        async with await Client.connect(balancer.port) as client:
            for _ in range(3):
                response = await client.ask(f"{method} / HTTP/1.1\r\nHost: lb.test\r\n\r\n", method)
                assert response.without(ADDED_TO_RESPONSES) == answer.encode()
    assert endpoint.accepted == 1


async def test_a_body_that_ends_with_the_connection_is_chunked_for_the_client(start: Start) -> None:
    balancer = start()

    async def script(connection: Accepted) -> None:
        await connection.request()
        await connection.send("HTTP/1.1 200 OK\r\n\r\nall ")
        await asyncio.sleep(0.05)
        await connection.send("of it")

    async with Endpoint(balancer.endpoints[0], script), await Client.connect(balancer.port) as client:
        response = await client.ask(GET)
        assert response.get("transfer-encoding") == "chunked"
        assert response.body == b"all of it"
        assert (await client.ask(GET)).body == b"all of it"


@pytest.mark.parametrize("status", [100, 102, 103])
async def test_interim_responses_pass_before_the_final_one(status: int, start: Start) -> None:
    balancer = start()
    interim = f"HTTP/1.1 {status} Wait\r\nLink: </a.css>; rel=preload\r\n\r\n"
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(f"{POST}Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        connection = await endpoint.accept()
        head = await connection.head()
        assert head.get("expect") == "100-continue"
        await connection.send(interim)
        assert (await client.head()).status == status
        await client.send("hi")
        assert await connection.exactly(2) == b"hi"
        await connection.send(OK)
        assert (await client.response()).body == b"ok"
        await connection.close()


async def test_early_hints_reach_a_client_before_the_endpoint_has_finished(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(GET)
        connection = await endpoint.accept()
        await connection.request()
        for n in range(3):
            await connection.send(f"HTTP/1.1 103 Early Hints\r\nLink: <{n}>\r\n\r\n")
            assert (await client.head()).get("link") == f"<{n}>"
        await connection.send(OK)
        assert (await client.response()).status == 200
        await connection.close()


async def test_a_1_0_client_is_spared_interim_responses(start: Start) -> None:
    balancer = start()
    answer = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK
    async with Endpoint(balancer.endpoints[0], always(answer)), await Client.connect(balancer.port) as client:
        response = await client.ask("GET / HTTP/1.0\r\nHost: lb.test\r\n\r\n")
        assert response.status == 200


async def test_expect_the_endpoint_decides_when_the_body_comes(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(f"{POST}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        connection = await endpoint.accept()
        await connection.head()
        assert await client.some(within=0.1) == b"", "100 was said before the endpoint said it"
        await connection.send("HTTP/1.1 100 Continue\r\n\r\n")
        assert (await client.head()).status == 100
        await client.send("hello")
        assert await connection.exactly(5) == b"hello"
        await connection.send(OK)
        assert (await client.response()).body == b"ok"
        await connection.close()


async def test_expect_a_client_that_does_not_wait_is_served_too(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        response = await client.ask(f"{POST}Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello")
        assert response.body == b"ok"
    assert endpoint.requests[0].body == b"hello"


@pytest.mark.parametrize("status", [417, 401, 413, 200])
async def test_expect_a_final_status_instead_of_100_needs_no_body(status: int, start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        async with await Client.connect(balancer.port) as client:
            await client.send(f"{POST}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
            connection = await endpoint.accept()
            await connection.head()
            await connection.send(f"HTTP/1.1 {status} Final\r\nContent-Length: 0\r\n\r\n")
            response = await client.response()
            assert response.status == status
            # The body that was announced may still come or not: this connection cannot carry another request.
            assert await client.to_end() == b""
        assert await connection.to_end() == b"", "nor can the endpoint's"
        await connection.close()


async def test_an_answer_before_the_body_has_come_reaches_the_client(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(f"{POST}Content-Length: 1000000\r\n\r\n" + "x" * 1000)
        connection = await endpoint.accept()
        await connection.head()
        await connection.send("HTTP/1.1 413 Too much\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
        response = await client.response()
        assert (response.status, response.body) == (413, b"no")
        await connection.close()


async def test_an_endpoint_that_answers_and_closes_amid_an_upload_is_heard(start: Start) -> None:
    balancer = start()

    async def script(connection: Accepted) -> None:
        await connection.head()
        await connection.send("HTTP/1.1 401 Who\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
        connection.half_close()
        await connection.to_end()

    async with Endpoint(balancer.endpoints[0], script), await Client.connect(balancer.port) as client:
        await client.send(f"{POST}Content-Length: 10000000\r\n\r\n" + "x" * 100_000)
        assert (await client.response()).status == 401


async def test_a_full_duplex_exchange_streams_both_ways(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(f"{POST}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        connection = await endpoint.accept()
        await connection.head()
        await connection.until("a\r\n")
        await connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n")
        await client.head()
        await client.until("A\r\n")
        for letter in "bcd":
            await client.send(f"1\r\n{letter}\r\n")
            assert await connection.until(f"{letter}\r\n")
            await connection.send(f"1\r\n{letter.upper()}\r\n")
            assert await client.until(f"{letter.upper()}\r\n")
        await client.send("0\r\n\r\n")
        await connection.until("0\r\n\r\n")
        await connection.send("0\r\n\r\n")
        assert await client.until("0\r\n\r\n") == b"0\r\n\r\n"
        await connection.close()


async def test_events_flow_byte_by_byte(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        await client.send("GET /events HTTP/1.1\r\nHost: lb.test\r\nAccept: text/event-stream\r\n\r\n")
        connection = await endpoint.accept()
        await connection.request()
        await connection.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        head = await client.head()
        assert head.get("transfer-encoding") == "chunked"
        for byte in "data: 1\n\n":
            await connection.send(byte)
            assert await client.exactly(6) == f"1\r\n{byte}\r\n".encode()
        await connection.close()
        assert await client.until("0\r\n\r\n") == b"0\r\n\r\n"


@pytest.mark.parametrize("framing", ["Content-Length: 38", "Transfer-Encoding: chunked"])
async def test_a_body_announced_by_a_204_is_no_response_to_the_next_request(framing: str, start: Start) -> None:
    """It may come later than the head, when the connection carries the request of somebody else."""
    balancer = start()

    async def script(connection: Accepted) -> None:
        await connection.request()
        if connection.number > 1:
            await connection.send(OK)
            return
        await connection.send(f"HTTP/1.1 204 No\r\n{framing}\r\n\r\n")
        await asyncio.sleep(0.1)
        await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    async with Endpoint(balancer.endpoints[0], script):
        async with await Client.connect(balancer.port) as first, await Client.connect(balancer.port) as second:
            assert (await first.ask(GET)).status == 204
            assert (await second.ask(GET)).body == b"ok"


async def test_a_response_cut_short_is_never_taken_for_whole(start: Start) -> None:
    balancer = start()
    for answer in (
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
    ):

        async def script(connection: Accepted, answer: str = answer) -> None:
            await connection.request()
            await connection.send(answer)

        async with Endpoint(balancer.endpoints[0], script), await Client.connect(balancer.port) as client:
            await client.send(GET)
            with pytest.raises(Closed):
                await client.response()


async def test_a_reset_amid_a_response_is_never_taken_for_its_end(start: Start) -> None:
    balancer = start()

    async def script(connection: Accepted) -> None:
        await connection.request()
        # Without a length, so that an end would make it whole.
        await connection.send("HTTP/1.1 200 OK\r\n\r\nsome")
        await asyncio.sleep(0.05)
        connection.reset()

    async with Endpoint(balancer.endpoints[0], script), await Client.connect(balancer.port) as client:
        await client.send(GET)
        with pytest.raises(Closed):
            await client.response()
    assert balancer.metric("lb_endpoint_failures_total", reason="connection closed") > 0
