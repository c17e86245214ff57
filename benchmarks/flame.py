"""`make profile`: flame graphs of the balancer under load, as SVG, by py-spy.

Two are written: of the source, where every function shows by its name, and of the compiled build, where the compiled
functions are native (`CPyDef_…`) beside those of uvloop, CPython and libc.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import load, processes
from benchmarks.endpoints import Endpoints
from benchmarks.peers.lb import ROOT, Lb, LbSource
from benchmarks.peers.peer import Setup
from benchmarks.workloads import WORKLOADS, Workload

PY_SPY = [str(ROOT / ".venv/bin/uv"), "tool", "run", "py-spy"]
RATE = 500
"""Samples a second."""


def record(kind: type[Lb], work: Workload, seconds: float, file: Path) -> None:
    """Load the balancer with `work`, and write where its time went. Raises RuntimeError when py-spy cannot."""
    cores = processes.cores()
    with tempfile.TemporaryDirectory(prefix="profile-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with Endpoints(folder, cores[1]) as endpoints:
            setup = Setup(folder, endpoints.addresses, work.mode, work.access_log, core=cores[0])
            with kind(setup) as balancer:
                script = load.upload_script(folder, work.upload) if work.upload else ""
                url = f"http://127.0.0.1:{balancer.port}{work.path}"
                command = load.wrk_command(url, work.connections, seconds + 2, work.headers, script)
                with subprocess.Popen(load.pinned(command, cores[1]), stdout=subprocess.DEVNULL) as asking:
                    time.sleep(1)
                    options = ["--duration", f"{seconds:.0f}", "--rate", str(RATE), "--output", str(file)]
                    native = ["--native"] if kind is Lb else []
                    spy = [*PY_SPY, "record", *native, *options, "--pid", str(balancer.pids[0])]
                    done = subprocess.run(spy, capture_output=True, text=True, check=False)
                    asking.terminate()
    if done.returncode:
        raise RuntimeError(f"py-spy: {done.stderr.strip()}")


def main() -> int:
    """Record what the command line asks for."""
    works = {work.name: work for work in WORKLOADS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=list(works), default="tiny", help="what is asked (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to look (%(default)s)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build", help="where to write (build)")
    asked = parser.parse_args()
    processes.look_further()
    asked.folder.mkdir(parents=True, exist_ok=True)
    for kind in (LbSource, Lb):
        if reason := kind.missing():
            print(f"{kind.name}: {reason}", file=sys.stderr)
            continue
        file = asked.folder / f"flame-{kind.name}-{asked.workload}.svg"
        try:
            record(kind, works[asked.workload], asked.seconds, file)
        except RuntimeError as error:
            print(f"profile: {error}", file=sys.stderr)
            return 1
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
