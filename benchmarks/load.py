"""The load generators, and what is read from their reports.

wrk asks as fast as it is answered and counts: that shows throughput, but hides latency, since a late answer holds back
the next question (coordinated omission). So latency is measured open loop, at a fixed rate whatever comes back: by oha,
which reckons from when a request should have gone, or by vegeta.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

QUANTILES = (0.5, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Closed:
    """What wrk reports."""

    requests: int
    seconds: float
    errors: int
    """Failed connections, broken reads and writes, and answers other than 2xx and 3xx; but no time-outs."""


@dataclass(frozen=True, slots=True)
class Open:
    """What came of requests sent at a fixed rate; times in seconds."""

    requests: int
    failures: int
    """Those without a 2xx answer."""
    mean: float
    quantiles: dict[float, float]


class LoadError(Exception):
    """The generator did not do its work."""


def parse_wrk(text: str) -> Closed:
    """Read what wrk prints."""
    counted = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)", text)
    if counted is None:
        raise LoadError(f"wrk says: {text}")
    seconds = float(counted[2]) * {"ms": 0.001, "s": 1.0, "m": 60.0}[counted[3]]
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+)", text)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = sum(map(int, broken.groups())) if broken else 0
    return Closed(int(counted[1]), seconds, errors + (int(refused[1]) if refused else 0))


def parse_oha(text: str) -> Open:
    """Read the JSON that oha prints."""
    report = json.loads(text)
    statuses: dict[str, int] = report["statusCodeDistribution"]
    failed = sum(report["errorDistribution"].values())
    requests = sum(statuses.values()) + failed
    good = sum(count for status, count in statuses.items() if status.startswith("2"))
    percentiles = report["latencyPercentiles"]
    found = {0.5: percentiles["p50"], 0.99: percentiles["p99"], 0.999: percentiles["p99.9"]}
    return Open(requests, requests - good, report["summary"]["average"], found)


def parse_vegeta(rows: Iterable[str], failed_as: float = 0.0) -> Open:
    """Read what `vegeta encode --to csv` prints: time (ns), status, latency (ns), …

    A failure is taken to have lasted at least `failed_as` seconds: else to fail fast would look good.
    """
    latencies: list[float] = []
    failures = 0
    for row in csv.reader(rows):
        failed = not row[1].startswith("2")
        failures += failed
        took = int(row[2]) / 1e9
        latencies.append(max(took, failed_as) if failed else took)
    if not latencies:
        raise LoadError("vegeta sent nothing")
    latencies.sort()
    return Open(len(latencies), failures, sum(latencies) / len(latencies), quantiles(latencies))


def quantiles(ordered: Sequence[float]) -> dict[float, float]:
    """The QUANTILES of ascending values, each the least value that so large a share does not exceed."""
    last = len(ordered) - 1
    return {share: ordered[min(last, max(0, -int(-share * len(ordered) // 1) - 1))] for share in QUANTILES}


def pinned(command: Sequence[str], core: int | None) -> list[str]:
    """`command`, kept to `core`."""
    return [*(["taskset", "-c", str(core)] if core is not None else []), *command]


def wrk_command(url: str, connections: int, seconds: float, headers: Sequence[str] = (), script: str = "") -> list[str]:
    """What to run; it takes whole seconds only."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    for header in headers:
        command += ["-H", header]
    if script:
        command += ["-s", script]
    return [*command, url]


def closed_loop(command: Sequence[str], core: int | None) -> Closed:
    """Run wrk."""
    done = subprocess.run(pinned(command, core), capture_output=True, text=True, check=False)
    return parse_wrk(done.stdout + done.stderr)


def open_loop_tool() -> str | None:
    """The generator that is here."""
    return next((tool for tool in ("oha", "vegeta") if shutil.which(tool)), None)


def open_loop(url: str, rate: int, seconds: float, core: int | None, timeout: float = 10.0) -> Open:
    """Ask `rate` times a second for so long, then wait for what is still out."""
    if open_loop_tool() == "oha":
        count = str(max(1, round(rate * seconds)))
        command = ["oha", "--no-tui", "-q", str(rate), "--latency-correction", "-n", count, "-c", "256"]
        command += ["-t", f"{timeout:g}s", "--output-format", "json", url]
        done = subprocess.run(pinned(command, core), capture_output=True, text=True, check=False)
        if done.returncode:
            raise LoadError(f"oha says: {done.stderr}")
        return parse_oha(done.stdout)
    return vegeta(url, rate, seconds, core, timeout)


def vegeta(
    url: str, rate: int, seconds: float, core: int | None, timeout: float = 10.0, *, failed_as: float = 0.0
) -> Open:
    """The same by vegeta, which tells of each request. Where it has failed, it counts as `failed_as` seconds."""
    options = [f"-rate={rate}/1s", f"-duration={round(seconds * 1000)}ms", f"-timeout={timeout:g}s"]
    # As many workers as there may be requests under way: none may wait for another's answer.
    command = ["vegeta", "attack", *options, "-workers=64", "-max-workers=10000", "-connections=10000"]
    attack = subprocess.run(pinned(command, core), input=f"GET {url}\n".encode(), capture_output=True, check=False)
    if attack.returncode:
        raise LoadError(f"vegeta says: {attack.stderr.decode()}")
    rows = subprocess.run(["vegeta", "encode", "-to", "csv"], input=attack.stdout, capture_output=True, check=True)
    return parse_vegeta(io.StringIO(rows.stdout.decode()), failed_as)


def upload_script(folder: Path, size: int) -> str:
    """A wrk script that posts `size` bytes."""
    file = folder / f"upload-{size}.lua"
    file.write_text(f'wrk.method = "POST"\nwrk.body = string.rep("x", {size})\n')
    return str(file)
