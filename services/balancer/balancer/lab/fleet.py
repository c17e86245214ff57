"""Simulated endpoints: workers with a queue before them, and everything that can be wrong with them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from random import Random
from typing import Final

from balancer.lab.clock import Clock
from balancer.lab.load import Load

COLD: Final = 5.0
"""How much slower an endpoint that joins late is at first."""
COLD_FOR: Final = 300
"""Requests until it is warm."""
CACHED: Final = 0.1
NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Script:
    """How one endpoint behaves."""

    workers: int = 4
    """Requests that it works on at once; the others wait in its queue."""
    slower: float = 1.0
    """Its time for a request as a multiple of a healthy one's."""
    fails: float = 0.0
    """Share of requests that it answers 500, at once."""
    hangs: bool = False
    """Takes requests and never answers."""
    pause_every: float = 0.0
    """Mean seconds between pauses in which nothing is answered: a noisy neighbour, a garbage collector."""
    pause: float = 0.0
    joins_after: float = 0.0
    """Seconds until it listens, though the balancer knows it; it is then `COLD` times as slow at first."""
    queue: int = 0
    """Requests that may wait at the endpoint before it answers 503 with Retry-After: 1; 0: any number."""
    weight: float = 1.0
    """The weight that discovery gives it."""
    cache: int = 0
    """Paths of the latest requests that it keeps the data of: one of those takes `CACHED` of its time."""
    reports: bool = False
    """Each of its responses says how loaded it is (ORCA)."""
    slower_after: float = 0.0
    """Seconds until it is `slower`."""
    leaves_after: float = 0.0
    """Seconds until it refuses connections, though the balancer knows it; 0: it never does."""


class Call:
    """One attempt, as an endpoint sees it: so much work, and what hears of its end."""

    __slots__ = ("cost", "path", "server")

    def __init__(self, cost: float, path: str = "") -> None:
        self.path = path
        self.cost = cost
        """Seconds that a healthy endpoint works on it."""
        self.server: Server | None = None
        """The endpoint one of whose workers works on it."""

    def worked(self) -> None:
        """The worker has finished."""
        if self.server is not None:
            self.server.worked(self)

    def answered(self, status: int) -> None:
        """The response's head has come."""
        raise NotImplementedError

    def refused(self) -> None:
        """Nobody listens."""
        raise NotImplementedError


class Server:
    """One simulated endpoint."""

    __slots__ = (
        "_answered",
        "_cached",
        "_clock",
        "_free",
        "_joins_after",
        "_next_pause",
        "_paused_until",
        "_queue",
        "_random",
        "_slower",
        "load",
        "script",
    )

    def __init__(self, script: Script, clock: Clock, random: Random) -> None:
        self.script = script
        self.load = Load(script.workers) if script.reports else None
        """What it says of its load, if it does."""
        self._clock = clock
        self._random = random
        self._free = script.workers
        self._slower = script.slower
        self._cached: dict[str, None] | None = {} if script.cache else None
        """The paths whose data it keeps, the latest last."""
        self._joins_after = script.joins_after
        self._queue: deque[Call] = deque()
        self._answered = 0
        self._paused_until = 0.0
        self._next_pause = self._pause_after(0.0)

    def take(self, call: Call) -> None:
        """A request has come."""
        script = self.script
        now = self._clock.now
        if now < script.joins_after or 0.0 < script.leaves_after <= now:
            call.refused()
            return
        if self.load is not None:
            self.load.began(now)
        if script.hangs:
            return
        if script.fails and self._random.random() < script.fails:
            self._end(call, 500)
        elif self._free:
            self._free -= 1
            self._work(call)
        elif script.queue and len(self._queue) >= script.queue:
            self._end(call, 503)
        else:
            self._queue.append(call)

    def worked(self, call: Call) -> None:
        """A worker has finished; nothing is answered in a pause."""
        now = self._clock.now
        while now >= self._next_pause:
            self._paused_until = self._next_pause + self.script.pause
            self._next_pause = self._pause_after(self._paused_until)
        if now < self._paused_until:
            self._clock.at(self._paused_until, call.worked)
            return
        self._answered += 1
        # The worker goes on at once: what the answer brings about must find it busy.
        if self._queue:
            self._work(self._queue.popleft())
        else:
            self._free += 1
        self._end(call, 200)

    def _end(self, call: Call, status: int) -> None:
        if self.load is not None:
            self.load.ended(self._clock.now, failed=status >= 500)
        call.answered(status)

    def _work(self, call: Call) -> None:
        now = self._clock.now
        seconds = call.cost * self._slower if now >= self.script.slower_after else call.cost
        if self._joins_after and self._answered < COLD_FOR:
            seconds *= COLD
        if self._cached is not None:
            seconds *= self._look_up(self._cached, call.path)
        call.server = self
        self._clock.at(now + seconds, call.worked)

    def _look_up(self, cached: dict[str, None], path: str) -> float:
        """The part of its time that a request for `path` takes, whose data is kept from now on."""
        if path in cached:
            del cached[path]
            cached[path] = None
            return CACHED
        cached[path] = None
        if len(cached) > self.script.cache:
            del cached[next(iter(cached))]
        return 1.0

    def _pause_after(self, now: float) -> float:
        every = self.script.pause_every
        return now + self._random.expovariate(1.0 / every) if every else NEVER


def capacity(fleet: list[Script], mean: float) -> float:
    """Requests of `mean` seconds a second that its sound endpoints could answer in the long run."""
    sound = [script for script in fleet if not (script.hangs or script.fails >= 1.0 or _is_away(script))]
    return sum(script.workers / (mean * script.slower) * _awake(script) for script in sound or fleet)


def _is_away(script: Script) -> bool:
    return bool(script.joins_after or script.leaves_after)


def _awake(script: Script) -> float:
    return script.pause_every / (script.pause_every + script.pause) if script.pause_every else 1.0


def named(name: str, size: int, workers: int) -> list[Script]:
    """A fleet by name: `equal`, or one of its endpoints `slow`, `hung`, `failing` or `joining`, or all `noisy`.

    Raises ValueError for another name.
    """
    odd = {
        "one-slow": Script(workers, slower=10.0),
        "one-hung": Script(workers, hangs=True),
        "one-failing": Script(workers, fails=1.0),
        "one-joining": Script(workers, joins_after=1.0),
    }
    if name == "equal":
        return [Script(workers)] * size
    if name == "noisy":
        return [Script(workers, pause_every=1.5, pause=0.15)] * size
    if name not in odd:
        raise ValueError(f"unknown fleet {name!r}: allowed are {', '.join(FLEETS)}")
    return [Script(workers)] * (size - 1) + [odd[name]]


FLEETS: Final = ("equal", "one-slow", "one-hung", "one-failing", "one-joining", "noisy")
