"""The proof that nothing was left behind: it must see what it is for."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import pytest
from tests.balancer.proxy.conftest import assert_at_rest
from tests.balancer.proxy.wire.ends import Accepted, Client, Endpoint
from tests.balancer.proxy.wire.messages import PATIENCE
from tests.balancer.proxy.wire.process import Start


def test_a_balancer_that_has_died_is_not_at_rest(start: Start) -> None:
    balancer = start(fresh=True)
    os.kill(balancer.process.pid, signal.SIGKILL)
    balancer.wait()
    with pytest.raises(AssertionError, match="ended by itself"):
        assert_at_rest(balancer)
    balancer.ended_by_test = True


async def test_an_open_connection_is_not_rest(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.balancer.proxy.conftest.SETTLE", 0.3)
    balancer = start()
    async with await Client.connect(balancer.port):
        with pytest.raises(AssertionError, match="not at rest"):
            assert_at_rest(balancer)
    monkeypatch.undo()


async def test_an_endpoint_that_closes_while_nobody_reads_leaves_no_transport() -> None:
    """Its script is over and its connection closing, and the rest of what it wrote waits for a reader."""
    transports: list[asyncio.WriteTransport] = []

    async def floods(connection: Accepted) -> None:
        connection.writer.write(bytes(64 << 20))
        transports.append(connection.writer.transport)

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with socket.socket() as client:
        client.setblocking(False)
        async with Endpoint(port, floods), asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
            while not (transports and transports[0].is_closing()):  # noqa: ASYNC110 (closing sets no event)
                await asyncio.sleep(0)
        assert transports[0].get_extra_info("socket").fileno() == -1
