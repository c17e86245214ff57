"""What the Gateway part asks of the Kubernetes API: lists in pages, watches, and writes that overwrite nobody.

Connecting, credentials and errors are those of kubeapi.py. A connection is shared by all watches, and made again by
whichever finds it broken first.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Final

import aiohttp
from kubernetes.aio.config import ConfigException

from balancer.discovery.gateway.objects import Json
from balancer.discovery.kubeapi import ApiError, SliceApi, event_error

CONNECT_TIMEOUT: Final = 5.0
SILENCE: Final = 15.0
"""Seconds without a byte after which a call is given up."""
GRACE: Final = 5.0
PAGE: Final = 100
"""Objects in one answer: reading a thousand at once would hold up the requests."""

MERGE: Final = "application/merge-patch+json"
FORBIDDEN: Final = 403
MISSING: Final = 404
CONFLICT: Final = 409


class Refused(ApiError):
    """The API has answered, and not as was hoped: `status` says how."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__("refused", message)
        self.status = status


class ClusterApi:
    """The connection that all watches and writes share."""

    def __init__(self) -> None:
        self._api: SliceApi | None = None
        self._lock = asyncio.Lock()
        self._users: dict[SliceApi, int] = {}
        """By connection, the calls and watches under way there."""
        self._watches: dict[SliceApi, set[aiohttp.StreamReader]] = {}
        self.namespace = "default"
        """The one that we run in, once connected."""

    async def connected(self) -> SliceApi:
        """The connection; made if there is none. Raises ApiError."""
        async with self._lock:
            if self._api is None:
                self._api = await SliceApi.connect()
                self.namespace = self._api.namespace
            return self._api

    async def broken(self, api: SliceApi | None) -> None:
        """Use a connection no more: its credentials may be old, or its server gone.

        All watches there end, and begin again on another. It closes when nobody uses it any more: under a reader,
        aiohttp's session closes without a word, and the reader waits for ever.
        """
        if api is None or api is not self._api:
            return
        self._api = None
        for stream in self._watches.pop(api, set()):
            stream.set_exception(aiohttp.ClientConnectionError("another call found the connection broken"))
        if api not in self._users:
            await _close(api)

    async def close(self) -> None:
        """Close the connection."""
        await self.broken(self._api)

    @asynccontextmanager
    async def _using(self) -> AsyncGenerator[SliceApi, None]:
        api = await self.connected()
        self._users[api] = self._users.get(api, 0) + 1
        try:
            yield api
        finally:
            self._users[api] -= 1
            if not self._users[api]:
                del self._users[api]
                self._watches.pop(api, None)
                if api is not self._api:
                    await _close(api)

    async def pages(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[Json, None]:
        """Every page of a list. Raises ApiError."""
        parameters = {**query, "limit": str(PAGE)}
        while True:
            page = await self.call("GET", path, parameters)
            yield page
            following = (page.get("metadata") or {}).get("continue")
            if not following:
                return
            parameters["continue"] = following

    async def watch(
        self, path: str, query: Mapping[str, str], version: str, seconds: float
    ) -> AsyncGenerator[list[dict[str, Any]], None]:
        """What happens from `version` on, in batches that arrive together, for about `seconds`. Raises ApiError."""
        parameters = {
            **query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(max(1, round(seconds))),
        }
        async with self._using() as api:
            response = await self._request(api, "GET", path, parameters, None, seconds + GRACE)
            try:
                if response.status != 200:
                    raise await _refused(response, path)
                async with aclosing(self._events(api, response)) as batches:
                    async for events in batches:
                        yield events
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                await self.broken(api)
                raise ApiError(
                    "unreachable", f"The Kubernetes API has broken off a watch of {path}: {error}."
                ) from error
            except ValueError as error:
                raise ApiError("garbled", f"An event of {path} is not JSON: {error}") from error
            finally:
                response.close()

    async def _events(
        self, api: SliceApi, response: aiohttp.ClientResponse
    ) -> AsyncGenerator[list[dict[str, Any]], None]:
        watches = self._watches.setdefault(api, set())
        watches.add(response.content)
        try:
            rest = b""
            while chunk := await response.content.readany():
                *lines, rest = (rest + chunk).split(b"\n")
                events = [json.loads(line) for line in lines if line]
                for event in events:
                    if event.get("type") == "ERROR":
                        raise event_error(event.get("object") or {})
                if events:
                    yield events
        finally:
            watches.discard(response.content)

    async def call(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Json | None = None
    ) -> Json:
        """Ask, and read the answer. Raises Refused for an answer of another status, ApiError where there is none."""
        async with self._using() as api:
            response = await self._request(api, method, path, query or {}, body, SILENCE)
            try:
                if response.status >= 300:
                    raise await _refused(response, path)
                answer: Json = json.loads(await response.read())
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                await self.broken(api)
                raise ApiError("unreachable", f"The Kubernetes API cannot be reached: {error}.") from error
            except ValueError as error:
                raise ApiError("garbled", f"The answer to {method} {path} is not JSON: {error}") from error
        return answer

    async def _request(
        self, api: SliceApi, method: str, path: str, query: Mapping[str, str], body: Json | None, silence: float
    ) -> aiohttp.ClientResponse:
        kind = MERGE if method == "PATCH" else "application/json"
        try:
            _, url, headers, _, _ = await api.client.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params={"Accept": "application/json", "Content-Type": kind},
                auth_settings=["BearerToken"],
            )
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=silence)
            answer = await api.client.call_api(method, url, headers, body, _request_timeout=timeout)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            await self.broken(api)
            raise ApiError("unreachable", f"The Kubernetes API at {api.server} cannot be reached: {error}.") from error
        except ConfigException as error:
            raise ApiError("unconfigured", f"The ServiceAccount's token cannot be read: {error}") from error
        response: aiohttp.ClientResponse = answer.response
        if response.status == 401:
            await self.broken(api)
        return response


async def _close(api: SliceApi) -> None:
    with suppress(aiohttp.ClientError, OSError):
        await api.close()


async def _refused(response: aiohttp.ClientResponse, path: str) -> ApiError:
    text = await response.text(errors="replace")
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        message = " ".join(text.split())[:200]
    if response.status == 410:
        return event_error({"code": 410, "message": message})
    return Refused(response.status, f"{response.method} {path} ({response.status}): {message}")
