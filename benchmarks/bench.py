"""One run: which programs take part, on which cores, for how long; and the report that grows with each measurement."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import processes
from benchmarks.peers import PEERS
from benchmarks.peers.lb import Lb, LbBeside, LbSource
from benchmarks.peers.peer import Mode, Peer, Setup
from benchmarks.results import Report, Result, describe_machine, slow_interpreter


@dataclass(slots=True)
class Bench:
    """What every measurement is handed."""

    folder: Path
    rounds: int
    seconds: float
    report: Report
    tell: Callable[[str], None]
    only_peers: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    http2_endpoints: tuple[str, ...] = ()
    balancer_core: int | None = None
    load_core: int | None = None
    peers: list[type[Peer]] = field(default_factory=list)
    _running: dict[tuple[Mode, bool], list[Peer]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.balancer_core, self.load_core = processes.cores()
        self.report.machine = describe_machine()
        if Lb.missing() is None:
            self.report.machine["interpreter"] = interpreter = Lb.interpreter()
            if warning := slow_interpreter(interpreter):
                self.tell(f"bench: {warning}")
        self.peers = []
        candidates: list[type[Peer]] = [*PEERS]
        candidates += [peer for peer in (LbSource, LbBeside) if peer.name in self.only_peers]
        for peer in candidates:
            reason = peer.missing()
            if reason is None and (not self.only_peers or peer.name in self.only_peers):
                self.peers.append(peer)
                self.report.peers[peer.name] = peer.version()
            elif reason:
                # Figures of an earlier run, which this one adds to, stay those of the version that they name.
                self.report.peers.setdefault(peer.name, f"skipped: {reason}")

    def setup(self, mode: Mode = "http", *, access_log: bool = False) -> Setup:
        """The peers' settings, in front of the common endpoints."""
        setup = Setup(self.folder, self.endpoints, mode, access_log, core=self.balancer_core)
        return dataclasses.replace(setup, endpoints=self.http2_endpoints) if setup.http2_endpoints else setup

    def running(self, mode: Mode, *, access_log: bool) -> list[Peer]:
        """All that can do it, started; they run until the end, and use no CPU time while nobody asks."""
        key = (mode, access_log)
        if key not in self._running:
            self._running[key] = []
            for kind in self.peers:
                if mode in kind.modes:
                    self._start(kind(self.setup(mode, access_log=access_log)), key)
        return self._running[key]

    def _start(self, peer: Peer, key: tuple[Mode, bool]) -> None:
        """Start one; the others are worth measuring without it."""
        try:
            peer.started()
        except RuntimeError as error:
            peer.stop()
            self.tell(str(error))
        else:
            self._running[key].append(peer)

    def stop(self) -> None:
        """End whatever runs."""
        for peers in self._running.values():
            for peer in peers:
                peer.stop()
        self._running.clear()


def told(result: Result) -> str:
    """A result in a line."""
    typical = ", ".join(
        f"{peer} {statistics.median(values):.4g}"
        for peer, values in result.samples.items()
        if values and "/" not in peer
    )
    ratio = result.ratio()
    return f"{result.name}: {typical} {result.unit}" + (f"; ratio {ratio:.3f}" if ratio is not None else "")
