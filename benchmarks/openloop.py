"""An open-loop load generator: GETs at a fixed rate whatever comes back, each one's latency from when it was due.

So nothing is hidden when answers are late (coordinated omission): a request that could not go out in time, because the
generator was held up or every connection waited, has begun to wait all the same. A request costs it some 30 µs of the
core that the endpoints have too; vegeta, tried first, could ask no more than 2,000 times a second there.

Requests are due in even groups each millisecond; with a seed at random times (a Poisson process), each with a path and
an amount of work (the header X-Work, 1 on average) drawn from it too: two programs that get the same seed get
the same at the same times. `python -m benchmarks.openloop PORT RATE SECONDS TIMEOUT` prints a JSON list of
`[status, seconds]`, status 0 for a request that was cut or had no answer in time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from time import monotonic

import hpack
import uvloop
from benchmarks import calls

from balancer.proxy.http2 import frames

TICK = 0.001
MOST_CONNECTIONS = 2048
AT_FIRST = 64
CONNECTIONS = 16
"""Of HTTP/2, which carry the calls in turn."""
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


def evenly(rate: float, seconds: float) -> Iterator[tuple[float, bytes]]:
    """When each request is due, in seconds from the start, and the request."""
    asked = 0
    for tick in range(round(seconds / TICK)):
        upto = round((tick + 1) * TICK * rate)
        for _ in range(upto - asked):
            yield tick * TICK, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
        asked = upto


def get(path: str, work: float) -> bytes:
    """A GET."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Work: {work:.5f}\r\n\r\n".encode()


def call(path: str, work: float) -> bytes:
    """The header block of a gRPC call."""
    fields = [(b":authority", b"localhost"), (b":path", path.encode()), (b"content-type", b"application/grpc")]
    fields += [(b"te", b"trailers"), (b"x-work", b"%.5f" % work)]
    return b"\x83\x86" + b"".join([calls.field(*each) for each in fields])


def at_random(
    rate: float, seconds: float, paths: Sequence[str], seed: int, calls_only: bool = False
) -> Iterator[tuple[float, bytes]]:
    """The same for independent clients, each with its own path and amount of work; `calls_only`: as gRPC calls."""
    random = Random(seed)
    due = random.expovariate(rate)
    while due < seconds:
        path, work = random.choice(paths), random.expovariate(1)
        yield due, call(path, work) if calls_only else get(path, work)
        due += random.expovariate(rate)


class Generator:
    """All requests of one run."""

    def __init__(self, port: int, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._port = port
        self._timeout = timeout
        self._waiting: deque[tuple[float, bytes]] = deque()
        """Requests for which there is no connection yet, and when they were due."""
        self._idle: list[Connection] = []
        self._open = 0
        self.out = 0
        """Requests due, and neither answered nor failed."""
        self.answers: list[tuple[int, float]] = []
        self._opening: set[asyncio.Task[None]] = set()

    async def run(self, requests: Iterable[tuple[float, bytes]]) -> list[tuple[int, float]]:
        """Ask, then wait for what is out."""
        await asyncio.gather(*(self._connect() for _ in range(AT_FIRST)))
        planned = list(requests)
        began, last = monotonic() + TICK, -1.0
        for offset, request in planned:
            due = began + offset
            if offset > last:
                # Late or not, let answers be read in between.
                await asyncio.sleep(max(0.0, due - monotonic()))
                last = offset
            self._ask(due, request)
        end = monotonic() + self._timeout
        while self.out and monotonic() < end:  # noqa: ASYNC110 (an event for each answer would cost more)
            await asyncio.sleep(0.01)
        self.answers += [(0, self._timeout)] * self.out
        return self.answers

    def _ask(self, due: float, request: bytes) -> None:
        self.out += 1
        if self._idle:
            self._idle.pop().send(due, request)
            return
        self._waiting.append((due, request))
        if self._open + len(self._opening) < MOST_CONNECTIONS:
            task = self._loop.create_task(self._connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(lambda: Connection(self), "127.0.0.1", self._port)
        except OSError:
            if self._waiting:
                self.ended(0, self._waiting.popleft()[0])

    def opened(self, connection: Connection) -> None:
        """A connection can carry a request: the one that has waited longest."""
        if self._waiting:
            connection.send(*self._waiting.popleft())
        else:
            self._idle.append(connection)

    def counted(self, change: int) -> None:
        """A connection was opened (1) or lost (-1)."""
        self._open += change

    def lost(self, connection: Connection) -> None:
        """Use it no more."""
        if connection in self._idle:
            self._idle.remove(connection)

    def ended(self, status: int, due: float) -> None:
        """A request has its answer, or will have none (0)."""
        took = monotonic() - due
        self.out -= 1
        self.answers.append((status if took < self._timeout else 0, took))


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._due = -1.0
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._generator.counted(1)
        self._generator.opened(self)

    def send(self, due: float, request: bytes) -> None:
        """Send what was due then."""
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._held += data
        end = self._held.find(b"\r\n\r\n")
        length = _LENGTH.search(self._held, 0, end + 2) if end >= 0 else None
        if length is None or len(self._held) < end + 4 + int(length[1]):
            return
        status, due = int(self._held[9:12]), self._due
        closes = b"onnection: close" in self._held[:end]
        self._held, self._due = b"", -1.0
        self._generator.ended(status, due)
        if closes:
            self._transport.close()
        else:
            self._generator.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._generator.counted(-1)
        self._generator.lost(self)
        if self._due >= 0:
            self._generator.ended(0, self._due)


class Caller(Generator):
    """The same for gRPC calls, which share CONNECTIONS of HTTP/2."""

    def __init__(self, port: int, timeout: float) -> None:
        super().__init__(port, timeout)
        self._connections: list[Calls] = []
        self._turn = 0

    async def run(self, requests: Iterable[tuple[float, bytes]]) -> list[tuple[int, float]]:
        for _ in range(CONNECTIONS):
            _, made = await self._loop.create_connection(lambda: Calls(self), "127.0.0.1", self._port)
            self._connections.append(made)
        return await super().run(requests)

    async def _connect(self) -> None:
        """There are all that are needed."""

    def _ask(self, due: float, request: bytes) -> None:
        self.out += 1
        self._turn += 1
        self._connections[self._turn % CONNECTIONS].ask(due, request)


class Calls(calls.Connection):
    """One connection of HTTP/2."""

    begins = frames.PREFACE

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self._generator = generator
        self._next = 1
        self._due: dict[int, float] = {}
        self._decoder = hpack.Decoder()
        self._said: dict[int, dict[bytes, bytes]] = {}

    def ask(self, due: float, block: bytes) -> None:
        """Make a call that was due then."""
        stream, self._next = self._next, self._next + 2
        self._due[stream] = due
        head = calls.frame(frames.HEADERS, frames.END_HEADERS, stream, block)
        self.send(head + calls.frame(frames.DATA, frames.END_STREAM, stream, calls.MESSAGE))
        self.flush()

    def came(self, kind: int, stream: int, ended: int, payload: bytes) -> None:
        if kind == frames.HEADERS:
            fields = self._decoder.decode(calls.unpadded(payload, self.flags), raw=True)
            self._said.setdefault(stream, {}).update(fields)
        if ended:
            said = self._said.pop(stream)
            went_well = said[b":status"] == b"200" and said.get(b"grpc-status") == b"0"
            self._end(stream, 200 if went_well else 503)

    def was_reset(self, stream: int) -> None:
        self._said.pop(stream, None)
        self._end(stream, 503)

    def connection_lost(self, exc: Exception | None) -> None:
        for stream in list(self._due):
            self._end(stream, 0)

    def _end(self, stream: int, status: int) -> None:
        if stream in self._due:
            self._generator.ended(status, self._due.pop(stream))


async def _main(asked: argparse.Namespace) -> None:
    requests = evenly(asked.rate, asked.seconds)
    if asked.seed is not None:
        requests = at_random(asked.rate, asked.seconds, asked.paths, asked.seed, asked.calls)
    generator = Caller(asked.port, asked.timeout) if asked.calls else Generator(asked.port, asked.timeout)
    print(json.dumps(await generator.run(requests)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    for name in ("rate", "seconds", "timeout"):
        parser.add_argument(name, type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--calls", action="store_true", help="gRPC calls by HTTP/2; with a seed only")
    parser.add_argument("--paths", nargs="+", default=["/"])
    return parser.parse_args()


if __name__ == "__main__":
    uvloop.run(_main(_arguments()))
