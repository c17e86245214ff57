"""Ports of Gateways on this machine: one that cannot be had, and one that closes while it is used."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from tests.balancer.discovery.gateway import cluster
from tests.balancer.discovery.gateway.replicas import GATEWAYS, ROUTES, until
from tests.balancer.discovery.gateway.test_traffic import running

from balancer import gateways as data_plane
from balancer.discovery.gateway import addresses
from balancer.discovery.gateway.objects import Meta, Secret


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


async def test_who_leaves_serves_by_the_rules_that_are_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as here:
        gateways = here.balancer.gateways
        assert gateways is not None
        gateways.drain()
        here.api.put(GATEWAYS, dict(cluster.gateway(name="new")))
        status = 0
        here.api.put(ROUTES, cluster.route({"filters": [{"type": "RequestRedirect", "requestRedirect": {}}]}))
        for _ in range(400):
            async with here.client.get(here.url("shop/door", "/"), allow_redirects=False) as answer:
                status = answer.status
            if status == 302:
                break
            await asyncio.sleep(0.005)
        assert status == 302
        assert len(gateways.ports) == 2


def test_a_certificate_is_loaded_once_to_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each plan asks again, of all of them.
    made, make = [], os.memfd_create

    def counting(*arguments: Any) -> int:
        made.append(arguments)
        return make(*arguments)

    monkeypatch.setattr(os, "memfd_create", counting)
    meta = Meta("Secret", "shop", "cert", "", 0, "", "")
    for _ in range(3):
        assert data_plane.usable(Secret(meta, b"no certificate", b"no key"))
    assert len(made) == 1
