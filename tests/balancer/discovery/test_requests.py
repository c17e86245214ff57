"""From the API's event to the requests: how soon a new endpoint gets its first, and a removed one its last."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

CHANGES = 40
BOUND = 0.1
"""Seconds, for 99 of 100 changes."""
STALL = 0.05
"""An ordinary request that takes longer (s) shows a machine that is busy with something else."""


class Endpoint:
    """A server on a loopback address of its own that notes when it is asked."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked: list[float] = []
        self._server: asyncio.Server | None = None

    async def start(self, port: int) -> int:
        self._server = await asyncio.start_server(self._serve, self.address, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.asked.append(time.perf_counter())
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def balancer(kubeconfig: Path) -> AsyncIterator[int]:
    """A balancer of the Service `pi`; its port."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("LB_", "KUBE"))}
    environ |= {
        "KUBECONFIG": str(kubeconfig),
        "LB_DISCOVERY": "kubernetes",
        "LB_KUBERNETES_SERVICE": "pi",
        "LB_HOST": "127.0.0.1",
        "LB_PORT": "0",
        "LB_ADMIN_PORT": "0",
        "LB_ACCESS_LOG": "off",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "balancer", env=environ, cwd=kubeconfig.parent, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    port = 0
    while not port:
        line = (await process.stderr.readline()).decode()
        assert line, "the balancer ended at its start"
        if '"listening"' in line:
            port = json.loads(line)["port"]
    drained = asyncio.create_task(process.stderr.read())
    try:
        yield port
    finally:
        process.terminate()
        await process.wait()
        await drained


class Client:
    """A keep-alive connection with a request every five milliseconds or so, which knows how slow it lately was."""

    def __init__(self) -> None:
        self.statuses: set[bytes] = set()
        self.slowest = 0.0

    async def run(self, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while True:
                began = time.perf_counter()
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                self.statuses.add(head.split(b" ", 2)[1])
                await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
                await asyncio.sleep(0.005)
                self.slowest = max(self.slowest, time.perf_counter() - began)
        finally:
            writer.close()


class Change:
    """One change of the slice, and what came of it."""

    def __init__(self, clients: list[Client]) -> None:
        self.clients = clients
        self.told = time.perf_counter()
        for client in clients:
            client.slowest = 0.0

    async def over(self) -> bool:
        """Wait until it must have had its effect; whether the machine had time for us meanwhile.

        Others work on it too: where ordinary requests took long, a delay says nothing about the discovery.
        """
        await asyncio.sleep(2 * BOUND)
        return all(0 < client.slowest < STALL for client in self.clients)


@pytest.mark.timeout(120)
async def test_a_change_reaches_the_requests_within_100_ms(api: Any) -> None:
    stays, comes = Endpoint("127.0.0.1"), Endpoint("127.0.0.2")
    port = await stays.start(0)
    await comes.start(port)

    def put(*endpoints: Endpoint) -> None:
        api.put(
            {
                "metadata": {"name": "pi-1", "labels": {"kubernetes.io/service-name": "pi"}},
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": port}],
                "endpoints": [{"addresses": [each.address]} for each in endpoints],
            }
        )

    put(stays)
    first: list[float] = []
    last: list[float] = []
    clients = [Client(), Client()]
    async with balancer(api.kubeconfig) as lb_port:
        await api.until_watching()
        tasks = [asyncio.create_task(client.run(lb_port)) for client in clients]
        end = time.monotonic() + 30
        while min(len(first), len(last)) < CHANGES and time.monotonic() < end:
            comes.asked.clear()
            coming = Change(clients)
            put(stays, comes)
            if await coming.over():
                first.append(comes.asked[0] - coming.told if comes.asked else float("inf"))
            leaving = Change(clients)
            put(stays)
            if await leaving.over():
                last.append(max(comes.asked, default=0.0) - leaving.told)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Their connections end before their servers do.
        await asyncio.sleep(0)
    await stays.stop()
    await comes.stop()
    assert clients[0].statuses | clients[1].statuses == {b"200"}
    if min(len(first), len(last)) < CHANGES // 2:
        pytest.skip(f"the machine is too busy to measure: {len(first)}, {len(last)} of {CHANGES} changes undisturbed")
    for delays in (first, last):
        delays.sort()
        assert delays[math.ceil(len(delays) * 0.99) - 1] < BOUND, delays[-5:]
