#!/usr/bin/env bash
# kr8s 0.20.15 (PyPI; a client of the Kubernetes API): a watch stops where one must go on, and goes on where one must stop.
#
# - The API server ends every watch, after 30 to 60 minutes as it is set up: the client is to ask again, from the last
#   resourceVersion. kr8s ends the iteration instead, with no exception: `async for` over a watch is simply over. A
#   balancer that follows its EndpointSlices so works in every test, and hears of no change after its first half hour.
# - At an ERROR event with 410, that version is no longer kept: the client is to list again, without one. kr8s asks for the
#   version that is gone once more, at once. Its caller hears nothing of it, nor of what it has missed.
#
# Seen with Python 3.11 on 2026-11-30 (events, how the iteration ended, and the resourceVersion of each watch asked for):
#   the server ends the watch: MODIFIED 120, then over. Asked for: 100
#   120 is no longer kept: MODIFIED 120, then over. Asked for: 100, 120
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check kr8s==0.20.15 httpx==0.28.1
cd "$folder"
venv/bin/python - <<'PYTHON'
import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from kr8s.asyncio import api
from kr8s.asyncio.objects import new_class

CHANGED = {
    "type": "MODIFIED",
    "object": {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": "web-1", "namespace": "shop", "resourceVersion": "120"},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.1"]}],
    },
}
GONE = {"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410}}


def answers(lists: list[list[dict]]) -> tuple[type[BaseHTTPRequestHandler], list[str]]:
    """A server's handler that answers each watch by the next of the lists of events, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            if "watch" in query:
                asked.append(query["resourceVersion"][0])
                body = "".join(json.dumps(event) + "\n" for event in lists.pop(0))
            else:
                body = json.dumps({"major": "1", "minor": "34", "gitVersion": "v1.34.0"})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    return Handler, asked


async def watch(port: int) -> list[str]:
    """The events of a watch, and how it ended."""
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}
    user = {"name": "u", "user": {"token": "t"}}
    settings = {"apiVersion": "v1", "kind": "Config", "current-context": "c"}
    path = Path(f"config-{port}")
    path.write_text(json.dumps(settings | {"clusters": [cluster], "contexts": [context], "users": [user]}))
    kubernetes = await api(kubeconfig=path)
    slices = new_class("EndpointSlice", version="discovery.k8s.io/v1", namespaced=True)
    told = []
    async for kind, changed in kubernetes.watch(slices, namespace="shop", since="100"):
        told.append(f"{kind} {changed.metadata.resourceVersion}")
    return [*told, "then over"]


def seen(lists: list[list[dict]]) -> str:
    """What a client sees of a server that answers watches so."""
    handler, asked = answers(lists)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            told = asyncio.run(asyncio.wait_for(watch(server.server_port), 20))
        finally:
            server.shutdown()
    return f"{', '.join(told)}. Asked for: {', '.join(asked)}"


told = {
    "the server ends the watch": seen([[CHANGED]]),
    "120 is no longer kept": seen([[CHANGED, GONE], []]),
}
for case, what in told.items():
    print(f"{case}: {what}")
assert told == {
    "the server ends the watch": "MODIFIED 120, then over. Asked for: 100",
    "120 is no longer kept": "MODIFIED 120, then over. Asked for: 100, 120",
}, "the behaviour has changed"
PYTHON
echo "as described"
