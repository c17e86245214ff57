"""`make stress`: many requests for digits of Pi, so many at a time, and what came of them.

Every answer is compared with the digits computed here, so that a short or mixed-up body counts as the failure it is.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import aiohttp
import gmpy2  # type: ignore[import-untyped]
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Load:
    """What is asked for."""

    url: str
    requests: int
    concurrency: int
    digits: range
    timeout: float
    """Seconds for one request, the whole of it."""
    seed: int


@dataclass
class Results:
    """What came back."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """How many requests ended so: a status, or what went wrong."""
    failures: int = 0
    latencies: dict[str, list[float]] = field(default_factory=dict)
    """Seconds of each whole answer, by the backend that gave it."""
    seconds: float = 0.0

    def succeeded(self, backend: str, seconds: float) -> None:
        """The right digits, with status 200."""
        self.outcomes["200"] += 1
        self.latencies.setdefault(backend, []).append(seconds)

    def failed(self, how: str) -> None:
        """Anything else."""
        self.outcomes[how] += 1
        self.failures += 1


def pi_text(digits: int) -> str:
    """`3.` and that many decimals, truncated; fewer digits are its prefix."""
    gmpy2.get_context().precision = math.ceil((digits + 10) * math.log2(10)) + 10
    mantissa, _, _ = gmpy2.const_pi().digits(10, digits + 5)
    return f"3.{mantissa[1 : digits + 1]}"


def expected(digits: int, pi: str) -> str:
    """The answer to a request for `digits`."""
    return f"{pi[: digits + 2] if digits else '3'}\n"


def percentile(values: list[float], share: int) -> float:
    """The `share`-th percentile, by the nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)]


async def one(session: aiohttp.ClientSession, url: str, text: str, results: Results) -> None:
    """One request, counted however it ends."""
    start = time.perf_counter()
    try:
        async with session.get(url, headers={"Accept": "text/plain"}) as response:
            body = await response.text()
            elapsed = time.perf_counter() - start
            if response.status != 200:
                reason = response.headers.get("Proxy-Status", "").partition(";")[2].strip()
                results.failed(f"{response.status} {reason}".strip())
            elif body != text:
                results.failed("200, wrong digits")
            else:
                results.succeeded(response.headers.get("X-Served-By", "?"), elapsed)
    except TimeoutError:
        results.failed("timed out")
    except aiohttp.ClientError as error:
        results.failed(str(error) or type(error).__name__)


async def run(load: Load, progress: Progress) -> Results:
    """All of the load: each of `concurrency` clients takes the next request when its last is answered."""
    results = Results()
    pi = pi_text(load.digits[-1])
    chance = random.Random(load.seed)
    bar = progress.add_task("requests", total=load.requests)
    wanted = iter([chance.choice(load.digits) for _ in range(load.requests)])
    timeout = aiohttp.ClientTimeout(total=load.timeout)

    async def client(session: aiohttp.ClientSession, numbers: Iterator[int]) -> None:
        for digits in numbers:
            await one(session, f"{load.url}/{digits}", expected(digits, pi), results)
            progress.update(bar, advance=1)

    start = time.perf_counter()
    connector = aiohttp.TCPConnector(limit=load.concurrency)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session, asyncio.TaskGroup() as clients:
        for _ in range(min(load.concurrency, load.requests)):
            clients.create_task(client(session, wanted))
    results.seconds = time.perf_counter() - start
    return results


def report(results: Results, console: Console) -> None:
    """Three tables: how the requests ended, how long they took, who answered them."""
    total = sum(results.outcomes.values())
    outcomes = Table("outcome", "requests", "share", title="Outcomes", title_justify="left")
    for outcome, count in results.outcomes.most_common():
        style = "green" if outcome == "200" else "red"
        outcomes.add_row(outcome, str(count), f"{count / total:.1%}", style=style)
    console.print(outcomes)

    answered = [seconds for each in results.latencies.values() for seconds in each]
    if answered:
        backends = Table(title="Latency (ms) and share by backend", title_justify="left")
        for heading in ("backend", "answers", "share", "mean", *(f"p{share}" for share in PERCENTILES), "max"):
            backends.add_column(heading, justify="left" if heading == "backend" else "right")
        for backend, seconds in sorted(results.latencies.items()):
            backends.add_row(backend, *figures(seconds, len(answered)))
        backends.add_section()
        backends.add_row("all", *figures(answered, len(answered)))
        console.print(backends)
    console.print(
        f"{total} requests in {results.seconds:.2f} s, {total / results.seconds:.0f} a second, "
        f"{results.failures} failed"
    )


def figures(seconds: list[float], total: int) -> list[str]:
    """Count, share of `total`, mean, percentiles and maximum, in milliseconds."""
    times = [statistics.fmean(seconds), *(percentile(seconds, share) for share in PERCENTILES), max(seconds)]
    return [str(len(seconds)), f"{len(seconds) / total:.1%}", *(f"{1000 * each:.1f}" for each in times)]


def digit_range(text: str) -> range:
    """`10-1000`, or one number alone. Raises argparse's error for anything else."""
    first, _, last = text.partition("-")
    try:
        digits = range(int(first), int(last or first) + 1)
    except ValueError:
        digits = range(0)
    if not digits or digits.start < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no range of digits: give one such as 10-1000")
    return digits


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """0 when every request was answered with the right digits, else 1."""
    parser = argparse.ArgumentParser(prog="stress", description=__doc__)
    parser.add_argument("--url", default="http://localhost:8080", type=lambda url: str(url).rstrip("/"))
    parser.add_argument("--requests", default=1000, type=positive, metavar="N")
    parser.add_argument("--concurrency", default=50, type=positive, metavar="C")
    parser.add_argument("--digits", default=digit_range("10-1000"), type=digit_range, metavar="FROM-TO")
    parser.add_argument("--timeout", default=60.0, type=float, metavar="SECONDS", help="for one request, the whole")
    parser.add_argument("--seed", default=0, type=int, help="of the choice of digits, so that a run can be repeated")
    load = Load(**vars(parser.parse_args(arguments)))
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            results = asyncio.run(run(load, progress))
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    report(results, console)
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
