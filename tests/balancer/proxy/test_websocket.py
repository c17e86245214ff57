"""WebSocket conformance: every case of the Autobahn test suite gives through the balancer what it gives directly.

Autobahn's own runner needs Python 2.7. `kosoku` plays Autobahn's case files with another runner, so the cases are the
same. LB_TEST_WEBSOCKET=all plays all 517 (seven minutes); without it most of compression is left out.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator

import kosoku
import pytest
from tests.balancer.proxy.wire.process import Start
from tests.balancer.proxy.wire.websocket import echo

FIRST = ["12.1.1", "12.2.1", "12.3.1", "12.4.1", "12.5.1", *(f"13.{kind}.1" for kind in range(1, 8))]
QUICK = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", *FIRST]
"""Framing, pings, reserved bits, opcodes, fragmentation, UTF-8, closing, limits; of compression each kind once."""
COMPRESSION = [f"12.{kind}.*" for kind in range(1, 6)] + [f"13.{kind}.*" for kind in range(1, 8)]
"""All of compression: 18 cases of each kind."""
PARTS = [(QUICK, 313), *(([kind], 18) for kind in COMPRESSION if os.environ.get("LB_TEST_WEBSOCKET") == "all")]
"""Cases to be played together, and how many they are."""
AT_ONCE = 4
FAILURES = {"FAILED", "ERROR", "UNIMPLEMENTED", "UNCLEAN", "WRONG CODE", "FAILED BY CLIENT"}


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
    async with await asyncio.start_server(echo, "127.0.0.1", balancer.endpoints[0]):
        yield balancer.endpoints[0], balancer.port


Seen = tuple[tuple[str, str], tuple[str, str], object, object, object, object]


async def verdicts(port: int, cases: list[str]) -> dict[str, Seen]:
    """By case: the verdicts on messages and closing, in the suite's words; what came back; how the connection ended."""
    try:
        results = await kosoku.run_fuzzingclient(f"127.0.0.1:{port}", cases, None, concurrency=AT_ONCE)
    except kosoku.FailureError as failure:
        results = failure.results
    return {
        case.case_id: (
            (case.behavior.value, case.result),
            (case.behavior_close.value, case.result_close),
            (case.remote_close_code, case.remote_close_reason, case.was_clean, case.was_not_clean_reason),
            (case.closed_by_me, case.failed_by_me, case.dropped_by_me),
            sorted(case.rx_frame_stats.items()),
            repr(case.received),
        )
        for case in results
    }


@pytest.mark.filterwarnings("ignore:.*kosoku.*testdata:pytest.PytestUnraisableExceptionWarning")  # left open by a case
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("cases", "count"), PARTS, ids=lambda part: part[0] if isinstance(part, list) else "")
async def test_every_autobahn_case_gives_through_us_what_it_gives_directly(
    cases: list[str], count: int, echoes: tuple[int, int]
) -> None:
    own, through = echoes
    directly = await verdicts(own, cases)
    behind_us = await verdicts(through, cases)
    assert {case: seen for case, seen in behind_us.items() if seen != directly[case]} == {}
    assert len(behind_us) == len(directly) == count
    # What fails directly would hide what we break. `websockets` tells of 7.1.5 by another code than the suite expects.
    failed = [case for case, seen in directly.items() if FAILURES.intersection(verdict for verdict, _ in seen[:2])]
    assert failed == (["7.1.5"] if cases is QUICK else [])
