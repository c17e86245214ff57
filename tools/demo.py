"""`make demo`: four unequal Pi backends under load, the dashboard, and what to try.

The stage of docs/tour.md: one backend is slow, one fails at times, two are well. It runs until Ctrl-C.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import textwrap
import webbrowser
from collections.abc import Mapping

import aiohttp
from tools.run import Backend, CannotRun, Plan, Screen, free_ports, listening, make_plan, refuse_busy_ports, run

STAGE: Mapping[str, Mapping[str, str]] = {
    "pi-well-1": {},
    "pi-well-2": {},
    "pi-slow": {"PI_DELAY_MS": "200"},
    "pi-failing": {"PI_FAIL_RATE": "0.3"},
}
WRONG = {
    "pi-well-1": "is well",
    "pi-well-2": "is well",
    "pi-slow": "answers 200 ms late",
    "pi-failing": "answers 500 to a third of its requests",
}
RATE = 60.0
"""Requests a second: enough to see, little enough for a laptop."""
DIGITS = 200
TOKEN = "demo"

GUIDE = """
    The dashboard   {admin}   (admin token: {token})

    Four backends take {rate:.0f} requests a second, each in its turn:
{backends}

    Try this, and watch the dashboard:

    1  Round-robin knows nothing of latency: a quarter of the requests wait for the slow one. Look at p99 in the
       latency plot, and below at what the other strategies would have chosen for these same requests.
    2  Switch: choose least-response-time, press Switch, give the token. p99 falls within seconds. Open a decision to
       see why it went where it went. The same from a terminal:
           curl -X PUT {admin}/api/strategy -H 'Authorization: Bearer {token}' \\
                -H 'Content-Type: application/json' -d '{{"strategy": "least-response-time"}}'
    3  The failing backend is ejected after five failures in a row, or for failing far more often than the rest, and
       comes back when its time is over: its card counts down, and the list below shows each step.
    4  Drain a backend by hand with the button on its card, watch its requests in flight end, and take it back.
    5  Stop one that is well, and see that no client notices, for its requests go again to another endpoint:
           kill {victim}
    6  Ask why:  curl -sD- -o/dev/null -H 'X-LB-Explain: Bearer {token}' {url}/10

    More: {admin}/metrics, {admin}/api/decisions, and docs/tour.md.   Ctrl-C stops everything.
"""


def stage(environ: Mapping[str, str]) -> Plan:
    """What is to be started: `make run`'s plan, with unequal backends. Raises CannotRun."""
    ports = free_ports(len(STAGE))
    plan = make_plan(
        {
            "LB_ADMIN_TOKEN": TOKEN,
            "LB_STRATEGY": "round-robin",
            "LB_LOG_LEVEL": "warning",
            "LB_ACCESS_LOG": "off",
            "PI_WORKERS": "1",
            # A busy machine makes the backends slow for a while: they queue then, rather than turn all clients away.
            "PI_QUEUE": "1000",
            **environ,
            "LB_DISCOVERY": "static",
            "LB_BACKENDS": ",".join(f"127.0.0.1:{port}" for port in ports),
        },
        {},
    )
    backends = tuple(Backend(name, port, wrong) for (name, wrong), port in zip(STAGE.items(), ports, strict=True))
    return Plan(plan.settings, plan.environ, backends)


async def ready(url: str) -> None:
    """Return once that Pi backend's workers have started. Requests before that would wait, and then be refused."""
    async with aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{url}/readyz") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.05)


async def load(url: str) -> None:
    """Clients that come when they come, RATE a second: a slow answer does not keep the next one from asking."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as clients:
        while True:
            clients.create_task(ask(session, f"{url}/{random.randint(1, DIGITS)}"))
            await asyncio.sleep(random.expovariate(RATE))


async def ask(session: aiohttp.ClientSession, url: str) -> None:
    """One request; what comes of it is the dashboard's to show."""
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with session.get(url) as response:
            await response.read()


async def play(plan: Plan) -> int:
    """Everything, until Ctrl-C."""
    audience = asyncio.create_task(attend(plan))
    try:
        return await run(plan)
    finally:
        audience.cancel()
        await asyncio.gather(audience, return_exceptions=True)


async def attend(plan: Plan) -> None:
    """Once all is up: open the dashboard, say what to try, and send requests."""
    settings = plan.settings
    for port in (settings.port, settings.admin_port, *(backend.port for backend in plan.backends)):
        await listening("127.0.0.1", port)
    for backend in plan.backends:
        await ready(f"http://127.0.0.1:{backend.port}")
    admin = f"http://localhost:{settings.admin_port}"
    backends = "\n".join(f"        127.0.0.1:{backend.port}  {WRONG[backend.name]}" for backend in plan.backends)
    words = {
        "backends": backends,
        "admin": admin,
        "url": plan.url,
        "token": plan.environ["LB_ADMIN_TOKEN"],
        "rate": RATE,
    }
    victim = f"$(ss -Htlnp 'sport = :{plan.backends[0].port}' | grep -oP 'pid=\\K\\d+' | head -1)"
    await asyncio.sleep(0.5)
    Screen(plan.environ).say(textwrap.dedent(GUIDE).format(**words, victim=victim))
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin":
        webbrowser.open(admin)
    await load(plan.url)


def main() -> int:
    """The exit status of `make demo`."""
    try:
        plan = stage(os.environ)
        refuse_busy_ports(plan.settings)
    except CannotRun as reason:
        print(f"demo: {reason}", file=sys.stderr)
        return 1
    return asyncio.run(play(plan))


if __name__ == "__main__":
    sys.exit(main())
