"""A small API server that fails on command, and a reader of what a discovery yields."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import structlog
from aiohttp import web

from balancer.balancing.endpoint import Snapshot
from balancer.discovery import Discovery, Status, follow
from balancer.discovery.kubernetes import KubernetesDiscovery

Json = dict[str, Any]


def addresses(snapshot: Snapshot) -> list[str]:
    return [spec.address for spec in snapshot]


class FakeApi:
    """The endpointslices of one namespace by the API's rules of listing and watching, on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.slices: dict[str, Json] = {}
        self.version = 100
        self.oldest = 100
        """Watches from before this version get 410."""
        self.events: list[tuple[int, Json]] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Every request: list or watch, and its query."""
        self.refusals: dict[str, web.Response] = {}
        """What to answer instead, by verb, for as long as it is there."""
        self.silent = False
        """Accept watches and send nothing, not even their end: a half-open connection."""
        self.bookmarks = True
        """Send a bookmark before the end of a watch, as a server does that has reached the watch's version."""
        self.services: dict[str, Json] = {}
        """The Services that there are, by name."""
        self.token = "first"
        self._watchers: set[asyncio.Queue[Json | None]] = set()
        self._first = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices", self._answer)
        app.router.add_get("/api/v1/namespaces/{namespace}/services/{name}", self._service)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]
        (self.folder / "token").write_text(self.token)
        self.kubeconfig.write_text(json.dumps(self._config()))

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def _config(self) -> Json:
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "us", "user": {"tokenFile": str(self.folder / "token")}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "us", "namespace": "shop"}}],
            "current-context": "fake",
        }

    async def stop(self) -> None:
        """Refuse connections and break those there are, as a crash does."""
        self.break_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def put(self, *slices: Json) -> None:
        for slice_ in slices:
            name = slice_["metadata"]["name"]
            self._happened("MODIFIED" if name in self.slices else "ADDED", slice_)
            self.slices[name] = slice_

    def delete(self, name: str) -> None:
        self._happened("DELETED", self.slices.pop(name))

    def bookmark(self) -> None:
        self.version += 1
        self._send({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.version)}}})

    def error(self, code: int, message: str) -> None:
        self._send({"type": "ERROR", "object": {"kind": "Status", "code": code, "message": message}})

    def compact(self) -> None:
        """Forget what happened: whoever resumes from before now gets 410."""
        self.version += 1
        self.oldest = self.version
        self.events.clear()

    def fall_back(self, version: int) -> None:
        """An older state is restored, as of `version`: watches from later ones are answered, and silent for ever."""
        self.break_watches()
        self.version, self.oldest = version, 0
        self.events.clear()

    def break_watches(self) -> None:
        for watcher in self._watchers:
            watcher.put_nowait(None)

    @property
    def watching(self) -> bool:
        return bool(self._watchers)

    async def until_watching(self) -> None:
        async with asyncio.timeout(10):
            await self._first.wait()

    def count(self, verb: str) -> int:
        return sum(1 for each, _ in self.requests if each == verb)

    def _happened(self, kind: str, slice_: Json) -> None:
        self.version += 1
        slice_["metadata"]["resourceVersion"] = str(self.version)
        event = {"type": kind, "object": copy.deepcopy(slice_)}
        self.events.append((self.version, event))
        self._send(event)

    def _send(self, event: Json) -> None:
        for watcher in self._watchers:
            watcher.put_nowait(event)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        verb = "watch" if request.query.get("watch") else "list"
        self.requests.append((verb, {"namespace": request.match_info["namespace"], **request.query}))
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return refusal(401, "Unauthorized")
        if verb in self.refusals:
            answer = self.refusals[verb]
            return web.Response(status=answer.status, text=answer.text, headers=answer.headers)
        return await (self._watch(request) if verb == "watch" else self._list(request))

    async def _service(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if "get" in self.refusals:
            return refusal(403, "cannot get resource")
        return web.json_response(self.services[name]) if name in self.services else refusal(404, f"{name} not found")

    async def _list(self, request: web.Request) -> web.Response:
        wanted = request.query["labelSelector"].partition("=")[2]
        items = [each for each in self.slices.values() if wanted in each["metadata"]["labels"].values()]
        return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": items})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        if since < self.oldest:
            return refusal(410, "too old resource version")
        response = web.StreamResponse()
        await response.prepare(request)
        mine: asyncio.Queue[Json | None] = asyncio.Queue()
        for version, event in self.events:
            if version > since:
                mine.put_nowait(event)
        self._watchers.add(mine)
        self._first.set()
        try:
            await self._stream(mine, response, request)
            if self.bookmarks and not self.silent and since <= self.version:
                event = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.version)}}}
                await response.write(json.dumps(event).encode() + b"\n")
        except ConnectionError:
            pass
        finally:
            self._watchers.discard(mine)
        return response

    async def _stream(
        self, mine: asyncio.Queue[Json | None], response: web.StreamResponse, request: web.Request
    ) -> None:
        since = int(request.query["resourceVersion"])
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(None if self.silent else float(request.query["timeoutSeconds"])):
                while (event := await mine.get()) is not None:
                    ahead = int(event["object"].get("metadata", {}).get("resourceVersion", 1 << 60)) <= since
                    if not self.silent and not ahead:
                        await response.write(json.dumps(event).encode() + b"\n")
                if request.transport is not None:
                    request.transport.abort()


def refusal(status: int, message: str, **headers: str) -> web.Response:
    body = json.dumps({"kind": "Status", "code": status, "message": message})
    return web.Response(status=status, text=body, headers={"Content-Type": "application/json", **headers})


class Reader:
    """Follows a discovery, and waits for what it should come to."""

    def __init__(self, discovery: Discovery) -> None:
        self.discovery = discovery
        self.status: Status = discovery.status
        self.snapshots: list[Snapshot] = []
        self.times: list[float] = []
        self._task = asyncio.create_task(follow(discovery, self._apply))

    def _apply(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
        self.times.append(time.perf_counter())

    @property
    def last(self) -> list[str]:
        return addresses(self.snapshots[-1]) if self.snapshots else []

    async def until(self, true: Callable[[], object], seconds: float = 10.0) -> None:
        """Wait until something holds; fails with what there is instead."""
        end = time.monotonic() + seconds
        while not true():
            if self._task.done():
                self._task.result()
            now = f"{self.last=} {self.status.error=} {self.status.events=}"
            assert time.monotonic() < end, now
            await asyncio.sleep(0.002)

    async def stop(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


@pytest.fixture
async def read() -> AsyncIterator[Callable[[Discovery], Reader]]:
    """Starts reading a discovery; stopped at the end of the test."""
    readers: list[Reader] = []

    def start(discovery: Discovery) -> Reader:
        readers.append(Reader(discovery))
        return readers[-1]

    yield start
    for reader in readers:
        await reader.stop()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[FakeApi]:
    server = FakeApi(tmp_path)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def watch(api: FakeApi, read: Callable[[Discovery], Reader]) -> Callable[..., Reader]:
    """Starts reading the Service `pi` from the fake API; a watch lasts `seconds`."""

    def start(port: str | int | None = None, seconds: float = 30.0) -> Reader:
        discovery = KubernetesDiscovery("pi", None, port, Status("kubernetes"), Random(1))
        discovery.environ = {"KUBECONFIG": str(api.kubeconfig)}
        discovery.watch_seconds = seconds
        return read(discovery)

    return start


@pytest.fixture
def logs() -> Iterator[list[Json]]:
    """What was logged meanwhile."""
    with structlog.testing.capture_logs() as captured:
        yield captured  # type: ignore[misc]


@pytest.fixture
def refuse() -> Callable[..., web.Response]:
    """Makes the API's answer for a refusal."""
    return refusal
