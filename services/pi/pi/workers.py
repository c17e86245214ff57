"""The pool of worker processes and the queue before it. Nothing polls: sockets report answers and deaths."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import cast

from pi.frames import ANSWER, QUESTION

log = logging.getLogger("pi.workers")

_NICENESS = 10
"""Below the event loop's priority: on shared CPUs the kernel lets the loop answer a health check before it lets a
worker go on computing. Measured with eight workers that compute on two CPUs: the p99 of /healthz is 6 ms, and
70 to 90 ms without."""

_ABANDONED_S = 1.0
"""A computation whose client has left may end within this time; after that its worker is replaced, which is cheaper."""

_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 5.0


class QueueFullError(Exception):
    """All workers compute and the queue is full. `retry_after`: seconds until there should be room."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"all workers are busy and the queue is full: retry after {retry_after} s")
        self.retry_after = retry_after


class WorkerDiedError(Exception):
    """The process that computed the answer ended before it gave one."""


class _NotBegunError(Exception):
    """The process ended before it read the question: another may answer it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker gave: the payload, and the seconds it waited for a worker, computed and was laid out."""

    payload: bytes
    queued: float
    computed: float
    laid_out: float


class _Worker(asyncio.Protocol):
    """One process and its socket. `pending` is the answer that it owes, if any."""

    def __init__(self, pool: Pool, *, memory: bool) -> None:
        self.pending: asyncio.Future[tuple[bytes, float, float]] | None = None
        self.ready = False
        self._pool = pool
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        ours, theirs = socket.socketpair()
        with theirs:
            # A process group of its own keeps Ctrl-C in the terminal from reaching it: the server decides when it ends.
            command = [sys.executable, "-m", "pi.worker", str(_NICENESS), "on" if memory else "off"]
            self.process = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
                command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, process_group=0
            )
        self.socket = ours

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) < ANSWER.size:
            return
        length, computed, laid_out = ANSWER.unpack_from(self._received)
        if len(self._received) < ANSWER.size + length:
            return
        payload = bytes(memoryview(self._received)[ANSWER.size :])
        self._received = bytearray()
        self.ready = True
        if self.pending is not None:
            if not self.pending.done():
                self.pending.set_result((payload, computed, laid_out))
            self.pending = None
        self._pool.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.pending is not None and not self.pending.done():
            # Linux reports a reset, not an end, when the other side of a socket pair closes with unread bytes in it.
            self.pending.set_exception(WorkerDiedError() if exc is None else _NotBegunError())
        self._pool.lost(self)

    def ask(self, decimals: int, *, for_page: bool) -> asyncio.Future[tuple[bytes, float, float]]:
        """Give it a question. Raises _NotBegunError when it has died since it was chosen."""
        if self._transport is None:
            raise _NotBegunError
        self.pending = asyncio.get_running_loop().create_future()
        self._transport.write(QUESTION.pack(decimals, for_page))
        return self.pending

    def kill(self) -> None:
        self.process.kill()  # nothing happens if it has ended


class Pool:
    """`size` processes that compute, and at most `queue` requests that wait for one, first come, first served."""

    def __init__(self, *, size: int, queue: int, memory: bool) -> None:
        self._size = size
        self._queue = queue
        self._memory = memory
        self._workers: set[_Worker] = set()
        self._idle: list[_Worker] = []
        self._waiting: OrderedDict[asyncio.Future[_Worker], None] = OrderedDict()  # in order of arrival
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._mean_busy_s = 0.1
        self._closing = False

    @property
    def ready(self) -> int:
        """How many workers have started and live."""
        return sum(worker.ready for worker in self._workers)

    def start(self) -> None:
        """Start the workers; they join as they become ready, and requests may wait for them from now on."""
        for _ in range(self._size):
            self._later(self._start_worker(0.0))

    async def close(self) -> None:
        """End all workers at once: they hold nothing worth keeping."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        for worker in self._workers:
            worker.kill()
        for worker in list(self._workers):
            await asyncio.to_thread(worker.process.wait)

    async def compute(self, decimals: int, *, for_page: bool) -> Answer:
        """The decimals, as text with a final newline or laid out for the page.

        Raises QueueFullError at once when too many wait already, WorkerDiedError when the worker died meanwhile.
        """
        arrived = time.perf_counter()  # the event loop's own clock counts milliseconds
        worker = await self._worker()
        while True:
            started = time.perf_counter()
            try:
                payload, computed, laid_out = await self._ask(worker, decimals, for_page=for_page)
            except _NotBegunError:
                worker = await self._worker(again=True)
                continue
            self._mean_busy_s += 0.2 * (computed + laid_out - self._mean_busy_s)
            return Answer(payload, started - arrived, computed, laid_out)

    def free(self, worker: _Worker) -> None:
        """That worker can take the next question."""
        self._failures = 0
        while self._waiting:
            place, _ = self._waiting.popitem(last=False)
            if not place.done():
                place.set_result(worker)
                return
        self._idle.append(worker)

    def lost(self, worker: _Worker) -> None:
        """That worker's process has ended: start another."""
        self._workers.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        if not self._closing:
            self._later(self._replace(worker))

    async def _ask(self, worker: _Worker, decimals: int, *, for_page: bool) -> tuple[bytes, float, float]:
        answer = worker.ask(decimals, for_page=for_page)
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_later(_ABANDONED_S, self._give_up, worker, answer)
            raise

    async def _worker(self, *, again: bool = False) -> _Worker:
        """The next free worker. A request that comes `again`, through no fault of its own, is the first to get it."""
        if self._idle:
            return self._idle.pop()
        if len(self._waiting) >= self._queue and not again:
            raise QueueFullError(self._expected_wait())
        place: asyncio.Future[_Worker] = asyncio.get_running_loop().create_future()
        self._waiting[place] = None
        self._waiting.move_to_end(place, last=not again)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.free(place.result())  # the client left in the moment that its turn came
            raise
        finally:
            self._waiting.pop(place, None)

    def _expected_wait(self) -> int:
        """Seconds until the queue has moved on, from 1 to 30."""
        return min(30, max(1, math.ceil(self._mean_busy_s * len(self._waiting) / self._size)))

    def _give_up(self, worker: _Worker, answer: asyncio.Future[tuple[bytes, float, float]]) -> None:
        if worker.pending is answer:
            log.info("worker %d still computes for a client that has left: replacing it", worker.process.pid)
            worker.kill()

    async def _replace(self, worker: _Worker) -> None:
        status = await asyncio.to_thread(worker.process.wait)
        delay = 0.0
        if not worker.ready:
            delay = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2**self._failures)
            self._failures = min(self._failures + 1, 10)
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        log.warning("worker %d %s: starting another", worker.process.pid, how)
        await self._start_worker(delay)

    async def _start_worker(self, delay: float) -> None:
        if delay:
            await asyncio.sleep(delay)
        worker = _Worker(self, memory=self._memory)
        self._workers.add(worker)
        await asyncio.get_running_loop().create_connection(lambda: worker, sock=worker.socket)

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
