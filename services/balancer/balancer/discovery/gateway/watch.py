"""One watcher for any kind: what there is of it is kept up to date in a mapping, and every change is reported.

List in pages, then watch from there, taking each event's version as the next point to resume from; when the server has
forgotten that point (410) list again. Whatever goes wrong, the last known objects stand; and where none are known yet,
that is not the same as that there are none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from random import Random
from typing import Any, Final, Generic, TypeVar

import structlog

from balancer.discovery.gateway.api import FORBIDDEN, MISSING, ClusterApi, Refused
from balancer.discovery.gateway.objects import SENSELESS, Json, Key
from balancer.discovery.kubeapi import ApiError

WATCH_SECONDS: Final = 45.0
BACKOFF_FIRST: Final = 0.25
BACKOFF_MOST: Final = 8.0
SHORT: Final = 1.0
"""Seconds: a watch that ends sooner, and without an event, has failed."""
SILENCE: Final = 30.0
"""Seconds of watching without event or bookmark that are suspicious: the API sends a bookmark before a watch ends."""
NO_VERSION: Final = frozenset({400, 504})
"""Statuses of a watch from a version that the API does not know, or does not know yet."""
ENOUGH: Final = 2
"""Failures in a row, after which one object, or a kind that we may not read, holds up nothing else."""

log = structlog.get_logger()

T = TypeVar("T")


class Watcher(Generic[T]):
    """Keeps `objects` as the cluster has them."""

    def __init__(
        self,
        api: ClusterApi,
        path: str,
        parse: Callable[[Json], T],
        changed: Callable[[list[Key]], None],
        random: Random,
        query: Mapping[str, str] | None = None,
    ) -> None:
        """`changed` is called with the keys that were added, changed or removed, once for all that came together.

        `query` narrows what is watched to one object.
        """
        self._api = api
        self.path = path
        self._parse = parse
        self._changed = changed
        self._random = random
        self._query = dict(query or {})
        self._version = ""
        self._failures = 0
        self._silent = 0.0
        self._last = ""
        """The kind of the last failure, while nothing has worked since."""
        self._fault = ""
        self.objects: dict[Key, T] = {}
        self.known = asyncio.Event()
        """Set once all there is has been listed, or cannot be."""
        self.listed = False
        """Whether `objects` are all that there were at some time."""

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except ApiError as error:
                await self._recover(error)
            except (KeyError, TypeError, AttributeError) as error:
                await self._recover(ApiError("garbled", f"What comes of {self.path} makes no sense: {error!r}"))

    async def _list(self) -> None:
        listed: dict[Key, T] = {}
        version = ""
        async with aclosing(self._api.pages(self.path, self._query)) as pages:
            async for page in pages:
                for item in page.get("items") or ():
                    self._take(listed, item)
                version = page["metadata"]["resourceVersion"]
                await asyncio.sleep(0)
        # Only now: to watch from a list that broke off would be to know nothing of what it had, for ever.
        self._version = version
        before, self.objects = self.objects, listed
        self.listed, self._silent = True, 0.0
        self._recovered()
        self.known.set()
        self._changed(list(before.keys() | listed.keys()))

    async def _watch(self) -> None:
        seconds = WATCH_SECONDS * self._random.uniform(5 / 6, 7 / 6)
        clock = asyncio.get_running_loop().time
        begun, came = clock(), False
        async with aclosing(self._api.watch(self.path, self._query, self._version, seconds)) as batches:
            async for events in batches:
                changed: list[Key] = []
                for event in events:
                    item = event["object"]
                    self._version = item["metadata"]["resourceVersion"]
                    if event["type"] == "BOOKMARK":
                        continue
                    key = key_of(item)
                    if event["type"] == "DELETED":
                        self.objects.pop(key, None)
                    else:
                        self._take(self.objects, item)
                    changed.append(key)
                came = True
                self._works()
                if changed:
                    self._changed(changed)
        lasted = clock() - begun
        if not came and lasted < SHORT:
            raise ApiError("unreachable", f"The Kubernetes API ends each watch of {self.path} at once.")
        self._works()
        self._silent = 0.0 if came else self._silent + lasted
        if self._silent > SILENCE:
            # It may be behind our version, after a restore: it would stay silent until it gets there.
            self._version = ""

    def _take(self, objects: dict[Key, T], item: Json) -> None:
        key = key_of(item)
        try:
            objects[key] = self._parse(item)
        except SENSELESS as error:
            objects.pop(key, None)
            log.warning("object not understood", path=self.path, namespace=key[0], name=key[1], error=repr(error))

    def _works(self) -> None:
        self._failures, self._last = 0, ""
        self._recovered()

    def _recovered(self) -> None:
        if self._fault:
            log.info("watch recovered", path=self.path, after=self._fault)
            self._fault = ""

    async def _recover(self, error: ApiError) -> None:
        self._failures += 1
        status = error.status if isinstance(error, Refused) else 0
        absent = status == MISSING
        in_the_watch = error.kind == "refused" and not isinstance(error, Refused)
        if error.kind in {"gone", "garbled"} or absent or in_the_watch or status in NO_VERSION:
            self._version = ""
        last, self._last = self._last, error.kind
        if error.kind == "gone" and last != "gone":
            return  # It answers, and only wants to be asked for all there is: after an outage too, which may be why.
        kind = "absent" if absent else error.kind
        if kind != self._fault and (self._failures > 1 or kind not in {"unreachable", "gone"}):
            # A kind that is not installed is none of our troubles: nothing of it can be there.
            (log.info if absent else log.warning)("watch failing", path=self.path, kind=kind, error=str(error))
            self._fault = kind
        # Anything else is waited for: with no Gateway known, we would look ready, and serve nothing.
        if absent or (self._failures > ENOUGH and (self._query or status == FORBIDDEN)):
            self.known.set()
        wait = min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** min(self._failures - 1, 10))
        await asyncio.sleep(wait * self._random.uniform(0.5, 1.0))


class Followed(Generic[T]):
    """Objects of one kind that are watched one by one, as others refer to them: no other of that kind is read."""

    def __init__(
        self,
        plural: str,
        parse: Callable[[Json], T],
        watcher: Callable[[str, Callable[[Json], T], Mapping[str, str]], Watcher[T]],
    ) -> None:
        """`watcher` makes one of a path and a query."""
        self._plural = plural
        self._parse = parse
        self._watcher = watcher
        self._watched: dict[Key, tuple[Watcher[T], asyncio.Task[None]]] = {}

    def objects(self) -> dict[Key, T]:
        """Those that there are."""
        return {key: found for watcher, _ in self._watched.values() for key, found in watcher.objects.items()}

    async def follow(self, wanted: set[Key]) -> bool:
        """Watch these now, and no others; whether that has changed any."""
        gone = [key for key in self._watched if key not in wanted]
        for key in gone:
            self._watched.pop(key)[1].cancel()
        new = [key for key in wanted if key not in self._watched]
        for namespace, name in new:
            path, query = f"/api/v1/namespaces/{namespace}/{self._plural}", {"fieldSelector": f"metadata.name={name}"}
            watcher = self._watcher(path, self._parse, query)
            self._watched[namespace, name] = watcher, asyncio.get_running_loop().create_task(watcher.run())
        for key in new:
            await self._watched[key][0].known.wait()
        return bool(new or gone)

    async def stop(self) -> None:
        """Watch none any more."""
        for _, task in self._watched.values():
            task.cancel()
        await asyncio.gather(*(task for _, task in self._watched.values()), return_exceptions=True)


def key_of(item: Mapping[str, Any]) -> Key:
    """Namespace and name of an object as the API writes it."""
    metadata = item["metadata"]
    return metadata.get("namespace") or "", metadata["name"]
