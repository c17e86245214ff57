"""Active health checks: each endpoint is asked now and then, off the request path, whether it is healthy.

The first half is pure: when to check whom (`Schedule`), and what a row of results means (`Streak`). The second asks. It
speaks its one request over a plain stream rather than by an HTTP client, since an endpoint may expect a PROXY protocol
header before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import ssl
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from random import Random

import structlog

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.outcome import LOCAL_ERRORS
from balancer.balancing.pool import Pool
from balancer.settings import Settings

JITTER = 0.1
"""Part of the interval by which each pause is shortened or lengthened, so that replicas don't check in step."""
SPREAD = 0.01
"""Seconds between first checks, on average, when many endpoints join at once; spread over one interval at most."""
MAX_AT_ONCE = 256
"""Checks under way at one time. When endpoints hang by the hundred, checks come late rather than in a burst."""
MAX_HEAD = 64 << 10

PREFACES = {"off": b"", "v1": b"PROXY UNKNOWN\r\n", "v2": b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"}
"""A connection that carries no client's, in the PROXY protocol: UNKNOWN (its section 2.1), or command LOCAL (2.2)."""

log = structlog.get_logger()


class Streak:
    """What the checks of one endpoint say so far.

    The first check decides alone, so that an endpoint that joins broken is soon out. From then on it takes `rise`
    successes or `fall` failures in a row, as in HAProxy.
    """

    __slots__ = ("_against", "_fall", "_first", "_rise", "healthy")

    def __init__(self, rise: int, fall: int, healthy: bool = True) -> None:
        self._rise = rise
        self._fall = fall
        self._first = True
        self._against = 0
        """Results in a row that say otherwise than `healthy`."""
        self.healthy = healthy

    def heard(self, success: bool) -> bool:
        """Take in one result; whether it changed `healthy`."""
        if success == self.healthy:
            self._against = 0
        else:
            self._against += 1
        needed = 1 if self._first else (self._rise if success else self._fall)
        self._first = False
        if self._against < needed:
            return False
        self.healthy = success
        self._against = 0
        return True


class Schedule:
    """Who is to be checked when. Times in seconds on the caller's clock."""

    def __init__(self, interval: float, random: Random) -> None:
        self._interval = interval
        self._random = random
        self._members: dict[Endpoint, int] = {}
        """Who is to be checked, and the number of the one entry in the heap that counts for it."""
        self._heap: list[tuple[float, int, Endpoint]] = []
        self._number = count()  # so that the heap never compares endpoints

    def __contains__(self, endpoint: Endpoint) -> bool:
        return endpoint in self._members

    def add(self, endpoint: Endpoint, now: float) -> None:
        """Check `endpoint` from now on: soon when there are few, spread over an interval when there are many."""
        if endpoint not in self._members:
            spread = min(self._interval, (len(self._members) + 1) * SPREAD)
            self._at(now + self._random.random() * spread, endpoint)

    def remove(self, endpoint: Endpoint) -> None:
        """Check `endpoint` no more."""
        self._members.pop(endpoint, None)

    def again(self, endpoint: Endpoint, started: float, now: float) -> None:
        """The check that began at `started` has ended: one interval after that beginning, the next is due."""
        if endpoint in self._members:
            pause = self._interval * (1 + JITTER * (2 * self._random.random() - 1))
            self._at(max(now, started + pause), endpoint)

    def due(self, now: float) -> Endpoint | None:
        """One endpoint whose check is due, or None."""
        while self._heap and self._heap[0][0] <= now:
            _, number, endpoint = heappop(self._heap)
            if self._members.get(endpoint) == number:
                return endpoint
        return None

    def soonest(self) -> float | None:
        """When the next check is due; None when there is nobody to check."""
        return self._heap[0][0] if self._heap else None

    def _at(self, due: float, endpoint: Endpoint) -> None:
        # An entry made before counts no more: an endpoint that left and returned would have one of each stay.
        number = next(self._number)
        self._members[endpoint] = number
        heappush(self._heap, (due, number, endpoint))


class Probes:
    """Checks every endpoint of the pool, and tells the pool what it finds."""

    def __init__(self, pool: Pool, settings: Settings, clock: Callable[[], float], random: Random) -> None:
        self._pool = pool
        self._clock = clock
        self._rise = settings.health_rise
        self._fall = settings.health_fall
        self._schedule = Schedule(settings.health_interval, random)
        self._streaks: dict[Endpoint, Streak] = {}
        self._ask = Ask(settings)
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)

    async def run(self) -> None:
        """Check until cancelled. To be run once."""
        self._pool.subscribe(self)
        for known in self._pool.endpoints:
            self._schedule.add(known, self._clock())
        async with asyncio.TaskGroup() as checks:
            while True:
                while (endpoint := self._schedule.due(self._clock())) is not None:
                    await self._slots.acquire()
                    checks.create_task(self._check(endpoint)).add_done_callback(self._free_slot)
                    await asyncio.sleep(0)  # between two checks that are due at once, requests have their turn
                self._wake.clear()
                soonest = self._schedule.soonest()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), soonest and max(0.0, soonest - self._clock()))

    # Told by the pool.

    def left(self, endpoint: Endpoint) -> None:
        """It is checked no more."""
        self._schedule.remove(endpoint)
        self._streaks.pop(endpoint, None)

    def joined(self, endpoint: Endpoint) -> None:
        """It is checked from now on."""
        self._schedule.add(endpoint, self._clock())
        self._wake.set()

    def transition(self, endpoint: Endpoint | None, event: str, detail: str) -> None:
        """The pool's news, much of it ours."""

    async def _check(self, endpoint: Endpoint) -> None:
        started = self._clock()
        try:
            why = await self._ask(endpoint)
        except OSError as error:  # one of LOCAL_ERRORS: no verdict
            log.warning("health check impossible", endpoint=endpoint.address, error=error.strerror)
        else:
            self._judge(endpoint, why)
        self._schedule.again(endpoint, started, self._clock())
        self._wake.set()

    def _judge(self, endpoint: Endpoint, why: str | None) -> None:
        if endpoint not in self._schedule:  # it left meanwhile
            return
        streak = self._streaks.get(endpoint)
        if streak is None:
            streak = self._streaks[endpoint] = Streak(self._rise, self._fall, endpoint.passing_probes)
        if streak.heard(why is None):
            if why is not None:
                log.warning("health checks fail", endpoint=endpoint.address, why=why)
            self._pool.set_health(endpoint, streak.healthy, self._clock())

    def _free_slot(self, _task: asyncio.Task[None]) -> None:
        self._slots.release()


class Ask:
    """One check of one endpoint: a GET of LB_HEALTH_PATH, or just a connection (and its TLS handshake) for `tcp`."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.health_path or "tcp"
        self._expected = settings.health_status
        self._timeout = settings.health_timeout
        self._preface = PREFACES[settings.upstream_proxy_protocol]
        self._tls: ssl.SSLContext | None = None
        if settings.upstream_tls:
            authorities = settings.upstream_tls_ca
            self._tls = ssl.create_default_context(cafile=str(authorities) if authorities else None)

    async def __call__(self, endpoint: Endpoint) -> str | None:
        """Why the endpoint is not healthy, or None if it is. Raises OSError for what is no fault of the endpoint."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._asked(endpoint)
        except TimeoutError:
            return f"no answer within {self._timeout:g} s"
        except ssl.SSLError as error:
            return f"TLS failed: {getattr(error, 'verify_message', '') or error.reason or error}"
        except asyncio.LimitOverrunError:
            return f"a response head of more than {MAX_HEAD} bytes"
        except EOFError:
            return "closed before its answer"
        except UnicodeError:
            return f"{endpoint.spec.host!r} is no host name"
        except OSError as error:
            if error.errno in LOCAL_ERRORS:
                raise
            return _words(error)

    async def _asked(self, endpoint: Endpoint) -> str | None:
        host = endpoint.spec.host
        # With a PROXY header before it, TLS begins after the connection is made.
        first = None if self._preface else self._tls
        reader, writer = await asyncio.open_connection(
            host, endpoint.spec.port, limit=MAX_HEAD, ssl=first, server_hostname=host if first else None
        )
        try:
            if self._preface:
                writer.write(self._preface)
                if self._tls is not None:
                    await writer.start_tls(self._tls, server_hostname=host)
            return None if self._path == "tcp" else await self._get(endpoint, reader, writer)
        finally:
            # At once, and still in order: nothing is left to be sent. A polite TLS close could wait for its answer.
            writer.transport.abort()

    async def _get(self, endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str | None:
        head = f"GET {self._path} HTTP/1.1\r\nHost: {endpoint.address}\r\nUser-Agent: lb-probe\r\nAccept: */*\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode())
        while True:
            answer = await reader.readuntil(b"\r\n\r\n")
            status_line = re.match(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: |\r\n)", answer)
            if status_line is None:
                return "its answer is not HTTP"
            status = int(status_line[1])
            if status >= 200 or status == 101:
                break
        if any(first <= status <= last for first, last in self._expected):
            return None
        return f"status {status}"


def _words(error: OSError) -> str:
    """`connection refused`, however it was phrased; a failed look-up's number is none of errno's."""
    number = error.errno or 0
    told = os.strerror(number) if number in errno.errorcode else error.strerror or str(error)
    return told.lower()
