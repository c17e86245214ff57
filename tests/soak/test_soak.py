"""A long time under mixed traffic over failing endpoints: at the end nothing is left, and every failure has its reason.

SOAK_MINUTES says how long (half a minute by default), SOAK_REPORT where the plot is written (build/soak.svg).
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.balancer.proxy.conftest import FAULTS, unrest
from tests.balancer.proxy.wire.ends import close_all
from tests.balancer.proxy.wire.process import Balancer
from tests.soak.plot import Series, svg
from tests.soak.traffic import Crowd, Fleet, Tally

MINUTES = float(os.environ.get("SOAK_MINUTES", "0.5"))
REPORT = Path(os.environ.get("SOAK_REPORT", "build/soak.svg"))
MIB = 1 << 20
FLAT = MIB
"""By how much memory may differ (bytes) between the last two quarters of ten minutes or more."""
WARMING = 8 * MIB
"""And between the second and the last of a shorter run."""
CLIENTS = {"small": 6, "large": 2, "upload": 2, "slow": 4, "events": 3, "aborted": 3, "websocket": 3, "broken": 3}
"""How many of each kind at once."""
PAUSE = 0.02
"""Seconds between two of one client, on average."""


@dataclass
class Sample:
    """One look at the process."""

    at: float
    memory: int
    files: int
    in_flight: float


async def watch(balancer: Balancer, samples: list[Sample]) -> None:
    """Look at memory, files and requests in flight twice a second until cancelled."""
    begun = time.monotonic()
    while True:
        in_flight = await asyncio.to_thread(balancer.metric, "lb_requests_in_flight")
        samples.append(Sample(time.monotonic() - begun, balancer.memory(), balancer.open_files(), in_flight))
        await asyncio.sleep(0.5)


async def load(balancer: Balancer, samples: list[Sample]) -> Tally:
    """Traffic for as long as was asked for, then silence."""
    chance = random.Random(2026)
    fleet = Fleet(list(balancer.endpoints), chance)
    crowd = Crowd(balancer.port, chance)
    for endpoint in fleet.endpoints:
        await endpoint.start()
    life = asyncio.create_task(fleet.live())
    watching = asyncio.create_task(watch(balancer, samples))
    clients = [asyncio.create_task(crowd.run(kind, PAUSE)) for kind, count in CLIENTS.items() for _ in range(count)]
    await asyncio.sleep(MINUTES * 60)
    crowd.stopping = True
    await asyncio.gather(*clients)
    for task in (life, watching):
        task.cancel()
    await asyncio.gather(life, watching, return_exceptions=True)
    for endpoint in fleet.endpoints:
        await endpoint.stop()
        assert endpoint.broken == []
    await close_all()
    return crowd.tally


def quarters(memory: list[int]) -> list[str]:
    size = max(1, len(memory) // 4)
    return [f"{statistics.median(memory[start : start + size]) / MIB:.2f}" for start in range(0, 4 * size, size)]


def report(tally: Tally, samples: list[Sample], balancer: Balancer) -> str:
    """The plot, written; and the words."""
    times = [sample.at for sample in samples]
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(
        svg(
            f"{MINUTES:g} minutes of mixed traffic",
            times,
            [
                Series("resident memory (MiB)", [sample.memory / MIB for sample in samples]),
                Series("open file descriptors", [float(sample.files) for sample in samples]),
                Series("requests in flight", [sample.in_flight for sample in samples]),
            ],
        )
    )
    return "\n".join(
        [
            f"served: {dict(tally.whole)}",
            f"told: {dict(tally.told)}",
            f"cut: {dict(tally.cut)}",
            f"endpoint failures: {balancer.metric('lb_endpoint_failures_total'):.0f}",
            f"memory by quarter (MiB): {', '.join(quarters([sample.memory for sample in samples]))}",
            f"plot: {REPORT}",
        ]
    )


@pytest.mark.timeout(int(MINUTES * 60) + 120)
async def test_a_long_time_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {
        "LB_RESPONSE_TIMEOUT": "1",
        "LB_EJECT_AFTER": "5",
        "LB_EJECT_TIME": "1",
        "LB_ACCESS_LOG": "off",
        "LB_STRATEGY": "least-response-time",
    }
    balancer = Balancer(tmp_path / "log", 4, settings)
    try:
        at_start = balancer.open_files()
        samples: list[Sample] = []
        tally = await load(balancer, samples)
        deadline = time.monotonic() + 10
        while left := unrest(balancer):
            assert time.monotonic() < deadline, left
            await asyncio.sleep(0.1)
        words = report(tally, samples, balancer)
        with capsys.disabled():
            sys.stdout.write(f"\n{words}\n")
        assert tally.unexplained == [], words
        assert_explained(tally, balancer, words)
        assert_flat([sample.memory for sample in samples])
        assert balancer.garbage() == {}
        await until_files_are_back(balancer, at_start)
        said = balancer.log()
        assert not any(fault in said for fault in FAULTS), said[-5000:]
        assert sum(tally.whole.values()) > 100 * MINUTES, words
    finally:
        balancer.stop()


def assert_explained(tally: Tally, balancer: Balancer, words: str) -> None:
    """A response cut short has an endpoint's failure behind it; an error told was counted by its reason."""
    failures = balancer.metric("lb_endpoint_failures_total")
    assert sum(tally.cut.values()) <= failures + balancer.metric("lb_errors_total"), words
    own = sum(count for what, count in tally.told.items() if "of the endpoint" not in what)
    assert own <= balancer.metric("lb_errors_total"), words


def assert_flat(memory: list[int]) -> None:
    """The last quarter holds, on its median, hardly more than the one that the warming up is over by.

    After five minutes whatever is kept on purpose is full: the decisions, the dashboard's seconds, idle connections. So
    ten minutes may differ by FLAT between their last two quarters; a shorter run shows only what grows without bound.
    """
    quarter = len(memory) // 4
    warm, bound = (2, FLAT) if MINUTES >= 10 else (1, WARMING)
    early, late = statistics.median(memory[warm * quarter : (warm + 1) * quarter]), statistics.median(memory[-quarter:])
    assert late - early < bound, f"{early / MIB:.1f} MiB became {late / MIB:.1f} MiB"


async def until_files_are_back(balancer: Balancer, at_start: int) -> None:
    deadline = time.monotonic() + 5
    while (now := balancer.open_files()) > at_start + 4:
        assert time.monotonic() < deadline, f"{at_start} file descriptors at the start, {now} at the end"
        await asyncio.sleep(0.1)
