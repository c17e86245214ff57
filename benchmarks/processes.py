"""What Linux says of a process and those it has started, and of the machine: CPU seconds and memory, from /proc.

A machine that others use too slows all measured programs down; the CPU time that each has used changes little by that.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_PROC = Path("/proc")
_STOP_LIMIT = 5.0
"""Seconds that a program gets to stop by itself."""


def parent_of(stat: str) -> int:
    """The parent's process id from the text of /proc/PID/stat, whose second field may hold blanks and brackets."""
    return int(stat.rpartition(")")[2].split()[1])


def family(pid: int) -> list[int]:
    """`pid` and all processes that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                parent = parent_of((entry / "stat").read_text())
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    members = [pid]
    for member in members:
        members += children.get(member, [])
    return members


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time that the living threads of `pids` have used, in user and kernel mode, to the nanosecond."""
    total = 0
    for pid in pids:
        for task in (_PROC / str(pid) / "task").iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except OSError:
                continue
    return total / 1e9


def busy_seconds() -> float:
    """CPU time that all of the machine has used since it started, to a hundredth; what others took of it included."""
    user, nice, system, _idle, _waiting, *others = (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]
    ticks = sum(int(value) for value in (user, nice, system, *others))
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_bytes(pids: Sequence[int]) -> int:
    """Memory of `pids` that is in RAM, shared pages counted once for each process that has them."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(int((_PROC / str(pid) / "statm").read_text().split()[1]) * page for pid in pids)


def cores() -> tuple[int, int] | tuple[None, None]:
    """A core for the balancer, and one for the load and the endpoints; none where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else (None, None)


def open_files() -> int:
    """How many files a program of ours may open, at most as many as any of them could use."""
    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 40_000)


def look_further() -> None:
    """Find programs too where packages put them, and the PATH of not every user leads: /usr/sbin and ~/.local/bin."""
    os.environ["PATH"] += f":/usr/sbin:{Path.home()}/.local/bin"


def start(
    command: Sequence[str], folder: Path, core: int | None = None, environ: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `command` on `core` alone, its output in `folder`/output.log."""
    pinned = ["taskset", "-c", str(core)] if core is not None and shutil.which("taskset") else []
    # The benchmark sets the program's environment here; the shell that started it has no say.
    base = {key: value for key, value in os.environ.items() if not key.startswith(("LB_", "PI_", "KUBE"))}
    with (folder / "output.log").open("ab") as output:
        return subprocess.Popen(
            [*pinned, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**base, **(environ or {})},
            process_group=0,
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End `process` and wait for it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            # It leads a process group of its own: its children go with it.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
