"""What the Gateway part asks of the Kubernetes API: lists in pages, watches, and writes that overwrite nobody.

Connecting, credentials and errors are those of kubeapi.py. A connection is shared by all watches, and made again by
whichever finds it broken first.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
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
        """Use a connection no more: its credentials may be old, or its server gone."""
        if api is not None and api is self._api:
            self._api = None
            with suppress(aiohttp.ClientError, OSError):
                await api.close()

    async def close(self) -> None:
        """Close the connection."""
        await self.broken(self._api)

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
        api = await self.connected()
        response = await self._request(api, "GET", path, parameters, None, seconds + GRACE)
        try:
            if response.status != 200:
                raise await _refused(response, path)
            rest = b""
            while chunk := await response.content.readany():
                *lines, rest = (rest + chunk).split(b"\n")
                events = [json.loads(line) for line in lines if line]
                for event in events:
                    if event.get("type") == "ERROR":
                        raise event_error(event.get("object") or {})
                if events:
                    yield events
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            await self.broken(api)
            raise ApiError("unreachable", f"The Kubernetes API has broken off a watch of {path}: {error}.") from error
        except ValueError as error:
            raise ApiError("garbled", f"An event of {path} is not JSON: {error}") from error
        finally:
            response.close()

    async def call(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Json | None = None
    ) -> Json:
        """Ask, and read the answer. Raises Refused for an answer of another status, ApiError where there is none."""
        api = await self.connected()
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


async def _refused(response: aiohttp.ClientResponse, path: str) -> ApiError:
    text = await response.text(errors="replace")
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        message = " ".join(text.split())[:200]
    if response.status == 410:
        return event_error({"code": 410, "message": message})
    return Refused(response.status, f"{response.method} {path} ({response.status}): {message}")
