"""The unequal fleets for readers: for each fleet a table of every strategy at every load, and the plot of the best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks import panels
from benchmarks.results import IDEAL, OURS, Result, number

PI = "Pi services"


def by_fleet(results: Iterable[Result]) -> dict[str, dict[float, Result]]:
    """The measurements of each fleet, by load."""
    found: dict[str, dict[float, Result]] = {}
    for result in results:
        kind, _, rest = result.name.partition("-")
        fleet, _, percent = rest.rpartition("-")
        name = PI if kind == "pi" else fleet.replace("-", " ")
        found.setdefault(name, {})[int(percent) / 100] = result
    return {name: dict(sorted(loads.items())) for name, loads in found.items()}


def tables(results: Sequence[Result]) -> str:
    """One that folds away for each fleet; the best at the middle load first."""
    return "\n\n".join(_table(name, loads) for name, loads in by_fleet(results).items())


def _table(fleet: str, loads: dict[float, Result]) -> str:
    shown = 0.7 if 0.7 in loads else next(iter(loads))
    middle = loads[shown]
    policies = sorted((name for name in middle.samples if "/" in name or name == IDEAL), key=middle.typical)
    heads = ["strategy", *(f"p99 at {load:.0%}" for load in loads)]
    heads += [f"mean at {shown:.0%}", f"p50 at {shown:.0%}", "failed"]
    lines = [heads, ["---"] * len(heads), *(_row(policy, loads, middle) for policy in policies)]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"<details><summary>{fleet}: milliseconds, every strategy</summary>\n\n{body}\n\n</details>"


def _row(policy: str, loads: dict[float, Result], middle: Result) -> list[str]:
    p99 = [number(result.typical(policy)) if policy in result.samples else "" for result in loads.values()]
    details = middle.details.get(policy)
    if details is None:
        return [policy, *p99, "", "", ""]
    known = [result.details[policy] for result in loads.values() if policy in result.details]
    failures, requests = (int(sum(detail[name] for detail in known)) for name in ("failures", "requests"))
    failed = f"{failures:,} of {requests:,}" if failures else "0"
    return [policy, *p99, number(details["mean"]), number(details["p50"]), failed]


def picture(results: Sequence[Result], programs: Sequence[str]) -> str:
    """The p99 of ours and of each program's best strategy over the load, a panel for each fleet."""
    fleets = {}
    for name, loads in by_fleet(results).items():
        lines = {
            program: {load: result.typical(program) for load, result in loads.items() if result.samples.get(program)}
            for program in (*programs, IDEAL)
        }
        fleets[name] = {program: line for program, line in lines.items() if line}
    ours = {result.notes.get(OURS, "") for result in results} - {""}
    with_what = f" with {ours.pop()}" if len(ours) == 1 else ""
    return panels.panels(f"p99 by load (share of capacity): lb{with_what}, each other with its best", fleets)
