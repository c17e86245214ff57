"""Imports the product once, and forks a process for each balancer that a test asks for.

Starting Python and importing takes a second of CPU, and the tests start a hundred balancers; what runs after the fork
is `python -m balancer` all the same. A program of its own, run by the interpreter under test: it imports nothing of the
tests. It reads one JSON object a line, and answers with one.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import gc
import importlib
import itertools
import json
import os
import resource
import runpy
import signal
import struct
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any


def start(asked: dict[str, Any]) -> dict[str, int | None]:
    """Fork a balancer with an environment, a folder, a log and a limit of open files."""
    pid = os.fork()
    if pid:
        return {"pid": pid}
    os.setsid()
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    os.closerange(3, 256)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    use_dns(os.environ.pop("LB_TEST_DNS", ""))
    inject(os.environ.pop("LB_TEST_FAULTS", ""))
    count_calls(os.environ.pop("LB_TEST_COUNTED", ""))
    fail_to_connect(int(os.environ.pop("LB_TEST_CONNECT_ERRNO", "0")))
    if asked["open_files"]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (asked["open_files"], asked["open_files"]))
    signal.signal(signal.SIGUSR1, tell_garbage)
    signal.signal(signal.SIGUSR2, tell_inside)
    keep_balancers()
    sys.argv = ["balancer"]
    status = 1
    try:
        runpy.run_module("balancer", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        atexit._run_exitfuncs()  # as an interpreter does: the log is written by a thread, which ends there
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def use_dns(told: str) -> None:
    """Resolve names by another resolv.conf and port than the system's: `path:port`."""
    if told:
        resolving = sys.modules["balancer.resolving"]
        path, _, port = told.rpartition(":")
        resolving.RESOLV_CONF, resolving.SERVER_PORT = Path(path), int(port)  # type: ignore[attr-defined]


def inject(told: str) -> None:
    """Let a method of the data plane raise, `module:Class.method`, each second time it is called; `heal` ends it.

    It raises before what it would have done, or behind that, by turns: a fault may come at either end.
    """
    if not told:
        return
    module, _, path = told.partition(":")
    owner, _, name = path.partition(".")
    patched = getattr(importlib.import_module(f"balancer.proxy.{module}"), owner)
    real = getattr(patched, name)
    healed, calls = Path("healed"), itertools.count(1)

    def faulty(self: Any, *arguments: Any) -> Any:
        number = next(calls)
        if healed.exists() or number % 2 == 0:
            return real(self, *arguments)
        if number % 4 == 1:
            raise RuntimeError("injected fault")
        real(self, *arguments)
        raise RuntimeError("injected fault")

    setattr(patched, name, faulty)


_calls = 0


def count_calls(told: str) -> None:
    """Count the calls of a method of the data plane, `module:Class.method`, for `tell_inside`."""
    if not told:
        return
    module, _, path = told.partition(":")
    owner, _, name = path.partition(".")
    patched = getattr(importlib.import_module(f"balancer.proxy.{module}"), owner)
    real = getattr(patched, name)

    def counted(self: Any, *arguments: Any) -> Any:
        global _calls
        _calls += 1
        return real(self, *arguments)

    setattr(patched, name, counted)


def fail_to_connect(number: int) -> None:
    """Let the kernel answer each connect(2) with the errno `number`, by a seccomp filter; 0: let it alone."""
    if not number:
        return
    call = {"x86_64": 42, "aarch64": 203}[os.uname().machine]
    program = (
        struct.pack("HBBI", 0x20, 0, 0, 0)  # load the number of the system call
        + struct.pack("HBBI", 0x15, 0, 1, call)  # go on with the next where it is connect, else behind it
        + struct.pack("HBBI", 0x06, 0, 0, 0x00050000 | number)  # SECCOMP_RET_ERRNO
        + struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)  # SECCOMP_RET_ALLOW
    )
    kept = ctypes.create_string_buffer(program, len(program))
    described = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(kept)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, described, 0, 0):  # no new privileges; seccomp, by a filter
        os.write(2, b"no seccomp filter here\n")
        os._exit(77)


def tell_garbage(*_: object) -> None:
    """Print which objects of the product hold each other and nobody else does, by type, as one JSON line.

    But for the rings of the strategies, which change with the membership and not with each request.
    """
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    kinds = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage)
    gc.set_debug(0)
    gc.garbage.clear()
    gc.collect()
    kept = ("balancer.balancing.strategies.",)
    ours = {
        kind: number for kind, number in kinds.items() if kind.startswith("balancer.") and not kind.startswith(kept)
    }
    os.write(1, json.dumps({"garbage": ours}).encode() + b"\n")


_balancers: list[Any] = []


def keep_balancers() -> None:
    """Let `tell_inside` find the balancer that will be made."""
    app = sys.modules["balancer.app"]

    class Kept(app.Balancer):  # type: ignore[misc, name-defined]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            _balancers.append(self)

    app.Balancer = Kept  # type: ignore[attr-defined]


def tell_inside(*_: object) -> None:
    """Write what a balancer holds, descriptors apart, as JSON into the file `inside`."""
    told = {}
    for balancer in _balancers:
        poller, wheel = balancer._poller, balancer._wheel
        told = {
            "tasks": len(asyncio.all_tasks()),
            "timers": sum(len(slot) for slot in wheel._slots.values()),
            "descriptors": poller.open_files,
            "unsent": poller.buffers.unsent,
            "calls": _calls,
            "due_soon": sum(len(slot) for tick, slot in wheel._slots.items() if tick < wheel._looked + 10),
        }
    file = Path("inside.new")
    file.write_text(json.dumps(told))
    file.rename("inside")


def poll(pid: int) -> dict[str, int | None]:
    """The exit status as subprocess gives it, negative for a signal; None while it runs."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    return {"status": os.waitstatus_to_exitcode(status) if ended else None}


def main() -> None:
    # Its threads, if any, are none of the children's business; the product's own warnings still are.
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
    __import__("balancer.app")
    __import__("balancer.cli")
    running: set[int] = set()
    for line in sys.stdin:
        asked = json.loads(line)
        answer = poll(asked["poll"]) if "poll" in asked else start(asked)
        if answer.get("pid"):
            running.add(answer["pid"] or 0)
        elif answer["status"] is not None:
            running.discard(asked["poll"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in running:  # whoever asked for them is gone
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
