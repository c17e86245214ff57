"""The right connection and the right key: authentication that binds a connection, and who the client is."""

from __future__ import annotations

from tests.balancer.proxy.wire.ends import Accepted, Client, Endpoint
from tests.balancer.proxy.wire.process import Start

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n"
DEMAND = "HTTP/1.1 401 No\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n"


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
