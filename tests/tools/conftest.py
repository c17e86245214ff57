"""`make run` on a terminal, as a person has it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tools.run import free_ports

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT = 60.0
"""Seconds to wait for what should take one or two."""


class Terminal:
    """The runner on a pseudo-terminal of its own: what it shows, and what is typed."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.port, self.admin_port = free_ports(2)
        self.text = ""
        self._status: int | None = None
        given = {name: value for name, value in os.environ.items() if not name.startswith(("LB_", "PI_"))}
        given |= {"LB_PORT": str(self.port), "LB_ADMIN_PORT": str(self.admin_port), "BACKENDS": "2", **environ}
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execve(sys.executable, [sys.executable, "tools/run.py"], given)

    @property
    def url(self) -> str:
        """Where the balancer is to be found."""
        return f"http://127.0.0.1:{self.port}"

    def see(self, pattern: str) -> str:
        """Wait until the terminal shows it."""
        deadline = time.monotonic() + LIMIT
        while not (found := re.search(pattern, self.text)):
            assert time.monotonic() < deadline, f"{pattern!r} is not shown:\n{self.text}"
            assert self._read(1.0), f"it ended before it showed {pattern!r}:\n{self.text}"
        return found[0]

    def press_ctrl_c(self) -> None:
        """As a person does."""
        os.write(self._fd, b"\x03")

    def end(self) -> int:
        """Wait until the runner has ended, and everything it wrote is read; its exit status."""
        if self._status is None:
            deadline = time.monotonic() + LIMIT
            while self._read(0.5):
                assert time.monotonic() < deadline, f"it does not end:\n{self.text}"
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            os.close(self._fd)
        return self._status

    def close(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.end()

    def processes(self) -> dict[str, int]:
        """Pids of the running services, by module and, for more than one, a number: `balancer`, `pi`, `pi 2`."""
        listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(self.pid)], capture_output=True, text=True)
        found: dict[str, int] = {}
        for pid, module in re.findall(r"^ *(\d+) .*-m (\w+)$", listed.stdout, re.MULTILINE):
            number = 1 + sum(name.split()[0] == module for name in found)
            found[module if number == 1 else f"{module} {number}"] = int(pid)
        return found

    def _read(self, limit: float) -> bool:
        """Take in what is written within `limit` seconds; False once nobody can write any more."""
        if not select.select([self._fd], [], [], limit)[0]:
            return True
        try:
            block = os.read(self._fd, 65536)
        except OSError:  # Linux: the other side is closed
            return False
        self.text += block.decode(errors="replace")
        return bool(block)


@pytest.fixture
def make_run() -> Iterator[Callable[..., Terminal]]:
    """Starts `make run` with these variables set."""
    started: list[Terminal] = []

    def start(**environ: str) -> Terminal:
        started.append(Terminal(environ))
        return started[-1]

    yield start
    for terminal in started:
        terminal.close()


def gone(pid: int) -> bool:
    """Whether the process has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] == "Z"


@pytest.fixture
def all_gone() -> Callable[[Mapping[str, int]], bool]:
    """Whether these processes end within a few seconds."""

    def ask(processes: Mapping[str, int]) -> bool:
        deadline = time.monotonic() + 10
        while not all(gone(pid) for pid in processes.values()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    return ask
