"""Responses that other proxies pass: what has one reading only passes in the one right form, and charges nobody."""

from __future__ import annotations

import pytest
from tests.balancer.proxy.wire.ends import OK, Client, Endpoint, answering
from tests.balancer.proxy.wire.http2 import Asked, Fields, H2Client, H2Endpoint
from tests.balancer.proxy.wire.messages import Message
from tests.balancer.proxy.wire.process import Start

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n"
TWICE = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 02\r\n\r\nok"
MALFORMED = "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok"
NO_STATUS = "HTTP/1.1 999 Denied\r\nContent-Length: 0\r\n\r\n"


async def test_what_has_one_reading_reaches_clients_of_both_protocols(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], answering(lambda _: TWICE)) as endpoint:
        async with await Client.connect(balancer.port) as client, await H2Client.connect(balancer.port) as other:
            plain = await client.ask(GET)
            assert (plain.status, plain.all("content-length"), plain.body) == (200, ["2"], b"ok")
            answer = await other.get()
            assert (answer.status, answer.field("content-length"), answer.body) == (200, "2", b"ok")
    assert endpoint.accepted == 1, "its connection may be used again"


@pytest.mark.parametrize(
    "lengths",
    [[("content-length", "2"), ("content-length", "2")], [("content-length", "02")], [("content-length", "2, 2")]],
)
async def test_what_has_one_reading_passes_from_http_2(lengths: Fields, start: Start) -> None:
    balancer = start(upstream_protocol="h2c", retries=0)

    async def script(asked: Asked) -> None:
        await asked.respond(extra=lengths)

    async with H2Endpoint(balancer.endpoints[0], script):
        async with await Client.connect(balancer.port) as client, await H2Client.connect(balancer.port) as other:
            plain = await client.ask(GET)
            assert (plain.status, plain.all("content-length"), plain.body) == (200, ["2"], b"ok")
            answer = await other.get()
            assert [value for name, value in answer.fields if name == "content-length"] == ["2"]


@pytest.mark.parametrize("status", [600, 999])
@pytest.mark.parametrize("protocol", ["http1", "h2c"])
async def test_a_status_beyond_599_passes(protocol: str, status: int, start: Start) -> None:
    balancer = start(upstream_protocol=protocol, retries=0)

    async def script(asked: Asked) -> None:
        await asked.respond(status)

    one = answering(lambda _: f"HTTP/1.1 {status} Denied\r\nContent-Length: 2\r\n\r\nok")
    async with (
        Endpoint(balancer.endpoints[0], one) if protocol == "http1" else H2Endpoint(balancer.endpoints[0], script)
    ):
        async with await Client.connect(balancer.port) as client, await H2Client.connect(balancer.port) as other:
            assert (await client.ask(GET)).status == status
            assert (await other.get()).status == status


@pytest.mark.parametrize("bad", [MALFORMED, NO_STATUS])
async def test_one_malformed_response_charges_nobody_and_a_few_in_a_row_do(bad: str, start: Start) -> None:
    balancer = start(endpoints=2, fresh=True, eject_after=1, eject_time=60, retries=0)
    answers = {"/bad": bad, "/good": OK.decode()}

    def answer(request: Message) -> str:
        return answers[request.target]

    async def ask(path: str, times: int) -> None:
        for _ in range(times):
            async with await Client.connect(balancer.port) as client:
                await client.ask(f"GET {path} HTTP/1.1\r\nHost: lb.test\r\n\r\n")

    async with Endpoint(balancer.endpoints[0], answering(answer)), Endpoint(balancer.endpoints[1], answering(answer)):
        for _ in range(4):
            await ask("/bad", 4)  # two at each: never three in a row
            await ask("/good", 2)
        assert balancer.metric("lb_transitions_total", event="ejected") == 0
        await ask("/bad", 6)
        assert balancer.metric("lb_transitions_total", event="ejected") == 1


async def test_malformed_responses_of_http_2_charge_after_a_few_in_a_row(start: Start) -> None:
    balancer = start(endpoints=2, fresh=True, eject_after=1, eject_time=60, retries=0, upstream_protocol="h2c")

    async def script(asked: Asked) -> None:
        await asked.respond(extra=[("content-length", "two")] if asked.field(":path") == "/bad" else [])

    async with H2Endpoint(balancer.endpoints[0], script), H2Endpoint(balancer.endpoints[1], script):
        async with await H2Client.connect(balancer.port) as client:
            for _ in range(3):
                assert [(await client.get("/bad")).status for _ in range(4)] == [502] * 4
                assert [(await client.get("/good")).status for _ in range(2)] == [200] * 2
            assert balancer.metric("lb_transitions_total", event="ejected") == 0
            for _ in range(6):
                await client.get("/bad")
            assert balancer.metric("lb_transitions_total", event="ejected") == 1
