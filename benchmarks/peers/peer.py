"""What the compared programs have in common: their settings, and how they are started and stopped."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Literal, Self, get_args

from benchmarks import processes
from benchmarks.ports import AGREED, agreed, free_port, speaks_http2, status_of

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
UNSTABLE = CACHE / "lb-bench/unstable/root"
"""Where `make newest-peers` puts Debian's unstable packages of nginx and HAProxy."""
FETCH = "make newest-peers"
Mode = Literal["http", "tcp", "tls", "h2", "h2-tls", "h2-to-http1", "routes"]
"""What clients and endpoints speak: HTTP/1.1, or bytes; HTTP/1.1 by TLS; HTTP/2 on both sides, in plain text, or by TLS
from clients; HTTP/2 from clients only; HTTP/1.1 by ROUTES, one for each host."""
MODES: frozenset[Mode] = frozenset(get_args(Mode))

ROUTES = tuple(f"h{number}.example.com" for number in range(10))
"""The hosts that have a route, where there are routes."""
FAILURES = 5
RETRY_STATUSES = frozenset({500, 502, 503})
"""Statuses on which every balancer of unequal endpoints asks another one."""
_START_LIMIT = 30.0
"""Seconds until a program must serve: a machine under load is slow to start it."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a balancer is to do."""

    folder: Path
    endpoints: tuple[str, ...]
    mode: Mode = "http"
    access_log: bool = False
    policy: str = "round-robin"
    response_timeout: float = 60.0
    core: int | None = None
    watched: bool = False
    """Whether endpoints may misbehave: failures are looked for also where that is not the default."""
    eject_time: float = 10.0
    """Seconds that an endpoint is left out after FAILURES in a row."""

    @property
    def http(self) -> bool:
        """Whether requests are balanced, not connections."""
        return self.mode != "tcp"

    @property
    def tls(self) -> bool:
        """Whether clients come by TLS."""
        return self.mode in ("tls", "h2-tls")

    @property
    def routes(self) -> bool:
        """Whether there is a route for each host of ROUTES, and for no other."""
        return self.mode == "routes"

    @property
    def http2(self) -> bool:
        """Whether clients speak HTTP/2."""
        return self.mode.startswith("h2")

    @property
    def http2_endpoints(self) -> bool:
        """Whether endpoints do."""
        return self.mode in ("h2", "h2-tls")


class Peer(ABC):
    """One program, started in front of the endpoints and stopped at the end: a context manager."""

    name: ClassVar[str]
    program: ClassVar[str]
    source: ClassVar[str]
    """Where its package is."""
    asked_version: ClassVar[str] = "-v"
    """The option that makes it tell its version."""
    modes: ClassVar[frozenset[Mode]] = frozenset({"http", "tcp"})
    policies: ClassVar[Mapping[str, str]]
    """Its name for each strategy."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.folder = setup.folder / f"{self.name}-{setup.mode}-{setup.policy}-{random.randrange(1 << 32):08x}"
        self.folder.mkdir(parents=True)
        self.port = free_port()
        self.pids: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot take part; None when it can."""
        return None if shutil.which(cls.program) else f"no {cls.program} on PATH: {cls.source}"

    @classmethod
    def version(cls) -> str:
        """Its name, and the version that it tells itself."""
        told = first_line([cls.program, cls.asked_version])
        number = re.search(r"\d+\.\d+\.\d+\S*?(?=[/,\s]|$)", told)
        return f"{cls.name} {number[0] if number else told}"

    @abstractmethod
    def command(self) -> list[str]:
        """Write the configuration; what to run."""

    def environ(self) -> dict[str, str]:
        """Environment variables to set."""
        return {}

    def ready(self) -> bool:
        """Whether it serves."""
        if self.setup.tls:
            return agreed(self.port) is not None
        return speaks_http2(self.port) if self.setup.http2 else status_of(self.port) != 0

    def started(self) -> float:
        """Start it and wait until it is ready; the seconds that took."""
        began = time.perf_counter()
        self._process = processes.start(self.command(), self.folder, self.setup.core, self.environ())
        while not self.ready():
            if self._process.poll() is not None or time.perf_counter() - began > _START_LIMIT:
                output = (self.folder / "output.log").read_text(errors="replace")
                raise RuntimeError(f"{self.name} does not start: {output[-2000:]}")
            time.sleep(0.002)
        took = time.perf_counter() - began
        if self.setup.tls and (found := agreed(self.port)) != AGREED:
            raise RuntimeError(f"{self.name} agrees on {found}, and not on {AGREED}")
        self.pids = processes.family(self._process.pid)
        return took

    def stop(self) -> None:
        """End it, and remove what it wrote."""
        if self._process is not None:
            processes.stop(self._process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.started()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def first_line(command: Sequence[str]) -> str:
    """What `command` says of itself."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().splitlines()[0]
