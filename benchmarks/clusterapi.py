"""A stand-in for the Kubernetes API that holds objects of any kind: lists in pages, watches, writes with versions.

`python -m benchmarks.clusterapi PORT KUBECONFIG OBJECTS` serves the objects of a JSON file (a mapping from each kind's
path, such as `/api/v1/services`, to its objects), and writes a kubeconfig that points here once it serves.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiohttp import web
from benchmarks.kubeapi import kubeconfig_for

Json = dict[str, Any]
Key = tuple[str, str]


class ClusterApiServer:
    """By the API's rules, as far as controllers lean on them: 410, 409 and 404 among them."""

    def __init__(self, kinds: Mapping[str, list[Json]]) -> None:
        """`kinds`: by path of all namespaces, the objects that there are. A kind that is not named gets 404."""
        self.version = 100
        self.oldest = 0
        """A watch from before this version gets 410."""
        self.kinds: dict[str, dict[Key, Json]] = {}
        self.writes: list[tuple[str, str]] = []
        """Method and path of all that clients have written."""
        self.before: Callable[[web.Request], Awaitable[web.Response | None]] | None = None
        """Called with each request, and may wait, or answer in our place."""
        self._held: dict[str, list[Json]] = {}
        self._events: dict[str, list[tuple[int, Json]]] = {}
        self._watchers: dict[str, set[asyncio.Queue[Json | None]]] = {}
        self._runner: web.AppRunner | None = None
        self.port = 0
        for path, items in kinds.items():
            self.kinds[path] = {}
            for item in items:
                self.put(path, item)

    # What happens in the cluster.

    def put(self, path: str, item: Json) -> Json:
        """Create or replace an object, as a user would: the generation rises where the spec is another."""
        self.version += 1
        metadata = item.setdefault("metadata", {})
        key = (metadata.get("namespace") or "", metadata["name"])
        before = self.kinds[path].get(key)
        metadata["resourceVersion"] = str(self.version)
        metadata.setdefault("uid", f"uid-{key[0]}-{key[1]}")
        metadata.setdefault("creationTimestamp", "2026-11-29T12:00:00Z")
        same = before is not None and before.get("spec") == item.get("spec")
        generation = before["metadata"]["generation"] if before is not None else 0
        if path == "/api/v1/services":
            known = before["spec"].get("clusterIP") if before is not None else None
            item["spec"].setdefault("clusterIP", known or f"10.96.{self.version // 250 % 250}.{self.version % 250}")
        metadata["generation"] = generation if same else generation + 1
        self.kinds[path][key] = item
        self._tell(path, {"type": "ADDED" if before is None else "MODIFIED", "object": item})
        return item

    def delete(self, path: str, key: Key) -> None:
        """Delete an object."""
        item = self.kinds[path].pop(key)
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        self._tell(path, {"type": "DELETED", "object": item})

    def forget(self) -> None:
        """Break all watches off, and know no version before this one any more."""
        self.version += 1
        self.oldest = self.version
        self._events.clear()
        for path in self._watchers:
            self.break_off(path)

    def restore(self, version: int) -> None:
        """Be as after a restore of a backup: at an older version, knowing no event. All watches break off."""
        self.version = version
        self._events.clear()
        for path in self._watchers:
            self.break_off(path)

    def break_off(self, path: str) -> None:
        """End every watch of a kind."""
        for watcher in self._watchers.get(path, ()):
            watcher.put_nowait(None)

    def hold(self, path: str) -> None:
        """From now on, watches of a kind are late: what happens there reaches them when it is `let_go`."""
        self._held[path] = []

    def let_go(self, path: str) -> None:
        """Send what was held."""
        for event in self._held.pop(path):
            self._send(path, event)

    def watching(self, path: str) -> bool:
        """Whether a client watches a kind."""
        return bool(self._watchers.get(path))

    def _tell(self, path: str, event: Json) -> None:
        event = json.loads(json.dumps(event))
        self._events.setdefault(path, []).append((self.version, event))
        if path in self._held:
            self._held[path].append(event)
        else:
            self._send(path, event)

    def _send(self, path: str, event: Json) -> None:
        for watcher in self._watchers.get(path, ()):
            watcher.put_nowait(event)

    # What clients ask.

    async def start(self, port: int = 0) -> None:
        """Listen on loopback."""
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Break everything off."""
        for path in self._watchers:
            self.break_off(path)
        if self._runner is not None:
            await self._runner.cleanup()

    def kubeconfig(self, namespace: str = "lb-system") -> str:
        """What points a client here."""
        return kubeconfig_for(self.port, namespace)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        answer = await self.before(request) if self.before is not None else None
        if answer is not None:
            return answer
        found = self._parsed(request.path)
        if found is None:
            return refusal(404, "the server could not find the requested resource")
        path, namespace, name, status = found
        if name:
            return await self._one(request, path, (namespace, name), status)
        if request.method == "POST":
            item = await request.json()
            item["metadata"].setdefault("namespace", namespace)
            if (namespace, item["metadata"]["name"]) in self.kinds[path]:
                return refusal(409, "it exists")
            self.writes.append(("POST", request.path))
            return web.json_response(self.put(path, item), status=201)
        if request.query.get("watch"):
            return await self._watch(request, path)
        return self._list(request, path, namespace)

    def _parsed(self, path: str) -> tuple[str, str, str, bool] | None:
        """A kind's path, namespace, name, and whether the status is meant."""
        for kind in self.kinds:
            base, _, plural = kind.rpartition("/")
            if not path.startswith(base + "/"):
                continue
            rest = path[len(base) + 1 :].split("/")
            namespace = ""
            if rest[0] == "namespaces" and len(rest) > 2:
                namespace, rest = rest[1], rest[2:]
            if rest[0] == plural:
                return kind, namespace, rest[1] if len(rest) > 1 else "", rest[2:] == ["status"]
        return None

    async def _one(self, request: web.Request, path: str, key: Key, status: bool) -> web.Response:
        item = self.kinds[path].get(key)
        if item is None:
            return refusal(404, f"{key[1]} not found")
        if request.method == "GET":
            return web.json_response(item)
        if request.method == "DELETE":
            wanted = (await request.json()).get("preconditions", {}) if request.can_read_body else {}
            if any(item["metadata"][name] != value for name, value in wanted.items()):
                return refusal(409, "the object has been modified")
            self.writes.append((request.method, request.path))
            self.delete(path, key)
            return web.json_response({"kind": "Status", "status": "Success"})
        body = await request.json()
        version = (body.get("metadata") or {}).get("resourceVersion")
        if version not in (None, item["metadata"]["resourceVersion"]):
            return refusal(409, "the object has been modified")
        self.writes.append((request.method, request.path))
        if request.method == "PATCH":
            body = _merged(json.loads(json.dumps(item)), {"status": body["status"]} if status else body)
        body["metadata"] = {**item["metadata"], **body["metadata"]}
        return web.json_response(self.put(path, body))

    def _list(self, request: web.Request, path: str, namespace: str) -> web.Response:
        wanted = request.query.get("fieldSelector", "").partition("metadata.name=")[2]
        items = [
            item
            for (space, name), item in sorted(self.kinds[path].items())
            if namespace in ("", space) and wanted in ("", name)
        ]
        start, limit = int(request.query.get("continue", "0")), int(request.query.get("limit", "500"))
        metadata = {"resourceVersion": str(self.version)}
        if start + limit < len(items):
            metadata["continue"] = str(start + limit)
        return web.json_response({"metadata": metadata, "items": items[start : start + limit]})

    async def _watch(self, request: web.Request, path: str) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        if since < self.oldest:
            return refusal(410, "too old resource version")
        wanted = request.query.get("fieldSelector", "").partition("metadata.name=")[2]
        response = web.StreamResponse()
        await response.prepare(request)
        mine: asyncio.Queue[Json | None] = asyncio.Queue()
        for version, event in self._events.get(path, ()):
            if version > since:
                mine.put_nowait(event)
        watchers = self._watchers.setdefault(path, set())
        watchers.add(mine)
        try:
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(float(request.query["timeoutSeconds"])):
                    while True:
                        told = await mine.get()
                        if told is None:
                            break
                        version = int(told["object"]["metadata"]["resourceVersion"])
                        if version <= since:  # held for a watch that is no more
                            continue
                        since = version
                        if wanted in ("", told["object"]["metadata"]["name"]):
                            await response.write(json.dumps(told).encode() + b"\n")
        finally:
            watchers.discard(mine)
        return response


def _merged(item: Json, patch: Json) -> Json:
    """A merge patch (RFC 7396)."""
    for name, value in patch.items():
        if value is None:
            item.pop(name, None)
        elif isinstance(value, dict):
            before: Any = item.get(name)
            item[name] = _merged(before if isinstance(before, dict) else {}, value)
        else:
            item[name] = value
    return item


def refusal(status: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": status, "message": message}, status=status)


async def _serve(port: int, kubeconfig: Path, objects: Path) -> None:
    server = ClusterApiServer(json.loads(objects.read_text()))  # noqa: ASYNC240 (once, before anybody is served)
    await server.start(port)
    kubeconfig.write_text(server.kubeconfig())  # noqa: ASYNC240 (as above)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])))
