"""`make bench`: the balancer beside nginx, HAProxy, Envoy, Traefik and Caddy, as far as they are on PATH.

Every program gets one core and one worker; the load generator and the endpoints share another core. Rounds take turns,
so that what disturbs the machine disturbs all alike, and the CPU time that each balancer has used is what its work is
divided by. Measurements come in the order of their worth; each is written to the file as soon as it is done.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import functools
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import measures, processes, report
from benchmarks.bench import Bench, told
from benchmarks.digits import pi
from benchmarks.endpoints import Endpoints
from benchmarks.fleets import FLEETS
from benchmarks.idle import idle
from benchmarks.peers.lb import LbBeside
from benchmarks.results import Report, Result, now
from benchmarks.results import load as load_report
from benchmarks.unequal import CALLED, WATCHED, called, unequal
from benchmarks.workloads import CALLS, WORKLOADS

Measure = Callable[[Bench], Sequence[Result]]

QUICK = ("tiny", "browser", "64k", "close", "tcp-small", "idle", "startup")
QUICK_PEERS = ("lb", "nginx", "haproxy")


def plan() -> dict[str, Measure]:
    """Every measurement by name, in the order of worth."""
    throughput = {work.name: functools.partial(measures.throughput, workload=work) for work in WORKLOADS}
    first = {name: throughput.pop(name) for name in ("tiny", "browser", "64k", "10m", "close", "tcp-small", "tcp-1m")}
    rest: dict[str, Measure] = {
        "latency": measures.latency,
        "choice": measures.choice,
        "idle": functools.partial(idle, warm="tiny"),
        "idle-tls": functools.partial(idle, warm="tls-tiny"),
        "idle-h2": functools.partial(idle, warm="h2-tiny"),
        "startup": measures.startup,
    }
    calls: dict[str, Measure] = {each.name: functools.partial(measures.calls, calls=each) for each in CALLS}
    fleets = {f"fleet-{fleet}-70": functools.partial(unequal, fleet=fleet, share=0.7) for fleet in WATCHED}
    late = {
        f"fleet-{fleet}-{share * 100:.0f}": functools.partial(unequal, fleet=fleet, share=share)
        for share in (0.7, 0.5, 0.9)
        for fleet in FLEETS
    }
    calls.update({f"grpc-{fleet}": functools.partial(called, fleet=fleet) for fleet in CALLED})
    return {**first, **rest, **fleets, "websocket": measures.websocket, **throughput, **calls, "pi": pi, **late}


def chosen(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Those of `names` that match one of `patterns`, or all. Raises ValueError for a pattern of none."""
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ValueError(f"no measurement is called {pattern}; there are: {', '.join(names)}")
    return [name for name in names if not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the main measurements, in under two minutes")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="only this one; * and ? match")
    parser.add_argument("--peers", help="only these, comma separated; lb-interpreted and lb-beside too")
    parser.add_argument("--beside", metavar="PYTHON", help="that of another compiled build, in --peers as lb-beside")
    parser.add_argument("--rounds", type=int, help="turns of each measurement (3, --quick 1)")
    parser.add_argument("--seconds", type=float, help="seconds of load in each round (2, --quick 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the results to those in FILE")
    parser.add_argument("--list", action="store_true", help="list the measurements")
    return parser.parse_args()


def main() -> int:
    """Measure, print the table, and write the file."""
    asked = arguments()
    # Told to end, end what was started too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    processes.look_further()
    names = list(plan())
    if asked.list:
        print("\n".join(names))
        return 0
    try:
        todo = chosen(names, asked.only or (QUICK if asked.quick else ()))
    except ValueError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    if missing := [tool for tool in ("nginx", "wrk", "taskset") if shutil.which(tool) is None]:
        print(f"bench: not on PATH: {', '.join(missing)} (apt install nginx wrk util-linux)", file=sys.stderr)
        return 2
    LbBeside.program = asked.beside or LbBeside.program
    found = load_report(asked.json) if asked.json else Report()
    peers = tuple(asked.peers.split(",")) if asked.peers else QUICK_PEERS if asked.quick else ()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        # The endpoints' worker gives up root: it must be able to read here.
        Path(folder).chmod(0o755)
        rounds, seconds = asked.rounds or (1 if asked.quick else 3), asked.seconds or (1.0 if asked.quick else 2.0)
        bench = Bench(Path(folder), rounds, seconds, found, lambda text: print(text, file=sys.stderr), peers)
        with Endpoints(bench.folder, bench.load_core) as endpoints:
            bench.endpoints, bench.http2_endpoints = endpoints.addresses, endpoints.http2_addresses
            failed = _measure(bench, todo, asked.json)
    report.show(found)
    return int(failed)


def _measure(bench: Bench, todo: Sequence[str], file: Path | None) -> bool:
    """Do all of `todo`; whether one could not be done."""
    failed = False
    measurements = plan()
    try:
        for name in todo:
            began, busy, clock = now(), os.getloadavg()[0], time.perf_counter()
            try:
                results = measurements[name](bench)
            except Exception as error:  # noqa: BLE001 (the others are worth having all the same)
                bench.tell(f"{name}: {type(error).__name__}: {error}")
                failed = True
                continue
            for result in results:
                bench.report.results[result.name] = dataclasses.replace(result, at=began, load=busy)
                bench.tell(f"{told(result)}  [{time.perf_counter() - clock:.0f} s, load {busy:.1f}]")
            if file is not None:
                bench.report.save(file)
    finally:
        bench.stop()
    return failed


if __name__ == "__main__":
    sys.exit(main())
