from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable

import pytest
from tests.pi.conftest import Pi, eventually

REQUEST = b"GET /10 HTTP/1.1\r\nHost: x\r\n\r\n"


def _refuses(pi: Pi) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", pi.port), timeout=5):
            return False
    except ConnectionRefusedError:
        return True


def test_after_sigterm_readiness_fails_at_once_and_serving_goes_on_for_the_delay(start: Callable[..., Pi]) -> None:
    pi = start(workers=1, drain_delay=2.5)
    pi.wait_until_ready()
    kept = socket.create_connection(("127.0.0.1", pi.port), timeout=30)
    kept.sendall(REQUEST)
    assert b"Connection:" not in kept.recv(4096)
    asked = time.monotonic()
    pi.signal(signal.SIGTERM)
    pi.wait_for_log("SIGTERM: draining")
    assert pi.get("/readyz").status == 503
    assert pi.get("/healthz").status == 200
    reply = pi.get("/10")  # on a new connection
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    with kept:
        kept.sendall(REQUEST)
        assert b"Connection: close" in kept.recv(4096)
        assert kept.recv(1) == b""
    assert pi.process.poll() is None, "it closes that connection at once, not when it ends"
    assert pi.exit_status() == 0
    assert time.monotonic() - asked >= 2.5


def test_what_is_in_flight_ends_after_listening_has(start: Callable[..., Pi]) -> None:
    pi = start(workers=1)
    pi.wait_until_ready()
    pi.pause_workers()
    client = pi.connect().send("/10")
    assert pi.get("/healthz").status == 200
    pi.signal(signal.SIGTERM)
    eventually(lambda: _refuses(pi))
    pi.resume_workers()
    reply = client.reply()
    assert (reply.status, reply.text, reply.headers["connection"]) == (200, "3.1415926535\n", "close")
    assert pi.exit_status() == 0


def test_what_waits_in_the_queue_is_in_flight_too(start: Callable[..., Pi]) -> None:
    pi = start(workers=1)
    pi.wait_until_ready()
    pi.pause_workers()
    clients = [pi.connect().send("/10") for _ in range(5)]
    assert pi.get("/healthz").status == 200
    pi.signal(signal.SIGTERM)
    eventually(lambda: _refuses(pi))
    pi.resume_workers()
    assert [client.reply().status for client in clients] == [200] * 5
    assert pi.exit_status() == 0


def test_idle_connections_are_closed_when_listening_ends(start: Callable[..., Pi]) -> None:
    pi = start(workers=1, drain_timeout=3600)
    idle = pi.connect()
    idle.send("/10").reply()
    pi.signal(signal.SIGTERM)
    assert idle.socket.recv(1) == b""
    idle.close()
    assert pi.exit_status() == 0


def test_what_does_not_end_in_time_is_cut(start: Callable[..., Pi]) -> None:
    pi = start(workers=1, drain_timeout=0.5)
    pi.wait_until_ready()
    pi.pause_workers()
    client = pi.connect().send("/10")
    assert pi.get("/healthz").status == 200
    pi.signal(signal.SIGTERM)
    with pytest.raises(OSError):  # noqa: PT011 (reset or closed without an answer)
        client.reply()
    assert pi.exit_status() == 0
    assert any("cut 1 connection" in line for line in pi.log)


def test_sigint_skips_the_delay(start: Callable[..., Pi]) -> None:
    pi = start(workers=1, drain_delay=3600)
    pi.signal(signal.SIGINT)
    assert pi.exit_status() == 0


def test_a_second_signal_ends_the_delay(start: Callable[..., Pi]) -> None:
    pi = start(workers=1, drain_delay=3600)
    pi.signal(signal.SIGTERM)
    pi.wait_for_log("SIGTERM: draining")
    pi.signal(signal.SIGTERM)
    assert pi.exit_status() == 0


def test_ctrl_c_in_a_terminal_ends_it_quietly_after_what_is_in_flight(start: Callable[..., Pi]) -> None:
    pi = start(workers=1)
    pi.wait_until_ready()
    pi.pause_workers()
    client = pi.connect().send("/10")
    assert pi.get("/healthz").status == 200
    os.killpg(pi.process.pid, signal.SIGINT)  # what a terminal does: the whole group gets it
    pi.wait_for_log("SIGINT: draining")
    pi.resume_workers()
    assert client.reply().status == 200
    assert pi.exit_status() == 0
    assert [line.split(maxsplit=2)[2].split()[0] for line in pi.log] == ["listening", "SIGINT:", "stopped"]
    assert not pi.workers()


def test_an_answer_is_not_lost_to_a_reset(start: Callable[..., Pi]) -> None:
    pi = start(workers=1)
    with socket.create_connection(("127.0.0.1", pi.port), timeout=30) as client:
        client.sendall(b"GET /200000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert client.recv(1, socket.MSG_PEEK)
        client.sendall(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n" * 100)  # unread, it would make the kernel send a reset
        time.sleep(0.2)  # reads late
        received = b""
        while piece := client.recv(65536):
            received += piece
    assert len(received.partition(b"\r\n\r\n")[2]) == 200_003


def test_a_client_that_never_closes_does_not_keep_the_connection_open(start: Callable[..., Pi]) -> None:
    pi = start(workers=1, drain_timeout=30)
    idle = pi.connect()
    idle.send("/10").reply()
    asked = time.monotonic()
    pi.signal(signal.SIGTERM)
    assert pi.exit_status() == 0  # though idle has not closed its side
    assert time.monotonic() - asked < 15
