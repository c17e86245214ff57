"""WebSocket conformance: every case of the Autobahn test suite gives through the balancer what it gives directly.

Autobahn's own runner needs Python 2.7. `kosoku` plays Autobahn's case files with another runner, so the cases are the
same. LB_TEST_WEBSOCKET=all plays the long ones too (performance and compression: minutes); without it the protocol's.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator

import kosoku
import pytest
from tests.balancer.proxy.wire.process import Start
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

PROTOCOL = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
"""Framing, pings, reserved bits, opcodes, fragmentation, UTF-8, closing, and auto-fragmentation."""
LONG = ["9.*", "12.*", "13.*"]
"""Limits and performance, compression."""
AT_ONCE = 4


async def echo(connection: ServerConnection) -> None:
    try:
        async for message in connection:
            await connection.send(message)
    except ConnectionClosed:
        pass


@pytest.fixture(autouse=True)
def no_shims_left() -> Iterator[None]:
    """The runner puts stand-ins for Python 2's modules, a `pkg_resources` among them, where other tests find them."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if "/kosoku/shim" in (getattr(module, "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture
async def echoes(start: Start) -> AsyncIterator[tuple[int, int]]:
    """Ports of an echo server: its own, and the balancer's before it."""
    balancer = start(access_log="off")
    logger = logging.getLogger("websockets.server")
    logger.setLevel(logging.CRITICAL)  # it tells of every connection that a case breaks on purpose
    async with serve(echo, "127.0.0.1", balancer.endpoints[0], max_size=None, logger=logger):
        yield balancer.endpoints[0], balancer.port


async def verdicts(port: int, cases: list[str]) -> dict[str, tuple[str, str]]:
    """By case: what came of the messages, and of the closing.

    OK and NON-STRICT are told apart by whether an echo came before or after the next frame: by time, not by bytes.
    """
    try:
        results = await kosoku.run_fuzzingclient(f"127.0.0.1:{port}", cases, None, concurrency=AT_ONCE)
    except kosoku.FailureError as failure:
        results = failure.results
    return {
        result.case_id: (result.behavior.value.replace("NON-STRICT", "OK"), result.behavior_close.value)
        for result in results
    }


@pytest.mark.timeout(1200)
async def test_every_autobahn_case_gives_through_us_what_it_gives_directly(echoes: tuple[int, int]) -> None:
    own, through = echoes
    cases = PROTOCOL + LONG if os.environ.get("LB_TEST_WEBSOCKET") == "all" else PROTOCOL
    directly = await verdicts(own, cases)
    assert len(directly) >= 247
    assert await verdicts(through, cases) == directly
    assert sum(message in ("OK", "INFORMATIONAL") for message, _ in directly.values()) > 240
