"""Fleets of unequal endpoints, each with a script of its own: the reason to have a balancer at all.

An endpoint serves as a process with a few workers does: so many requests at a time, each for a random (exponential)
time with a given mean, the others wait in its queue. `python -m benchmarks.fleets FLEET PORT…` serves a fleet.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from dataclasses import dataclass
from random import Random

import uvloop

WORKERS = 4
MEAN = 0.008
"""Seconds that a healthy endpoint works on a request, on average."""


@dataclass(frozen=True, slots=True)
class Script:
    """How one endpoint behaves."""

    slower: float = 1.0
    """Its mean time as a multiple of a healthy one's."""
    hangs: bool = False
    """Takes requests and never answers."""
    fails: bool = False
    """Answers 500 at once."""
    pause_every: float = 0.0
    """Mean seconds between pauses in which nothing is answered: a noisy neighbour, a collector."""
    pause: float = 0.0
    joins_after: float = 0.0
    """Seconds after the start until it answers at all; then it is cold, and five times as slow for two seconds."""


HEALTHY = Script()
NOISY = Script(pause_every=1.5, pause=0.15)
FLEETS: dict[str, tuple[Script, ...]] = {
    "one-slow": (HEALTHY, HEALTHY, HEALTHY, Script(slower=10.0)),
    "one-hung": (HEALTHY, HEALTHY, HEALTHY, Script(hangs=True)),
    "one-failing": (HEALTHY, HEALTHY, HEALTHY, Script(fails=True)),
    "equal": (HEALTHY,) * 4,
    "noisy": (NOISY,) * 4,
    "one-joining": (HEALTHY, HEALTHY, HEALTHY, Script(joins_after=2.0)),
}
COLD = 5.0
COLD_FOR = 2.0


def capacity(fleet: tuple[Script, ...]) -> float:
    """Requests a second that its sound endpoints could answer in the long run."""
    sound = [script for script in fleet if not (script.hangs or script.fails)]
    return sum(WORKERS / (MEAN * script.slower) for script in sound)


class Endpoint:
    """One scripted endpoint: its workers, its queue, and the connections that wait for it."""

    def __init__(self, script: Script, seed: int) -> None:
        self.script = script
        self._random = Random(seed)
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._free = WORKERS
        self._queue: deque[Connection] = deque()
        self._paused_until = 0.0
        self._next_pause = self._pause_after(self._began)

    def _pause_after(self, now: float) -> float:
        every = self.script.pause_every
        return now + self._random.expovariate(1 / every) if every else float("inf")

    def asked(self, connection: Connection) -> None:
        """A request has come."""
        if self.script.fails:
            connection.answer(500)
        elif self.script.hangs:
            pass
        elif self._free:
            self._free -= 1
            self._work(connection)
        else:
            self._queue.append(connection)

    def _work(self, connection: Connection) -> None:
        now = self._loop.time()
        if now >= self._next_pause:
            self._paused_until = now + self.script.pause
            self._next_pause = self._pause_after(self._paused_until)
        age = now - self._began - self.script.joins_after
        cold = COLD if self.script.joins_after and age < COLD_FOR else 1.0
        mean = MEAN * self.script.slower * cold
        takes = self._random.expovariate(1 / mean) + max(0.0, self._paused_until - now)
        self._loop.call_later(takes, self._worked, connection)

    def _worked(self, connection: Connection) -> None:
        connection.answer(200)
        if self._queue:
            self._work(self._queue.popleft())
        else:
            self._free += 1


class Connection(asyncio.Protocol):
    """One balancer's connection: GETs without a body, one after the other."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._held += data
        while b"\r\n\r\n" in self._held:
            _, _, self._held = self._held.partition(b"\r\n\r\n")
            self._endpoint.asked(self)

    def answer(self, status: int) -> None:
        """Send an answer, unless nobody waits any more."""
        if not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 %d Answer\r\nContent-Length: 3\r\n\r\nok\n" % status)


async def _listen(script: Script, port: int, seed: int) -> None:
    loop = asyncio.get_running_loop()
    endpoint = Endpoint(script, seed)
    await asyncio.sleep(script.joins_after)
    await loop.create_server(lambda: Connection(endpoint), "127.0.0.1", port, backlog=4096)


async def _serve(fleet: tuple[Script, ...], ports: list[int]) -> None:
    await asyncio.gather(*(_listen(script, port, port) for script, port in zip(fleet, ports, strict=True)))
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(FLEETS[sys.argv[1]], [int(port) for port in sys.argv[2:]]))
