"""Where a request's CPU time goes, ours and a peer's: `python -m benchmarks.where tls-tiny --peers lb,haproxy`.

`perf record` samples the program under one of the loads of `make bench`; the CPU time of a request is divided among the
kernel, the libraries and the program by what the samples fell on. Needs perf (apt install linux-perf) and its right.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from benchmarks import processes
from benchmarks.bench import Bench
from benchmarks.endpoints import Endpoints
from benchmarks.measures import asked
from benchmarks.peers.peer import Peer
from benchmarks.results import Report
from benchmarks.workloads import WORKLOADS, Workload
from rich.console import Console
from rich.table import Table

RATE = 2500
"""Samples a second."""
LEAST = 0.01
"""Share of the time below which a library is not named."""


def main() -> None:
    names = {workload.name: workload for workload in WORKLOADS}
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("workload", choices=names)
    parser.add_argument("--peers", default="lb,haproxy", help="comma separated")
    parser.add_argument("--seconds", type=float, default=4.0, help="of load (4)")
    arguments = parser.parse_args()
    workload = names[arguments.workload]
    table = Table("µs of CPU time", title=workload.title)
    columns: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="lb-where-") as folder:
        Path(folder).chmod(0o755)  # the endpoints' worker gives up root: it must be able to read here
        peers = tuple(arguments.peers.split(","))
        bench = Bench(Path(folder), 1, arguments.seconds, Report(), lambda text: print(text, file=sys.stderr), peers)
        with Endpoints(bench.folder, bench.load_core) as endpoints:
            bench.endpoints, bench.http2_endpoints = endpoints.addresses, endpoints.http2_addresses
            try:
                for peer in bench.running(workload.mode, access_log=workload.access_log):
                    table.add_column(peer.name, justify="right")
                    columns.append(divided(bench, peer, workload))
            finally:
                bench.stop()
    rows = sorted(
        {name for column in columns for name in column}, key=lambda name: -max(c.get(name, 0) for c in columns)
    )
    for name in rows:
        table.add_row(name, *(f"{column[name]:.1f}" if name in column else "" for column in columns))
    Console().print(table)


def divided(bench: Bench, peer: Peer, workload: Workload) -> dict[str, float]:
    """µs of a request by library, the whole under "all"."""
    file = bench.folder / "perf.data"
    sampling = threading.Thread(target=sample, args=(peer.pids, file, bench.seconds))
    before = processes.cpu_seconds(peer.pids)
    sampling.start()
    done = asked(bench, peer, workload)
    whole = (processes.cpu_seconds(peer.pids) - before) / done.requests * 1e6
    sampling.join()
    return {"all": whole} | {name: share * whole for name, share in shares(file).items()}


def sample(pids: Sequence[int], file: Path, seconds: float) -> None:
    """Write the samples of one load to `file`."""
    command = ["perf", "record", "-F", str(RATE), "-o", str(file), "-p", ",".join(map(str, pids)), "--", "sleep"]
    subprocess.run([*command, str(seconds * 0.8)], check=True, capture_output=True)


def shares(file: Path) -> dict[str, float]:
    """The share of the samples that fell on each library."""
    command = ["perf", "report", "-i", str(file), "--no-children", "--sort", "dso", "--stdio"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [line.split() for line in told.splitlines() if "%" in line and not line.startswith("#")]
    found = {words[1].removeprefix("[").partition(".")[0]: float(words[0].rstrip("%")) / 100 for words in lines}
    return {name: share for name, share in found.items() if share >= LEAST}


if __name__ == "__main__":
    main()
