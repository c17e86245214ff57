"""The program that `helm test` runs, against real sockets."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "charts" / "lb" / "files" / "traffic.py"


@contextmanager
def answering(*answers: Any) -> Any:
    """A server that gives each connection the next answer, the last one for ever; the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for number in range(100):
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                answer = answers[min(number, len(answers) - 1)]
                with connection:
                    if answer is None:
                        connection.recv(1)  # until the other side closes
                    elif answer:
                        connection.recv(65536)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def response(status: str, body: Any, *headers: Any) -> Any:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", body]
    return "\r\n".join(lines).encode()


def ask(url: Any, *arguments: Any) -> Any:
    return subprocess.run(
        [sys.executable, SCRIPT, url, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_it_passes_when_every_answer_is_right_and_says_who_gave_them() -> None:
    answers = [response("200 OK", "3.1415926535\n", f"X-Served-By: pi-{number}") for number in (1, 2)]
    with answering(*answers) as port:
        done = ask(f"http://127.0.0.1:{port}", "/10", "3.1415926535")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 of 20 requests were served, by pi-1, pi-2" in done.stdout


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (response("200 OK", "3.15"), "the body is '3.15', not '3.1415926535'"),
        (response("503 Service Unavailable", "no endpoints", "Proxy-Status: lb; error=x"), "503 lb; error=x"),
        (response("500 Internal Server Error", "oops"), "500"),
        (b"", "/10: "),
    ],
)
def test_it_fails_when_one_answer_is_wrong_and_says_how(wrong: Any, told: str) -> None:
    with answering(wrong, response("200 OK", "3.1415926535\n")) as port:
        done = ask(f"http://127.0.0.1:{port}", "/10", "3.1415926535")
    assert done.returncode == 1
    assert told in done.stdout
    assert "19 of 20" in done.stdout


def test_any_answer_of_ones_own_service_will_do() -> None:
    with answering(response("404 Not Found", "no such page")) as port:
        assert ask(f"http://127.0.0.1:{port}", "/").returncode == 0


def test_an_error_of_the_balancer_will_not_do() -> None:
    with answering(response("503 Service Unavailable", "no endpoints", "Proxy-Status: lb")) as port:
        done = ask(f"http://127.0.0.1:{port}", "/")
    assert done.returncode == 1
    assert "0 of 20 requests were served, by nobody" in done.stdout


def test_nobody_there() -> None:
    with answering(b"") as port:
        pass
    assert ask(f"http://127.0.0.1:{port}", "/").returncode == 1


@pytest.mark.parametrize(("answer", "status"), [(b"", 1), (None, 0)])
def test_a_byte_stream_is_proved_by_connections_that_stay_open(answer: Any, status: int) -> None:
    with answering(answer) as port:
        assert ask(f"tcp://127.0.0.1:{port}", "/").returncode == status
