#!/usr/bin/env bash
# granian 2.8.9 (PyPI): one application, one HEAD request: over HTTP/1.1 the response has no content, over HTTP/2 the
# application's whole body follows in DATA frames, which RFC 9110 §9.3.2 forbids. ASGI frameworks leave it to the server
# to drop a HEAD's body (Starlette answers HEAD by its GET handlers), and granian does, or rather the HTTP/1.1 half of
# hyper below it does: the HTTP/2 half does not.
#
# An HTTP/2 client that counts, like h2 (httpx), ends the connection with PROTOCOL_ERROR, and all requests that share it
# are lost: a health check by HEAD, or a HEAD forwarded by a balancer that speaks HTTP/2 to its endpoints, is enough.
#
# Seen with Python 3.11 on 2026-11-30, bytes of content behind the header fields of the response to HEAD:
#   HTTP/1.1: 0
#   HTTP/2: 5
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    granian==2.8.9 uvloop==0.22.1 hpack==4.2.0 hyperframe==6.1.0
cd "$folder"
cat >application.py <<'PYTHON'
async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})
PYTHON
venv/bin/python - <<'PYTHON'
import socket
import subprocess
import sys
import time

from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, HeadersFrame, SettingsFrame

with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]


def connect() -> socket.socket:
    """A connection to the server, which may be starting."""
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port), 10)
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise TimeoutError("the server does not start")


def over_http1() -> int:
    """The bytes of content in the response to HEAD over HTTP/1.1."""
    with connect() as client:
        client.sendall(b"HEAD / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
        received = b"".join(iter(lambda: client.recv(4096), b""))
    assert received.startswith(b"HTTP/1.1 200"), received
    return len(received.partition(b"\r\n\r\n")[2])


def over_http2() -> int:
    """The same over HTTP/2."""
    request = [(":method", "HEAD"), (":scheme", "http"), (":authority", "shop.test"), (":path", "/")]
    with connect() as client:
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize())
        client.sendall(HeadersFrame(1, Encoder().encode(request), flags=["END_HEADERS", "END_STREAM"]).serialize())
        content = 0
        reader = client.makefile("rb")
        while True:
            frame, length = Frame.parse_frame_header(memoryview(reader.read(9)))
            frame.parse_body(memoryview(reader.read(length)))
            if isinstance(frame, DataFrame):
                content += len(frame.data)
            if frame.stream_id == 1 and "END_STREAM" in frame.flags:
                return content


arguments = ["--interface", "asgi", "--host", "127.0.0.1", "--port", str(port), "--no-log", "application:application"]
server = subprocess.Popen([sys.executable, "-m", "granian", *arguments])
try:
    seen = over_http1(), over_http2()
finally:
    server.terminate()
    server.wait(20)
print("HTTP/1.1: {}\nHTTP/2: {}".format(*seen))
assert seen == (0, 5), "the behaviour has changed"
PYTHON
echo "as described"
