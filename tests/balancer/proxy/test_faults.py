"""A fault of our own, raised in any callback: it closes its connection, is counted and logged, and leaks nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import pytest
from tests.balancer.proxy.test_upgrade import SWITCH, UPGRADE
from tests.balancer.proxy.wire.authority import Authority
from tests.balancer.proxy.wire.ends import OK, Accepted, Client, Endpoint
from tests.balancer.proxy.wire.http2 import H2Client, H2Endpoint
from tests.balancer.proxy.wire.messages import Closed
from tests.balancer.proxy.wire.process import Balancer, Start

from balancer.proxy import exchange

COMPILED = "LB_TEST_PYTHON" in os.environ or not str(exchange.__file__).endswith(".py")
pytestmark = pytest.mark.skipif(COMPILED, reason="compiled classes cannot be patched")

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n"
PUT = "PUT / HTTP/1.1\r\nHost: lb.test\r\nContent-Length: 5\r\n\r\nhello"
QUICK = {"idle_timeout": 1, "request_timeout": 1, "response_timeout": 1, "connect_timeout": 1, "keepalive_timeout": 1}

HTTP1 = "http1.server:ServerConnection"
TO_HTTP1 = "http1.client:ClientConnection"
HTTP2 = "http2.server:ServerConnection"
TO_HTTP2 = "http2.client:ClientConnection"


async def serves(connection: Accepted) -> None:
    """Answers; an upgrade is a tunnel that echoes."""
    while True:
        request = await connection.request()
        if request.target == "/chat":
            await connection.send(SWITCH)
            while data := await connection.some(10):
                await connection.send(data)
        elif request.target == "/late":
            await connection.to_end()
        elif request.target == "/large":
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + bytes(3_000_000))
        else:
            await connection.send(OK)


async def plays(balancer: Balancer, mode: str, authority: Authority) -> None:
    """Everything that a client may do, each on a connection of its own; what comes back is no matter."""
    tls = authority.client() if "tls" in mode else None
    for request in (GET, PUT, UPGRADE, GET.replace("/", "/late", 1), GET.replace("/", "/large", 1), "GET / HT"):
        with contextlib.suppress(OSError, Closed, TimeoutError, asyncio.TimeoutError, ValueError):
            client = await Client.connect(balancer.port, tls=tls)
            try:
                await client.send(request)
                if request == UPGRADE and "tcp" not in mode:
                    await client.head()
                    await client.send("echo")
                    await client.some(0.2)
                elif "/late" in request or request == "GET / HT":
                    await client.some(0.1)
                else:
                    await client.some(1)
                    client.half_close() if tls is None else None
                    await client.some(0.2)
            finally:
                await client.close()
    if mode in ("http", "tls"):
        with contextlib.suppress(OSError, Closed, TimeoutError, ValueError, AssertionError):
            context = authority.client()
            context.set_alpn_protocols(["h2"])
            async with await H2Client.connect(balancer.port, tls=context if tls else None) as h2:
                for path in ("/", "/large"):
                    stream = await h2.begin(
                        [(":method", "GET"), (":scheme", "http"), (":authority", "lb.test"), (":path", path)]
                    )
                    async with asyncio.timeout(1):
                        await h2.answer(stream)


@contextlib.asynccontextmanager
async def endpoint(balancer: Balancer, protocol: str) -> AsyncIterator[None]:
    if protocol == "h2c":
        async with H2Endpoint(balancer.endpoints[0]):
            yield
    else:
        async with Endpoint(balancer.endpoints[0], serves, remembers=False) as end:
            yield
            end.broken.clear()


CALLBACKS = ("connection_made", "data_received", "eof_received", "connection_lost", "pause_writing", "resume_writing")
CASES = [
    *[("http", "http1", f"{HTTP1}.{each}") for each in (*CALLBACKS, "expired", "respond", "data", "finished")],
    *[("http", "http1", f"{TO_HTTP1}.{each}") for each in (*CALLBACKS, "expired", "send", "_release", "_read_body")],
    *[("http", "http1", f"{HTTP2}.{each}") for each in (*CALLBACKS, "expired", "flush", "stream_opened")],
    *[("http", "h2c", f"{TO_HTTP2}.{each}") for each in (*CALLBACKS, "expired", "flush", "open")],
    ("http", "h2c", "http2.heads:ResponseHeads.read"),
    *[("http", "http1", f"exchange:Exchange.{each}") for each in ("start", "leased", "connected", "_send", "response")],
    *[("http", "http1", f"exchange:Exchange.{each}") for each in ("response_data", "response_ended", "request_data")],
    *[("http", "http1", f"exchange:Exchange.{each}") for each in ("switched", "client_left", "expired", "_describe")],
    *[("http", "h2c", f"exchange:Exchange.{each}") for each in ("response", "response_ended", "attempt_failed")],
    *[("http", "http1", f"http1.upstreams:Opening.{each}") for each in ("opened", "not_opened")],
    *[("http", "http1", f"connector:Connecting.{each}") for each in ("ready", "_connected", "expired", "settle")],
    *[("http", "http1", f"door:Door.{each}") for each in ("_count", "_go_on", "_attach", "is_trusted")],
    *[("http", "http1", f"opening:Opening.{each}") for each in ("connection_made", "data_received", "connection_lost")],
    *[("tls", "http1", f"door:Door.{each}") for each in ("secured", "not_secured", "_attach")],
    *[("tls", "http1", f"tls:TlsTransport.{each}") for each in ("_read", "_shake", "_take", "write", "begin")],
    *[("tls", "http1", f"{HTTP1}.{each}") for each in CALLBACKS],
    *[("tcp", "http1", f"tcp:TcpConnection.{each}") for each in (*CALLBACKS[:4], "leased", "opened", "not_opened")],
    *[("tcp", "http1", f"tcp:TcpConnection.{each}") for each in ("_join", "_end", "_log", "expired")],
    *[("tcp", "http1", f"tunnel:Side.{each}") for each in CALLBACKS[1:]],
    *[("tcp", "http1", f"tunnel:Tunnel.{each}") for each in ("expired", "touched", "count")],
    *[("tcp-tls", "http1", f"tunnel:Side.{each}") for each in CALLBACKS[1:]],
    *[("proxied", "http1", f"opening:ProxyHeader.{each}") for each in ("connection_made", "data_received", "expired")],
    *[("proxied", "http1", f"door:Door.{each}") for each in ("named", "_go_on")],
]


@pytest.mark.parametrize(("mode", "protocol", "callback"), CASES, ids=lambda value: str(value).rpartition(":")[2])
async def test_a_fault_in_a_callback_leaks_nothing(
    mode: str, protocol: str, callback: str, start: Start, authority: Authority
) -> None:
    settings: dict[str, object] = {"access_log": "on", "eject_after": 0, **QUICK, "test_faults": callback}
    if "tcp" in mode:
        settings["mode"] = "tcp"
    elif protocol == "h2c":
        settings["upstream_protocol"] = "h2c"
    if "tls" in mode:
        settings |= {"tls_cert": authority.certificate, "tls_key": authority.key}
    if mode == "proxied":
        settings |= {"proxy_protocol": "on", "trusted_proxies": "127.0.0.0/8"}
    balancer = start(fresh=True, **settings)
    balancer.faulty = True
    async with endpoint(balancer, protocol):
        await plays(balancer, mode, authority)
    await plays(balancer, mode, authority)  # and where nobody answers
    # That nothing is left is what the fixture asserts; and it still serves, once the faults are over.
    assert balancer.alive
    balancer.heal()
    if mode == "http" and protocol == "http1":
        async with Endpoint(balancer.endpoints[0]), await Client.connect(balancer.port) as client:
            assert (await client.ask(GET)).status == 200
    hit = "injected fault" in balancer.log()
    assert hit == (balancer.metric("lb_internal_faults_total") > 0)
    HITS[callback] = HITS.get(callback, False) or hit


HITS: dict[str, bool] = {}


def test_most_faults_were_met() -> None:
    """A callback that never ran proves nothing: nearly all of them did."""
    if len(HITS) > 50:
        missed = sorted(name for name, hit in HITS.items() if not hit)
        assert len(missed) <= 24, missed
