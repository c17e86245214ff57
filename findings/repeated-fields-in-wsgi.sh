#!/usr/bin/env bash
# bjoern 3.2.2 (PyPI, as bjoern-binary), netius 1.64.0 and cheroot 11.1.2 (CherryPy's server): three servers that hand a
# WSGI application a header field that came in two lines otherwise than RFC 9110 §5.3 has it, which is joined by commas:
#
# - bjoern joins the lines by nothing: of two addresses in X-Forwarded-For it makes one word, of two codings one coding.
# - netius joins by a semicolon. In Forwarded that makes one proxy of two, with its `for` twice.
# - cheroot joins the fields of a list of its own by commas. X-Forwarded-For and Forwarded are not on it: the last line
#   takes the place of those before, so the client's address goes where a proxy adds a line with its own peer.
#
# A balancer that adds a line to what it forwards works with most servers, and with these loses or garbles the client's
# address, with no error on either side. One that extends the line that is there works with all.
#
# Seen with Python 3.11 on 2026-11-30, for two lines, 192.0.2.1 and 198.51.100.2, and Accept-Encoding: br, and gzip:
#   bjoern: 192.0.2.1198.51.100.2 | for=192.0.2.1for=198.51.100.2 | brgzip
#   netius: 192.0.2.1;198.51.100.2 | for=192.0.2.1;for=198.51.100.2 | br;gzip
#   cheroot: 198.51.100.2 | for=198.51.100.2 | br, gzip
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: bjoern-binary==3.2.2 netius==1.64.0 \
    cheroot==11.1.2
cd "$folder"
cat >application.py <<'PYTHON'
NAMES = "HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_ACCEPT_ENCODING"


def application(environ, start_response):
    body = " | ".join(environ[name] for name in NAMES).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
PYTHON
venv/bin/python - <<'PYTHON'
import socket
import subprocess
import sys
import time

SERVERS = {
    "bjoern": "import bjoern; bjoern.run(application, '127.0.0.1', {port})",
    "netius": "import netius.servers; netius.servers.WSGIServer(application).serve(host='127.0.0.1', port={port})",
    "cheroot": "from cheroot.wsgi import Server; Server(('127.0.0.1', {port}), application).start()",
}
REQUEST = b"""GET / HTTP/1.1\r
Host: shop.test\r
X-Forwarded-For: 192.0.2.1\r
X-Forwarded-For: 198.51.100.2\r
Forwarded: for=192.0.2.1\r
Forwarded: for=198.51.100.2\r
Accept-Encoding: br\r
Accept-Encoding: gzip\r
Connection: close\r
\r
"""


def asked(port: int) -> str:
    """The body of the response of a server, which may be starting."""
    for _ in range(200):
        try:
            with socket.create_connection(("127.0.0.1", port), 10) as client:
                client.sendall(REQUEST)
                received = b"".join(iter(lambda: client.recv(4096), b""))
            return received.partition(b"\r\n\r\n")[2].decode()
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise TimeoutError("the server does not start")


def seen(code: str) -> str:
    """What an application behind such a server gets."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", f"from application import application; {code.format(port=port)}"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        return asked(port)
    finally:
        server.kill()
        server.wait(20)


told = {name: seen(code) for name, code in SERVERS.items()}
for name, what in told.items():
    print(f"{name}: {what}")
assert told == {
    "bjoern": "192.0.2.1198.51.100.2 | for=192.0.2.1for=198.51.100.2 | brgzip",
    "netius": "192.0.2.1;198.51.100.2 | for=192.0.2.1;for=198.51.100.2 | br;gzip",
    "cheroot": "198.51.100.2 | for=198.51.100.2 | br, gzip",
}, "the behaviour has changed"
PYTHON
echo "as described"
