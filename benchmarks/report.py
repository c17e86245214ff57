"""The results for readers: a table in the terminal, and the tables and plots of docs/performance.md.

`python -m benchmarks.report` writes docs/performance/*.svg and the marked parts of docs/performance.md again from
docs/performance.json, so that no figure on the page is typed by hand; `--check` only says whether they are in step.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import plot, unequal_report
from benchmarks.results import OURS, Report, Result, load, number, slow_interpreter
from benchmarks.workloads import BEST
from rich.console import Console
from rich.table import Table

DOCS = Path(__file__).resolve().parent.parent / "docs"
JSON = DOCS / "performance.json"
PAGE = DOCS / "performance.md"
UNEQUAL = ("fleets", "pi")
"""Groups whose measurements are fleets at loads."""
PEERS = (OURS, "nginx", "nginx-new", "haproxy", "haproxy-new", "haproxy-3", "envoy", "traefik", "caddy")


_WHOM = {
    frozenset({"nginx"}): "nginx",
    frozenset({"haproxy"}): "HAProxy",
    frozenset({"nginx", "haproxy", "envoy"}): "the best, Envoy too",
}
"""By the programs of a bar, whatever their versions; others: the best."""
NOISE = 1.0
"""A median whose rounds lie further from it than this share of itself says nothing: the page leaves it out."""


def spread(values: Sequence[float]) -> float:
    """How far the furthest value lies from the median, as a share of it."""
    middle = statistics.median(values)
    return max(max(values) - middle, middle - min(values)) / abs(middle) if middle else 0.0


def is_noise(result: Result) -> bool:
    """Whether the page leaves out the whole row: our own figure is noise, and no bar depends on it."""
    ours = result.samples.get(OURS)
    return ours is not None and len(ours) > 0 and result.bar is None and spread(ours) > NOISE


def cell(values: Sequence[float]) -> str:
    """The median, and how far the least and the greatest lie from it."""
    middle = statistics.median(values)
    if len(values) < 2 or not middle:
        return number(middle)
    return f"{number(middle)} ±{spread(values) * 100:.0f} %"


def verdict(result: Result) -> tuple[str, str, str]:
    """Ratio, bar and whether it is met, as text."""
    ratio, met, bar = result.ratio(), result.met(), result.bar
    shown, rounds = "" if ratio is None else f"{ratio:.2f}", result.ratios()
    if len(rounds) > 1:
        shown += f" ({min(rounds):.2f} to {max(rounds):.2f})"
    if bar is None:
        return shown, "", ""
    sign = "≥" if result.better == "higher" else "≤"
    if bar.against:
        whom = _WHOM.get(frozenset(peer.partition("-")[0] for peer in bar.against), "the best")
        wanted = f"{sign} {bar.limit:g} of {whom}"
    else:
        wanted = f"{sign} {bar.limit:g} {result.unit}"
    return shown, wanted, "" if met is None else "yes" if met else "**no**"


def columns(results: Sequence[Result]) -> list[str]:
    """The programs that any of `results` has."""
    return [
        peer for peer in (*PEERS, "lb-interpreted", "lb-beside") if any(result.samples.get(peer) for result in results)
    ]


def row(result: Result, peers: Sequence[str]) -> list[str]:
    """One line of a table."""
    cells = [cell(result.samples[peer]) if result.samples.get(peer) else "" for peer in peers]
    return [result.title, result.unit, *cells, *verdict(result)]


def show(report: Report) -> None:
    """Print all results to the terminal."""
    # Wide enough not to cut a figure: a narrow terminal wraps the lines.
    console = Console(width=max(Console().width, 150))
    for peer, version in report.peers.items():
        console.print(f"{peer}: {version}", highlight=False)
    results = list(report.results.values())
    for unit in dict.fromkeys(result.unit for result in results):
        alike = [result for result in results if result.unit == unit]
        peers = columns(alike)
        table = Table(unit, *peers, "ratio", "bar", "met")
        for result in alike:
            title, _, *cells = row(result, peers)
            table.add_row(title, *cells)
        console.print(table)
    for result in results:
        if problems := {peer: note for peer, note in result.notes.items() if "error" in note}:
            console.print(f"{result.name}: {problems}", highlight=False)


def markdown(results: Sequence[Result]) -> str:
    """A table for the page."""
    peers = columns(results)
    heads = ["", "unit", *peers, "ratio", "bar", "met"]

    def without_noise(result: Result) -> list[str]:
        cells = row(result, peers)
        clear = [
            "noise" if peer != OURS and spread(result.samples.get(peer) or [0.0]) > NOISE else shown
            for peer, shown in zip(peers, cells[2:], strict=False)
        ]
        return [*cells[:2], *clear, *cells[2 + len(peers) :]]

    lines = [heads, ["---"] * len(heads), *(without_noise(result) for result in results if not is_noise(result))]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def parts(report: Report) -> dict[str, str]:
    """What stands between the page's markers, by the marker's name."""
    groups: dict[str, list[Result]] = {}
    for result in report.results.values():
        groups.setdefault(result.group, []).append(result)
    found = {group: markdown(results) for group, results in groups.items() if group not in UNEQUAL}
    unequal = [result for group in UNEQUAL for result in groups.get(group, [])]
    if barred := [result for result in unequal if result.bar]:
        found["fleets"] = markdown(barred)
    if unequal:
        found["strategies"] = unequal_report.tables(unequal)
    if choices := groups.get("choice"):
        rows = [f"| {result.name.removeprefix('choice-')} | {result.notes.get(OURS, '')} |" for result in choices]
        found["choice-times"] = "\n".join(["| strategy | a lease and its close |", "| --- | --- |", *rows])
    machine = ", ".join(f"{key} {value}" for key, value in report.machine.items())
    peers = "\n".join(f"| {peer} | {version} |" for peer, version in report.peers.items())
    found["machine"] = f"{machine}.\n\n| program | version |\n| --- | --- |\n{peers}"
    if warning := slow_interpreter(report.machine.get("interpreter", "")):
        found["machine"] += f"\n\n**{warning}.**"
    commands = [
        f"| {result.title} | `{result.command}` | {result.at} | {result.load:.1f} |"
        for result in report.results.values()
    ]
    found["commands"] = "\n".join(
        ["| figure | command | measured | load before |", "| --- | --- | --- | --- |", *commands]
    )
    return found


def filled(page: str, content: dict[str, str]) -> str:
    """`page` with what stands between `<!-- NAME -->` and `<!-- /NAME -->` replaced."""
    for name, text in content.items():
        pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
        page = pattern.sub(lambda match, text=text: match[1] + text + "\n" + match[2], page)  # type: ignore[misc]
    return page


def pictures(report: Report) -> dict[str, str]:
    """The page's plots as SVG, by file name."""
    drawn: dict[str, str] = {}
    by_group: dict[str, list[Result]] = {}
    for result in report.results.values():
        by_group.setdefault(result.group, []).append(result)
    for group in ("throughput", "http2", "tls"):
        rows = {}
        for result in by_group.get(group, []):
            if rival := result.hardest(BEST):
                ratios = {peer: result.between(peer, rival) for peer in columns([result]) if peer in PEERS}
                rows[result.title] = {peer: statistics.median(found) for peer, found in ratios.items()}
        if rows:
            title = "Work for each second of CPU time, the better of nginx and HAProxy = 1"
            drawn[f"{group}.svg"] = plot.bars(title, rows, mark=1.0)
    if unequal := [result for group in UNEQUAL for result in by_group.get(group, [])]:
        drawn["fleets.svg"] = unequal_report.picture(unequal, PEERS)
    return drawn


def main() -> int:
    """Write the page's generated parts again, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a file is not in step")
    check = parser.parse_args().check
    report = load(JSON)
    files = {DOCS / "performance" / name: text for name, text in pictures(report).items()}
    files[PAGE] = filled(PAGE.read_text(), parts(report))
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"not in step with {JSON.name}: {path.name}; run python -m benchmarks.report", file=sys.stderr)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(files[path])
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
