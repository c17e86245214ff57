#!/usr/bin/env bash
# granian 2.8.9 and aethonan 2.8.5 (PyPI; aethonan is a fork of granian): an application sends a part of a response of no
# stated length, then raises. granian cuts the chunked body short over HTTP/1.1, and resets the stream over HTTP/2: both
# say "not all of it". aethonan ends the response properly, in both protocols: a part of a response looks like all of
# it. A balancer sees a success, caches may keep it, and no retry, log or ejection can know of the failure.
#
# Seen with Python 3.11 on 2026-11-30 (HTTP/2: what comes after the part, and whether another request is answered):
#   granian: cut short over HTTP/1.1, INTERNAL_ERROR over HTTP/2, another: yes
#   aethonan: whole over HTTP/1.1, END_STREAM over HTTP/2, another: yes
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check granian==2.8.9 aethonan==2.8.5 uvloop==0.22.1 \
    h2==4.4.1
cd "$folder"
cat >application.py <<'PYTHON'
async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"part", "more_body": True})
    if scope["path"] == "/fails":
        raise RuntimeError("the rest cannot be made")
    await send({"type": "http.response.body", "body": b""})
PYTHON
venv/bin/python - <<'PYTHON'
import socket
import subprocess
import sys
import time

from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, StreamEnded, StreamReset

OPTIONS = ["--interface", "asgi", "--no-log", "--port"]
SERVERS = {
    "granian": ["granian", *OPTIONS, "{port}"],
    "aethonan": ["aethonan", *OPTIONS, "{port}"],
}


def connect(port: int) -> socket.socket:
    """A connection to the server, which may be starting."""
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port), 10)
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise TimeoutError("the server does not start")


def over_http1(port: int) -> str:
    """Whether the chunked response has its last chunk."""
    with connect(port) as client:
        client.sendall(b"GET /fails HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
        received = b"".join(iter(lambda: client.recv(4096), b""))
    assert b"4\r\npart\r\n" in received, received
    return "whole" if received.endswith(b"\r\n0\r\n\r\n") else "cut short"


class Http2:
    """A connection over HTTP/2, and what came on it."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.h2 = H2Connection()
        self.h2.initiate_connection()
        self.events: list[Event] = []

    def ask(self, path: str) -> int:
        """The stream of a new request."""
        stream = self.h2.get_next_available_stream_id()
        request = [(":method", "GET"), (":scheme", "http"), (":authority", "shop.test"), (":path", path)]
        self.h2.send_headers(stream, request, end_stream=True)
        self.client.sendall(self.h2.data_to_send())
        return stream

    def wait(self, stream: int, *kinds: type[Event]) -> Event | None:
        """The first event of such a kind on a stream; None after two seconds without any byte."""
        self.client.settimeout(2)
        while True:
            for event in self.events:
                if isinstance(event, kinds) and event.stream_id == stream:
                    return event
            try:
                received = self.client.recv(65536)
            except TimeoutError:
                return None
            assert received, "the connection was closed"
            self.events += self.h2.receive_data(received)
            self.client.sendall(self.h2.data_to_send())


def over_http2(port: int) -> str:
    """What follows the part over HTTP/2, and whether the connection still serves."""
    with connect(port) as client:
        connection = Http2(client)
        failed = connection.ask("/fails")
        assert connection.wait(failed, DataReceived)
        end = connection.wait(failed, StreamEnded, StreamReset)
        if isinstance(end, StreamReset):
            seen = ErrorCodes(end.error_code).name
        else:
            seen = "END_STREAM" if end else "nothing"
        other = "yes" if connection.wait(connection.ask("/works"), StreamEnded) else "no"
    return f"{seen} over HTTP/2, another: {other}"


def seen(module: str, options: list[str]) -> str:
    """What a client sees of a failure behind such a server."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", module, *(option.format(port=port) for option in options), "application:application"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        return f"{over_http1(port)} over HTTP/1.1, {over_http2(port)}"
    finally:
        server.terminate()
        server.wait(20)


told = {name: seen(module, options) for name, (module, *options) in SERVERS.items()}
for name, what in told.items():
    print(f"{name}: {what}")
assert told == {
    "granian": "cut short over HTTP/1.1, INTERNAL_ERROR over HTTP/2, another: yes",
    "aethonan": "whole over HTTP/1.1, END_STREAM over HTTP/2, another: yes",
}, "the behaviour has changed"
PYTHON
echo "as described"
