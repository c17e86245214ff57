"""Which failed attempts are made again, where, and which never: row by row."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket

import pytest
from tests.balancer.proxy.wire.ends import OK, Accepted, Client, Endpoint, Script, always, answering
from tests.balancer.proxy.wire.process import Start

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n"
POST = "POST / HTTP/1.1\r\nHost: lb.test\r\nContent-Length: 5\r\n\r\nhello"
IDEMPOTENT = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]


def request(method: str) -> str:
    return f"{method} / HTTP/1.1\r\nHost: lb.test\r\nContent-Length: 0\r\n\r\n"


async def closes_at_once(connection: Accepted) -> None:
    """Takes the request and closes without a byte."""
    await connection.request()


async def resets_at_once(connection: Accepted) -> None:
    await connection.request()
    connection.reset()


async def breaks_off(connection: Accepted) -> None:
    """Dies with its response's head half said."""
    await connection.request()
    await connection.send("HTTP/1.1 200 OK\r\nContent-Le")


async def breaks_off_later(connection: Accepted) -> None:
    """Dies in its response's body."""
    await connection.request()
    await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")


NAME_1 = always("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "BREW"])
async def test_a_refused_connection_is_tried_elsewhere_whatever_the_method(method: str, start: Start) -> None:
    balancer = start(endpoints=2, retry_budget=1)
    async with Endpoint(balancer.endpoints[1], NAME_1), await Client.connect(balancer.port) as client:
        for _ in range(4):
            assert (await client.ask(request(method))).body == b"1"
    assert balancer.metric("lb_retries_total", reason="connection refused") > 0


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_connection_that_is_not_accepted_in_time_is_tried_elsewhere(method: str, start: Start) -> None:
    balancer = start(endpoints=2, connect_timeout=0.3)
    with socket.socket() as full, contextlib.ExitStack() as stack:
        # A listener whose queue is full answers no SYN: connecting hangs.
        full.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        full.bind(("127.0.0.1", balancer.endpoints[0]))
        full.listen(0)
        for _ in range(8):
            blocker = stack.enter_context(socket.socket())
            blocker.setblocking(False)
            blocker.connect_ex(full.getsockname())
        async with Endpoint(balancer.endpoints[1], NAME_1), await Client.connect(balancer.port) as client:
            for _ in range(2):
                assert (await client.ask(request(method))).body == b"1"
    assert balancer.metric("lb_endpoint_failures_total", reason="connection timed out") > 0


async def test_a_post_of_which_nothing_could_be_sent_is_sent_again(start: Start) -> None:
    """The connection is reset as the request comes: the kernel takes no byte of it: nothing can happen twice."""
    balancer = start()

    async def leaves(connection: Accepted) -> None:
        await connection.request()
        if first:
            balancer.signal(signal.SIGSTOP)
            await connection.send(OK)
            connection.reset()
            left.set()
        else:
            await connection.send(OK)

    first, left = True, asyncio.Event()
    async with Endpoint(balancer.endpoints[0], leaves), await Client.connect(balancer.port) as client:
        await client.send(POST + POST)
        await left.wait()
        first = False
        balancer.signal(signal.SIGCONT)
        assert [(await client.response()).status for _ in range(2)] == [200, 200]
    assert balancer.metric("lb_endpoint_failures_total") == 0


@pytest.mark.parametrize("fault", [closes_at_once, resets_at_once])
@pytest.mark.parametrize("method", IDEMPOTENT)
async def test_an_idempotent_request_survives_an_endpoint_that_dies_before_its_response(
    method: str, fault: Script, start: Start
) -> None:
    balancer = start(endpoints=2, retry_budget=1)
    async with (
        Endpoint(balancer.endpoints[0], fault),
        Endpoint(balancer.endpoints[1], NAME_1),
        await Client.connect(balancer.port) as client,
    ):
        for _ in range(4):
            response = await client.ask(request(method), method)
            assert response.status == 200


@pytest.mark.parametrize("fault", [closes_at_once, resets_at_once])
@pytest.mark.parametrize("method", ["POST", "PATCH", "BREW"])
async def test_a_request_that_may_have_acted_is_never_sent_twice(method: str, fault: Script, start: Start) -> None:
    balancer = start(endpoints=2, retry_budget=1)
    async with (
        Endpoint(balancer.endpoints[0], fault) as first,
        Endpoint(balancer.endpoints[1], fault) as second,
        await Client.connect(balancer.port) as client,
    ):
        response = await client.ask(request(method))
        assert response.status == 502
        assert "connection_terminated" in (response.get("proxy-status") or "")
    assert len(first.requests) + len(second.requests) == 1


async def test_nothing_is_retried_after_the_first_byte(start: Start) -> None:
    balancer = start(endpoints=2, retry_budget=1)
    for fault in (breaks_off, breaks_off_later):
        async with Endpoint(balancer.endpoints[0], fault) as first, Endpoint(balancer.endpoints[1], fault) as second:
            async with await Client.connect(balancer.port) as client:
                await client.send(GET)
                got = await client.some(within=5)
                assert got.startswith((b"HTTP/1.1 502", b"HTTP/1.1 200"))
        assert len(first.requests) + len(second.requests) == 1


@pytest.mark.parametrize(("method", "attempts"), [("GET", 2), ("POST", 1)])
async def test_an_endpoint_that_does_not_respond_in_time(method: str, attempts: int, start: Start) -> None:
    balancer = start(endpoints=2, response_timeout=0.3, retries=1)

    async def hangs(connection: Accepted) -> None:
        await connection.request()
        await connection.to_end()

    async with (
        Endpoint(balancer.endpoints[0], hangs) as first,
        Endpoint(balancer.endpoints[1], hangs) as second,
        await Client.connect(balancer.port) as client,
    ):
        response = await client.ask(request(method))
        assert response.status == 504
        assert "http_response_timeout" in (response.get("proxy-status") or "")
        assert len(first.requests) + len(second.requests) == attempts
        if attempts == 2:
            assert len(first.requests) == 1, "a retry goes to another endpoint"


@pytest.mark.parametrize(("method", "answered"), [("GET", b"1"), ("PUT", b"1"), ("POST", b"busy")])
async def test_a_503_is_tried_elsewhere_for_idempotent_requests_only(
    method: str, answered: bytes, start: Start
) -> None:
    balancer = start(endpoints=2, strategy="n-to-one", retry_budget=1)
    busy = always("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")
    async with (
        Endpoint(balancer.endpoints[0], busy) as first,
        Endpoint(balancer.endpoints[1], NAME_1),
        await Client.connect(balancer.port) as client,
    ):
        assert (await client.ask(request(method))).body == answered
        assert len(first.requests) == 1


async def test_a_503_from_all_is_the_answer(start: Start) -> None:
    balancer = start(endpoints=2, retry_budget=1)
    busy = always("HTTP/1.1 503 Busy\r\nX-From: endpoint\r\nContent-Length: 4\r\n\r\nbusy")
    async with (
        Endpoint(balancer.endpoints[0], busy) as first,
        Endpoint(balancer.endpoints[1], busy) as second,
        await Client.connect(balancer.port) as client,
    ):
        response = await client.ask(GET)
        assert (response.status, response.body, response.get("x-from")) == (503, b"busy", "endpoint")
        assert (len(first.requests), len(second.requests)) == (1, 1)


async def test_another_status_is_not_retried(start: Start) -> None:
    balancer = start(endpoints=2, retry_budget=1)
    broken = always("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
    async with Endpoint(balancer.endpoints[0], broken), Endpoint(balancer.endpoints[1], broken):
        async with await Client.connect(balancer.port) as client:
            before = balancer.metric("lb_retries_total")
            assert (await client.ask(GET)).status == 500
            assert balancer.metric("lb_retries_total") == before


async def test_a_body_is_sent_again_whole(start: Start) -> None:
    balancer = start(endpoints=2, strategy="n-to-one", retry_budget=1)
    put = "PUT / HTTP/1.1\r\nHost: lb.test\r\nContent-Length: 30000\r\n\r\n" + "x" * 30000
    async with (
        Endpoint(balancer.endpoints[0], closes_at_once),
        Endpoint(balancer.endpoints[1]) as second,
        await Client.connect(balancer.port) as client,
    ):
        assert (await client.ask(put)).body == b"ok"
        assert second.requests[0].body == b"x" * 30000


async def test_a_chunked_body_is_sent_again_whole(start: Start) -> None:
    balancer = start(endpoints=2, strategy="n-to-one", retry_budget=1)
    put = "PUT / HTTP/1.1\r\nHost: lb.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
    async with (
        Endpoint(balancer.endpoints[0], closes_at_once),
        Endpoint(balancer.endpoints[1]) as second,
        await Client.connect(balancer.port) as client,
    ):
        assert (await client.ask(put)).body == b"ok"
        assert (second.requests[0].body, second.requests[0].trailers) == (b"hello", [(b"X-Sum", b"1")])


async def test_a_body_longer_than_what_is_kept_is_not_sent_again(start: Start) -> None:
    balancer = start(endpoints=2, strategy="n-to-one", retry_buffer=1000, retry_budget=1)

    async def takes_some_and_closes(connection: Accepted) -> None:
        await connection.head()
        await connection.exactly(1_000_000)

    async with (
        Endpoint(balancer.endpoints[0], takes_some_and_closes),
        Endpoint(balancer.endpoints[1]) as second,
        await Client.connect(balancer.port) as client,
    ):
        sending = asyncio.create_task(
            client.send("PUT / HTTP/1.1\r\nHost: lb.test\r\nContent-Length: 3000000\r\n\r\n" + "x" * 3_000_000)
        )
        assert (await client.response()).status == 502
        assert second.accepted == 0
        await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.parametrize("size", [100_000, 200_000, 300_000])
async def test_a_body_that_comes_whole_before_the_endpoint_is_connected_leaves_the_connection_usable(
    size: int, start: Start
) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        post = f"POST / HTTP/1.1\r\nHost: lb.test\r\nContent-Length: {size}\r\n\r\n" + "x" * size
        assert (await client.ask(post)).status == 200
        assert (await client.ask(GET)).status == 200
        assert endpoint.requests[0].body == b"x" * size


async def test_a_long_body_survives_a_refused_connection(start: Start) -> None:
    balancer = start(endpoints=2, strategy="n-to-one", retry_buffer=1000)
    put = "PUT / HTTP/1.1\r\nHost: lb.test\r\nContent-Length: 3000000\r\n\r\n" + "x" * 3_000_000
    async with Endpoint(balancer.endpoints[1]) as second, await Client.connect(balancer.port) as client:
        sending = asyncio.create_task(client.send(put))
        assert (await client.response()).body == b"ok"
        await sending
        assert second.requests[0].body == b"x" * 3_000_000


async def test_a_stale_connection_costs_an_idempotent_request_nothing(start: Start) -> None:
    balancer = start()

    async def once(connection: Accepted) -> None:
        """Closes as soon as the second request comes: as if the two had crossed on the wire."""
        await connection.request()
        await connection.send(OK)
        await connection.head()
        connection.reset()

    async with Endpoint(balancer.endpoints[0], once) as endpoint, await Client.connect(balancer.port) as client:
        failed = balancer.metric("lb_endpoint_failures_total")
        for _ in range(10):
            assert (await client.ask(GET)).status == 200
        assert endpoint.accepted == 10
        assert balancer.metric("lb_endpoint_failures_total") == failed, "charged to the endpoint"


async def test_a_post_takes_no_connection_that_has_been_idle(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        assert (await client.ask(GET)).status == 200
        await asyncio.sleep(1.0)  # a connection idle this long may be closed by its other end at any moment
        assert (await client.ask(POST)).status == 200
        assert endpoint.accepted == 2


async def test_the_budget_bounds_the_retries_of_an_outage(start: Start) -> None:
    balancer = start(endpoints=2, retry_budget=0.2, fresh=True)
    async with Endpoint(balancer.endpoints[0], closes_at_once) as first:
        async with Endpoint(balancer.endpoints[1], closes_at_once) as second:
            async with await Client.connect(balancer.port) as client:
                for _ in range(300):
                    assert (await client.ask(GET)).status == 502
            sent = len(first.requests) + len(second.requests)
    # A fifth of 300, and ten a second for as long as this took.
    assert 300 < sent < 500, sent
    assert balancer.metric("lb_retries_denied_total") > 0


async def test_no_retries_when_they_are_switched_off(start: Start) -> None:
    balancer = start(retries=0)
    async with Endpoint(balancer.endpoints[0], closes_at_once) as endpoint:
        async with await Client.connect(balancer.port) as client:
            assert (await client.ask(GET)).status == 502
    assert len(endpoint.requests) == 1


async def test_all_refused_is_a_502_that_says_so(start: Start) -> None:
    balancer = start(endpoints=2, retry_budget=1)
    async with await Client.connect(balancer.port) as client:
        response = await client.ask(GET)
        assert response.status == 502
        assert "connection_refused" in (response.get("proxy-status") or "")
    assert balancer.metric("lb_errors_total", reason="connection refused") > 0


async def test_the_total_time_bounds_all_attempts(start: Start) -> None:
    balancer = start(endpoints=2, total_timeout=0.5, response_timeout=0.3, retries=5)

    async def hangs(connection: Accepted) -> None:
        await connection.request()
        await connection.to_end()

    async with Endpoint(balancer.endpoints[0], hangs), Endpoint(balancer.endpoints[1], hangs):
        async with await Client.connect(balancer.port) as client:
            before = asyncio.get_running_loop().time()
            response = await client.ask(GET)
            took = asyncio.get_running_loop().time() - before
    assert response.status == 504
    assert 0.45 < took < 1.5


async def test_the_fleet_heals_an_endpoint_killed_under_load(start: Start) -> None:
    balancer = start(endpoints=3, eject_after=5)
    slow = answering(lambda _request: OK)
    endpoints = [Endpoint(port, slow) for port in balancer.endpoints]
    for endpoint in endpoints:
        await endpoint.start()
    failed = 0

    async def ask_on() -> None:
        nonlocal failed
        async with await Client.connect(balancer.port) as client:
            for _ in range(200):
                failed += (await client.ask(GET)).status != 200

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(ask_on())
        await asyncio.sleep(0.15)
        await endpoints[0].stop()
    assert failed == 0
    for endpoint in endpoints:
        await endpoint.stop()
