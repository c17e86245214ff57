"""Addresses of a name, from a real DNS server on loopback that answers, lies and falls silent on command."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import dns.rcode
import dns.rdatatype
import pytest
from tests.balancer.discovery.nameserver import Server

from balancer import resolving
from balancer.discovery import Status
from balancer.discovery import dns as dns_discovery
from balancer.discovery.dns import DnsDiscovery


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server.serving() as made:
        yield made


@pytest.fixture
def resolve(server: Server, read: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Starts reading a name, with the search domain `shop.local` and an answer believed for 20 ms at least."""
    resolv_conf, hosts = tmp_path / "resolv.conf", tmp_path / "hosts"
    resolv_conf.write_text("nameserver 127.0.0.1\nsearch shop.local\noptions ndots:2\n")
    hosts.write_text("127.0.0.1 here\n")

    def start(name: str = "pi.example.", lifetime: float = 5.0) -> Any:
        discovery = DnsDiscovery(name, 8000, Status("dns"), Random(1))
        assert server.transport is not None
        discovery.server_port = server.transport.get_extra_info("sockname")[1]
        discovery.resolv_conf, discovery.hosts = resolv_conf, hosts
        discovery.lifetime = lifetime
        discovery.ttl_least = 0.02
        return read(discovery)

    return start


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures are followed by a short pause; every IPv6 address has a route."""
    monkeypatch.setattr(dns_discovery, "BACKOFF_FIRST", 0.02)
    monkeypatch.setattr(dns_discovery, "BACKOFF_MOST", 0.05)
    monkeypatch.setattr(resolving, "has_route", lambda _: True)


async def test_every_address_of_both_families_is_an_endpoint(server: Server, resolve: Callable[..., Any]) -> None:
    server.zone["pi.example."] = [("A", ["10.0.0.2", "10.0.0.10", "10.0.0.1"]), ("AAAA", ["fd00::1"])]
    reader = resolve()
    await reader.until(lambda: reader.snapshots)
    assert reader.last == ["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.10:8000", "[fd00::1]:8000"]
    assert reader.status.error is None


async def test_the_name_is_asked_again_when_its_ttl_is_over_and_not_before(
    server: Server, resolve: Callable[..., Any]
) -> None:
    server.zone["pi.example."] = [("A", ["10.0.0.1"])]
    reader = resolve()
    await reader.until(lambda: reader.last == ["10.0.0.1:8000"])
    since = time.monotonic()
    server.zone["pi.example."] = [("A", ["10.0.0.2"])]
    await reader.until(lambda: "10.0.0.2:8000" in reader.last)
    assert 0.9 < time.monotonic() - since < 3


async def test_a_ttl_of_nothing_does_not_ask_without_pause(server: Server, resolve: Callable[..., Any]) -> None:
    server.zone["pi.example."] = [("A", ["10.0.0.1"])]
    server.ttl = 0
    reader = resolve()
    await reader.until(lambda: reader.snapshots)
    before = len(server.asked)
    await asyncio.sleep(0.2)
    assert len(server.asked) - before <= 2 * 10 + 2


async def test_the_order_in_which_a_server_rotates_its_answer_is_no_change(
    server: Server, resolve: Callable[..., Any]
) -> None:
    server.ttl = 0
    server.zone["pi.example."] = [("A", ["10.0.0.1", "10.0.0.2"])]
    reader = resolve()
    await reader.until(lambda: reader.snapshots)
    server.zone["pi.example."] = [("A", ["10.0.0.2", "10.0.0.1"])]
    asked = len(server.asked)
    await reader.until(lambda: len(server.asked) > asked + 4)
    assert len(reader.snapshots) == 1


async def test_an_answer_that_names_a_changing_part_of_a_set_does_not_churn(
    server: Server, resolve: Callable[..., Any]
) -> None:
    server.ttl = 0
    everyone = [f"10.0.0.{number}" for number in range(1, 25)]
    server.zone["pi.example."] = [("A", everyone[:8])]
    reader = resolve()
    reader.discovery._clock = lambda: len(server.asked) * 0.01  # 20 ms for each answer, however busy this machine is
    for turn in range(12):
        part = [everyone[(8 * turn + number) % 24] for number in range(8)]
        server.zone["pi.example."] = [("A", part)]
        asked = len(server.asked)
        await reader.until(lambda asked=asked: len(server.asked) >= asked + 4)  # two questions, of both families
    assert len(reader.last) == 24
    grown = [len(snapshot) for snapshot in reader.snapshots]
    assert grown == sorted(grown), "none has left"


async def test_an_address_that_stays_missing_leaves_after_a_while(server: Server, resolve: Callable[..., Any]) -> None:
    server.ttl = 0
    server.zone["pi.example."] = [("A", ["10.0.0.1", "10.0.0.2"])]
    reader = resolve()
    reader.discovery._clock = lambda: len(server.asked) * 0.01
    await reader.until(lambda: len(reader.last) == 2)
    asked = len(server.asked)
    server.zone["pi.example."] = [("A", ["10.0.0.1"])]
    await reader.until(lambda: reader.last == ["10.0.0.1:8000"])
    assert len(server.asked) - asked >= 2 * 9, "ten TTLs, the least of which is 20 ms here"


async def test_aliases_are_followed_and_search_domains_count(server: Server, resolve: Callable[..., Any]) -> None:
    server.zone["pi.shop.local."] = [("CNAME", ["real.shop.local."]), ("A", ["10.0.0.1"])]
    reader = resolve("pi")
    await reader.until(lambda: reader.last == ["10.0.0.1:8000"])
    assert ("pi.shop.local.", "A") in server.asked


async def test_an_answer_too_large_for_a_datagram_comes_whole(server: Server, resolve: Callable[..., Any]) -> None:
    server.zone["pi.example."] = [("A", [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(500)])]
    reader = resolve()
    await reader.until(lambda: len(reader.last) == 500)


async def test_a_name_that_does_not_exist_yet_is_told_and_asked_again(
    server: Server, resolve: Callable[..., Any], logs: list[Any]
) -> None:
    reader = resolve()
    await reader.until(lambda: reader.status.events.get("no_name", 0) >= 3)
    assert "NXDOMAIN" in reader.status.error
    assert "LB_DNS_NAME" in reader.status.error
    assert "No endpoint is known yet" in reader.status.error
    assert reader.status.fresh_at is None
    server.zone["pi.example."] = [("A", ["10.0.0.1"])]
    await reader.until(lambda: reader.last == ["10.0.0.1:8000"])
    assert [line["event"] for line in logs] == ["discovery_failing", "discovery_recovered"]


@pytest.mark.parametrize(
    ("break_it", "kind", "told"),
    [
        (lambda server: server.zone.clear(), "no_name", "NXDOMAIN"),
        (lambda server: server.zone.update({"pi.example.": []}), "no_address", "no address"),
        (
            lambda server: server.rcodes.update(A=dns.rcode.SERVFAIL, AAAA=dns.rcode.SERVFAIL),
            "server_failure",
            "SERVFAIL",
        ),
        (lambda server: server.rcodes.update(A=dns.rcode.REFUSED, AAAA=dns.rcode.REFUSED), "server_failure", "REFUSED"),
        (lambda server: server.silent.update({"A", "AAAA"}), "timed_out", "No DNS server answered"),
    ],
)
async def test_each_failure_keeps_the_last_addresses_and_says_which_it_was(
    server: Server, resolve: Callable[..., Any], break_it: Callable[[Server], None], kind: str, told: str
) -> None:
    server.ttl = 0
    server.zone["pi.example."] = [("A", ["10.0.0.1"])]
    reader = resolve(lifetime=0.3)
    await reader.until(lambda: reader.snapshots)
    break_it(server)
    await reader.until(lambda: reader.status.events.get(kind))
    assert told in reader.status.error
    assert "last known endpoints go on serving" in reader.status.error
    assert reader.status.stale
    assert reader.last == ["10.0.0.1:8000"]


@pytest.mark.parametrize("way", ["silent", "failing"])
async def test_one_family_that_fails_does_not_cost_the_other(
    server: Server, resolve: Callable[..., Any], way: str
) -> None:
    server.zone["pi.example."] = [("A", ["10.0.0.1"])]
    if way == "silent":
        server.silent.add("AAAA")
    else:
        server.rcodes["AAAA"] = dns.rcode.SERVFAIL
    reader = resolve(lifetime=0.3)
    await reader.until(lambda: reader.last == ["10.0.0.1:8000"])
    assert reader.status.error is None


async def test_a_family_that_fails_later_keeps_its_last_addresses(server: Server, resolve: Callable[..., Any]) -> None:
    server.ttl = 0
    server.zone["pi.example."] = [("A", ["10.0.0.1"]), ("AAAA", ["fd00::1"])]
    reader = resolve()
    await reader.until(lambda: len(reader.last) == 2)
    server.rcodes["AAAA"] = dns.rcode.SERVFAIL
    server.zone["pi.example."] = [("A", ["10.0.0.2"])]
    await reader.until(lambda: reader.last == ["10.0.0.2:8000", "[fd00::1]:8000"])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("here", ["127.0.0.1:8000"]),
        ("HERE.", ["127.0.0.1:8000"]),
        ("localhost", ["127.0.0.1:8000", "[::1]:8000"]),
        ("10.0.0.7", ["10.0.0.7:8000"]),
        ("fd00::7", ["[fd00::7]:8000"]),
    ],
)
async def test_names_of_the_hosts_file_localhost_and_addresses_need_no_server(
    server: Server, resolve: Callable[..., Any], name: str, found: list[str]
) -> None:
    reader = resolve(name)
    await reader.until(lambda: reader.snapshots)
    assert reader.last == found
    assert not server.asked


async def test_addresses_without_a_route_are_left_out_while_there_are_others(
    server: Server, resolve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolving, "has_route", lambda _: False)
    server.ttl = 0
    server.zone["pi.example."] = [("A", ["10.0.0.1"]), ("AAAA", ["fd00::1"])]
    reader = resolve()
    await reader.until(lambda: reader.last == ["10.0.0.1:8000"])
    server.zone["pi.example."] = [("AAAA", ["fd00::1"])]
    await reader.until(lambda: reader.last == ["[fd00::1]:8000"])


async def test_a_resolv_conf_without_servers_is_told(
    server: Server, resolve: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "resolv.conf").unlink()
    reader = resolve()
    await reader.until(lambda: reader.status.stale)
    assert "resolv.conf" in reader.status.error
    server.zone["pi.example."] = [("A", ["10.0.0.1"])]
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    await reader.until(lambda: reader.last == ["10.0.0.1:8000"])
