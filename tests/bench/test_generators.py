"""The generators of HTTP/2, gRPC and TLS: how their reports are read, how programs are set up, what is left out."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import hpack
import pytest
from benchmarks import idle, load, measures, processes, report, unequal
from benchmarks.certificate import certificate
from benchmarks.peers.envoy import Envoy
from benchmarks.peers.haproxy import Haproxy
from benchmarks.peers.lb import Lb
from benchmarks.peers.nginx import Nginx
from benchmarks.peers.peer import Mode, Peer, Setup
from benchmarks.ports import AGREED, agreed, free_port, speaks_http2
from benchmarks.results import Result
from benchmarks.run import plan
from benchmarks.workloads import HAPROXY, HTTP2, NGINX, OVER_HTTP2, OVER_TLS, Bar, Calls, Workload

H2LOAD = """starting benchmark...
finished in 1.00s, 35512.00 req/s, 1.29MB/s
requests: 35512 total, 35768 started, 35512 done, 35510 succeeded, 2 failed, 0 errored, 0 timeout
status codes: 35500 2xx, 8 3xx, 2 4xx, 2 5xx
traffic: 1.29MB (1349456) total, 69.36KB (71024) headers (space savings 97.78%), 416.16KB (426144) data
"""


def s_time(marks: str, count: int = 4, size: int = 309) -> str:
    """A report with a letter for each connection."""
    return (
        f"Collecting connection statistics for 2 seconds\n{marks}\n\n"
        f"{count} connections in 0.01s; 400.00 connections/user sec, bytes read {count * size}\n"
        f"{count} connections in 2 real seconds, {size} bytes read per connection\n"
    )


def test_h2loads_report_is_read_with_its_errors() -> None:
    assert load.parse_h2load(H2LOAD) == load.Closed(requests=35512, seconds=1.0, errors=4)


@pytest.mark.parametrize("text", ["", H2LOAD.replace("35512 done", "0 done")])
def test_an_h2load_that_was_never_answered_is_a_failure(text: str) -> None:
    with pytest.raises(load.LoadError, match="h2load says"):
        load.parse_h2load(text)


def test_s_times_report_is_read() -> None:
    assert load.parse_s_time(s_time("****"), resumed=False) == load.Closed(requests=4, seconds=2.0, errors=0)
    assert load.parse_s_time(s_time("rrrr"), resumed=True).requests == 4


@pytest.mark.parametrize(("marks", "resumed"), [("r***", True), ("***r", False)])
def test_handshakes_of_the_other_kind_are_a_failure(marks: str, resumed: bool) -> None:
    with pytest.raises(load.LoadError, match="of 4 connections took up a session"):
        load.parse_s_time(s_time(marks), resumed=resumed)


def test_handshakes_without_an_answer_are_a_failure() -> None:
    with pytest.raises(load.LoadError, match="s_time says"):
        load.parse_s_time(s_time("****", size=0), resumed=False)


def test_every_path_that_h2load_asks_for_is_different(tmp_path: Path) -> None:
    lines = load.addresses(tmp_path, "http://127.0.0.1:8080/", 5000).read_text().splitlines()
    assert len(set(lines)) == 5000
    assert all(line.startswith("http://127.0.0.1:8080/item/") for line in lines)


def test_the_idle_clients_request_is_one_of_http2() -> None:
    fields = hpack.Decoder().decode(idle._FIELDS, raw=True)
    wanted = {b":method": b"GET", b":scheme": b"http", b":path": b"/", b":authority": b"localhost"}
    assert dict(fields) == wanted


@pytest.mark.parametrize("work", [*OVER_HTTP2, *OVER_TLS], ids=lambda work: work.name)
def test_a_row_whose_generator_is_absent_is_left_out_and_says_so(
    work: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert work.name in plan()
    monkeypatch.setenv("PATH", "")
    bench = Mock()
    assert measures.throughput(bench, work) == []
    assert f"{work.name}: left out, no {work.tool} on PATH" in bench.tell.call_args.args[0]


def configuration(kind: type[Peer], mode: Mode, folder: Path) -> str:
    """The whole of its configuration: files, command and environment."""
    peer = kind(Setup(folder, ("127.0.0.1:9000",), mode))
    command = " ".join(peer.command())
    settings = " ".join(f"{name}={value}" for name, value in peer.environ().items())
    return " ".join([command, settings, *(file.read_text() for file in peer.folder.iterdir())])


@pytest.mark.parametrize(
    ("kind", "http2_in", "http2_out", "tls"),
    [
        (Nginx, " http2; ", "grpc_pass grpc://", "ssl_certificate "),
        (Haproxy, ("proto h2\n default_backend", "alpn h2,http/1.1"), "9000 proto h2", " ssl crt "),
        (Envoy, None, "http2_protocol_options", "DownstreamTlsContext"),
        (Lb, None, "LB_UPSTREAM_PROTOCOL=h2c", "LB_TLS_CERT="),
    ],
)
@pytest.mark.parametrize("mode", ["http", "tls", "h2", "h2-tls", "h2-to-http1"])
def test_all_programs_are_set_up_to_speak_the_same(
    tmp_path: Path, mode: Mode, kind: type[Peer], http2_in: str | tuple[str, ...] | None, http2_out: str, tls: str
) -> None:
    text = configuration(kind, mode, tmp_path)
    assert (http2_out in text) == (mode in ("h2", "h2-tls"))
    assert (tls in text) == (mode in ("tls", "h2-tls"))
    if http2_in:  # the others see for themselves what a client speaks
        any_of = (http2_in,) if isinstance(http2_in, str) else http2_in
        assert any(words in text for words in any_of) == mode.startswith("h2")


@contextlib.contextmanager
def served(answer: bytes, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server of one client: its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            # A client that has seen enough just leaves.
            with connection, contextlib.suppress(OSError):
                client = context.wrap_socket(connection, server_side=True) if context else connection
                with client:
                    client.sendall(answer)
                    client.recv(1)

        server = threading.Thread(target=serve)
        server.start()
        yield listener.getsockname()[1]
        server.join(10)


@pytest.mark.parametrize(("answer", "found"), [(b"\0\0\0\4\0\0\0\0\0", True), (b"HTTP/1.1 400 Bad Request", False)])
def test_a_balancer_serves_http2_once_it_has_sent_settings(answer: bytes, found: bool) -> None:
    with served(answer) as port:
        assert speaks_http2(port) is found


def test_what_tls_agrees_on_is_known(tmp_path: Path) -> None:
    files = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.both)
    with served(b"hello", context) as port:
        assert agreed(port) == AGREED
    assert agreed(port) is None
    assert certificate(tmp_path) == files


def test_the_table_says_whom_a_bar_is_held_against() -> None:
    measured = Result("h2-tiny", "HTTP/2", "requests", "higher", {"lb": [4.0], "haproxy": [2.0]}, "make bench", None)
    for rivals, name in (
        (HAPROXY, "HAProxy"),
        (NGINX, "nginx"),
        (HTTP2, "the best, Envoy too"),
        (("caddy",), "the best"),
    ):
        assert report.verdict(dataclasses.replace(measured, bar=Bar(2.0, rivals)))[1] == f"≥ 2 of {name}"
    assert report.verdict(dataclasses.replace(measured, bar=Bar(2.0, HAPROXY)))[2] == "yes"


def test_calls_are_answered_with_a_message_and_trailers_each(tmp_path: Path) -> None:
    port = free_port()
    process = processes.start([sys.executable, "-m", "benchmarks.calls", "serve", str(port)], tmp_path, None)
    try:
        while not speaks_http2(port):
            assert process.poll() is None, (tmp_path / "output.log").read_text()
            time.sleep(0.01)
        done = load.calls(port, Calls("", "", Bar(1.0), paths=50, connections=2, streams=4), 0.3, None)
    finally:
        processes.stop(process)
    assert done.requests > 8
    assert done.errors == 0


def test_calls_to_a_fleet_are_answered_by_those_that_work_and_not_by_those_that_fail(tmp_path: Path) -> None:
    with unequal.scripted(tmp_path, None, "one-failing", 1, calls=True) as addresses:
        ports = [int(address.rpartition(":")[2]) for address in addresses]
        works, fails = [
            load.open_loop(port, 50, 0.5, None, ["--seed", "1", "--calls"]) for port in (ports[0], ports[3])
        ]
    assert works.failures == 0
    assert works.mean > 0.001
    assert fails.failures == fails.requests
