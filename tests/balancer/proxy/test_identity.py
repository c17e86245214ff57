"""The right connection and the right key: authentication that binds a connection, and who the client is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.balancer.proxy.wire.ends import Accepted, Client, Endpoint, always
from tests.balancer.proxy.wire.http2 import Asked, H2Client, H2Endpoint
from tests.balancer.proxy.wire.process import Start

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n"
DEMAND = "HTTP/1.1 401 No\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 (a metric of another process)
            await asyncio.sleep(0.02)


async def logs_in(connection: Accepted) -> None:
    """An endpoint that authenticates its connection: who has said the word once is known from then on."""
    known = "nobody"
    while True:
        request = await connection.request()
        word = request.get("authorization") or ""
        if word:
            known = word.partition(" ")[2]
        if known == "nobody":
            await connection.send(DEMAND)
        else:
            await connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(known)}\r\n\r\n{known}")


async def test_a_connection_that_was_authenticated_serves_nobody_else(start: Start) -> None:
    balancer = start(endpoints=2)
    async with Endpoint(balancer.endpoints[0], logs_in), Endpoint(balancer.endpoints[1], logs_in):
        async with await Client.connect(balancer.port) as alice, await Client.connect(balancer.port) as stranger:
            assert (await alice.ask(f"{GET}\r\n")).status == 401
            assert (await alice.ask(f"{GET}Authorization: NTLM alice\r\n\r\n")).body == b"alice"
            for _ in range(4):
                assert (await alice.ask(f"{GET}\r\n")).body == b"alice", "her session is hers, on her connection"
                assert (await stranger.ask(f"{GET}\r\n")).status == 401


async def test_a_connection_that_was_authenticated_is_kept_whatever_the_client_asks_for(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], logs_in) as endpoint, await Client.connect(balancer.port) as alice:
        assert (await alice.ask(f"{GET}Authorization: NTLM alice\r\n\r\n")).body == b"alice"
        for hops, body in ((0, b""), (5, b"alice")):
            options = f"OPTIONS / HTTP/1.1\r\nHost: lb.test\r\nMax-Forwards: {hops}\r\n\r\n"
            assert (await alice.ask(options)).body == body
            assert (await alice.ask(f"{GET}\r\n")).body == b"alice"
        assert endpoint.accepted == 1


async def test_a_connection_that_was_authenticated_is_closed_with_its_client(start: Start) -> None:
    balancer = start()
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client = await Client.connect(balancer.port)
        await client.send(f"{GET}Authorization: Negotiate abc\r\n\r\n")
        connection = await endpoint.accept()
        await connection.request()
        await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert (await client.response()).status == 200
        assert balancer.metric("lb_endpoint_connections_idle") == 0
        await client.close()
        assert (await connection.to_end()).removesuffix(b"(reset)") == b""
        await connection.close()


@pytest.mark.parametrize(
    "demand",
    ["Basic realm=x, Negotiate", 'Basic realm="a, b", NTLM', "NEGOTIATE", 'Digest a="b", NTLM TlRM', "Kerberos"],
)
async def test_a_challenge_among_others_binds_too(demand: str, start: Start) -> None:
    balancer = start()
    answer = f"HTTP/1.1 401 No\r\nWWW-Authenticate: {demand}\r\nContent-Length: 0\r\n\r\n"
    async with Endpoint(balancer.endpoints[0], always(answer)) as endpoint:
        async with await Client.connect(balancer.port) as alice, await Client.connect(balancer.port) as stranger:
            await alice.ask(f"{GET}\r\n")
            await stranger.ask(f"{GET}\r\n")
            assert endpoint.accepted == 2


async def test_what_a_proxy_authenticates_is_bound_too(start: Start) -> None:
    balancer = start()
    answer = "HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n"
    async with Endpoint(balancer.endpoints[0], always(answer)) as endpoint:
        async with await Client.connect(balancer.port) as alice, await Client.connect(balancer.port) as stranger:
            await alice.ask(f"{GET}\r\n")
            await stranger.ask(f"{GET}\r\n")
            assert endpoint.accepted == 2
    async with Endpoint(balancer.endpoints[0]) as endpoint:
        async with await Client.connect(balancer.port) as alice, await Client.connect(balancer.port) as stranger:
            await alice.ask(f"{GET}Proxy-Authorization: Negotiate abc\r\n\r\n")
            await stranger.ask(f"{GET}\r\n")
            assert endpoint.accepted == 2


async def test_a_scheme_that_is_only_spoken_of_binds_nothing(start: Start) -> None:
    balancer = start()
    answer = 'HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="no, NTLM here"\r\nContent-Length: 0\r\n\r\n'
    async with Endpoint(balancer.endpoints[0], always(answer)) as endpoint:
        for _ in range(2):
            async with await Client.connect(balancer.port) as client:
                await client.ask(f"{GET}\r\n")
        assert endpoint.accepted == 1


async def test_a_client_of_http_2_keeps_what_it_has_authenticated(start: Start) -> None:
    balancer = start(endpoints=2)
    async with Endpoint(balancer.endpoints[0], logs_in), Endpoint(balancer.endpoints[1], logs_in):
        async with await H2Client.connect(balancer.port) as alice, await Client.connect(balancer.port) as stranger:
            assert (await alice.get()).status == 401
            assert (await alice.get("/", [("authorization", "NTLM alice")])).body == b"alice"
            for _ in range(4):
                assert (await alice.get()).body == b"alice"
                assert (await stranger.ask(f"{GET}\r\n")).status == 401


async def test_connections_of_http_2_to_endpoints_are_bound_too(start: Start) -> None:
    balancer = start(upstream_protocol="h2c")
    known: dict[int, str] = {}

    async def script(asked: Asked) -> None:
        word = asked.field("authorization")
        if word:
            known[asked.served.number] = word.partition(" ")[2]
        if asked.served.number in known:
            await asked.respond(200, known[asked.served.number].encode())
        else:
            await asked.respond(401, b"", [("www-authenticate", "NTLM")])

    async with H2Endpoint(balancer.endpoints[0], script):
        async with (
            await Client.connect(balancer.port) as alice,
            await H2Client.connect(balancer.port) as bob,
            await Client.connect(balancer.port) as stranger,
        ):
            assert (await alice.ask(f"{GET}\r\n")).status == 401
            assert (await alice.ask(f"{GET}Authorization: NTLM alice\r\n\r\n")).body == b"alice"
            assert (await bob.get("/", [("authorization", "Negotiate bob")])).body == b"bob"
            for _ in range(3):
                assert (await stranger.ask(f"{GET}\r\n")).status == 401
                assert (await alice.ask(f"{GET}\r\n")).body == b"alice"
                assert (await bob.get()).body == b"bob"


@pytest.mark.parametrize("protocol", ["http1", "h2c"])
async def test_what_was_bound_and_is_tried_elsewhere_is_closed(protocol: str, start: Start) -> None:
    balancer = start(endpoints=2, strategy="n-to-one", retry_statuses="401", retry_budget=1, upstream_protocol=protocol)

    async def demands(asked: Asked) -> None:
        await asked.respond(401, b"", [("www-authenticate", "NTLM")])

    first, second = balancer.endpoints
    by_http1 = protocol == "http1"
    async with (
        Endpoint(first, always(DEMAND)) if by_http1 else H2Endpoint(first, demands),
        Endpoint(second) if by_http1 else H2Endpoint(second),
        await Client.connect(balancer.port) as client,
    ):
        assert (await client.ask(f"{GET}\r\n")).status == 200
        await until(lambda: balancer.metric("lb_endpoint_connections_open", endpoint=f"127.0.0.1:{first}") == 0)


async def test_the_client_that_a_trusted_proxy_names_is_the_one_that_is_hashed_and_logged(start: Start) -> None:
    balancer = start(
        endpoints=4, strategy="consistent-hash", hash_key="client-ip", trusted_proxies="127.0.0.1/32,10.0.0.0/8"
    )
    ends = [Endpoint(port) for port in balancer.endpoints]
    for end in ends:
        await end.start()
    balancer.new_log()
    async with await Client.connect(balancer.port) as client:
        for number in range(40):
            chain = f"198.51.100.9, 203.0.113.{number}, 10.1.2.3"
            assert (await client.ask(f"{GET}X-Forwarded-For: {chain}\r\n\r\n")).status == 200
    assert sum(bool(end.requests) for end in ends) >= 3
    for end in ends:
        await end.stop()


async def test_a_cookie_is_found_in_every_field_and_with_quotes(start: Start) -> None:
    balancer = start(endpoints=4, strategy="consistent-hash", hash_key="cookie:session")
    ends = [Endpoint(port) for port in balancer.endpoints]
    for end in ends:
        await end.start()
    async with await Client.connect(balancer.port) as client:
        for number in range(10):
            for cookie in (
                f"Cookie: session={number}",
                f'Cookie: session="{number}"',
                f"Cookie: other=1\r\nCookie: session={number}",
            ):
                await client.ask(f"{GET}X-Number: {number}\r\n{cookie}\r\n\r\n")
    for end in ends:
        numbers = [request.get("x-number") for request in end.requests]
        assert all(numbers.count(number) == 3 for number in set(numbers)), numbers
        await end.stop()
