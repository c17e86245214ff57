"""What an endpoint sees of a request, and a client of a response: field by field."""

from __future__ import annotations

import re

import pytest
from tests.balancer.proxy.wire.ends import Client, Endpoint, always
from tests.balancer.proxy.wire.http2 import Asked, H2Client, H2Endpoint
from tests.balancer.proxy.wire.messages import ADDED_TO_REQUESTS, ADDED_TO_RESPONSES
from tests.balancer.proxy.wire.process import Start

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n"


async def test_names_keep_their_case_and_fields_their_order(start: Start) -> None:
    balancer = start()
    fields = "X-b: 1\r\nX-A: 2\r\nx-B: 3\r\nUSER-agent: t\r\nAccept: */*\r\n"
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.ask(f"{GET}{fields}\r\n")
    assert endpoint.requests[0].without(ADDED_TO_REQUESTS) == f"{GET}{fields}\r\n".encode()


async def test_response_fields_keep_case_and_order(start: Start) -> None:
    balancer = start()
    answer = "HTTP/1.1 200 Fine\r\nx-B: 1\r\nSet-Cookie: a=1\r\nX-a: 2\r\nset-cookie: b=2\r\nCONTENT-length: 0\r\n\r\n"
    async with Endpoint(balancer.endpoints[0], always(answer)), await Client.connect(balancer.port) as client:
        response = await client.ask(f"{GET}\r\n")
    assert response.without(ADDED_TO_RESPONSES) == answer.encode()


async def test_the_endpoint_learns_who_asked_and_how(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.ask(f"{GET}\r\n")
    request = endpoint.requests[0]
    assert request.get("x-forwarded-for") == "127.0.0.1"
    assert request.get("x-forwarded-proto") == "http"
    assert request.get("x-forwarded-host") == "lb.test"
    assert re.fullmatch(r"1\.1 \S+", request.get("via") or "")


async def test_a_stranger_cannot_forge_where_a_request_came_from(start: Start) -> None:
    balancer = start()
    forged = (
        "X-Forwarded-For: 10.9.9.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\n"
        "x-forwarded-for: 10.8.8.8\r\nX-Request-Id: forged\r\n"
    )
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.ask(f"{GET}{forged}\r\n")
    request = endpoint.requests[0]
    assert request.get("x-forwarded-for") == "127.0.0.1"
    assert request.get("x-forwarded-proto") == "http"
    assert request.get("x-forwarded-host") == "lb.test"
    assert request.get("x-request-id") != "forged"


async def test_a_trusted_proxy_is_believed_and_the_chain_goes_on(start: Start) -> None:
    balancer = start(trusted_proxies="127.0.0.0/8")
    told = (
        "X-Forwarded-For: 10.9.9.9\r\nX-Forwarded-Proto: https\r\n"
        "X-Forwarded-Host: shop.test\r\nX-Request-Id: abc-1\r\n"
    )
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        response = await client.ask(f"{GET}{told}\r\n")
    request = endpoint.requests[0]
    assert request.get("x-forwarded-for") == "10.9.9.9, 127.0.0.1"
    assert request.get("x-forwarded-proto") == "https"
    assert request.get("x-forwarded-host") == "shop.test"
    assert request.get("x-request-id") == "abc-1"
    assert response.get("x-request-id") == "abc-1"


async def test_via_of_others_is_kept_and_ours_comes_last(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.ask(f"{GET}Via: 1.0 first\r\n\r\n")
    chain = ", ".join(endpoint.requests[0].all("via"))
    assert chain.startswith("1.0 first, 1.1 ")


async def test_every_request_has_an_id_of_its_own_which_its_response_carries(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        told = [(await client.ask(f"{GET}\r\n")).get("x-request-id") for _ in range(3)]
    assert told == [request.get("x-request-id") for request in endpoint.requests]
    assert len(set(told)) == 3


async def test_an_id_that_the_endpoint_gives_does_not_come_twice(start: Start) -> None:
    balancer = start()
    answer = "HTTP/1.1 200 OK\r\nX-Request-Id: mine\r\nContent-Length: 0\r\n\r\n"
    async with Endpoint(balancer.endpoints[0], always(answer)), await Client.connect(balancer.port) as client:
        response = await client.ask(f"{GET}\r\n")
    assert len(response.all("x-request-id")) == 1


@pytest.mark.parametrize(
    "fields",
    [
        "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n",
        "Connection: x-hop, keep-alive\r\nX-Hop: 1\r\n",
        "Proxy-Connection: keep-alive\r\n",
        "TE: deflate;q=0.5\r\nConnection: te\r\n",
    ],
)
async def test_fields_for_one_hop_end_here(fields: str, start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.ask(f"{GET}{fields}X-End: 1\r\n\r\n")
    assert endpoint.requests[0].without(ADDED_TO_REQUESTS) == f"{GET}X-End: 1\r\n\r\n".encode()


async def test_response_fields_for_one_hop_end_here(start: Start) -> None:
    balancer = start()
    answer = (
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
        "Proxy-Connection: close\r\nContent-Length: 0\r\nX-End: 1\r\n\r\n"
    )
    async with Endpoint(balancer.endpoints[0], always(answer)), await Client.connect(balancer.port) as client:
        response = await client.ask(f"{GET}\r\n")
    assert response.without(ADDED_TO_RESPONSES) == (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-End: 1\r\n\r\n")


async def test_an_endpoint_that_is_a_proxy_may_ask_who_the_client_is(start: Start) -> None:
    balancer = start()
    asks = 'HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm="a"\r\nContent-Length: 0\r\n\r\n'
    async with Endpoint(balancer.endpoints[0], always(asks)) as endpoint:
        async with await Client.connect(balancer.port) as client, await H2Client.connect(balancer.port) as other:
            first = await client.ask(f"{GET}Proxy-Authorization: Basic eDp5\r\n\r\n")
            second = await other.get("/", [("proxy-authorization", "Basic eDp5")])
    assert first.without(ADDED_TO_RESPONSES) == asks.encode()
    assert (second.status, second.field("proxy-authenticate")) == (407, 'Basic realm="a"')
    assert [request.get("proxy-authorization") for request in endpoint.requests] == ["Basic eDp5"] * 2


async def test_an_endpoint_of_http_2_may_ask_who_the_client_is(start: Start) -> None:
    balancer = start(upstream_protocol="h2c")

    async def ask(asked: Asked) -> None:
        await asked.respond(407, (asked.field("proxy-authorization") or "").encode(), [("proxy-authenticate", "Basic")])

    async with H2Endpoint(balancer.endpoints[0], ask), await Client.connect(balancer.port) as client:
        response = await client.ask(f"{GET}Proxy-Authorization: Basic eDp5\r\n\r\n")
    assert (response.status, response.get("proxy-authenticate"), response.body) == (407, "Basic", b"Basic eDp5")


async def test_the_absolute_form_goes_on_as_a_path(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        await client.ask("GET http://lb.test:8080/a?b HTTP/1.1\r\nHost: lb.test:8080\r\n\r\n")
    assert endpoint.requests[0].start == b"GET /a?b HTTP/1.1"
    assert endpoint.requests[0].get("host") == "lb.test:8080"


async def test_options_for_the_server_itself_passes(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        response = await client.ask("OPTIONS * HTTP/1.1\r\nHost: lb.test\r\n\r\n")
    assert response.status == 200
    assert endpoint.requests[0].start == b"OPTIONS * HTTP/1.1"


@pytest.mark.parametrize(("method", "target"), [("CONNECT", "lb.test:443"), ("TRACE", "/")])
async def test_connect_and_trace_are_refused(method: str, target: str, start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        response = await client.ask(f"{method} {target} HTTP/1.1\r\nHost: lb.test\r\n\r\n")
    assert response.status in (405, 501)
    assert endpoint.accepted == 0


async def test_requests_are_counted_by_endpoint_and_status(start: Start) -> None:
    balancer = start(endpoints=1)
    before = balancer.metric("lb_endpoint_responses_total", **{"class": "2xx"})
    whole = balancer.metric("lb_requests_total")
    async with Endpoint(balancer.endpoints[0]), await Client.connect(balancer.port) as client:
        for _ in range(3):
            await client.ask(f"{GET}\r\n")
    assert balancer.metric("lb_endpoint_responses_total", **{"class": "2xx"}) == before + 3
    assert balancer.metric("lb_requests_total") == whole + 3


async def test_a_1_0_request_without_host_becomes_a_valid_1_1_request(start: Start) -> None:
    """RFC 9112 3.2: a 1.1 request must have one Host; the endpoint's own address is what it accepts for sure."""
    balancer = start()
    async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
        assert (await client.ask("GET / HTTP/1.0\r\n\r\n")).status == 200
    assert endpoint.requests[0].get("host") == f"127.0.0.1:{balancer.endpoints[0]}"
