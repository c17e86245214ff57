"""The load generators, and what is read from their reports.

wrk asks as fast as it is answered and counts: that shows throughput, but hides latency, since a late answer holds back
the next question (coordinated omission). So latency is measured open loop, at a fixed rate whatever comes back, by
benchmarks/openloop.py, which reckons from when a request was due. h2load does as wrk, by HTTP/2; openssl's s_time makes
a connection for each request, and takes up TLS sessions or does not, which wrk leaves no choice of.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.workloads import Calls

QUANTILES = (0.5, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Closed:
    """What a generator that waits for its answers reports."""

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


def parse_h2load(text: str) -> Closed:
    """Read what h2load prints."""
    counted = re.search(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded", text)
    seconds = re.search(r"finished in ([\d.]+)(us|ms|s|m)", text)
    statuses = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx", text)
    if counted is None or seconds is None or statuses is None or not int(counted[1]):
        raise LoadError(f"h2load says: {text}")
    scale = {"us": 1e-6, "ms": 0.001, "s": 1.0, "m": 60.0}
    done, good = int(counted[1]), min(int(counted[2]), int(statuses[1]) + int(statuses[2]))
    return Closed(done, float(seconds[1]) * scale[seconds[2]], done - good)


def parse_s_time(text: str, *, resumed: bool) -> Closed:
    """Read what `openssl s_time` prints, whose letters say which connections took up a session."""
    counted = re.search(r"(\d+) connections in (\d+) real seconds, (\d+) bytes read per connection", text)
    if counted is None or not int(counted[3]):
        raise LoadError(f"s_time says: {text[-500:]}")
    marks = re.search(r"^[rt3*]+$", text, re.MULTILINE | re.IGNORECASE)
    taken_up = marks[0].count("r") if marks else 0
    if resumed and taken_up < int(counted[1]) * 0.9:
        raise LoadError(f"only {taken_up} of {counted[1]} connections took up a session")
    if not resumed and taken_up:
        raise LoadError(f"{taken_up} of {counted[1]} connections took up a session")
    return Closed(int(counted[1]), float(counted[2]), 0)


def summed(answers: Sequence[tuple[int, float]], failed_as: float = 0.0) -> Open:
    """What came of requests, told as status (0: none) and seconds.

    A failure is taken to have lasted at least `failed_as` seconds: else to fail fast would look good.
    """
    if not answers:
        raise LoadError("nothing was asked")
    good = [200 <= status < 300 for status, _ in answers]
    taken = [took if fine else max(took, failed_as) for fine, (_, took) in zip(good, answers, strict=True)]
    taken.sort()
    return Open(len(taken), len(taken) - sum(good), sum(taken) / len(taken), quantiles(taken))


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


def h2load_command(url: str, connections: int, streams: int, seconds: float, file: Path | None = None) -> list[str]:
    """What to run; it takes whole seconds only. The addresses are those in `file`, if there is one."""
    command = ["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{max(1, round(seconds))}"]
    return [*command, *(["-i", str(file)] if file else [url])]


def addresses(folder: Path, url: str, count: int) -> Path:
    """A file of so many below `url`."""
    file = folder / f"addresses-{url.rpartition(':')[2].strip('/')}"
    file.write_text("".join(f"{url}item/{number}\n" for number in range(count)))
    return file


def h2load(command: Sequence[str], core: int | None) -> Closed:
    """Run h2load."""
    done = subprocess.run(pinned(command, core), capture_output=True, text=True, check=False)
    return parse_h2load(done.stdout + done.stderr)


def calls(port: int, asked: Calls, seconds: float, core: int | None) -> Closed:
    """Make gRPC calls by benchmarks/calls.py."""
    numbers = [str(value) for value in (port, asked.connections, asked.streams, seconds)]
    options = ["--paths", str(asked.paths), *(["--traced"] if asked.paths > 1 else [])]
    options += ["--tls"] if asked.mode == "h2-tls" else []
    command = [sys.executable, "-m", "benchmarks.calls", "ask", *numbers, *options]
    done = subprocess.run(pinned(command, core), capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadError(f"calls says: {done.stderr}")
    ended, took, failed = json.loads(done.stdout)
    if not ended:
        raise LoadError("no call was answered")
    return Closed(ended, took, failed)


def handshakes(port: int, at_once: int, seconds: float, core: int | None, *, resumed: bool) -> Closed:
    """Ask for `/` on one TLS connection after the other, in `at_once` processes of `openssl s_time`."""
    kind = "-reuse" if resumed else "-new"
    command = [
        "openssl",
        "s_time",
        "-connect",
        f"127.0.0.1:{port}",
        "-www",
        "/",
        kind,
        "-time",
        f"{max(1, round(seconds))}",
    ]
    running = [
        subprocess.Popen(pinned(command, core), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(at_once)
    ]
    done = [parse_s_time(process.communicate()[0], resumed=resumed) for process in running]
    return Closed(sum(one.requests for one in done), done[0].seconds, 0)


def open_loop(
    port: int,
    rate: float,
    seconds: float,
    core: int | None,
    options: Sequence[str] = (),
    *,
    timeout: float = 5.0,
    failed_as: float = 0.0,
) -> Open:
    """Ask `rate` times a second for so long, then wait up to `timeout` seconds for what is still out."""
    asked = [str(value) for value in (port, rate, seconds, timeout)]
    command = [sys.executable, "-m", "benchmarks.openloop", *asked, *options]
    done = subprocess.run(pinned(command, core), capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadError(f"openloop says: {done.stderr}")
    return summed([(int(status), float(took)) for status, took in json.loads(done.stdout)], failed_as)


def upload_script(folder: Path, size: int) -> str:
    """A wrk script that posts `size` bytes."""
    file = folder / f"upload-{size}.lua"
    file.write_text(f'wrk.method = "POST"\nwrk.body = string.rep("x", {size})\n')
    return str(file)
