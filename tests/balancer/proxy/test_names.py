"""Endpoints that are listed by name: resolved by a real DNS server on loopback, apart from the data path."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from benchmarks.ports import free_port
from tests.balancer.discovery.nameserver import Server
from tests.balancer.proxy.wire.ends import Client, Endpoint, always
from tests.balancer.proxy.wire.process import Balancer, Start

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n"
CLOSE = "GET / HTTP/1.1\r\nHost: lb.test\r\nConnection: close\r\n\r\n"
Names = Callable[..., Balancer]


def named(name: str) -> str:
    return f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(name)}\r\n\r\n{name}"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server.serving() as made:
        yield made


@pytest.fixture
def by_name(server: Server, start: Start, tmp_path: Path) -> Names:
    """Starts a balancer that resolves by `server`."""
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.1\noptions timeout:1\n")

    def begin(backends: str, **settings: object) -> Balancer:
        return start(fresh=True, test_dns=f"{resolv_conf}:{server.port}", backends=backends, **settings)

    return begin


async def ask(balancer: Balancer) -> tuple[int, bytes]:
    async with await Client.connect(balancer.port) as client:
        answer = await client.ask(CLOSE)
        return answer.status, answer.body


def asked(server: Server, name: str) -> int:
    return server.asked.count((name, "A"))


async def test_a_name_is_resolved_once_for_all_connections_and_again_by_its_ttl(server: Server, by_name: Names) -> None:
    port = free_port()
    server.zone["pi.test."] = [("A", ["127.0.0.1"])]
    server.ttl = 2
    balancer = by_name(f"pi.test:{port}")
    async with Endpoint(port, always(named("one"))), Endpoint(port, always(named("two")), host="127.0.0.2"):
        answers = await asyncio.gather(*(ask(balancer) for _ in range(20)))
        assert answers == [(200, b"one")] * 20
        assert asked(server, "pi.test.") == 1
        server.zone["pi.test."] = [("A", ["127.0.0.2"])]
        changed = time.monotonic()
        while (await ask(balancer)) == (200, b"one"):
            assert time.monotonic() - changed < 6
            await asyncio.sleep(0.05)
        assert 0.5 < time.monotonic() - changed < 3.5
        assert await ask(balancer) == (200, b"two")
        assert asked(server, "pi.test.") == 2


async def test_a_long_ttl_is_believed(server: Server, by_name: Names) -> None:
    port = free_port()
    server.zone["pi.test."] = [("A", ["127.0.0.1"])]
    server.ttl = 600
    balancer = by_name(f"pi.test:{port}")
    async with Endpoint(port, always(named("one"))):
        until = time.monotonic() + 6.5  # beyond the five seconds that all names had once
        while time.monotonic() < until:
            assert await ask(balancer) == (200, b"one")
            await asyncio.sleep(0.3)
    assert asked(server, "pi.test.") == 1


@pytest.mark.parametrize("mode", ["http", "tcp"])
async def test_a_silent_resolver_for_one_name_delays_no_other(mode: str, server: Server, by_name: Names) -> None:
    port = free_port()
    server.zone["pi.test."] = [("A", ["127.0.0.1"])]
    server.silent.update(f"silent{number}.test." for number in range(8))
    names = ",".join([*(f"silent{number}.test:{port}" for number in range(8)), f"pi.test:{port}"])
    balancer = by_name(names, mode=mode, connect_timeout=1, retries=8, retry_budget=1, strategy="round-robin")
    async with Endpoint(port, always(named("one"))):
        waiting = [asyncio.create_task(ask(balancer)) for _ in range(8)]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        assert await ask(balancer) == (200, b"one")
        assert time.monotonic() - began < 0.5
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_server_that_drops_one_family_delays_nothing(server: Server, by_name: Names) -> None:
    port = free_port()
    server.zone["pi.test."] = [("A", ["127.0.0.1"])]
    server.silent = {"AAAA"}
    balancer = by_name(f"pi.test:{port}", connect_timeout=1, retries=0)
    async with Endpoint(port, always(named("one"))):
        assert await ask(balancer) == (200, b"one")


async def test_health_checks_of_a_silent_name_delay_no_other(server: Server, by_name: Names) -> None:
    """Not even when there are more of them than a resolver has threads."""
    port = free_port()
    silent = [f"silent{number}.test" for number in range(8)]
    server.silent = {f"{name}." for name in silent}
    server.zone["pi.test."] = [("A", ["127.0.0.9", "127.0.0.1"])]
    backends = ",".join(f"{name}:{port}" for name in [*silent, "pi.test"])
    balancer = by_name(backends, health_path="/", health_interval=0.3, health_timeout=1, health_fall=1, panic_share=0)
    async with Endpoint(port, always(named("one"))) as endpoint:
        async with asyncio.timeout(10):
            while balancer.metric("lb_transitions_total", event="unhealthy") < len(silent):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert balancer.metric("lb_transitions_total", event="unhealthy") == len(silent)
        assert len(endpoint.requests) >= 2
        assert await ask(balancer) == (200, b"one")


async def test_a_name_keeps_its_addresses_while_nobody_answers(server: Server, by_name: Names) -> None:
    port = free_port()
    server.zone["pi.test."] = [("A", ["127.0.0.1"])]
    balancer = by_name(f"pi.test:{port}")
    async with Endpoint(port, always(named("one"))):
        assert await ask(balancer) == (200, b"one")
        server.silent.add("pi.test.")
        until = time.monotonic() + 3
        while time.monotonic() < until:
            began = time.monotonic()
            assert await ask(balancer) == (200, b"one")
            assert time.monotonic() - began < 0.5, "the look-up is off the data path"
            await asyncio.sleep(0.1)
        del server.zone["pi.test."]
        server.silent.clear()
        await asyncio.sleep(1.5)
        assert await ask(balancer) == (200, b"one")


async def test_a_name_that_does_not_exist_fails_at_once_and_is_found_later(server: Server, by_name: Names) -> None:
    port = free_port()
    balancer = by_name(f"pi.test:{port}", retries=0)
    async with Endpoint(port, always(named("one"))):
        began = time.monotonic()
        for _ in range(10):
            assert (await ask(balancer))[0] == 502
        assert time.monotonic() - began < 2
        assert asked(server, "pi.test.") <= 3
        server.zone["pi.test."] = [("A", ["127.0.0.1"])]
        until = time.monotonic() + 5
        while (await ask(balancer)) != (200, b"one"):
            assert time.monotonic() < until
            await asyncio.sleep(0.1)


@pytest.fixture
def silent_address() -> AsyncIterator[tuple[str, int]]:  # type: ignore[misc]
    """An address that neither takes nor refuses connections, as a lost machine's."""
    port = free_port()
    full = socket.socket()
    full.bind(("127.0.0.1", port))
    full.listen(0)
    waiting = []
    for _ in range(3):
        each = socket.socket()
        each.setblocking(False)
        each.connect_ex(("127.0.0.1", port))
        waiting.append(each)
    yield "127.0.0.1", port
    for each in [*waiting, full]:
        each.close()


@pytest.mark.parametrize("mode", ["http", "tcp"])
async def test_a_names_second_address_is_tried_within_half_the_connect_timeout(
    mode: str, silent_address: tuple[str, int], server: Server, by_name: Names
) -> None:
    address, port = silent_address
    server.zone["pi.test."] = [("A", [address, "127.0.0.2"])]
    server.ttl = 60
    balancer = by_name(f"pi.test:{port}", mode=mode, connect_timeout=2, retries=0)
    async with Endpoint(port, always(named("two")), host="127.0.0.2"):
        began = time.monotonic()
        assert await ask(balancer) == (200, b"two")
        assert time.monotonic() - began < 1.6
        began = time.monotonic()
        assert await ask(balancer) == (200, b"two")
        assert time.monotonic() - began < 0.5, "what did not answer is tried last"


async def test_a_name_with_an_address_that_refuses_goes_to_the_next_at_once(server: Server, by_name: Names) -> None:
    port = free_port()
    server.zone["pi.test."] = [("A", ["127.0.0.1", "127.0.0.2"])]
    balancer = by_name(f"pi.test:{port}", retries=0)
    async with Endpoint(port, always(named("two")), host="127.0.0.2"):
        began = time.monotonic()
        assert await ask(balancer) == (200, b"two")
        assert time.monotonic() - began < 0.5


@pytest.mark.parametrize(
    "settings",
    [
        {"LB_BACKENDS": "a..b:80"},
        {"LB_BACKENDS": f"{'x' * 64}.test:80"},
        {"LB_DISCOVERY": "dns", "LB_DNS_NAME": "a..b", "LB_DNS_PORT": "80"},
        {"LB_DISCOVERY": "dns", "LB_DNS_NAME": "x" * 64, "LB_DNS_PORT": "80"},
        {"LB_BACKENDS": "a:80", "LB_UPSTREAM_TLS": "on", "LB_UPSTREAM_TLS_NAME": "a..b"},
        {"LB_BACKENDS": "a:80", "LB_PEERS": "a..b:80", "LB_PEERS_TOKEN": "t"},
    ],
    ids=lambda settings: list(settings)[-1] + "=" + settings[list(settings)[-1]][:5],
)
def test_a_host_that_is_no_name_stops_the_start(settings: dict[str, str]) -> None:
    command = [sys.executable, "-m", "balancer"]
    ended = subprocess.run(
        command, env={"PATH": "/bin", "LB_PORT": "0", "LB_ADMIN_PORT": "0", **settings}, capture_output=True, timeout=20
    )
    assert ended.returncode == 2, ended.stderr
    assert b"LB_" in ended.stderr
