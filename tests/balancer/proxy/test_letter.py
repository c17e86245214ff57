"""The letter of the RFCs, where other balancers were seen to differ from it."""

from __future__ import annotations

import asyncio
import re

import pytest
from tests.balancer.proxy.wire.ends import OK, Accepted, Client, Endpoint, always
from tests.balancer.proxy.wire.http2 import H2Client
from tests.balancer.proxy.wire.process import Start

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n"


async def test_a_response_without_a_date_gets_one(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], always(OK)), await Client.connect(balancer.port) as client:
        date = (await client.ask(f"{GET}\r\n")).get("date") or ""
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", date)


async def test_a_response_with_a_date_keeps_it(start: Start) -> None:
    balancer = start()
    dated = "HTTP/1.1 200 OK\r\nDate: Sat, 28 Nov 2026 15:21:42 GMT\r\nContent-Length: 0\r\n\r\n"
    async with Endpoint(balancer.endpoints[0], always(dated)), await Client.connect(balancer.port) as client:
        assert (await client.ask(f"{GET}\r\n")).all("date") == ["Sat, 28 Nov 2026 15:21:42 GMT"]


async def test_max_forwards_is_counted_down_and_answered_at_0(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        for hops, method in ((3, "OPTIONS"), (0, "OPTIONS"), (3, "GET")):
            response = await client.ask(f"{method} / HTTP/1.1\r\nHost: a\r\nMax-Forwards: {hops}\r\n\r\n")
            assert response.status == 200
            assert (response.get("allow") is not None) == (hops == 0)
    assert [request.get("max-forwards") for request in endpoint.requests] == ["2", "3"]


@pytest.mark.parametrize(
    ("te", "passed"),
    [("trailers", ["trailers"]), ("trailers;q=0", []), ("gzip, trailers;q=0.5", ["trailers"]), ("x-trailers", [])],
)
async def test_trailers_are_taken_where_te_says_so(te: str, passed: list[str], start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.ask(f"{GET}TE: {te}\r\nTE: {te}\r\nConnection: TE\r\n\r\n")
    [request] = endpoint.requests
    assert request.all("te") == passed
    assert request.all("connection") == ["TE"] * len(passed)


async def test_an_empty_x_forwarded_for_leaves_no_comma(start: Start) -> None:
    balancer = start(trusted_proxies="127.0.0.1/32")
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.ask(f"{GET}X-Forwarded-For:\r\n\r\n")
    assert endpoint.requests[0].all("x-forwarded-for") == ["127.0.0.1"]


@pytest.mark.parametrize("said", [",", " , ", "1.2.3.4,", ",1.2.3.4", "1.2.3.4,,5.6.7.8", "1.2.3.4, "])
async def test_empty_elements_of_x_forwarded_for_say_nothing(said: str, start: Start) -> None:
    balancer = start(trusted_proxies="127.0.0.1/32", access_log="on")
    lines = f"X-Forwarded-For: {said}\r\nX-Forwarded-For:\r\nX-Forwarded-Proto:\r\nX-Forwarded-Host:\r\n\r\n"
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.ask(GET + lines)
    [request] = endpoint.requests
    named = [word.strip() for word in said.split(",") if word.strip()]
    assert request.all("x-forwarded-for") == [", ".join([*named, "127.0.0.1"])]
    assert request.all("x-forwarded-proto") == ["http"]
    assert request.all("x-forwarded-host") == ["lb.test"]
    async with asyncio.timeout(5):
        while f'"client":"{(named or ["127.0.0.1"])[-1]}"' not in balancer.new_log():  # noqa: ASYNC110 (a file)
            await asyncio.sleep(0.02)


async def test_twins_of_framing_fields_are_dropped(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.ask(f"{GET}Transfer_Encoding: chunked\r\nContent_Length: 5\r\n\r\n")
    assert endpoint.requests[0].get("transfer_encoding") is None
    assert endpoint.requests[0].get("content_length") is None


async def test_an_empty_expectation_expects_nothing(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint:
        async with await Client.connect(balancer.port) as client:
            assert (await client.ask(f"{GET}Expect:\r\n\r\n")).status == 200
        async with await H2Client.connect(balancer.port) as by_http2:
            assert (await by_http2.get("/", [("expect", "")])).status == 200
    assert [request.get("expect") for request in endpoint.requests] == [None, None]


async def test_twins_of_framing_fields_are_dropped_from_trailers(start: Start) -> None:
    balancer = start()
    body = "1\r\na\r\n0\r\nContent_Length: 9\r\nX_Forwarded_For: 1\r\nX-Ok: 1\r\n\r\n"
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.ask(f"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
    assert endpoint.requests[0].trailers == [(b"X-Ok", b"1")]


@pytest.mark.parametrize(
    ("sent", "status"),
    [("GET HTTP/1.1\r\nHost: a\r\n\r\n", 400), ("x" * 100_000 + " / HTTP/1.1\r\nHost: a\r\n\r\n", 400)],
    ids=["no target", "a method of 100,000 bytes"],
)
async def test_a_request_line_that_is_none(sent: str, status: int, start: Start) -> None:
    balancer = start()
    async with await Client.connect(balancer.port) as client:
        await client.send(sent)
        assert (await client.response()).status == status


def upgrade(protocols: str) -> str:
    return f"{GET}Connection: Upgrade\r\nUpgrade: {protocols}\r\n\r\n"


@pytest.mark.parametrize(
    ("asked", "named"),
    [("websocket", "Upgrade: other\r\n"), ("websocket, other", "")],
    ids=["not asked for", "one of several, and not which"],
)
async def test_a_switch_to_an_unknown_protocol_is_no_answer(asked: str, named: str, start: Start) -> None:
    balancer = start(retries=0)
    odd = always(f"HTTP/1.1 101 Odd\r\nConnection: Upgrade\r\n{named}\r\n")
    async with Endpoint(balancer.endpoints[0], odd), await Client.connect(balancer.port) as client:
        await client.send(upgrade(asked))
        assert (await client.response()).status == 502


@pytest.mark.parametrize(
    "protocols", ["websocket, h2c", "h2c/1.0, websocket", "websocket\r\nUpgrade: h2c", "H2C\r\nUpgrade: websocket"]
)
async def test_h2c_beside_websocket_leaves_websocket(protocols: str, start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(upgrade(protocols))
        connection = await endpoint.accept()
        assert (await connection.head()).get("upgrade") == "websocket"
        await connection.send("HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert (await client.head()).status == 101
        await connection.close()


async def test_a_body_cut_short_is_a_reset_for_a_client_of_1_0(start: Start) -> None:
    balancer = start()

    async def breaks_off(connection: Accepted) -> None:
        await connection.request()
        await connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")

    async with Endpoint(balancer.endpoints[0], breaks_off), await Client.connect(balancer.port) as client:
        await client.send("GET / HTTP/1.0\r\n\r\n")
        assert (await client.to_end()).endswith(b"(reset)")
