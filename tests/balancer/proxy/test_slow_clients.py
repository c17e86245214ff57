"""A thousand clients that take no answer, or send to an endpoint that takes nothing: what they cost, and give back.

`python -m benchmarks.slow_clients --clients 10000` is the same with ten thousand.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from benchmarks import slow_clients
from tests.balancer.proxy.wire.authority import Authority
from tests.balancer.proxy.wire.process import Start

CLIENTS = 1000
MOST = {"read": 64, "upload": 64, "tcp": 64, "tls": 64, "tls-idle": 64, "h2": 64}
"""KiB for each: OpenSSL's session takes some 20 of those with TLS, and what goes through it at once comes on top."""


@pytest.mark.parametrize("kind", slow_clients.KINDS)
async def test_a_thousand_slow_clients_cost_little_each_and_give_it_back(
    kind: str, start: Start, authority: Authority
) -> None:
    settings: dict[str, object] = {"access_log": "off", "max_buffer_memory": "128MiB"}
    if kind == "tcp":
        settings["mode"] = "tcp"
    if kind.startswith("tls"):
        settings |= {"tls_cert": authority.certificate, "tls_key": authority.key}
    balancer = start(fresh=True, open_files=4096, **settings)
    command = [sys.executable, "-m", "benchmarks.slow_clients", "--serve", str(balancer.endpoints[0])]
    endpoint = subprocess.Popen(command)  # noqa: ASYNC220 (it does not block)
    try:
        await asyncio.to_thread(slow_clients.until_served, balancer.endpoints[0])
        seconds = 0.0 if kind.startswith("tls") else 1.0
        result = await asyncio.to_thread(
            slow_clients.measure, balancer.port, balancer.process.pid, kind, CLIENTS, seconds
        )
    finally:
        endpoint.kill()
        endpoint.wait()
    assert result.each < MOST[kind] << 10, f"{result.each / 1024:.0f} KiB each"
    assert result.failed == 0
    assert result.after - result.before < 20 << 20, f"{(result.after - result.before) >> 20} MiB not given back"
