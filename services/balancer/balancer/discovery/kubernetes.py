"""Endpoints from the EndpointSlices of a Service: list, then watch, and whatever goes wrong in between.

The rules are those of the API's concepts page ("Efficient detection of changes"): list once, watch from the list's
resourceVersion, take each event's as the next point to resume from, bookmarks included; when the server has forgotten
that point (410, as a status or as an event) list again. Whatever else happens, the last known endpoints stand.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from balancer.balancing.endpoint import Snapshot
from balancer.discovery.endpointslices import Merged, Slice, merge, parse
from balancer.discovery.kubeapi import SECRETS, ApiError, SliceApi, event_error
from balancer.discovery.status import Status

WATCH_SECONDS = 30.0
"""How long one watch lasts, give or take a sixth, before it is resumed: silence beyond it means a dead connection."""
SETTLED = 1.0
"""A watch that stood this long (s), or brought an event, works."""
BACKOFF_FIRST = 0.25
BACKOFF_MOST = 8.0
"""Seconds between attempts: doubled from the first to the most, then a random part from a half up."""
RETRY_AFTER_MOST = 30.0
EXCUSED = {"gone": True, "unauthorized": True, "unreachable": False, "watch_ended": False}
"""In the order of things, once after a watch that worked: a version too old, a token that was rotated, an API server
that restarts. True: try again at once."""


class KubernetesDiscovery:
    """The ready and draining endpoints of one Service's port.

    `namespace` None is our own; `port` is the slices' port by name or number, None their only one.
    """

    def __init__(
        self,
        service: str,
        namespace: str | None,
        port: str | int | None,
        status: Status,
        random: Random,
    ) -> None:
        self.status = status
        self.watch_seconds = WATCH_SECONDS
        self.environ: Mapping[str, str] = os.environ
        self.secrets: Path = SECRETS
        self._service = service
        self._namespace = namespace
        self._port = None if port is None or port == "" else str(port)
        self._random = random
        self._api: SliceApi | None = None
        self._slices: dict[str, Slice] = {}
        """By name, the one that changed last at the end."""
        self._version = ""
        """Where to resume the watch; "" when everything must be listed (again)."""
        self._yielded: Snapshot | None = None
        self._failures = 0
        """In a row."""
        self._excused: set[str] = set()
        """The kinds of failure passed over since a watch last worked."""

    async def snapshots(self) -> AsyncGenerator[Snapshot, None]:
        """The membership after each list, and after each batch of events that changed it. Ends by being closed."""
        try:
            while True:
                try:
                    if self._api is None:
                        self._api = await SliceApi.connect(self.environ, self.secrets)
                    async with aclosing(self._changes(self._api)) as changes:
                        async for _ in changes:
                            snapshot = self._merged()
                            if snapshot != self._yielded:
                                self.status.count("snapshot")
                                self._yielded = snapshot
                                yield snapshot
                except ApiError as error:
                    await self._recover(error)
        finally:
            await self._disconnect()

    async def _changes(self, api: SliceApi) -> AsyncGenerator[None, None]:
        """List if need be, then watch once; yields whenever the slices may have changed. Raises ApiError."""
        namespace = self._namespace or api.namespace
        loop = asyncio.get_running_loop()
        if not self._version:
            listed = await api.list_all(namespace, self._service)
            self._take_list(listed)
            # Known from here, but a fault ends only when the watch stands: a list does not show that it will.
            self.status.touch()
            yield
        seconds = self.watch_seconds * self._random.uniform(5 / 6, 7 / 6)
        opened, worked = loop.time(), False
        settled: asyncio.TimerHandle | None = None
        try:
            async with aclosing(api.watch(namespace, self._service, self._version, seconds)) as batches:
                async for batch in batches:
                    if settled is None:
                        settled = loop.call_later(SETTLED, self.status.fresh)
                        self.status.touch()
                        continue
                    changed = self._take_events(batch)
                    worked = True
                    self.status.fresh()
                    if changed:
                        yield
        finally:
            if settled is not None:
                settled.cancel()
            worked = worked or loop.time() - opened >= SETTLED
            if worked:
                self._failures = 0
                self._excused.clear()
        if not worked:
            raise ApiError("watch_ended", f"The API server at {api.server} ends every watch at once.")
        self.status.fresh()

    def _take_list(self, listed: Mapping[str, Any]) -> None:
        try:
            slices = [parse(item, self._port) for item in listed.get("items") or ()]
            self._version = listed["metadata"]["resourceVersion"]
        except (KeyError, TypeError, AttributeError) as error:
            raise ApiError("garbled", f"The API server's list is not one of EndpointSlices: {error!r}.") from error
        self.status.count("list")
        self._slices = {slice_.name: slice_ for slice_ in slices}

    def _take_events(self, events: list[dict[str, Any]]) -> bool:
        """Bring the slices up to date; whether any has changed. Raises ApiError for an ERROR event, once what came
        before it is taken.
        """
        changed = False
        for event in events:
            try:
                kind, item = event["type"], event["object"]
                if kind == "ERROR":
                    # The point to resume from may be what is wrong.
                    self._version = ""
                    raise event_error(item)
                version = item["metadata"]["resourceVersion"]
                if kind != "BOOKMARK":
                    self._slices.pop(item["metadata"]["name"], None)
                    if kind != "DELETED":
                        slice_ = parse(item, self._port)
                        self._slices[slice_.name] = slice_
                    changed = True
                self._version = version
            except (KeyError, TypeError, AttributeError) as error:
                self._version = ""
                raise ApiError("garbled", f"An event of the API server makes no sense: {error!r}.") from error
            self.status.count(kind.lower())
        return changed

    def _merged(self) -> Snapshot:
        merged = merge(list(self._slices.values()), self._family())
        self.status.notice(merged.problem, self._words(merged))
        return merged.endpoints

    def _family(self) -> str:
        """The cluster's first address family, as its API server's address shows it."""
        try:
            host = ipaddress.ip_address(urlsplit(self._api.server if self._api else "").hostname or "")
        except ValueError:
            return "IPv4"
        return f"IPv{host.version}"

    def _words(self, merged: Merged) -> str:
        namespace = self._namespace or (self._api.namespace if self._api else "default")
        service = f"Service {self._service} in namespace {namespace}"
        if merged.problem == "no_slices":
            return (
                f"There is no EndpointSlice of {service}. Does the Service exist (kubectl -n {namespace} get service "
                f"{self._service}), and has it a selector? Without one, somebody must write its EndpointSlices."
            )
        if merged.problem == "no_port":
            have = ", ".join(merged.ports) or "no TCP port"
            if self._port is None:
                return f"{service} has more than one port: set LB_KUBERNETES_PORT to one of {have}."
            return (
                f"{service} has no port {self._port}: its EndpointSlices have {have}. Set LB_KUBERNETES_PORT to one of "
                "these names or numbers (the pods' port, not the Service's)."
            )
        return ""

    async def _recover(self, error: ApiError) -> None:
        """Say what is wrong, unless it is in the order of things, and wait before the next attempt."""
        self._failures += 1
        if error.kind == "gone":
            self._version = ""
        else:
            # Made anew, so that a token, certificate or kubeconfig that was changed meanwhile counts.
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
