"""Fleets of unequal endpoints, each with a script of its own: the reason to have a balancer at all.

An endpoint serves as a process with a few workers does: so many requests at a time, the others wait in its queue. How
much work a request is, it says itself (X-Work, multiples of MEAN), so that it is the same under every balancer, and
wherever it ends; one that says nothing only asks whether somebody is there, and is answered at once by all.

`python -m benchmarks.fleets FLEET SEED PORT…` serves a fleet, with `--calls` as gRPC, where a failing one answers
UNAVAILABLE. Its time begins with the first request that is work.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Protocol

import hpack
import uvloop
from benchmarks import calls

from balancer.proxy.http2 import frames

WORKERS = 4
MEAN = 0.008
"""Seconds that a healthy endpoint works on a request, on average."""
_WORK = re.compile(rb"(?i)\r\nx-work: *([\d.]+)")


@dataclass(frozen=True, slots=True)
class Script:
    """How one endpoint behaves."""

    workers: int = WORKERS
    """Requests that it works on at once."""
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
    """Seconds until it listens at all, though the balancer knows it; then it is cold: COLD times as slow at first."""


HEALTHY = Script()
NOISY = Script(pause_every=1.5, pause=0.15)
FLEETS: dict[str, tuple[Script, ...]] = {
    "one-slow": (HEALTHY, HEALTHY, HEALTHY, Script(slower=10.0)),
    "one-hung": (HEALTHY, HEALTHY, HEALTHY, Script(hangs=True)),
    "one-failing": (HEALTHY, HEALTHY, HEALTHY, Script(fails=True)),
    "equal": (HEALTHY,) * 4,
    "noisy": (NOISY,) * 4,
    "one-joining": (HEALTHY, HEALTHY, HEALTHY, Script(joins_after=1.0)),
}
SINGLE = "single"
"""The fleet of benchmarks/heavy.py: sixteen endpoints of one worker each."""
SERVED = {**FLEETS, SINGLE: (Script(workers=1),) * 16}
COLD = 5.0
COLD_FOR = 300
"""Requests until it is warm."""


def capacity(fleet: tuple[Script, ...]) -> float:
    """Requests a second that its sound endpoints could answer in the long run, without one that is yet to join."""
    sound = [script for script in fleet if not (script.hangs or script.fails or script.joins_after)]
    return sum(script.workers / (MEAN * script.slower) * _awake(script) for script in sound)


def _awake(script: Script) -> float:
    return script.pause_every / (script.pause_every + script.pause) if script.pause_every else 1.0


class Time:
    """Seconds since the first request that was work; then everyone who waits for a moment is called."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began: float | None = None
        self._waiting: list[tuple[float, Callable[[], None]]] = []

    def at(self, moment: float, call: Callable[[], None]) -> None:
        """Call then; now when it is past."""
        if self._began is None and moment > 0:
            self._waiting.append((moment, call))
        else:
            self._loop.call_at((self._began or 0.0) + moment, call)

    def now(self) -> float:
        """The time, which begins with this."""
        if self._began is None:
            self._began = self._loop.time()
            for moment, call in self._waiting:
                self.at(moment, call)
        return self._loop.time() - self._began


class Endpoint:
    """One scripted endpoint: its workers, its queue, and the connections that wait for it."""

    def __init__(self, script: Script, time: Time, random: Random) -> None:
        self.script = script
        self._time = time
        self._random = random
        self._free = script.workers
        self._queue: deque[tuple[Asker, float]] = deque()
        self._answered = 0
        self._paused_until = 0.0
        self._next_pause = self._pause_after(0.0)

    def _pause_after(self, now: float) -> float:
        every = self.script.pause_every
        return now + self._random.expovariate(1 / every) if every else float("inf")

    def asked(self, connection: Asker, work: float) -> None:
        """A request has come that is so much work."""
        now = self._time.now()
        if self.script.fails:
            connection.answer(500)
        elif self.script.hangs:
            pass
        elif self._free:
            self._free -= 1
            self._work(connection, work, now)
        else:
            self._queue.append((connection, work))

    def _work(self, connection: Asker, work: float, now: float) -> None:
        cold = COLD if self.script.joins_after and self._answered < COLD_FOR else 1.0
        self._time.at(now + work * MEAN * self.script.slower * cold, partial(self._worked, connection))

    def _worked(self, connection: Asker) -> None:
        now = self._time.now()
        while now >= self._next_pause:
            self._paused_until = self._next_pause + self.script.pause
            self._next_pause = self._pause_after(self._paused_until)
        if now < self._paused_until:
            self._time.at(self._paused_until, partial(self._worked, connection))
            return
        connection.answer(200)
        self._answered += 1
        if self._queue:
            self._work(*self._queue.popleft(), now)
        else:
            self._free += 1


class Asker(Protocol):
    """Who waits for an answer."""

    def answer(self, status: int) -> None:
        """Send it."""


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
            head, _, self._held = self._held.partition(b"\r\n\r\n")
            if work := _WORK.search(head):
                self._endpoint.asked(self, float(work[1]))
            else:
                self.answer(200)

    def answer(self, status: int) -> None:
        """Send an answer, unless nobody waits any more."""
        if not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 %d Answer\r\nContent-Length: 3\r\n\r\nok\n" % status)


class Calls(calls.Called):
    """One balancer's connection of HTTP/2: gRPC calls."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._decoder = hpack.Decoder()
        self._works: dict[int, float] = {}

    def came(self, kind: int, stream: int, ended: int, payload: bytes) -> None:
        if kind == frames.HEADERS:
            said = dict(self._decoder.decode(calls.unpadded(payload, self.flags), raw=True))
            self._works[stream] = float(said.get(b"x-work", -1))
        if ended:
            work = self._works.pop(stream)
            call = Call(self, stream)
            if work >= 0:
                self._endpoint.asked(call, work)
            else:
                call.answer(200)

    def was_reset(self, stream: int) -> None:
        self._works.pop(stream, None)

    def answer(self, stream: int, status: int) -> None:
        """Answer a call, unless nobody waits any more."""
        if self._transport.is_closing():
            return
        ok = status == 200
        head = b"\x88\x0f\x10\x10application/grpc"
        said = calls.field(b"grpc-status", b"0" if ok else b"14")
        last = frames.END_HEADERS | frames.END_STREAM
        if ok:
            message = calls.frame(frames.DATA, 0, stream, calls.MESSAGE)
            first = calls.frame(frames.HEADERS, frames.END_HEADERS, stream, head)
            self.send(first + message + calls.frame(frames.HEADERS, last, stream, said))
        else:
            self.send(calls.frame(frames.HEADERS, last, stream, head + said))
        self.flush()


class Call:
    """One call that waits for its answer."""

    def __init__(self, connection: Calls, stream: int) -> None:
        self._connection = connection
        self._stream = stream

    def answer(self, status: int) -> None:
        """Answer it."""
        self._connection.answer(self._stream, status)


async def _listen(endpoint: Endpoint, port: int, time: Time, kind: Callable[[Endpoint], asyncio.Protocol]) -> None:
    joined = asyncio.Event()
    time.at(endpoint.script.joins_after, joined.set)
    await joined.wait()
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: kind(endpoint), "127.0.0.1", port, backlog=4096)


async def _serve(fleet: tuple[Script, ...], seed: int, ports: list[int], as_calls: bool) -> None:
    time = Time()
    # The pauses of each endpoint lie where the seed puts them, whatever it is asked.
    endpoints = [Endpoint(script, time, Random(seed * 1000 + number)) for number, script in enumerate(fleet)]
    kind = Calls if as_calls else Connection
    await asyncio.gather(*(_listen(each, port, time, kind) for each, port in zip(endpoints, ports, strict=True)))
    await asyncio.Event().wait()


if __name__ == "__main__":
    options = [word for word in sys.argv[1:] if word != "--calls"]
    uvloop.run(_serve(SERVED[options[0]], int(options[1]), [int(port) for port in options[2:]], "--calls" in sys.argv))
