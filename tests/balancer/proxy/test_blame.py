"""Who is charged for what went wrong, and what is tried again: each a case that somebody met with another balancer."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.balancer.proxy.wire.authority import Authority
from tests.balancer.proxy.wire.ends import OK, Accepted, Client, Endpoint, always
from tests.balancer.proxy.wire.process import Balancer, Start

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n"
FAILURES = {"connection refused", "connection timed out", "connection closed", "response timed out", "bad response"}
NAME_1 = always("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")


class Charges:
    """What endpoints have been charged with since this was made: a balancer may have served other tests."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, value in self._balancer.metrics().items():
            if name.startswith("lb_endpoint_failures_total{"):
                reason = name.partition('reason="')[2].partition('"')[0]
                found[reason] = found.get(reason, 0) + value
        return found

    def since(self) -> dict[str, float]:
        now = self._now()
        return {
            reason: count - self._before.get(reason, 0)
            for reason, count in now.items()
            if count != self._before.get(reason, 0) and reason in FAILURES
        }


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_an_endpoint_that_never_says_continue_is_tried_elsewhere(method: str, start: Start) -> None:
    balancer = start(endpoints=2, strategy="n-to-one", response_timeout=1.5, idle_timeout=1, retry_budget=1)
    charges = Charges(balancer)

    async def hangs(connection: Accepted) -> None:
        await connection.head()
        await connection.to_end()

    async def says_continue(connection: Accepted) -> None:
        await connection.head()
        await connection.send("HTTP/1.1 100 Continue\r\n\r\n")
        assert await connection.exactly(5) == b"hello"
        await connection.send(OK)

    async with (
        Endpoint(balancer.endpoints[0], hangs),
        Endpoint(balancer.endpoints[1], says_continue),
        await Client.connect(balancer.port) as client,
    ):
        await client.send(f"{method} / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert (await client.head()).status == 100
        await client.send("hello")
        assert (await client.response()).status == 200
    assert charges.since() == {"response timed out": 1}


async def test_nothing_is_repeated_once_an_interim_response_was_passed_on(start: Start) -> None:
    balancer = start(endpoints=2, retry_budget=1)

    async def informs_and_dies(connection: Accepted) -> None:
        await connection.request()
        await connection.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        await asyncio.sleep(0.05)

    async with (
        Endpoint(balancer.endpoints[0], informs_and_dies) as first,
        Endpoint(balancer.endpoints[1], informs_and_dies) as second,
        await Client.connect(balancer.port) as client,
    ):
        await client.send(GET)
        assert (await client.head()).status == 103
        assert (await client.response()).status == 502
        assert len(first.requests) + len(second.requests) == 1


async def test_an_interim_response_and_then_a_503_is_the_answer(start: Start) -> None:
    balancer = start(endpoints=2, retry_budget=1)
    busy = always("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")
    async with (
        Endpoint(balancer.endpoints[0], busy) as first,
        Endpoint(balancer.endpoints[1], busy) as second,
        await Client.connect(balancer.port) as client,
    ):
        await client.send(GET)
        assert (await client.head()).status == 103
        assert (await client.response()).status == 503
        assert len(first.requests) + len(second.requests) == 1


async def test_the_total_time_charges_no_endpoint_for_a_slow_upload(start: Start) -> None:
    balancer = start(total_timeout=0.4)
    charges = Charges(balancer)
    async with Endpoint(balancer.endpoints[0]), await Client.connect(balancer.port) as client:
        await client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nslow")
        assert (await client.response()).status == 504
    assert charges.since() == {}


async def test_the_total_time_charges_no_endpoint_for_a_slow_download(start: Start) -> None:
    balancer = start(total_timeout=0.8)
    charges = Charges(balancer)

    async def sends_on(connection: Accepted) -> None:
        await connection.request()
        await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        block = b"x" * 65536
        while True:
            await connection.send(block)

    async with Endpoint(balancer.endpoints[0], sends_on), await Client.connect(balancer.port) as client:
        await client.send(GET)
        deadline = time.monotonic() + 5
        while balancer.metric("lb_requests_in_flight") and time.monotonic() < deadline:  # noqa: ASYNC110 (it is another process that is waited for)
            await asyncio.sleep(0.05)
    assert charges.since() == {}


async def test_the_total_time_charges_an_endpoint_that_was_waited_for(start: Start) -> None:
    balancer = start(total_timeout=0.3)
    charges = Charges(balancer)

    async def hangs(connection: Accepted) -> None:
        await connection.request()
        await connection.to_end()

    async with Endpoint(balancer.endpoints[0], hangs), await Client.connect(balancer.port) as client:
        assert (await client.ask(GET)).status == 504
    assert charges.since() == {"response timed out": 1}


async def test_the_total_time_ends_no_tunnel(start: Start) -> None:
    balancer = start(total_timeout=0.4)
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        await client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        connection = await endpoint.accept()
        await connection.head()
        await connection.send("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert (await client.head()).status == 101
        await asyncio.sleep(0.8)
        await client.send("still here")
        assert await connection.exactly(10) == b"still here"
        await connection.close()


@pytest.mark.parametrize("by_tls", [False, True], ids=["plain", "by TLS"])
async def test_an_upload_whose_endpoint_answers_and_closes_gets_that_answer(
    by_tls: bool, start: Start, authority: Authority
) -> None:
    secured = {"upstream_tls": "on", "upstream_tls_ca": authority.file} if by_tls else {}
    balancer = start(retries=0, **secured)
    charges = Charges(balancer)

    async def refuses(connection: Accepted) -> None:
        await connection.head()
        await connection.send("HTTP/1.1 401 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        connection.reset() if connection.reader.at_eof() else await connection.close()

    async with Endpoint(balancer.endpoints[0], refuses, tls=authority.server("127.0.0.1") if by_tls else None):
        for _ in range(10):
            async with await Client.connect(balancer.port) as client:
                sending = asyncio.create_task(
                    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n" + "x" * 3_000_000)
                )
                response = await client.response()
                assert (response.status, response.body) == (401, b"no")
                await asyncio.gather(sending, return_exceptions=True)
    assert charges.since() == {}


@pytest.mark.parametrize("method", ["PUT", "GET", "POST"])
@pytest.mark.parametrize("framing", ["Content-Length: 300000", "Transfer-Encoding: chunked"])
async def test_a_body_that_cannot_be_sent_again_takes_only_a_fresh_connection(
    method: str, framing: str, start: Start
) -> None:
    balancer = start(retry_buffer=1000)
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        assert (await client.ask(GET)).status == 200
        await asyncio.sleep(0.7)  # the connection may be closing by now
        await client.send(f"{method} / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")
        if "chunked" in framing:
            await client.send("5\r\nhello\r\n")
            await asyncio.sleep(0.05)
            await client.send("0\r\n\r\n")
        else:
            await client.send("x" * 300_000)
        assert (await client.response()).status == 200
        assert endpoint.accepted == 2


async def test_a_stale_connection_is_charged_to_nobody_whatever_the_method(start: Start) -> None:
    balancer = start()
    charges = Charges(balancer)

    async def once(connection: Accepted) -> None:
        await connection.request()
        await connection.send(OK)
        await connection.head()
        connection.reset()

    async with Endpoint(balancer.endpoints[0], once), await Client.connect(balancer.port) as client:
        assert (await client.ask(GET)).status == 200
        assert (await client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")).status == 502
    assert charges.since() == {}


async def test_a_stream_of_events_that_goes_quiet_is_no_failure_of_its_endpoint(start: Start) -> None:
    balancer = start(idle_timeout=0.3)
    charges = Charges(balancer)

    async def tells_once(connection: Accepted) -> None:
        await connection.request()
        await connection.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\r\n\r\n")
        await connection.to_end()

    async with Endpoint(balancer.endpoints[0], tells_once), await Client.connect(balancer.port) as client:
        await client.send(GET)
        assert b"data: 1" in await client.to_end()
    assert charges.since() == {}


async def test_an_upload_that_one_endpoint_let_wait_goes_on_at_the_next(start: Start) -> None:
    balancer = start(endpoints=2, strategy="n-to-one", retry_buffer=20_000_000, idle_timeout=0.5, retry_budget=1)
    size = 8_000_000

    async def stalls(connection: Accepted) -> None:
        await connection.head()
        transport = connection.writer.transport
        assert isinstance(transport, asyncio.ReadTransport)
        transport.pause_reading()
        await asyncio.sleep(30)

    async with (
        Endpoint(balancer.endpoints[0], stalls),
        Endpoint(balancer.endpoints[1], NAME_1) as second,
        await Client.connect(balancer.port) as client,
    ):
        sending = asyncio.create_task(
            client.send(f"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n" + "x" * size)
        )
        assert (await client.response()).body == b"1"
        await sending
        assert len(second.requests[0].body) == size


async def test_our_own_lack_of_descriptors_charges_no_endpoint(start: Start) -> None:
    balancer = start(open_files=90, fresh=True, retries=0)
    charges = Charges(balancer)

    async def hangs(connection: Accepted) -> None:
        await connection.request()
        await connection.to_end()

    async with Endpoint(balancer.endpoints[0], hangs):
        clients = [await Client.connect(balancer.port) for _ in range(60)]
        for client in clients:
            await client.send(GET)
        await asyncio.sleep(0.5)
        assert charges.since() == {}
        for client in clients:
            client.reset()
