"""An open-loop load generator: GETs at a fixed rate whatever comes back, each one's latency from when it was due.

So nothing is hidden when answers are late (coordinated omission): a request that could not go out in time, because the
generator was held up or every connection waited, has begun to wait all the same. A request costs it some 30 µs of the
core that the endpoints have too; vegeta, tried first, could ask no more than 2,000 times a second there.

Requests are due in even groups each millisecond. `python -m benchmarks.openloop PORT RATE SECONDS TIMEOUT` prints
a JSON list of `[status, seconds]`, status 0 for a request that was cut or had no answer in time.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import deque
from time import monotonic

import uvloop

TICK = 0.001
MOST_CONNECTIONS = 2048
AT_FIRST = 64
_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


class Generator:
    """All requests of one run."""

    def __init__(self, port: int, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._port = port
        self._timeout = timeout
        self._waiting: deque[float] = deque()
        """When requests were due for which there is no connection yet."""
        self._idle: list[Connection] = []
        self._open = 0
        self.out = 0
        """Requests due, and neither answered nor failed."""
        self.answers: list[tuple[int, float]] = []
        self._opening: set[asyncio.Task[None]] = set()

    async def run(self, rate: float, seconds: float) -> list[tuple[int, float]]:
        """Ask, then wait for what is out."""
        await asyncio.gather(*(self._connect() for _ in range(AT_FIRST)))
        began, asked = monotonic() + TICK, 0
        for tick in range(round(seconds / TICK)):
            due = began + tick * TICK
            if due > monotonic():
                await asyncio.sleep(due - monotonic())
            upto = round((tick + 1) * TICK * rate)
            for _ in range(upto - asked):
                self._ask(due)
            asked = upto
        end = monotonic() + self._timeout
        while self.out and monotonic() < end:  # noqa: ASYNC110 (an event for each answer would cost more)
            await asyncio.sleep(0.01)
        self.answers += [(0, self._timeout)] * self.out
        return self.answers

    def _ask(self, due: float) -> None:
        self.out += 1
        if self._idle:
            self._idle.pop().send(due)
            return
        self._waiting.append(due)
        if self._open + len(self._opening) < MOST_CONNECTIONS:
            task = self._loop.create_task(self._connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(lambda: Connection(self), "127.0.0.1", self._port)
        except OSError:
            if self._waiting:
                self.ended(0, self._waiting.popleft())

    def opened(self, connection: Connection) -> None:
        """A connection can carry a request: the one that has waited longest."""
        if self._waiting:
            connection.send(self._waiting.popleft())
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

    def send(self, due: float) -> None:
        """Send the request that was due then."""
        self._due = due
        self._transport.write(_REQUEST)

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


async def _main(port: int, rate: float, seconds: float, patience: float) -> None:
    print(json.dumps(await Generator(port, patience).run(rate, seconds)))


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), *map(float, sys.argv[2:5])))
