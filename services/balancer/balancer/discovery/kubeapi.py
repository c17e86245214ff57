"""The few calls that we make to the Kubernetes API, and each thing that can go wrong with them.

The official client loads configuration, authenticates, verifies and speaks HTTP; what it brings is plain JSON. Its
models and its watch are left out: the models of a slice cost 4 MB and most of the time of an event, and the watch
retries by itself what must be kept apart here (410, a silent connection, a refusal). It re-reads a rotated in-cluster
token each minute; for every other credential that changed (kubeconfig, certificates, the authority) connect again.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException
from kubernetes.aio.config.incluster_config import InClusterConfigLoader
from kubernetes.aio.config.kube_config import load_kube_config

from balancer.discovery.pieces import Pieces, read_list

SECRETS = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its ServiceAccount's token, namespace and the API's authority."""

CONNECT_TIMEOUT = 5.0
LIST_TIMEOUT = 15.0
"""Seconds of silence after which a list is given up."""
GRACE = 5.0
"""Seconds beyond a watch's own end after which silence means that the connection is dead."""

_SLICES = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
_SERVICE = "/api/v1/namespaces/{namespace}/services/{name}"


class ApiError(Exception):
    """The API could not be reached, or refused; `kind` is short and stable, the text is for people."""

    def __init__(self, kind: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.kind = kind
        """unconfigured, unreachable, timed_out, unauthorized, forbidden_VERB, refused, gone, garbled"""
        self.retry_after = retry_after
        """Seconds that the server asks to wait."""


class SliceApi:
    """One connection's worth of configuration. Made by `connect`, to be closed."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self.client = client
        """Configured and authenticated, for callers that ask for more than slices (gateway/api.py)."""
        self.server: str = client.configuration.host
        self.namespace = namespace
        """The namespace that we are in: the pod's own, or the one of the kubeconfig's context."""

    @classmethod
    async def connect(cls, environ: Mapping[str, str] = os.environ, secrets: Path = SECRETS) -> SliceApi:
        """Read the configuration again: of KUBECONFIG, else of the pod, else of ~/.kube/config. Raises ApiError."""
        configuration = Configuration()
        configuration.retries = None  # ours are counted in the status
        configuration.connection_pool_maxsize = 0  # no limit: each watch has one, and so has each Secret of a Gateway
        try:
            if not environ.get("KUBECONFIG") and environ.get("KUBERNETES_SERVICE_HOST"):
                files = str(secrets / "token"), str(secrets / "ca.crt")
                loader = InClusterConfigLoader(*files, environ=environ)  # type: ignore[no-untyped-call]
                loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
                namespace = _read(secrets / "namespace")
            else:
                file = _kubeconfig(environ)
                # Not persisted: the file is the user's, and the default is to rewrite it.
                kube = await load_kube_config(  # type: ignore[no-untyped-call]
                    file, client_configuration=configuration, persist_config=False
                )
                namespace = kube.current_context["context"].get("namespace") or "default"
            # Aside: it may read the authorities that the system trusts, which takes some 60 ms.
            return cls(await asyncio.to_thread(ApiClient, configuration), namespace)
        except (ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            # The loaders check little: a malformed kubeconfig fails wherever it is first used.
            reason = " ".join(str(error).split())
            raise ApiError(
                "unconfigured",
                f"No usable configuration of the Kubernetes API: {reason}. In a pod, the ServiceAccount's token must "
                "be mounted (automountServiceAccountToken); elsewhere KUBECONFIG must name a valid file.",
            ) from error

    async def list_all(self, namespace: str, service: str, take: Callable[[Any], None]) -> str:
        """Every slice of the service to `take`, from the store and not from a cache; the version. Raises ApiError."""
        query = {"labelSelector": _selector(service)}
        try:
            listed = await self._read("list", namespace, query, take)
            return str(listed["metadata"]["resourceVersion"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ApiError("garbled", f"The API server's list is not one of EndpointSlices: {error!r}.") from error

    async def service(self, namespace: str, name: str) -> dict[str, Any] | None:
        """The Service itself, or None if there is none. Raises ApiError."""
        try:
            return await self._read("get", namespace, {}, lambda _: None, name)
        except ApiError as error:
            if error.kind == "absent":
                return None
            raise

    async def _read(
        self, verb: str, namespace: str, query: dict[str, str], take: Callable[[Any], None], service: str = ""
    ) -> dict[str, Any]:
        response = await self._get(verb, namespace, query, LIST_TIMEOUT, service)
        try:
            return await read_list(await response.read(), take)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        except ValueError as error:
            raise ApiError("garbled", f"The answer of {self.server} is no JSON of ours: {error}") from error

    async def watch(
        self, namespace: str, service: str, version: str, seconds: float
    ) -> AsyncGenerator[list[dict[str, Any]], None]:
        """What happened since `version`, as it happens, in batches that arrived together and were read in one piece; an
        empty one comes first, when the watch stands. Ends when the server has ended it, about `seconds` later. Raises
        ApiError, also when the connection stays silent beyond that.
        """
        query = {
            "labelSelector": _selector(service),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(max(1, round(seconds))),
        }
        response = await self._get("watch", namespace, query, seconds + GRACE)
        try:
            yield []
            rest = b""
            while chunk := await response.content.readany():
                # A slice of a thousand endpoints is longer than one read; a line has no limit of its own.
                *lines, rest = (rest + chunk).split(b"\n")
                events, pieces = [], Pieces()
                for line in lines:
                    if line:
                        events.append(json.loads(line))
                    if events and pieces.over:
                        yield events
                        events = []
                        await pieces.pause()
                if events:
                    yield events
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        except ValueError as error:
            raise ApiError("garbled", f"An event of {self.server} is not JSON: {error}") from error
        finally:
            # Closed, not released, unless it was read to its end: an open watch cannot be used again.
            response.close()

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()  # type: ignore[no-untyped-call]

    async def _get(
        self, verb: str, namespace: str, query: dict[str, str], silence: float, service: str = ""
    ) -> aiohttp.ClientResponse:
        """The answer, once it is 200: of the slices, or of the Service that is named. Raises ApiError."""
        try:
            method, url, headers, _, _ = await self.client.param_serialize(
                "GET",
                _SERVICE if service else _SLICES,
                path_params={"namespace": namespace, "name": service} if service else {"namespace": namespace},
                query_params=list(query.items()),
                header_params={"Accept": "application/json"},
                auth_settings=["BearerToken"],
            )
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=silence)
            answer = await self.client.call_api(method, url, headers, _request_timeout=timeout)
            response: aiohttp.ClientResponse = answer.response
            if response.status == 200:
                return response
            message = _message(await response.text(errors="replace"))
            raise _refusal(verb, namespace, response, message, "services" if service else "endpointslices")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        except ConfigException as error:  # the rotated token's file is empty or gone
            raise ApiError("unconfigured", f"The ServiceAccount's token cannot be read: {error}") from error

    def _unreachable(self, error: Exception) -> ApiError:
        if isinstance(error, asyncio.TimeoutError):
            return ApiError("timed_out", f"The Kubernetes API at {self.server} is silent.")
        return ApiError("unreachable", f"The Kubernetes API at {self.server} cannot be reached: {error}.")


def event_error(status: Mapping[str, Any]) -> ApiError:
    """What an ERROR event in a watch means; `status` is the object that it carries."""
    code, message = status.get("code"), status.get("message") or status.get("reason") or "no reason given"
    if code == 410:
        return ApiError("gone", f"The API server no longer knows the version to watch from: {message}.")
    return ApiError("refused", f"The API server ended the watch with an error ({code}): {message}.")


def _refusal(verb: str, namespace: str, response: aiohttp.ClientResponse, message: str, resource: str) -> ApiError:
    group, what = ("", "Services") if resource == "services" else ("discovery.k8s.io", "EndpointSlices")
    if response.status == 410:
        return event_error({"code": 410, "message": message})
    if response.status == 401:
        return ApiError(
            "unauthorized",
            f"The API server does not accept our credentials (401): {message}. In a pod, its ServiceAccount may have "
            "been deleted: restart the pod; elsewhere renew the user's credentials in KUBECONFIG.",
        )
    if response.status == 403:
        return ApiError(
            f"forbidden_{verb}",
            f"We may not {verb} {what} in namespace {namespace} (403): {message}. The Role in {namespace} "
            f'needs the verb "{verb}" for the resource "{resource}" of the API group "{group}", and a '
            "RoleBinding to our ServiceAccount (the chart's rbac.create makes both).",
        )
    if response.status == 404 and resource == "services":
        return ApiError("absent", message)
    if response.status == 404:
        return ApiError(
            "refused", "The API server has no discovery.k8s.io/v1 (404): Kubernetes 1.21 or later is needed."
        )
    seconds = response.headers.get("Retry-After", "")
    wait = float(seconds) if seconds.isdecimal() else 0.0
    return ApiError("refused", f"The API server refused to {verb} {what} ({response.status}): {message}.", wait)


def _message(body: str) -> str:
    """The reason in a refusal: a Status object from the API itself, or whatever a proxy before it says."""
    try:
        status = json.loads(body)
        return str(status["message"]).rstrip(".")
    except (ValueError, KeyError, TypeError):
        return " ".join(body.split())[:200] or "no reason given"


def _selector(service: str) -> str:
    return f"kubernetes.io/service-name={service}"


def _kubeconfig(environ: Mapping[str, str]) -> str:
    """The paths of KUBECONFIG, or the default. Raises ConfigException if none exists."""
    files = environ.get("KUBECONFIG") or str(Path.home() / ".kube/config")
    if not any(Path(each).expanduser().is_file() for each in files.split(os.pathsep)):
        raise ConfigException(f"{files} does not exist")
    return files


def _read(file: Path) -> str:
    return file.read_text().strip()
