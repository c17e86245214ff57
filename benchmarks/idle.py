"""The memory of a client connection that was served once and is kept, out of thousands: HTTP/1.1, TLS, HTTP/2."""

from __future__ import annotations

import dataclasses
import socket
import ssl
from collections.abc import Sequence

from benchmarks import measures, processes
from benchmarks.bench import Bench
from benchmarks.ports import PREFACE, trusting
from benchmarks.results import Result
from benchmarks.workloads import WORKLOADS, Bar

COUNTS = {"tiny": 10_000, "tls-tiny": 2_000, "h2-tiny": 10_000}
"""By the workload that warms up: the connections of which one costs the measured memory, as far as files may be opened;
fewer by TLS, of which those of the generator take much more than those of the balancers."""
BARS = {"tiny": 8.0, "tls-tiny": 20.0, "h2-tiny": 12.0}
TITLES = {"tiny": "an idle client connection", "tls-tiny": "an idle TLS client", "h2-tiny": "an idle HTTP/2 connection"}
_GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
_FIELDS = b"\x82\x86\x84\x41\x09localhost"
"""`:method: GET`, `:scheme: http` and `:path: /` of HPACK's static table, and `:authority: localhost`."""
_HTTP2_GET = PREFACE + len(_FIELDS).to_bytes(3, "big") + bytes((1, 5, 0, 0, 0, 1)) + _FIELDS


def idle(bench: Bench, warm: str) -> Sequence[Result]:
    """KiB of one, once the workload `warm` has shown a balancer how it is spoken to."""
    work = dataclasses.replace(next(work for work in WORKLOADS if work.name == warm), connections=8)
    count = min(COUNTS[warm], (processes.open_files() - 400) // 2)
    samples: dict[str, list[float]] = {}
    for kind in bench.peers:
        if work.mode not in kind.modes:
            continue
        with kind(bench.setup(work.mode)) as peer:
            tls = trusting() if peer.setup.tls else None
            measures.asked(bench, peer, work)
            before = processes.resident_bytes(peer.pids)
            kept = [_served_once(peer.port, tls=tls, http2=peer.setup.http2) for _ in range(count)]
            after = processes.resident_bytes(peer.pids)
            for connection in kept:
                connection.close()
        samples[kind.name] = [(after - before) / count / 1024]
    name = "idle" if warm == "tiny" else f"idle-{work.mode}"
    title = f"Memory of {TITLES[warm]}, of {count:,}"
    return [Result(name, title, "KiB", "lower", samples, f"make bench ONLY={name}", Bar(BARS[warm]), group="memory")]


def _served_once(port: int, *, tls: ssl.SSLContext | None, http2: bool) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    if tls:
        connection = tls.wrap_socket(connection)
    connection.sendall(_HTTP2_GET if http2 else _GET)
    answer = b""
    while b"world" not in answer:
        piece = connection.recv(65536)
        if not piece:
            raise RuntimeError(f"closed after {answer!r}")
        answer += piece
    return connection
