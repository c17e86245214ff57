"""Endpoints from the EndpointSlices of a Service: list, then watch, and whatever goes wrong in between.

The rules are those of the API's concepts page ("Efficient detection of changes"): list once, watch from the list's
resourceVersion, take each event's as the next point to resume from, bookmarks included; when the server has forgotten
that point (410, as a status or as an event) list again. A server whose versions fell back (its etcd was restored) has
not forgotten it but not reached it yet: it answers such a watch with 200 and silence. So a watch that brings neither
event nor bookmark is followed by a list, and so is every watch once in a while. Whatever else happens, the last known
endpoints stand.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from balancer.balancing.endpoint import Snapshot
from balancer.discovery import words
from balancer.discovery.endpointslices import Merged, Slice, parse
from balancer.discovery.gathering import Gathering
from balancer.discovery.kubeapi import SECRETS, ApiError, SliceApi, event_error
from balancer.discovery.pieces import Pieces, in_pieces
from balancer.discovery.place import Whereabouts
from balancer.discovery.status import Status

WATCH_SECONDS = 30.0
"""How long one watch lasts, give or take a sixth, before it is resumed: silence beyond it means a dead connection."""
LIST_AGAIN = 600.0
"""Seconds, give or take a quarter, after which everything is listed again, whatever the watches said."""
SILENCE = 2.5
"""Seconds of watching without event or bookmark that are suspicious. The API server sends a bookmark 2 s before the end
of a watch, so only shorter ones may do without."""
SETTLED = 1.0
"""A watch that stood this long (s), or brought an event, works."""
BUSY = 4
"""Merging takes at most one part in so many of the time."""
BACKOFF_FIRST = 0.25
BACKOFF_MOST = 8.0
"""Seconds between attempts: doubled from the first to the most, then a random part from a half up."""
RETRY_AFTER_MOST = 30.0
EXCUSED = {"gone": True, "unauthorized": True, "unreachable": False, "watch_ended": False}
"""In the order of things, once after a watch that worked: a version too old, a token that was rotated, an API server
that restarts. True: try again at once."""


class KubernetesDiscovery:
    """The ready and draining endpoints of one Service's port.

    `namespace` None is our own; `port` is the slices' port by name or number, None their only one. With `whereabouts`
    hints and internalTrafficPolicy count.
    """

    def __init__(
        self,
        service: str,
        namespace: str | None,
        port: str | int | None,
        status: Status,
        random: Random,
        whereabouts: Whereabouts | None = None,
    ) -> None:
        self.status = status
        self.watch_seconds = WATCH_SECONDS
        self.list_again = LIST_AGAIN
        self.environ: Mapping[str, str] = os.environ
        self.secrets: Path = SECRETS
        self._service = service
        self._namespace = namespace
        self._port = None if port is None or port == "" else str(port)
        self._random = random
        self._whereabouts = whereabouts
        self._api: SliceApi | None = None
        self._slices = Gathering()
        self._version = ""
        """Where to resume the watch; "" when everything must be listed (again)."""
        self._list_at = 0.0
        """When to list again at the latest (s, the loop's time)."""
        self._silent = 0.0
        """Seconds of watching since there was an event, a bookmark or a list."""
        self._looked: words.Looked = ""
        """The Service itself, if it was of interest."""
        self._changed = asyncio.Event()
        """The slices may come to another membership than the one that was yielded."""
        self._merging = asyncio.Lock()
        self._listed: Snapshot | None = None
        """The result of a list, merged already."""
        self._yielded: Snapshot | None = None
        self._failures = 0
        """In a row."""
        self._excused: set[str] = set()
        """The kinds of failure passed over since a watch last worked."""

    async def snapshots(self) -> AsyncGenerator[Snapshot, None]:
        """The membership after each list, and after the events that changed it. Ends by being closed."""
        watching = asyncio.create_task(self._watch_on())
        watching.add_done_callback(lambda _: self._changed.set())
        try:
            while True:
                await self._change()
                if watching.done():
                    watching.result()
                snapshot, self._listed = self._listed, None
                begun = time.perf_counter()
                if snapshot is None:
                    snapshot = await self._merged()
                took = time.perf_counter() - begun
                await asyncio.sleep(0)
                if snapshot != self._yielded:
                    self.status.count("snapshot")
                    self._yielded = snapshot
                    yield snapshot
                # Fifty slices that change within a second are merged less than fifty times.
                await asyncio.sleep(took * (BUSY - 1))
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            await self._disconnect()

    async def _change(self) -> None:
        """Wait until the slices may have changed, or no longer need to hold what is missing."""
        until = self._slices.held_until
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._changed.wait()
        self._changed.clear()

    # The watch.

    async def _watch_on(self) -> None:
        while True:
            try:
                if self._api is None:
                    self._api = await SliceApi.connect(self.environ, self.secrets)
                await self._watch_once(self._api)
            except ApiError as error:
                await self._recover(error)

    async def _watch_once(self, api: SliceApi) -> None:
        """List if need be, then watch until the server ends it. Raises ApiError."""
        namespace = self._namespace or api.namespace
        loop = asyncio.get_running_loop()
        if not self._version or loop.time() >= self._list_at:
            await self._list(api, namespace)
        elif self._whereabouts is not None or self._slices.empty:
            await self._look(api, namespace)
            self._changed.set()
        seconds = self.watch_seconds * self._random.uniform(5 / 6, 7 / 6)
        opened, heard, stood = loop.time(), False, False
        settled: asyncio.TimerHandle | None = None
        try:
            async with aclosing(api.watch(namespace, self._service, self._version, seconds)) as batches:
                async for batch in batches:
                    if not stood:
                        stood = True
                        settled = loop.call_later(SETTLED, self.status.fresh)
                        self.status.touch()
                        continue
                    heard = True
                    if await self._take_events(batch):
                        self._changed.set()
                    self.status.fresh()
        finally:
            if settled is not None:
                settled.cancel()
            if heard or loop.time() - opened >= SETTLED:
                self._failures = 0
                self._excused.clear()
            self._silent = 0.0 if heard else self._silent + stood * (loop.time() - opened)
            if self._silent > SILENCE:
                # The server may be behind the version that we watch from: it would stay silent until it gets there.
                self._version = ""
                self.status.count("silent_watch")
        if not heard and loop.time() - opened < SETTLED:
            raise ApiError("watch_ended", f"The API server at {api.server} ends every watch at once.")
        self.status.fresh()

    async def _list(self, api: SliceApi, namespace: str) -> None:
        """List everything again. Raises ApiError."""
        slices: list[Slice] = []
        version = await api.list_all(namespace, self._service, lambda item: slices.append(parse(item, self._port)))
        self.status.count("list")
        self._slices.replace(slices)
        self._slices.prefer = self._family()
        if self._whereabouts is not None or self._slices.empty:
            await self._look(api, namespace)
        self._version, self._silent = version, 0.0
        self._list_at = asyncio.get_running_loop().time() + self.list_again * self._random.uniform(0.75, 1.25)
        self._listed = await self._merged()
        # Known from here, but a fault ends only when the watch stands: a list does not show that it will.
        self.status.touch()
        self._changed.set()

    async def _look(self, api: SliceApi, namespace: str) -> None:
        """Look at the Service itself: why has it no slices, and what is its internalTrafficPolicy? Raises nothing."""
        try:
            self._looked = await api.service(namespace, self._service)
        except ApiError as error:
            self._looked = str(error)
        if self._whereabouts is not None:
            self._slices.place = await self._whereabouts.find(api, self._slices.zone_of, self._looked)

    async def _take_events(self, events: list[dict[str, Any]]) -> bool:
        """Bring the slices up to date; whether any has changed. Raises ApiError for an ERROR event, once what came
        before it is taken.
        """
        changed, pieces = False, Pieces()
        for event in events:
            try:
                kind, item = event["type"], event["object"]
                if kind == "ERROR":
                    # The point to resume from may be what is wrong.
                    self._version = ""
                    raise event_error(item)
                version = str(item["metadata"]["resourceVersion"])
                self._listed = None
                if kind == "DELETED":
                    self._slices.remove(item["metadata"]["name"])
                elif kind != "BOOKMARK":
                    self._slices.put(parse(item, self._port))
                changed = changed or kind != "BOOKMARK"
                self._version = version
            except (KeyError, TypeError, AttributeError) as error:
                self._version = ""
                raise ApiError("garbled", f"An event of the API server makes no sense: {error!r}.") from error
            finally:
                if changed:
                    self._changed.set()
            self.status.count(kind.lower())
            await pieces.pause()
        return changed

    # What it comes to.

    async def _merged(self) -> Snapshot:
        async with self._merging:
            self._changed.clear()
            merged, endpoints = await in_pieces(self._slices.merging(asyncio.get_running_loop().time()))
            self._tell(merged, endpoints)
            return endpoints

    def _tell(self, merged: Merged, endpoints: Snapshot) -> None:
        namespace = self._namespace or (self._api.namespace if self._api else "default")
        text = words.problem(merged, self._service, namespace, self._port, self._looked)
        kind = merged.problem
        if not kind and self._whereabouts is not None:
            kind, text = self._whereabouts.problem(self._looked, bool(endpoints), self._service)
        hopeless = kind in words.HOPELESS or (kind == "bad_address" and not endpoints)
        self.status.notice(kind, text, hopeless=hopeless)

    def _family(self) -> str:
        """The cluster's first address family, as its API server's address shows it."""
        try:
            host = ipaddress.ip_address(urlsplit(self._api.server if self._api else "").hostname or "")
        except ValueError:
            return "IPv4"
        return f"IPv{host.version}"

    async def _recover(self, error: ApiError) -> None:
        """Say what is wrong, unless it is in the order of things, and wait before the next attempt."""
        self._failures += 1
        if error.kind == "gone":
            self._version = ""
        else:
            # Made again, so that a token, certificate or kubeconfig that was changed meanwhile counts.
            await self._disconnect()
        if error.kind in EXCUSED and error.kind not in self._excused:
            self._excused.add(error.kind)
            self.status.count(error.kind)
            if EXCUSED[error.kind]:
                return
        else:
            known = self.status.fresh_at is not None
            after = "The last known endpoints go on serving." if known else "No endpoint is known yet."
            self.status.fault(error.kind, f"{error} {after}")
        backoff = min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** min(self._failures - 1, 10)) * self._random.uniform(0.5, 1.0)
        await asyncio.sleep(max(backoff, min(error.retry_after, RETRY_AFTER_MOST)))

    async def _disconnect(self) -> None:
        api, self._api = self._api, None
        if api is not None:
            await api.close()
