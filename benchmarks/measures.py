"""The measurements that start no fleet of their own: throughput for CPU time, latency, WebSocket, start-up."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import load, processes
from benchmarks.bench import Bench
from benchmarks.peers.lb import ROOT, Lb
from benchmarks.peers.peer import Peer, Setup
from benchmarks.ports import free_port, speaks_http2, status_of
from benchmarks.results import OURS, Result
from benchmarks.workloads import Bar, Calls, Workload

_COMMAND = "make bench ONLY="


def throughput(bench: Bench, workload: Workload) -> list[Result]:
    """Requests, or megabytes, for each second of CPU time that the balancer used."""
    if shutil.which(workload.tool) is None:
        bench.tell(f"{workload.name}: left out, no {workload.tool} on PATH (apt install wrk nghttp2-client openssl)")
        return []
    peers = bench.running(workload.mode, access_log=workload.access_log)
    samples, notes = _for_cpu_seconds(
        bench, peers, lambda peer: asked(bench, peer, workload), workload.size / 1e6 or 1.0
    )
    unit = "MB per CPU second" if workload.size else "requests per CPU second"
    return [
        Result(
            workload.name,
            workload.title,
            unit,
            "higher",
            samples,
            _COMMAND + workload.name,
            workload.bar,
            group=workload.group,
            notes=notes,
        )
    ]


def _for_cpu_seconds(
    bench: Bench, peers: Sequence[Peer], ask: Callable[[Peer], load.Closed], worth: float = 1.0
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """What each peer did in each round for a second of its CPU time, a request counting as `worth`; and its errors."""
    samples: dict[str, list[float]] = {peer.name: [] for peer in peers}
    notes: dict[str, str] = {}
    for _ in range(bench.rounds):
        for peer in peers:
            before = processes.cpu_seconds(peer.pids)
            done = ask(peer)
            used = processes.cpu_seconds(peer.pids) - before
            samples[peer.name].append(done.requests * worth / used)
            if done.errors > done.requests // 2:
                raise load.LoadError(f"{peer.name}: {done.errors} errors in {done.requests} requests")
            if done.errors:
                notes[peer.name] = f"{done.errors} errors in {done.requests} requests"
    return samples, notes


@contextmanager
def _before_own_endpoints(
    bench: Bench, serve: Sequence[str], ready: Callable[[], bool], setup: Setup
) -> Iterator[list[Peer]]:
    """The peers that can do it, started, in front of endpoints that `python -m` and `serve` start, once `ready`."""
    endpoints = processes.start([sys.executable, "-m", *serve], bench.folder, bench.load_core)
    peers = [kind(setup) for kind in bench.peers if setup.mode in kind.modes]
    try:
        while not ready():
            time.sleep(0.01)
        for peer in peers:
            peer.started()
        yield peers
    finally:
        for peer in peers:
            peer.stop()
        processes.stop(endpoints)


def asked(bench: Bench, peer: Peer, workload: Workload) -> load.Closed:
    """One round's load."""
    url = f"{'https' if peer.setup.tls else 'http'}://127.0.0.1:{peer.port}{workload.path}"
    core, connections = bench.load_core, workload.connections
    if workload.tool == "openssl":
        return load.handshakes(peer.port, connections, bench.seconds, core, resumed=workload.resumed)
    if workload.tool == "h2load":
        file = load.addresses(bench.folder, url, workload.paths) if workload.paths > 1 else None
        return load.h2load(load.h2load_command(url, connections, workload.streams, bench.seconds, file), core)
    script = load.upload_script(bench.folder, workload.upload) if workload.upload else ""
    return load.closed_loop(load.wrk_command(url, connections, bench.seconds, workload.headers, script), core)


def latency(bench: Bench) -> list[Result]:
    """What a balancer adds at half load: quantiles through it less those of the endpoint itself, at the same rate."""
    peers = bench.running("http", access_log=False)
    direct = int(bench.endpoints[0].rpartition(":")[2])
    rate = _half_load(bench, peers, direct)
    added: dict[float, dict[str, list[float]]] = {share: {peer.name: [] for peer in peers} for share in load.QUANTILES}
    notes: dict[str, str] = {}
    for _ in range(bench.rounds):
        floor = load.open_loop(direct, rate, bench.seconds, bench.load_core)
        for peer in peers:
            seen = load.open_loop(peer.port, rate, bench.seconds, bench.load_core)
            if seen.failures:
                notes[peer.name] = f"{seen.failures} errors in {seen.requests} requests"
            for share, value in seen.quantiles.items():
                added[share][peer.name].append((value - floor.quantiles[share]) * 1e6)
    return [
        Result(
            f"latency-p{share * 100:g}",
            f"Added latency, p{share * 100:g}, at {rate:,} a second",
            "µs",
            "lower",
            added[share],
            _COMMAND + "latency",
            Bar(1.2, ("haproxy",)) if share == 0.99 else None,
            group="latency",
            notes=notes,
        )
        for share in load.QUANTILES
    ]


def tiny_per_cpu_second(peer: Peer, connections: int, seconds: float, core: int | None) -> float:
    """Tiny GETs that a peer serves for each second of its CPU time, asked from `core`."""
    before = processes.cpu_seconds(peer.pids)
    done = load.closed_loop(load.wrk_command(f"http://127.0.0.1:{peer.port}/", connections, seconds), core)
    return done.requests / (processes.cpu_seconds(peer.pids) - before)


def _half_load(bench: Bench, peers: Sequence[Peer], direct: int) -> int:
    """Half of what the slowest of the three that the bar names could serve, if the generator can ask that often."""
    named = [peer for peer in peers if peer.name in (OURS, "nginx", "haproxy")]
    served = [tiny_per_cpu_second(peer, 64, 1, bench.load_core) for peer in named]
    rate = round(min(served) / 2, -2)
    for _ in range(6):
        floor = load.open_loop(direct, int(rate), 1.0, bench.load_core)
        if floor.quantiles[0.99] < 0.001:
            break
        # The generator and the endpoint share a core: when they are late themselves, they show their own queue.
        rate = round(rate * 0.75, -2)
    return int(rate)


def websocket(bench: Bench) -> list[Result]:
    """Frames of 64 bytes echoed through the balancer for each second of its CPU time, on 64 connections."""
    port = free_port()
    setup = Setup(bench.folder, (f"127.0.0.1:{port}",), core=bench.balancer_core)

    def ask(peer: Peer) -> load.Closed:
        command = [sys.executable, "-m", "benchmarks.websocket", "ask", str(peer.port), "64", f"{bench.seconds:g}"]
        pinned = load.pinned(command, bench.load_core)
        done = subprocess.run(pinned, capture_output=True, text=True, check=True)
        return load.Closed(int(done.stdout.split()[0]), bench.seconds, 0)

    serve = ["benchmarks.websocket", "serve", str(port)]
    with _before_own_endpoints(bench, serve, lambda: bool(status_of(port)), setup) as peers:
        samples, _ = _for_cpu_seconds(bench, peers, ask)
    title, unit = "WebSocket echo, 64 connections", "frames per CPU second"
    return [Result("websocket", title, unit, "higher", samples, _COMMAND + "websocket")]


def calls(bench: Bench, calls: Calls) -> list[Result]:
    """Calls of gRPC, with a message and trailers, for each second of CPU time."""
    ports = [free_port(), free_port()]
    setup = Setup(bench.folder, tuple(f"127.0.0.1:{port}" for port in ports), calls.mode, core=bench.balancer_core)
    serve = ["benchmarks.calls", "serve", *map(str, ports)]
    with _before_own_endpoints(bench, serve, lambda: all(speaks_http2(port) for port in ports), setup) as peers:
        samples, notes = _for_cpu_seconds(
            bench, peers, lambda peer: load.calls(peer.port, calls, bench.seconds, bench.load_core)
        )
    unit = "calls per CPU second"
    command = _COMMAND + calls.name
    return [Result(calls.name, calls.title, unit, "higher", samples, command, calls.bar, group="http2", notes=notes)]


def startup(bench: Bench) -> list[Result]:
    """From the start of the process until it is ready, and the memory that it has then; static, and Kubernetes."""
    took: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    for kind in bench.peers:
        for _ in range(bench.rounds):
            peer = kind(bench.setup())
            try:
                took.setdefault(kind.name, []).append(peer.started())
                time.sleep(0.5)
                memory.setdefault(kind.name, []).append(
                    processes.resident_bytes(processes.family(peer.pids[0])) / 2**20
                )
            finally:
                peer.stop()
    command = _COMMAND + "startup"
    found = [
        Result("start", "Start to ready", "s", "lower", took, command, Bar(0.5), group="memory"),
        Result("memory", "Memory at start", "MiB", "lower", memory, command, Bar(64.0), group="memory"),
    ]
    if Lb in bench.peers:
        kubernetes = {OURS: [_memory_on_kubernetes(bench) for _ in range(bench.rounds)]}
        title = "Memory at start, Kubernetes discovery"
        found.append(Result("memory-kubernetes", title, "MiB", "lower", kubernetes, command, Bar(90.0), group="memory"))
    return found


def _memory_on_kubernetes(bench: Bench) -> float:
    """MiB of the balancer that watches the Service of a stand-in for the Kubernetes API."""
    folder = bench.folder / f"api-{free_port()}"
    folder.mkdir()
    api_port = free_port()
    command = [sys.executable, "-m", "benchmarks.kubeapi", str(api_port), str(folder / "kubeconfig"), *bench.endpoints]
    api = processes.start(command, folder, bench.load_core)
    balancer = Lb(bench.setup())
    balancer.extra = {
        "LB_BACKENDS": "",
        "LB_DISCOVERY": "kubernetes",
        "LB_KUBERNETES_SERVICE": "shop",
        "LB_KUBERNETES_NAMESPACE": "default",
        "KUBECONFIG": str(folder / "kubeconfig"),
    }
    try:
        while not (folder / "kubeconfig").exists():
            time.sleep(0.01)
        balancer.started()
        time.sleep(0.5)
        return processes.resident_bytes(balancer.pids) / 2**20
    finally:
        balancer.stop()
        processes.stop(api)


def choice(bench: Bench) -> list[Result]:
    """What a choice costs among 10,000 endpoints, as a multiple of one among 10, for each strategy."""
    python = Lb.program if shutil.which(Lb.program) else sys.executable
    command = [python, str(Path("benchmarks/choice.py")), "--json"]
    pinned = load.pinned(command, bench.balancer_core)
    done = subprocess.run(pinned, capture_output=True, text=True, check=True, cwd=ROOT)
    found = []
    times: dict[str, dict[str, float]] = json.loads(done.stdout)["nanoseconds"]
    for strategy, by_size in times.items():
        cost = {OURS: [by_size["10000"] / by_size["10"]]}
        note = ", ".join(f"{int(size):,}: {value:.0f} ns" for size, value in by_size.items())
        title = f"A choice among 10,000, {strategy}"
        shown = " ".join(command[1:]).removesuffix(" --json")
        found.append(
            Result(
                f"choice-{strategy}",
                title,
                "times among 10",
                "lower",
                cost,
                f".venv-compiled/bin/python {shown}",
                Bar(1.5),
                group="choice",
                notes={OURS: note},
            )
        )
    return found
