"""The order of leaving: what happens to requests, downloads and tunnels after SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import time

import pytest
from tests.balancer.proxy.test_upgrade import open_tunnel
from tests.balancer.proxy.wire.ends import OK, Accepted, Client, Endpoint
from tests.balancer.proxy.wire.messages import Closed
from tests.balancer.proxy.wire.process import Balancer, Start

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n"


async def until_exit(balancer: Balancer, within: float) -> int:
    """The exit status; fails when it takes longer."""
    deadline = time.monotonic() + within
    while balancer.alive:
        assert time.monotonic() < deadline, f"still running\n{balancer.log()[-2000:]}"
        await asyncio.sleep(0.02)
    return balancer.wait()


async def until_draining(balancer: Balancer) -> None:
    deadline = time.monotonic() + 5
    while balancer.admin("/readyz")[0] != 503:
        assert time.monotonic() < deadline, "SIGTERM was not heard"
        await asyncio.sleep(0.01)


async def test_sigterm_amid_200_requests_loses_none(start: Start) -> None:
    balancer = start(fresh=True, forked=False)
    asked, told = asyncio.Event(), asyncio.Event()
    waiting = 0

    async def answers_when_told(connection: Accepted) -> None:
        nonlocal waiting
        await connection.request()
        waiting += 1
        if waiting == 200:
            asked.set()
        await told.wait()
        await connection.send(OK)
        await connection.to_end()

    async with Endpoint(balancer.endpoints[0], answers_when_told):
        clients = [await Client.connect(balancer.port) for _ in range(200)]
        for client in clients:
            await client.send(GET)
        async with asyncio.timeout(10):
            await asked.wait()
        balancer.signal(signal.SIGTERM)
        await until_draining(balancer)
        told.set()
        for client in clients:
            response = await client.response()
            assert response.status == 200
            assert response.get("connection") == "close"
            assert await client.to_end() == b""
            await client.close()
        assert await until_exit(balancer, 5) == 0


async def test_ready_no_more_from_the_first_moment_and_served_on_through_the_delay(start: Start) -> None:
    balancer = start(fresh=True, drain_delay=1.5)
    async with Endpoint(balancer.endpoints[0]):
        kept = await Client.connect(balancer.port)
        assert (await kept.ask(GET)).get("connection") is None
        balancer.signal(signal.SIGTERM)
        await until_draining(balancer)
        assert balancer.admin("/healthz")[0] == 200
        late = await Client.connect(balancer.port)
        for client in (kept, late):
            response = await client.ask(GET)
            assert response.status == 200
            assert response.get("connection") == "close"
            assert await client.to_end() == b""
            await client.close()
        assert await until_exit(balancer, 5) == 0
    with pytest.raises(ConnectionRefusedError):
        await Client.connect(balancer.port)


async def test_serves_on_while_clients_still_connect(start: Start) -> None:
    """Whoever sends them here, kube-proxy say, has not heard yet that this balancer leaves."""
    balancer = start(fresh=True, drain_delay=0.5, drain_timeout=20)
    async with Endpoint(balancer.endpoints[0]):
        balancer.signal(signal.SIGTERM)
        await until_draining(balancer)
        for _ in range(15):
            async with await Client.connect(balancer.port) as late:
                assert (await late.ask(GET)).status == 200
            await asyncio.sleep(0.2)
        assert await until_exit(balancer, 4) == 0
    assert "clients still connect after LB_DRAIN_DELAY" in balancer.log()


async def test_serves_on_for_half_of_the_drain_timeout_at_most(start: Start) -> None:
    balancer = start(fresh=True, drain_delay=0.5, drain_timeout=3)
    async with Endpoint(balancer.endpoints[0]):
        balancer.signal(signal.SIGTERM)
        await until_draining(balancer)
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionRefusedError):
                while True:
                    # One may come in the very moment in which the port closes; the next is refused.
                    with contextlib.suppress(Closed, ConnectionResetError):
                        async with await Client.connect(balancer.port) as late:
                            assert (await late.ask(GET)).status == 200
        assert await until_exit(balancer, 4) == 0


async def test_who_waits_to_be_accepted_when_the_port_closes_is_served(start: Start) -> None:
    """Their connections are there, and their requests in them: closing the port without a look would reset them all."""
    balancer = start(fresh=True)
    async with Endpoint(balancer.endpoints[0]):
        balancer.signal(signal.SIGSTOP)
        clients = [await Client.connect(balancer.port) for _ in range(200)]
        for client in clients:
            await client.send(GET)
        balancer.signal(signal.SIGTERM)
        balancer.signal(signal.SIGCONT)
        for client in clients:
            assert (await client.response()).status == 200
            await client.close()
        assert await until_exit(balancer, 5) == 0


async def test_a_connection_that_was_told_keep_alive_is_not_closed_without_notice(start: Start) -> None:
    balancer = start(fresh=True, drain_delay=3)
    post = "POST / HTTP/1.1\r\nHost: lb.test\r\nContent-Length: 5\r\n\r\nhello"
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(GET)
        connection = await endpoint.accept()
        await connection.request()
        await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        assert (await client.head()).get("connection") is None
        balancer.signal(signal.SIGTERM)
        await until_draining(balancer)
        await asyncio.sleep(0.3)
        await connection.send("ok")
        assert await client.exactly(2) == b"ok"
        await client.send(post)
        await connection.request()
        await connection.send(OK)
        response = await client.response()
        assert (response.status, response.get("connection")) == (200, "close")
        assert await client.to_end() == b""
        await client.close()
        await connection.close()
    assert await until_exit(balancer, 8) == 0


async def test_a_request_right_after_listening_has_stopped_is_answered(start: Start) -> None:
    balancer = start(fresh=True)
    async with Endpoint(balancer.endpoints[0]), await Client.connect(balancer.port) as client:
        assert (await client.ask(GET)).get("connection") is None
        balancer.signal(signal.SIGTERM)
        await until_draining(balancer)
        response = await client.ask(GET)
        assert (response.status, response.get("connection")) == (200, "close")
        assert await client.to_end() == b""
        await client.close()
    assert await until_exit(balancer, 5) == 0


async def test_idle_connections_are_closed_soon(start: Start) -> None:
    balancer = start(fresh=True)
    async with Endpoint(balancer.endpoints[0]), await Client.connect(balancer.port) as client:
        assert (await client.ask(GET)).status == 200
        balancer.signal(signal.SIGTERM)
        assert await client.to_end() == b""
        await client.close()
        assert await until_exit(balancer, 5) == 0


async def test_a_download_ends_within_the_drain_time(start: Start) -> None:
    balancer = start(fresh=True)
    async with Endpoint(balancer.endpoints[0], None) as endpoint, await Client.connect(balancer.port) as client:
        await client.send(GET)
        connection = await endpoint.accept()
        await connection.request()
        await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        await client.head()
        balancer.signal(signal.SIGTERM)
        for _ in range(10):
            await asyncio.sleep(0.05)
            await connection.send("x")
        assert await client.exactly(10) == b"x" * 10
        assert await client.to_end() == b""
        await client.close()
        await connection.close()
        assert await until_exit(balancer, 5) == 0


async def test_at_the_drain_limit_what_is_left_is_cut_and_counted(start: Start) -> None:
    balancer = start(fresh=True, drain_timeout=0.5)
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        hung = await Client.connect(balancer.port)
        await hung.send(GET)
        first = await endpoint.accept()
        await first.request()
        chat = await Client.connect(balancer.port)
        second = await open_tunnel(chat, endpoint)
        balancer.signal(signal.SIGTERM)
        begun = time.monotonic()
        with pytest.raises(Closed):
            await hung.response()
        assert (await chat.to_end()).removesuffix(b"(reset)") == b""
        assert 0.4 < time.monotonic() - begun < 3
        for end in (hung, chat, first, second):
            await end.close()
        assert await until_exit(balancer, 5) == 0
    [told] = [line for line in balancer.log().splitlines() if "cut at the end of LB_DRAIN_TIMEOUT" in line]
    assert json.loads(told)["requests"] == 2


async def test_a_tunnel_may_end_by_itself_while_draining(start: Start) -> None:
    balancer = start(fresh=True)
    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        client = await Client.connect(balancer.port)
        connection = await open_tunnel(client, endpoint)
        balancer.signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        await client.send("bye")
        assert await connection.exactly(3) == b"bye"
        await client.close()
        await connection.to_end()
        await connection.close()
        assert await until_exit(balancer, 5) == 0


async def test_sigint_skips_the_delay(start: Start) -> None:
    balancer = start(fresh=True, drain_delay=30)
    balancer.signal(signal.SIGINT)
    assert await until_exit(balancer, 5) == 0


async def test_a_second_signal_does_not_wait(start: Start) -> None:
    balancer = start(fresh=True, drain_delay=30)
    balancer.signal(signal.SIGTERM)
    await asyncio.sleep(0.3)
    balancer.signal(signal.SIGINT)
    try:
        await until_exit(balancer, 5)
    except subprocess.TimeoutExpired:
        pytest.fail("still waiting")


async def test_sighup_says_that_nothing_is_reloaded(start: Start) -> None:
    balancer = start(fresh=True)
    async with Endpoint(balancer.endpoints[0]), await Client.connect(balancer.port) as client:
        assert (await client.ask(GET)).status == 200
        balancer.signal(signal.SIGHUP)
        await asyncio.sleep(0.2)
        assert (await client.ask(GET)).status == 200
    assert balancer.alive
    said = [line for line in balancer.log().splitlines() if "SIGHUP" in line]
    assert said, balancer.log()


async def test_the_port_listens_before_there_are_endpoints_and_says_why_it_cannot_serve(start: Start) -> None:
    balancer = start(fresh=True, discovery="static", backends="", backends_file="/dev/null", ready=503)
    async with await Client.connect(balancer.port) as client:
        response = await client.ask(GET)
    assert response.status == 503
    assert "destination_unavailable" in (response.get("proxy-status") or "")


async def test_a_busy_port_is_named(start: Start) -> None:
    balancer = start(fresh=True)
    with pytest.raises(RuntimeError, match=str(balancer.port)):
        start(fresh=True, port=balancer.port)
