#!/usr/bin/env bash
# hypercorn 0.18.0 (PyPI): at SIGTERM it finishes the requests that it has, and says so over HTTP/2 to nobody: no GOAWAY
# announces the end. So clients send on, and a request that comes meanwhile is reset by RST_STREAM with NO_ERROR, not
# REFUSED_STREAM; only then SETTINGS allow no more streams, and the GOAWAY, when all is done, names that very request's
# stream as one that was served. By RFC 9113 §8.7 those are the two ways to say "not processed, send it again elsewhere",
# and both say the opposite: a balancer must take the request for begun, and may not repeat a POST. Idle connections end
# without GOAWAY.
#
# Every rolling restart of such endpoints costs some requests that no server has touched. To take an endpoint out of use
# before its SIGTERM (readiness, a preStop pause) is the only way around: retries that keep to the RFC are of no help.
#
# Seen with Python 3.11 on 2026-11-30, frames after SIGTERM while stream 1 is under way and stream 3 is opened:
#   busy: RST_STREAM 3 NO_ERROR, SETTINGS MAX_CONCURRENT_STREAMS=0, HEADERS 1, DATA 1, GOAWAY last 3 NO_ERROR
#   idle: closed
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check hypercorn==0.18.0 h2==4.4.1 hpack==4.2.0 hyperframe==6.1.0
cd "$folder"
cat >application.py <<'PYTHON'
import asyncio


async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(2)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})
PYTHON
venv/bin/python - <<'PYTHON'
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from h2.errors import ErrorCodes
from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]


class Client:
    """A connection over HTTP/2, which may take a server that is starting."""

    def __init__(self) -> None:
        self.socket = self._connect()
        self.reader = self.socket.makefile("rb")
        self.encoder = Encoder()
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize())

    def _connect(self) -> socket.socket:
        for _ in range(200):
            try:
                return socket.create_connection(("127.0.0.1", port), 15)
            except ConnectionRefusedError:
                time.sleep(0.05)
        raise TimeoutError("the server does not start")

    def ask(self, stream: int, method: str, path: str) -> None:
        """Send a request."""
        request = [(":method", method), (":scheme", "http"), (":authority", "shop.test"), (":path", path)]
        block = self.encoder.encode(request)
        self.socket.sendall(HeadersFrame(stream, block, flags=["END_HEADERS", "END_STREAM"]).serialize())

    def frames(self) -> Iterator[Frame]:
        """What comes, until the connection is closed."""
        while head := self.reader.read(9):
            frame, length = Frame.parse_frame_header(memoryview(head))
            frame.parse_body(memoryview(self.reader.read(length)))
            yield frame


def told(frame: Frame) -> str:
    """A frame in words; empty where it does not matter here."""
    if isinstance(frame, GoAwayFrame):
        return f"GOAWAY last {frame.last_stream_id} {ErrorCodes(frame.error_code).name}"
    if isinstance(frame, RstStreamFrame):
        return f"RST_STREAM {frame.stream_id} {ErrorCodes(frame.error_code).name}"
    if isinstance(frame, SettingsFrame) and SettingsFrame.MAX_CONCURRENT_STREAMS in frame.settings:
        return f"SETTINGS MAX_CONCURRENT_STREAMS={frame.settings[SettingsFrame.MAX_CONCURRENT_STREAMS]}"
    if isinstance(frame, HeadersFrame) or (isinstance(frame, DataFrame) and frame.data):
        return f"{type(frame).__name__.removesuffix('Frame').upper()} {frame.stream_id}"
    return ""


command = [sys.executable, "-m", "hypercorn", "--log-level", "CRITICAL", "--bind", f"127.0.0.1:{port}"]
server = subprocess.Popen([*command, "application:application"], stderr=subprocess.DEVNULL)
try:
    idle, busy = Client(), Client()
    idle.ask(1, "GET", "/")
    next(frame for frame in idle.frames() if isinstance(frame, DataFrame) and "END_STREAM" in frame.flags)
    next(busy.frames())  # its SETTINGS: it serves
    busy.ask(1, "GET", "/slow")
    time.sleep(0.5)
    server.send_signal(signal.SIGTERM)
    ended = [told(frame) for frame in idle.frames()]
    busy.ask(3, "POST", "/")  # the server stops, as the end of the other connection shows
    seen = ", ".join(filter(None, map(told, busy.frames())))
finally:
    server.terminate()
    server.wait(20)
after = ", ".join([*filter(None, ended), "closed"])
print(f"busy: {seen}\nidle: {after}")
assert seen == (
    "RST_STREAM 3 NO_ERROR, SETTINGS MAX_CONCURRENT_STREAMS=0, HEADERS 1, DATA 1, GOAWAY last 3 NO_ERROR"
), "the behaviour has changed"
assert after == "closed", "the behaviour has changed"
PYTHON
echo "as described"
