"""The product as its users run it: one process, settings from the environment, looked at through its admin port.

LB_TEST_PYTHON names another interpreter to run it with, so that the same tests judge a compiled build.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.ports import free_port

PYTHON = os.environ.get("LB_TEST_PYTHON", sys.executable)
START_LIMIT = 20.0
"""Seconds until the process must be ready: a machine under load is slow to import."""
SETTLE = 5.0
"""Seconds within which counts must be back at rest."""


class Forked:
    """A balancer forked by the zygote, with as much of subprocess.Popen as the tests need."""

    _zygote: subprocess.Popen[str] | None = None

    def __init__(self, log: Path, environment: Mapping[str, str], open_files: int) -> None:
        self.returncode: int | None = None
        asked = {"log": str(log), "folder": str(log.parent), "environment": environment, "open_files": open_files}
        pid = self._ask(asked)["pid"]
        assert pid is not None
        self.pid = pid

    @classmethod
    def _ask(cls, asked: Mapping[str, object]) -> dict[str, int | None]:
        if cls._zygote is None:
            command = [PYTHON, "-W", "default", str(Path(__file__).parent / "zygote.py")]
            cls._zygote = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            atexit.register(cls._end)
        zygote = cls._zygote
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        zygote.stdin.write(json.dumps(asked) + "\n")
        zygote.stdin.flush()
        answer: dict[str, int | None] = json.loads(zygote.stdout.readline())
        return answer

    @classmethod
    def _end(cls) -> None:
        assert cls._zygote is not None
        with cls._zygote as zygote:
            assert zygote.stdin is not None
            zygote.stdin.close()  # it ends what it has started, and itself
            zygote.wait(10)

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._ask({"poll": self.pid})["status"]
        return self.returncode

    def wait(self, timeout: float = 15.0) -> int:
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("balancer", timeout)
            time.sleep(0.01)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Balancer:
    """A running balancer in front of `endpoints` reserved ports, on which nothing listens until a test does."""

    def __init__(
        self,
        log: Path,
        endpoints: int = 1,
        settings: Mapping[str, str] | None = None,
        *,
        open_files: int = 0,
        ready: int = 200,
        forked: bool = True,
        stdout: Path | None = None,
    ) -> None:
        """`open_files`: its limit of file descriptors; `ready`: the status of /readyz that ends the start.

        `forked=False` starts an interpreter of its own, as a user does; `stdout`: where its access log then goes, if
        not to `log` with the messages.
        """
        self.port = free_port()
        self.admin_port = int((settings or {}).get("LB_ADMIN_PORT") or free_port())
        self.endpoints: Sequence[int] = [free_port() for _ in range(endpoints)]
        self.log_path = log
        self.faulty = False
        """Whether faults of its own are made in it, and belong into its log."""
        self.ended_by_test = False
        """Whether a test has ended it: else it must be alive when the test is over."""
        self._seen = 0
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("LB_", "PI_"))}
        environment |= {
            "LB_HOST": "127.0.0.1",
            "LB_PORT": str(self.port),
            "LB_ADMIN_PORT": str(self.admin_port),
            "LB_BACKENDS": ",".join(f"127.0.0.1:{port}" for port in self.endpoints),
            "LB_LOG_FORMAT": "json",
            "LB_LOG_LEVEL": "info",
            "LB_EJECT_AFTER": "0",
            "LB_STRATEGY": "round-robin",
            "PYTHONWARNINGS": "default",
        }
        environment |= settings or {}
        self._admin_tls = ssl._create_unverified_context() if environment.get("LB_ADMIN_TLS_CERT") else None
        self.process: Forked | subprocess.Popen[bytes]
        if forked:
            self.process = Forked(log, environment, open_files)
        else:
            with log.open("wb") as output, (stdout or log).open("ab") as access:
                self.process = subprocess.Popen(
                    [PYTHON, "-m", "balancer"],
                    env=environment,
                    cwd=log.parent,
                    stdin=subprocess.DEVNULL,
                    stdout=access if stdout else output,
                    stderr=output,
                )
        self._wait_until(ready)
        probed = {"LB_HEALTH_PATH", "LB_BACKENDS_FILE", "LB_TEST_DNS"} & set(environment) or environment.get(
            "LB_DISCOVERY"
        )
        self.due_soon = 0
        """Timers that were due within a second when last looked inside;"""
        self.calls = 0
        """and calls of the method that LB_TEST_COUNTED names."""
        self.held_at_start = self.inside() if forked and not probed else None
        """What it held before anything was asked of it; None where probes and discovery hold more at times."""

    def _wait_until(self, status: int) -> None:
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the balancer stopped with {self.process.returncode}:\n{self.log()}")
            try:
                if self.admin("/readyz")[0] == status:
                    return
            except OSError:
                pass
            time.sleep(0.01)
        self.kill()
        raise RuntimeError(f"not ready within {START_LIMIT} s:\n{self.log()}")

    def admin(self, path: str, *, timeout: float = 5.0) -> tuple[int, str]:
        """Status and body of a GET on the admin port."""
        url = f"{'https' if self._admin_tls else 'http'}://127.0.0.1:{self.admin_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=timeout, context=self._admin_tls) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by name and labels, as it is written there."""
        samples = {}
        for line in self.admin("/metrics")[1].splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of `name` that carry at least these labels; 0 when there are none."""
        total = 0.0
        for sample, value in self.metrics().items():
            found, _, rest = sample.partition("{")
            if found == name and all(f'{key}="{wanted}"' in rest for key, wanted in labels.items()):
                total += value
        return total

    def heal(self) -> None:
        """Make no more faults in it."""
        (self.log_path.parent / "healed").touch()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def new_log(self) -> str:
        """What was logged since the last call."""
        whole = self.log()
        fresh, self._seen = whole[self._seen :], len(whole)
        return fresh

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def memory(self) -> int:
        """Resident memory (bytes)."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert found
        return int(found[1]) * 1024

    def garbage(self) -> dict[str, int]:
        """Objects of the product that only the garbage collector can free, by type: of a forked balancer."""
        assert isinstance(self.process, Forked)
        known = len(self.log())
        self.signal(signal.SIGUSR1)
        deadline = time.monotonic() + SETTLE
        while not (told := re.search(r'^\{"garbage": (.*)\}$', self.log()[known:], re.MULTILINE)):
            assert time.monotonic() < deadline, "it does not report its garbage"
            time.sleep(0.01)
        kinds: dict[str, int] = json.loads(told[1])
        return kinds

    def inside(self) -> dict[str, int]:
        """Tasks, timers, descriptors, bytes unsent and open files, idle connections to endpoints left out.

        Of a forked balancer; what an idle connection holds is a descriptor, a timer and an open file.
        """
        assert isinstance(self.process, Forked)
        file = self.log_path.parent / "inside"
        file.unlink(missing_ok=True)
        self.signal(signal.SIGUSR2)
        deadline = time.monotonic() + SETTLE
        while not file.exists():
            assert time.monotonic() < deadline, "it does not tell what it holds"
            time.sleep(0.001)
        held: dict[str, int] = json.loads(file.read_text())
        self.due_soon, self.calls = held.pop("due_soon"), held.pop("calls")
        held["files"] = self.open_files()
        idle = int(self.metric("lb_endpoint_connections_idle"))
        for kind in ("timers", "descriptors", "files"):
            held[kind] -= idle
        return held

    def cpu(self) -> float:
        """CPU seconds used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def open_files(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def signal(self, number: signal.Signals) -> None:
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
            self.ended_by_test = True
        self.process.send_signal(number)

    def wait(self, timeout: float = 15.0) -> int:
        """The exit status."""
        return self.process.wait(timeout)

    def kill(self) -> None:
        self.ended_by_test = True
        if self.alive:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """End it the quick way: SIGINT, which skips the drain's delay."""
        if self.alive:
            self.signal(signal.SIGINT)
            try:
                self.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()


Start = Callable[..., Balancer]
"""The fixture `start`: a running balancer for `endpoints` and settings by name without `LB_`, in lower case."""
