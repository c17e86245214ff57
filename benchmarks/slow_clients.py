"""Clients that take no answer, or send to an endpoint that takes nothing: what each costs, and what others notice.

    .venv/bin/python -m benchmarks.slow_clients --clients 10000 --kind read

Starts a balancer and an endpoint, asks one fast client for a while, lets the slow ones come, asks it again, lets them
go, and says how much memory (RSS) that took and gave back. By turns the endpoint is asked directly: what it and the
kernel, whose buffers are full then, add to the fast client's time is none of the balancer's.

`--kind`: `read` (20 MB each, of which nothing is read), `upload` (20 MB each to an endpoint that reads none), `tcp`
(the same as `read` in TCP mode), `tls` and `h2`; `tls-idle` are not slow: each has read 64 KB, and stays.
`--python` measures another build; LB_MAX_BUFFER_MEMORY is what the chart's container of 512 MiB gives, 128 MiB.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from benchmarks.ports import free_port, trusting
from benchmarks.processes import resident_bytes

KINDS = ("read", "upload", "tcp", "tls", "tls-idle", "h2")
SIZE = 20_000_000
"""Bytes of each answer, and of each upload."""
GET = b"GET /%b HTTP/1.1\r\nHost: lb.test\r\n\r\n"
PUT = b"PUT /hold HTTP/1.1\r\nHost: lb.test\r\nContent-Length: %d\r\n\r\n" % SIZE
H2 = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x7f\xff\xff\xff"  # SETTINGS: the largest window for each stream
    b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x7f\xff\x00\x00"  # WINDOW_UPDATE: and for the connection
    # HEADERS: GET http lb.test /large, all literals
    b"\x00\x00\x18\x01\x05\x00\x00\x00\x01\x82\x86\x01\x07lb.test\x04\x06/large\x00\x01a\x01b"
)


@dataclass
class Result:
    """What one run has shown; memory in bytes, times in seconds."""

    clients: int
    before: int
    during: int
    after: int
    p99_before: float
    p99_during: float
    failed: int
    """Requests of the fast client that got no 200."""
    direct_before: float = 0.0
    """The same p99s, straight to the endpoint; 0: not measured."""
    direct_during: float = 0.0
    kernel: int = 0
    """Bytes of the kernel's that TCP's buffers had, of the whole machine, during."""

    @property
    def each(self) -> float:
        """Bytes for each slow client."""
        return (self.during - self.before) / self.clients


async def serve(port: int) -> None:
    """An endpoint: /large is 20 MB, /hold takes no body, anything else is `ok`."""
    block = bytes(65536)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ")[1]
                if path == b"/hold":
                    assert isinstance(writer.transport, asyncio.ReadTransport)
                    writer.transport.pause_reading()
                    await asyncio.sleep(600)
                elif path == b"/page":
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(block) + block)
                elif path == b"/large":
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
                    for _ in range(SIZE // len(block)):
                        writer.write(block)
                        await writer.drain()
                    writer.write(bytes(SIZE % len(block)))
                else:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=4096, limit=65536)
    async with server:
        await server.serve_forever()


class Crowd:
    """Slow clients: each has asked, or sends for as long as it may, and reads nothing."""

    def __init__(self, port: int, kind: str) -> None:
        self._port = port
        self._kind = kind
        self._socks: list[socket.socket] = []
        self._sending = selectors.DefaultSelector()
        self._context = trusting()

    def come(self, number: int) -> None:
        """So many connect and begin."""
        for _ in range(number):
            sock: socket.socket = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(60)
            sock.connect(("127.0.0.1", self._port))
            if self._kind.startswith("tls"):
                sock = self._context.wrap_socket(sock)
            if self._kind == "upload":
                sock.sendall(PUT)
                sock.setblocking(False)
                self._sending.register(sock, selectors.EVENT_WRITE)
            elif self._kind == "tls-idle":
                sock.sendall(GET % b"page")
                answer = b""
                while not _whole(answer):
                    answer += sock.recv(65536)
            else:
                sock.sendall(H2 if self._kind == "h2" else GET % b"large")
            self._socks.append(sock)
            self.push(0.0005)

    def push(self, seconds: float) -> None:
        """Let those who upload send what is taken."""
        block = bytes(65536)
        until = time.monotonic() + seconds
        while True:
            for key, _ in self._sending.select(max(0.0, until - time.monotonic())):
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    assert isinstance(key.fileobj, socket.socket)
                    key.fileobj.send(block)
            if time.monotonic() >= until:
                return

    def go(self) -> None:
        """All leave at once."""
        self._sending.close()
        for sock in self._socks:
            # By a reset: the end of an upload that nobody reads would wait behind its bytes, in the client's kernel.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        self._socks.clear()


def ask(port: int, seconds: float, crowd: Crowd | None = None) -> tuple[float, int]:
    """The p99 (s) of a fast client that asks without pause, and how many of its requests failed."""
    took: list[float] = []
    failed = 0
    if not seconds:
        return 0.0, 0
    until = time.monotonic() + seconds
    with socket.create_connection(("127.0.0.1", port), 60) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while time.monotonic() < until:
            began = time.monotonic()
            sock.sendall(GET % b"small")
            answer = b""
            while not _whole(answer):
                piece = sock.recv(4096)
                if not piece:
                    raise ConnectionError("the fast client was cut off")
                answer += piece
            took.append(time.monotonic() - began)
            failed += not answer.startswith(b"HTTP/1.1 200")
            if crowd is not None:
                crowd.push(0.001)
            else:
                time.sleep(0.001)
    return quantiles(took, n=100)[98] if len(took) > 1 else took[0], failed


def _whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    return bool(end) and len(body) >= int(length or b"0")


def until_served(port: int) -> None:
    """Wait until something listens at `port`."""
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens at port {port}")


def by_turns(port: int, direct: int, seconds: float, crowd: Crowd | None = None) -> tuple[float, float, int]:
    """The p99 (s) at `port` and, where `direct` is one, at that: the medians of three; and how many requests failed."""
    if not direct:
        p99, failed = ask(port, seconds, crowd)
        return p99, 0.0, failed
    rounds = [(ask(port, seconds / 3, crowd), ask(direct, seconds / 3, crowd)) for _ in range(3)]
    through, straight = (sorted(each[side][0] for each in rounds)[1] for side in (0, 1))
    return through, straight, sum(each[0][1] for each in rounds)


def kernel_bytes() -> int:
    """What TCP's buffers have of the kernel's memory, on this machine."""
    sockets = Path("/proc/net/sockstat").read_text().partition("TCP: ")[2].split()
    return int(sockets[sockets.index("mem") + 1]) * resource.getpagesize()


def measure(port: int, pid: int, kind: str, clients: int, seconds: float = 5.0, direct: int = 0) -> Result:
    """One run against a balancer that is up; `direct`: the endpoint's port, to be asked too."""
    p99_before, direct_before, failed = by_turns(port, direct, seconds)
    before = resident_bytes([pid])
    crowd = Crowd(port, kind)
    try:
        crowd.come(clients)
        crowd.push(1.0)
        p99_during, direct_during, more = by_turns(port, direct, seconds, crowd)
        during = resident_bytes([pid])
        kernel = kernel_bytes()
    finally:
        crowd.go()
    until = time.monotonic() + 30
    while (after := resident_bytes([pid])) - before > 20 << 20 and time.monotonic() < until:
        time.sleep(0.5)
    failed += more
    return Result(clients, before, during, after, p99_before, p99_during, failed, direct_before, direct_during, kernel)


@contextlib.contextmanager
def running(python: str, kind: str) -> Iterator[tuple[int, int, int]]:
    """A balancer with its endpoint: its port and process, and the endpoint's port."""
    files = 65536
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    port, admin, end = free_port(), free_port(), free_port()
    environment = os.environ | {
        "LB_HOST": "127.0.0.1",
        "LB_PORT": str(port),
        "LB_ADMIN_PORT": str(admin),
        "LB_BACKENDS": f"127.0.0.1:{end}",
        "LB_ACCESS_LOG": "off",
        "LB_MAX_CONNECTIONS": "12000",
        "LB_MAX_BUFFER_MEMORY": "128MiB",
        "LB_LOG_LEVEL": "error",
        "LB_MODE": "tcp" if kind == "tcp" else "http",
    }
    with tempfile.TemporaryDirectory() as folder:
        if kind.startswith("tls"):
            files_of = [f"{folder}/cert", f"{folder}/key"]
            made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
            made += ["-subj", "/CN=lb.test", "-out", files_of[0], "-keyout", files_of[1]]
            subprocess.run(made, check=True, capture_output=True)
            environment |= {"LB_TLS_CERT": files_of[0], "LB_TLS_KEY": files_of[1]}
        endpoint = subprocess.Popen([sys.executable, "-m", "benchmarks.slow_clients", "--serve", str(end)])
        balancer = subprocess.Popen([python, "-m", "balancer"], env=environment)
        try:
            for _ in range(400):
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz"):
                    break
                time.sleep(0.05)
            until_served(end)
            yield port, balancer.pid, end
        finally:
            for process in (balancer, endpoint):
                process.kill()
                process.wait()


def main() -> None:
    """Run one kind, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--seconds", type=float, default=5.0, help="for which the fast client asks, before and during")
    parser.add_argument("--python", default=sys.executable, help="whose balancer is measured")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve))
        return
    for kind in arguments.kind or KINDS:
        with running(arguments.python, kind) as (port, pid, end):
            if kind.startswith("tls"):
                print(f"{kind}: the fast client is not measured (it would need TLS too)")
            seconds = 0.0 if kind.startswith("tls") else arguments.seconds
            result = measure(port, pid, kind, arguments.clients, seconds, end if seconds else 0)
        p99 = f"{result.p99_before * 1000:.2f} ms before, {result.p99_during * 1000:.2f} ms during"
        direct = f"{result.direct_before * 1000:.2f}, {result.direct_during * 1000:.2f} ms"
        print(
            f"{kind}: {result.clients} clients, {result.each / 1024:.1f} KiB each; MiB before, during, after: "
            f"{result.before >> 20}, {result.during >> 20}, {result.after >> 20}; "
            f"p99 of the fast client {p99} (straight to the endpoint {direct}), {result.failed} failed; "
            f"TCP's buffers in the kernel {result.kernel >> 20} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
