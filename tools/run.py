"""`make run`: the balancer and its Pi backends on this machine, until Ctrl-C.

Every process is a process group of its own, so that Ctrl-C reaches this one alone, which then stops the others in the
right order; tools/guard.py sees to them when this one is killed. `LB_…` and `PI_…` variables, and a `.env` file, reach
the processes; where they name backends or a discovery of their own, no Pi process is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv import dotenv_values

from balancer.settings import Settings, SettingsError, load

ROOT = Path(__file__).resolve().parent.parent
OWN_BACKENDS = ("LB_DISCOVERY", "LB_BACKENDS", "LB_BACKENDS_FILE")
ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}
START_LIMIT = 30.0
"""Seconds after which it is said that something has not come up yet."""
PI_STOP_LIMIT = 10.0
"""Seconds that a Pi process gets to stop: nobody waits for its answers once the balancer has gone."""


class CannotRun(Exception):
    """Why nothing was started, and the remedy."""


@dataclass(frozen=True)
class Backend:
    """One Pi process to start."""

    name: str
    port: int
    environ: Mapping[str, str] = field(default_factory=dict)
    """Its own variables, beside those that all share."""


@dataclass(frozen=True)
class Plan:
    """What is to be started."""

    settings: Settings
    environ: Mapping[str, str]
    backends: tuple[Backend, ...]

    @property
    def url(self) -> str:
        """Where a client on this machine connects."""
        return f"{'https' if self.settings.tls_cert else 'http'}://localhost:{self.settings.port}"


def make_plan(environ: Mapping[str, str], env_file: Mapping[str, str | None]) -> Plan:
    """What `environ`, and below it the `.env` file, ask for. Raises CannotRun."""
    given = {name: value for name, value in env_file.items() if value is not None} | dict(environ)
    count = given.get("BACKENDS") or "4"
    if not (count.isascii() and count.isdigit() and 1 <= int(count) <= 100):
        raise CannotRun(f"BACKENDS={count}: allowed is a number from 1 to 100")
    own = any(given.get(name) for name in OWN_BACKENDS)
    backends = () if own else tuple(Backend(f"pi-{n}", port) for n, port in enumerate(free_ports(int(count)), start=1))
    if backends:
        given["LB_BACKENDS"] = ",".join(f"127.0.0.1:{backend.port}" for backend in backends)
        given.setdefault("PI_WORKERS", str(max(1, (os.cpu_count() or 1) // len(backends))))
    # For a terminal on this machine: reachable from it alone, and steered with a token that is printed.
    for name, value in [
        ("LB_HOST", "127.0.0.1"),
        ("LB_LOG_FORMAT", "console"),
        ("LB_ADMIN_TOKEN", secrets.token_hex(4)),
    ]:
        given[name] = given.get(name) or value
    try:
        settings = load(given)
        if 0 in (settings.port, settings.admin_port):
            given |= {"LB_PORT": str(settings.port or free_ports(1)[0])}
            given |= {"LB_ADMIN_PORT": str(settings.admin_port or free_ports(1)[0])}
            settings = load(given)
    except SettingsError as error:
        raise CannotRun("\n".join(error.faults)) from None
    return Plan(settings, {**given, "PYTHONUNBUFFERED": "1"}, backends)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nothing listens at now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def refuse_busy_ports(settings: Settings) -> None:
    """Raises CannotRun when the balancer could not listen where it is to listen."""
    wanted = [("LB_PORT", host, settings.port) for host in settings.host]
    for variable, host, port in [*wanted, ("LB_ADMIN_PORT", settings.admin_host, settings.admin_port)]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                probe.listen()
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
            raise CannotRun(
                f"port {port} of {host} {reason}: stop what listens there (ss -ltnp 'sport = :{port}' names it), "
                f"or choose another: {variable}={free_ports(1)[0]} make run"
            ) from None


class Screen:
    """Lines on standard output, each with the process that wrote it; coloured on a terminal unless NO_COLOR is set."""

    COLOURS = ("36", "32", "33", "35", "34", "92", "93", "95", "94", "96")
    WIDTH = len("balancer")

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._coloured = sys.stdout.isatty() and not environ.get("NO_COLOR")
        self._colours: dict[str, str] = {}

    def line(self, who: str, text: str) -> None:
        """One line of process `who`."""
        prefix = f"{who:<{self.WIDTH}} │"
        if self._coloured:
            colour = self._colours.setdefault(who, self.COLOURS[len(self._colours) % len(self.COLOURS)])
            prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
        print(prefix, text, flush=True)

    def say(self, text: str) -> None:
        """Words of the runner itself."""
        print(f"\x1b[1m{text}\x1b[0m" if self._coloured else text, flush=True)


class Guard:
    """The process that stops the others should this one be killed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls) -> Guard:
        """Start it, in a group of its own."""
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable, ROOT / "tools" / "guard.py", stdin=asyncio.subprocess.PIPE, process_group=0
            )
        )

    def tell(self, sign: str, group: int) -> None:
        """A process group has begun (`+`) or ended (`-`)."""
        if self._process.stdin is not None:
            self._process.stdin.write(f"{sign}{group}\n".encode())

    async def end(self) -> None:
        """Close its input; it ends once nothing that it knows of is left."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()


@dataclass
class Child:
    """One process, its output and its end."""

    name: str
    process: asyncio.subprocess.Process
    output: asyncio.Task[None] = field(repr=False)

    def signal(self, number: int) -> None:
        """Send a signal to the process alone: it passes on what its own children need to know."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill(self) -> None:
        """End the process and whatever it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def how_it_ended(self) -> str:
        """For a person: by which signal or status."""
        status = self.process.returncode or 0
        return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


class Runner:
    """The processes of one `make run`."""

    def __init__(self, plan: Plan, screen: Screen, guard: Guard) -> None:
        self._plan = plan
        self._screen = screen
        self._guard = guard
        self._pis: list[Child] = []
        self._balancer: Child | None = None
        self._stop = asyncio.Event()
        self._status = 0

    def interrupt(self) -> None:
        """Ctrl-C: stop in order; a second one: at once."""
        if self._stop.is_set():
            for child in [*self._pis, *([self._balancer] if self._balancer else [])]:
                child.kill()
        self._stop.set()

    async def run(self) -> int:
        """Until interrupted, or the balancer has ended by itself: then 1."""
        async with asyncio.TaskGroup() as tasks:
            for backend in self._plan.backends:
                where = {"PI_HOST": "127.0.0.1", "PI_PORT": str(backend.port), "PI_NAME": backend.name}
                environ = {**backend.environ, **where}
                self._pis.append(await self._start(backend.name, "pi", environ))
            self._balancer = await self._start("balancer", "balancer", {})
            watchers = [tasks.create_task(self._watch(child)) for child in [*self._pis, self._balancer]]
            greeting = tasks.create_task(self._greet())
            await self._stop.wait()
            greeting.cancel()
            await self._stop_all(self._balancer)
            for watcher in watchers:
                watcher.cancel()
        return self._status

    async def _start(self, name: str, module: str, environ: Mapping[str, str]) -> Child:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module),
            env={**self._plan.environ, **environ},
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            process_group=0,
        )
        self._guard.tell("+", process.pid)
        return Child(name, process, asyncio.create_task(self._copy(name, process)))

    async def _copy(self, name: str, process: asyncio.subprocess.Process) -> None:
        """The process's output, line by line however long a line is."""
        rest = b""
        while process.stdout is not None and (block := await process.stdout.read(65536)):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                self._screen.line(name, line.decode(errors="replace"))
        if rest:
            self._screen.line(name, rest.decode(errors="replace"))

    async def _watch(self, child: Child) -> None:
        """Report the end of a process that nobody has asked to end."""
        await child.process.wait()
        child.kill()
        if self._stop.is_set():
            return
        await asyncio.wait([child.output], timeout=1)
        self._guard.tell("-", child.process.pid)
        if child is self._balancer:
            self._screen.say(f"the balancer has ended ({child.how_it_ended()}): stopping the rest")
            self._status = 1
            self._stop.set()
            return
        self._pis.remove(child)
        left = f"the other {len(self._pis)} go on" if self._pis else "none is left, the balancer goes on"
        self._screen.say(f"{child.name} has died ({child.how_it_ended()}): {left}")

    async def _greet(self) -> None:
        """Once everything listens, where to look."""
        settings = self._plan.settings
        host = ANY_HOST.get(settings.host[0], settings.host[0])
        awaited = [(host, settings.port), *(("127.0.0.1", backend.port) for backend in self._plan.backends)]
        up = asyncio.gather(*(listening(*address) for address in awaited))
        if not (await asyncio.wait([up], timeout=START_LIMIT))[0]:
            self._screen.say(f"not everything has come up after {START_LIMIT:.0f} s: see the lines above")
        await up
        backends = f"{len(self._plan.backends)} Pi backends" if self._plan.backends else "backends of your own"
        admin = f"http://{ANY_HOST.get(settings.admin_host, settings.admin_host)}:{settings.admin_port}"
        self._screen.say(
            f"\n  {self._plan.url}  {settings.mode}, {settings.strategy}, {backends}"
            f"\n  {admin}  dashboard, /metrics, /api (token: {self._plan.environ['LB_ADMIN_TOKEN']})"
            f"\n  try: curl {self._plan.url}/10   or, in another terminal: make stress   Ctrl-C stops\n"
        )

    async def _stop_all(self, balancer: Child) -> None:
        """The balancer first, so that it finds its endpoints until its last request has been answered."""
        self._screen.say("stopping (Ctrl-C again: at once)")
        balancer.signal(signal.SIGINT)
        await self._ended(balancer, self._plan.settings.drain_timeout + PI_STOP_LIMIT)
        for pi in self._pis:
            pi.signal(signal.SIGTERM)
        await asyncio.gather(*(self._ended(pi, PI_STOP_LIMIT) for pi in self._pis))

    async def _ended(self, child: Child, limit: float) -> None:
        try:
            async with asyncio.timeout(limit):
                await child.process.wait()
        except TimeoutError:
            self._screen.say(f"{child.name} has not stopped within {limit:.0f} s: killed")
        child.kill()
        await child.process.wait()
        await asyncio.wait([child.output], timeout=1)
        self._guard.tell("-", child.process.pid)


async def listening(host: str, port: int) -> None:
    """Return as soon as something accepts connections there."""
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


async def run(plan: Plan) -> int:
    """Start what is planned, and see it to its end."""
    guard = await Guard.start()
    runner = Runner(plan, Screen(plan.environ), guard)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, runner.interrupt)
    try:
        return await runner.run()
    finally:
        await guard.end()


def main() -> int:
    """The exit status of `make run`."""
    try:
        plan = make_plan(os.environ, dotenv_values(ROOT / ".env", interpolate=False))
        refuse_busy_ports(plan.settings)
    except CannotRun as reason:
        print(f"run: {reason}", file=sys.stderr)
        return 1
    return asyncio.run(run(plan))


if __name__ == "__main__":
    sys.exit(main())
