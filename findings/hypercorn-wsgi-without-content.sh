#!/usr/bin/env bash
# hypercorn 0.18.0 (PyPI): a WSGI application's response without content becomes a 500. hypercorn sends status and fields
# with the first piece of the body; a body of no pieces, as WSGI has it for no content, sends nothing, and the server
# fills the gap. Flask (Werkzeug) gives no pieces for HEAD, 204 and 304, so all of those are errors, while GET works.
#
# A health check by HEAD, or by a path that answers 204, finds each endpoint down that serves its users well.
#
# Seen with Python 3.11 on 2026-11-30, the status that Flask's own test client sees, and the one from hypercorn:
#   GET /: 200, 200
#   HEAD /: 200, 500
#   GET /healthz: 204, 500
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check hypercorn==0.18.0 flask==3.1.2
cd "$folder"
cat >application.py <<'PYTHON'
from flask import Flask

application = Flask("shop")


@application.get("/")
def root() -> str:
    return "shop"


@application.get("/healthz")
def healthz() -> tuple[str, int]:
    return "", 204
PYTHON
venv/bin/python - <<'PYTHON'
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection

from application import application

with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]


def answered(method: str, path: str) -> int:
    """The status from hypercorn, which may be starting."""
    for _ in range(200):
        client = HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            client.request(method, path)
            return client.getresponse().status
        except ConnectionRefusedError:
            time.sleep(0.05)
        finally:
            client.close()
    raise TimeoutError("the server does not start")


command = [sys.executable, "-m", "hypercorn", "--log-level", "CRITICAL", "--bind", f"127.0.0.1:{port}"]
server = subprocess.Popen([*command, "wsgi:application:application"], stderr=subprocess.DEVNULL)
seen = {}
try:
    for method, path in (("GET", "/"), ("HEAD", "/"), ("GET", "/healthz")):
        meant = application.test_client().open(path, method=method).status_code
        seen[f"{method} {path}"] = f"{meant}, {answered(method, path)}"
finally:
    server.terminate()
    server.wait(20)
for case, statuses in seen.items():
    print(f"{case}: {statuses}")
assert list(seen.values()) == ["200, 200", "200, 500", "204, 500"], "the behaviour has changed"
PYTHON
echo "as described"
