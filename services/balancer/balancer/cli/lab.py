"""`python -m balancer lab`: which strategy would do best, by simulation or by replaying access logs."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final, Self

from balancer.balancing.policy import Policy
from balancer.balancing.strategies import load
from balancer.cli import recorded
from balancer.cli.lab_flags import REQUESTS, check, scripts
from balancer.lab import claims, plot, replay
from balancer.lab.claim import table
from balancer.lab.claims import CLAIMS
from balancer.lab.experiment import HANDED_OVER, NOTHING, Newcomer, Setting
from balancer.lab.fleet import named
from balancer.lab.news import News, Word
from balancer.lab.record import Summary
from balancer.lab.replay import Recording
from balancer.lab.replica import TICK, Replica, Rules
from balancer.lab.study import Study, study
from balancer.lab.traffic import Traffic
from balancer.peers.belief import Belief
from balancer.peers.report import Report, microseconds

WRONG: Final = 2
EACH: Final = 8
"""Endpoints of which each one's share is printed, in their order; of more, the least, the median and the most."""
LONGEST: Final = 7 * 86_400.0
"""Simulated seconds in which the requests of a run may come: ten ticks each make a run of a minute."""


def main(arguments: argparse.Namespace) -> int:
    """Run the study that the flags ask for; the exit status."""
    if arguments.claims:
        return _claims(arguments.json)
    arguments.replay += arguments.logs
    try:
        check(arguments)
        _check_picture(arguments.svg)
        names = _strategies(arguments.strategies)
        setting, recording = _setting(arguments)
    except ValueError as error:
        sys.stderr.write(f"lab: {error}\n")
        return WRONG
    if recording is not None and not arguments.json:
        sys.stdout.write(recording.summary() + "\n\n")
    began = time.monotonic()
    requests = len(setting.replayed) or setting.requests
    with _few_collections(), _Progress(requests * len(names) * arguments.seeds, arguments.json) as progress:
        found = study(setting, names, range(1, arguments.seeds + 1), progress.add)
    write = _as_json if arguments.json else _as_text
    sys.stdout.write(write(found, recording) + "\n")
    if not arguments.json:
        if setting.overloads:
            sys.stdout.write(f"Load {setting.load:g} is more than the endpoints can do: waits grow with --requests.\n")
        sys.stdout.write(f"{requests * len(names) * arguments.seeds:,} requests in {time.monotonic() - began:.1f} s\n")
    if arguments.svg:
        try:
            arguments.svg.write_text(plot.svg(found.summaries(), _title(arguments, setting)), encoding="utf-8")
        except OSError as error:
            sys.stderr.write(f"lab: --svg {arguments.svg}: {error.strerror}\n")
            return WRONG
    return 0


def _check_picture(path: Path | None) -> None:
    """Raises ValueError where the picture can hardly be written: before a study of minutes."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise ValueError(f"--svg {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise ValueError(f"--svg {path} is a folder: name a file")


@contextmanager
def _few_collections() -> Iterator[None]:
    """Let the garbage collector look rarely: a run makes many objects and hardly a cycle of references."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _claims(as_json: bool) -> int:
    total = 2 * len(CLAIMS) * len(claims.SEEDS) * claims.REQUESTS
    with _few_collections(), _Progress(total, as_json) as progress:
        findings = list(claims.check(progress=progress.add))
    if as_json:
        rows = [
            {
                "strategy": finding.claim.strategy,
                "when": finding.claim.when,
                "figure": finding.claim.figure.name,
                "value": finding.own,
                "other": finding.claim.other,
                "others_value": finding.others,
                "holds": finding.holds,
            }
            for finding in findings
        ]
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    else:
        sys.stdout.write(table(findings) + "\n")
    return 0 if all(finding.holds for finding in findings) else 1


class Beliefs:
    """What each simulated replica believes of the others: the very rules by which real ones do."""

    def __init__(self, every: float) -> None:
        """A report comes every so many seconds."""
        self._pause = every
        self._beliefs: dict[Replica, Belief] = {}
        self._ticked_at: dict[Replica, float] = {}

    def hear(self, replica: Replica, own: str, word: Word, late: float) -> None:
        """A report has come."""
        belief = self._beliefs.get(replica)
        if belief is None:
            belief = self._beliefs[replica] = Belief(replica.pool, own)
        if replica.clock.now - self._ticked_at.get(replica, 0.0) >= TICK:
            self._ticked_at[replica] = replica.clock.now
            belief.tick(replica.clock.now)
        delay = late + self._pause
        work = {address: microseconds(seconds) for address, seconds in word.work.items()}
        report = Report(
            word.replica, word.in_flight, delay=delay, whole=True, lasting=word.lasting, work=work, bound=word.bound
        )
        belief.take(report, replica.clock.now)


def _setting(arguments: argparse.Namespace) -> tuple[Setting, Recording | None]:
    """What to simulate, and the recording that it is from, if it is. Raises ValueError."""
    described = [each for spec in arguments.endpoint or () for each in scripts(spec, arguments.workers)]
    fleet = tuple(described or named(arguments.fleet, arguments.endpoints, arguments.workers))
    if arguments.load_reports:
        fleet = tuple(replace(script, reports=True) for script in fleet)
    policy = Policy(
        hash_key=arguments.hash_key,
        cost_key=arguments.cost_key,
        endpoint_load=any(script.reports for script in fleet),
        endpoint_load_blackout=arguments.blackout,
        endpoint_max_requests=arguments.limit,
        eject_after=arguments.eject_after,
        eject_time=arguments.eject_time,
        slow_start=arguments.slow_start,
    )
    rules = Rules(policy, arguments.retries, arguments.retry_statuses, response_timeout=arguments.timeout)
    news = News(
        arguments.news_every, arguments.news_late, None if arguments.naive else Beliefs(arguments.news_every).hear
    )
    newcomer = _newcomer(arguments)
    if arguments.replay:
        if arguments.load_reports:
            raise ValueError("--load-reports needs endpoints that are described: an access log holds no load reports")
        most = arguments.requests or replay.MOST
        with _Progress(recorded.size(arguments.replay), arguments.json, "reading ") as progress:
            recording = replay.read(recorded.lines(arguments.replay, progress.add), arguments.cluster, most)
        setting = Setting(
            recording.fleet,
            replicas=arguments.replicas,
            news=news,
            rules=rules,
            newcomer=newcomer,
            replayed=recording.asks,
        )
        return setting, recording
    traffic = Traffic(arguments.costs, arguments.mean, arguments.arrivals, arguments.burst, arguments.users)
    requests = arguments.requests or REQUESTS
    setting = Setting(fleet, traffic, arguments.load, requests, arguments.replicas, news, rules, newcomer)
    if setting.lasts > LONGEST:
        raise ValueError(
            f"{requests:,} requests at {setting.rate:.2g} a second would take more than the week that can be "
            "simulated: fewer --requests, more --load, or a smaller --mean"
        )
    return setting, None


def _newcomer(arguments: argparse.Namespace) -> Newcomer | None:
    """The replica that starts late, where one does."""
    if arguments.newcomer is None:
        return None
    return Newcomer(HANDED_OVER if arguments.hand_over else NOTHING, arguments.newcomer)


def _strategies(text: str) -> list[str]:
    import random

    sys.path.insert(0, os.getcwd())  # noqa: PTH109  (where `python -m` looks for a strategy of one's own)
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError("--strategies names none")
    for name in names:
        load(name, random.Random(1))
    return list(dict.fromkeys(names))


def _title(arguments: argparse.Namespace, setting: Setting) -> str:
    if arguments.replay:
        return f"{len(setting.replayed):,} recorded requests, {len(setting.fleet)} endpoints"
    fleet = "of one's own" if arguments.endpoint else arguments.fleet
    return f"{len(setting.fleet)} endpoints ({fleet}), {arguments.costs} costs, load {arguments.load:g}"


def _as_text(found: Study, recording: Recording | None) -> str:
    summaries = found.summaries()
    rows: list[tuple[str, ...]] = [
        ("strategy", "p50 ms", "p99 ms", "p99.9 ms", "slowdown", "failed", "share of requests by endpoint")
    ]
    rows.extend((name, *_figures(summary)) for name, summary in summaries.items())
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(_cell(row, i, widths) for i in range(len(row))).rstrip() for row in rows]
    lines += ["", plot.bars(summaries), "", found.recommendation()]
    lines += [f"{name} failed: {summary.fault}" for name, summary in summaries.items() if summary.fault]
    if recording is not None and recording.strategy in found.runs:
        lines.append(recording.compared(found.runs[recording.strategy][0]))
    return "\n".join(lines)


def _cell(row: tuple[str, ...], i: int, widths: list[int]) -> str:
    return row[i].ljust(widths[i]) if i in (0, len(row) - 1) else row[i].rjust(widths[i])


def _figures(summary: Summary) -> tuple[str, ...]:
    if len(summary.shares) > EACH:
        shares = sorted(summary.shares)
        shown = f"least {shares[0]:.1%}, median {shares[len(shares) // 2]:.1%}, most {shares[-1]:.1%}"
    else:
        shown = " ".join(f"{share:.0%}" for share in summary.shares)
    times = (summary.p50, summary.p99, summary.p999)
    return (*(f"{each * 1000:,.1f}" for each in times), f"{summary.slowdown:,.1f}", f"{summary.failures:,}", shown)


def _as_json(found: Study, recording: Recording | None) -> str:
    summaries = found.summaries()
    best = next(iter(summaries))
    out = {
        "recording": recording and _recorded(recording),
        "strategies": {
            name: {
                **asdict(summary),
                "seeds": [asdict(run) for run in found.runs[name]],
                "p99_over_best": asdict(found.ratio(name, best)) if len(found.runs[name]) > 1 else None,
            }
            for name, summary in summaries.items()
        },
        "recommendation": found.recommendation(),
    }
    return json.dumps(out, indent=2)


def _recorded(recording: Recording) -> dict[str, object]:
    fields = {name: getattr(recording, name) for name in Recording.__slots__ if name not in ("asks", "fleet")}
    endpoints = dict(zip(recording.endpoints, map(asdict, recording.fleet), strict=True))
    return {**fields, "endpoints": endpoints}


class _Progress:
    """A bar on a terminal; nothing elsewhere."""

    def __init__(self, total: int, quiet: bool, doing: str = "") -> None:
        self._total = total
        self._doing = doing
        self._done = 0
        self._shown = -1
        self._on = sys.stderr.isatty() and not quiet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._on:
            sys.stderr.write("\r\x1b[K")

    def add(self, number: int) -> None:
        """So many requests more."""
        self._done += number
        percent = 100 * self._done // max(self._total, 1)
        if self._on and percent != self._shown:
            self._shown = percent
            sys.stderr.write(f"\r{self._doing}{'█' * (percent * 40 // 100):<40} {percent} %")
            sys.stderr.flush()
