"""Ports of Gateways on this machine: one that cannot be had, and one that closes while it is used."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from tests.balancer.discovery.gateway import cluster
from tests.balancer.discovery.gateway.replicas import GATEWAYS, until
from tests.balancer.discovery.gateway.test_traffic import running

from balancer.discovery.gateway import addresses


def taken(port: int) -> socket.socket | None:
    """A socket that listens there; None where it cannot."""
    held = socket.socket()
    try:
        held.bind(("127.0.0.1", port))
        held.listen()
    except OSError:
        held.close()
        return None
    return held


async def test_a_port_that_another_has_is_served_once_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as here:
        gateways, control = here.balancer.gateways, here.balancer.control
        assert gateways is not None
        assert control is not None
        await until(lambda: control.leads and not control.plan.statuses)
        held = [taken(port) for port in range(addresses.FIRST_PORT, addresses.LAST_PORT + 1)]
        here.api.put(GATEWAYS, dict(cluster.gateway(name="late")))
        await until(lambda: len(control.plan.ports) == 3 and not control.plan.statuses)
        assert len(gateways.ports) == 2
        for each in held:
            if each is not None:
                each.close()
        await until(lambda: len(gateways.ports) == 3)  # Though nothing has changed in the cluster.
        async with here.client.get(here.url("shop/late", "/")) as answer:
            assert answer.status == 404


async def test_who_leaves_waits_for_what_is_in_flight_at_a_port_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as here:
        gateways = here.balancer.gateways
        assert gateways is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port("shop/door"))
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nx")
        await until(lambda: any(each.requests for each in gateways.ports.values()))
        here.api.delete(GATEWAYS, ("shop", "door"))
        await until(lambda: len(gateways.ports) == 1)
        gateways.drain()
        gateways.stop_listening()
        leaving = asyncio.ensure_future(gateways.all_closed())
        assert not (await asyncio.wait([leaving], timeout=0.2))[0]
        writer.write(b"y")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await asyncio.wait_for(leaving, 20)
