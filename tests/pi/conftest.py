"""A Pi service in a process of its own, on a free port of the loopback, spoken to over real sockets."""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

_DEADLINE_S = 30.0


@dataclass(frozen=True)
class Reply:
    """A response that has been read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Client:
    """One connection. `send` and `reply` apart show what happens between them."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_DEADLINE_S)
        self._connection = HTTPConnection("127.0.0.1", port)
        self._connection.sock = self.socket

    def send(self, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> Client:
        self._connection.request(method, path, headers=headers or {})
        return self

    def reply(self) -> Reply:
        response: HTTPResponse = self._connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, headers, response.read())

    def answered_within(self, seconds: float) -> bool:
        """Whether the first byte of the reply comes that soon. Leaves it to be read."""
        self.socket.settimeout(seconds)
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except TimeoutError:
            return False
        finally:
            self.socket.settimeout(_DEADLINE_S)

    def close(self) -> None:
        self._connection.close()
        self.socket.close()


class Pi:
    """A running service: its process, its port, its log."""

    def __init__(self, settings: dict[str, str]) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PI_")}
        environment = clean | {"PI_HOST": "127.0.0.1", "PI_PORT": "0", "PI_NAME": "test"} | settings
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pi"], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.log: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self._clients: list[Client] = []
        try:
            self.port = _port(self.wait_for_log("listening on http://"))
        except AssertionError:
            self.end()
            raise

    def _read(self) -> None:
        assert self.process.stderr
        with self.process.stderr as lines:
            for line in lines:
                self.log.append(line.rstrip())
                self._lines.put(line)
        self._lines.put(None)

    def wait_for_log(self, words: str) -> str:
        """The next line of the log that contains these words."""
        while True:
            try:
                line = self._lines.get(timeout=_DEADLINE_S)
            except queue.Empty:
                line = None
            assert line is not None, f"no line with {words!r} in {self.log}"
            if words in line:
                return line

    def connect(self) -> Client:
        self._clients.append(Client(self.port))
        return self._clients[-1]

    def get(self, path: str, method: str = "GET", **headers: str) -> Reply:
        client = self.connect()
        try:
            return client.send(path, method, headers).reply()
        finally:
            client.close()

    def wait_until_ready(self) -> None:
        """Return once all its workers are ready."""
        eventually(lambda: re.fullmatch(r"(\d+) of \1 workers are ready\n", self.get("/readyz").text) is not None)

    def workers(self) -> set[int]:
        """The process ids of its children."""
        found = set()
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended meanwhile
            if int(fields[1]) == self.process.pid and fields[0] != "Z":
                found.add(int(stat.parent.name))
        return found

    def pause_workers(self) -> set[int]:
        """Make every worker stand still, as in a computation that never ends, at no cost."""
        workers = self.workers()
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        return workers

    def resume_workers(self) -> None:
        for worker in self.workers():
            os.kill(worker, signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def exit_status(self) -> int:
        status = self.process.wait(_DEADLINE_S)
        self._reader.join(_DEADLINE_S)
        return status

    def end(self) -> None:
        for client in self._clients:
            client.close()
        self.process.kill()
        self.exit_status()


def _port(line: str) -> int:
    return int(re.findall(r"http://\S+:(\d+)", line)[0])


def eventually(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; fail if it never does."""
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.01)


@pytest.fixture
def start() -> Iterator[Callable[..., Pi]]:
    """Starts a service with these settings (`workers=1` is `PI_WORKERS=1`), which ends with the test."""
    started: list[Pi] = []

    def start(**settings: object) -> Pi:
        started.append(Pi({f"PI_{name.upper()}": str(value) for name, value in settings.items()}))
        return started[-1]

    yield start
    for pi in started:
        pi.end()


@pytest.fixture(scope="module")
def pi() -> Iterator[Pi]:
    """A service that the tests of a file share."""
    service = Pi({"PI_WORKERS": "2"})
    yield service
    service.end()
