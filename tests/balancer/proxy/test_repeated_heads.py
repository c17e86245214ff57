"""A head whose fields repeat those of the one before is read the short way, with the same result as the careful one."""

from __future__ import annotations

import pytest
from tests.balancer.proxy.wire.ends import Client, Endpoint, answering
from tests.balancer.proxy.wire.messages import ADDED_TO_REQUESTS
from tests.balancer.proxy.wire.process import Start

FIELDS = "Host: lb.test\r\nAccept: */*\r\n\r\n"
FIRST = f"GET /first HTTP/1.1\r\n{FIELDS}"


async def test_the_same_fields_with_another_line_go_to_where_the_line_says(start: Start) -> None:
    balancer = start()
    asked = [f"{line}\r\n{FIELDS}" for line in ("GET /a HTTP/1.1", "GET /a?b=1 HTTP/1.1", "DELETE /c HTTP/1.1")]
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        for request in asked:
            await client.ask(request)
    assert [request.without(ADDED_TO_REQUESTS).decode() for request in endpoint.requests] == asked


async def test_requests_sent_at_once_are_told_apart_though_the_last_ends_as_the_one_before(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.ask(FIRST)
        await client.send(f"GET /second HTTP/1.1\r\nHost: lb.test\r\n\r\nGET /third HTTP/1.1\r\n{FIELDS}")
        for _ in range(2):
            assert (await client.response()).status == 200
    assert [request.target for request in endpoint.requests] == ["/first", "/second", "/third"]


async def test_a_version_of_another_kind_is_read_anew(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]), await Client.connect(balancer.port) as client:
        await client.ask(FIRST)
        older = await client.ask(f"GET /older HTTP/1.0\r\n{FIELDS}")
        assert older.get("connection") == "close", "the default of 1.0"


async def test_the_host_of_an_absolute_target_stands_though_the_fields_repeat(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        for _ in range(2):
            await client.ask(FIRST)
            await client.ask(f"GET http://other.test/x HTTP/1.1\r\n{FIELDS}")
    assert [request.get("host") for request in endpoint.requests] == ["lb.test", "other.test"] * 2


@pytest.mark.parametrize(
    ("line", "status"),
    [("GET /a b HTTP/1.1", 400), ("GET /a HTTP/2.0", 505), ("TRACE / HTTP/1.1", 405), ("GET /\nx HTTP/1.1", 400)],
)
async def test_a_bad_line_is_refused_though_the_fields_repeat(start: Start, line: str, status: int) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.ask(FIRST)
        await client.send(f"{line}\r\n{FIELDS}")
        assert (await client.response()).status == status
    assert len(endpoint.requests) == 1


async def test_a_repeated_head_with_a_body_carries_its_own_body(start: Start) -> None:
    balancer = start()
    head = "PUT /put HTTP/1.1\r\nHost: lb.test\r\nContent-Length: 5\r\n\r\n"
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        for body in ("first", "again"):
            await client.send(head)
            await client.send(body)
            assert (await client.response()).status == 200
    assert [request.body for request in endpoint.requests] == [b"first", b"again"]


async def test_a_response_head_that_repeats_brings_its_own_body(start: Start) -> None:
    balancer = start()
    head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    answers = iter([f"{head}first", f"{head}again", f"{head[:-2]}X-More: 1\r\n\r\nother"])
    in_turn = answering(lambda _request: next(answers))
    async with Endpoint(balancer.endpoints[0], in_turn), await Client.connect(balancer.port) as client:
        assert [(await client.ask(FIRST)).body for _ in range(3)] == [b"first", b"again", b"other"]
