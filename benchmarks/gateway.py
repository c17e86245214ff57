"""A stand-in for the Kubernetes API in a process of its own, and the objects of one Gateway with some routes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
from benchmarks.peers.peer import ROUTES
from benchmarks.ports import free_port

from balancer.discovery.gateway import addresses, objects

API: Final = "/apis/gateway.networking.k8s.io/v1"
SLICES: Final = "/apis/discovery.k8s.io/v1/endpointslices"
SERVICES: Final = "/api/v1/services"
START_LIMIT: Final = 20.0

Json = dict[str, Any]
Kinds = dict[str, list[Json]]


class Api:
    """The stand-in, serving until it is stopped."""

    def __init__(self, folder: Path, kinds: Kinds) -> None:
        self.port = free_port()
        self._kubeconfig = folder / "kubeconfig"
        (folder / "objects").write_text(json.dumps(kinds))
        command = [sys.executable, "-m", "benchmarks.clusterapi", str(self.port), str(self._kubeconfig)]
        self._process = subprocess.Popen([*command, str(folder / "objects")])
        deadline = time.monotonic() + START_LIMIT
        while not self._kubeconfig.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError("the stand-in for the Kubernetes API does not start")
            time.sleep(0.01)

    def settings(self) -> dict[str, str]:
        """What a balancer needs to serve the Gateways there."""
        return {"KUBECONFIG": str(self._kubeconfig), "LB_GATEWAY_CLASS": "lb", "LB_OWN_SERVICE": "front"}

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


@asynccontextmanager
async def balancer(folder: Path, api: Api, admin: int) -> AsyncIterator[int]:
    """A balancer that serves the Gateways of `api`, and answers at the port `admin`; its process."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LB_")}
    environment |= {
        **api.settings(),
        "LB_HOST": "127.0.0.1",
        "LB_PORT": "0",
        "LB_BACKENDS": "127.0.0.1:9",
        "LB_ADMIN_HOST": "127.0.0.1",
        "LB_ADMIN_PORT": str(admin),
        "LB_ACCESS_LOG": "off",
        "LB_LOG_LEVEL": "warning",
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "balancer", env=environment, cwd=folder)
    try:
        yield process.pid
    finally:
        process.terminate()
        await process.wait()


async def until(admin: int, true: Callable[[Json], bool]) -> None:
    """Wait until what the balancer says of its routes is as wanted; for a minute at most."""
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"http://127.0.0.1:{admin}/api/routes?limit=1000") as answer:
                    found = await answer.json()
                if "listeners" in found and true(found):
                    return
            await asyncio.sleep(0.05)


def named(name: str, namespace: str = "shop") -> Json:
    """An object's metadata."""
    return {"name": name, "namespace": namespace}


def gateway(*listeners: Json) -> Json:
    """The Gateway `door`."""
    return {"metadata": named("door"), "spec": {"gatewayClassName": "lb", "listeners": list(listeners)}}


def service(name: str, port: int = 80) -> Json:
    """A Service with one port."""
    return {"metadata": named(name), "spec": {"clusterIP": "10.96.1.1", "ports": [{"port": port}]}}


def slices_of(name: str, endpoints: Sequence[str]) -> list[Json]:
    """The EndpointSlices of a Service, one for each endpoint, whose ports may differ."""
    return [
        {
            "metadata": {**named(f"{name}-{number}"), "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": int(endpoint.rpartition(":")[2])}],
            "endpoints": [{"addresses": [endpoint.rpartition(":")[0]], "conditions": {"ready": True}}],
        }
        for number, endpoint in enumerate(endpoints)
    ]


def route(name: str, service: str, host: str) -> Json:
    """An HTTPRoute of one host to one Service."""
    rules = [{"backendRefs": [{"name": service, "port": 80}]}]
    return {
        "metadata": named(name),
        "spec": {"parentRefs": [{"name": "door"}], "hostnames": [host], "rules": rules},
    }


def front(ports: dict[int, int], door: Json) -> list[Json]:
    """The release's own Service, and the Gateway's, which records the ports that stand for its own."""
    own = {
        "metadata": named("front", "lb-system"),
        "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "lb"}, "ports": [{"port": 80}]},
    }
    listed = [{"name": f"port-{port}", "port": port, "targetPort": ours} for port, ours in ports.items()]
    name = addresses.service_name(objects.gateway(door))
    gateways = {
        "metadata": named(name, "lb-system"),
        "spec": {"clusterIP": "10.96.0.2", "selector": {"app": "lb"}, "ports": listed},
    }
    return [own, gateways]


def kinds(door: Json, ports: dict[int, int], services: Sequence[Json], slices: Sequence[Json]) -> Kinds:
    """All objects but routes."""
    return {
        f"{API}/gatewayclasses": [{"metadata": {"name": "lb"}, "spec": {"controllerName": "lb/lb"}}],
        f"{API}/gateways": [door],
        f"{API}/httproutes": [],
        f"{API}/grpcroutes": [],
        f"{API}/tlsroutes": [],
        f"{API}/tcproutes": [],
        "/apis/gateway.networking.k8s.io/v1beta1/referencegrants": [],
        SERVICES: [*front(ports, door), *services],
        SLICES: list(slices),
        "/api/v1/namespaces": [{"metadata": {"name": name}} for name in ("shop", "lb-system")],
        "/api/v1/secrets": [],
        "/apis/policy.lb/v1alpha1/loadbalancingpolicies": [],
        "/apis/coordination.k8s.io/v1/leases": [],
    }


def routed(ours: int, endpoints: Sequence[str]) -> Kinds:
    """A route for each host of ROUTES to a Service of its own, all with the same endpoints, at our port `ours`."""
    names = [host.partition(".")[0] for host in ROUTES]
    door = gateway({"name": "http", "port": 80, "protocol": "HTTP"})
    slices = [each for name in names for each in slices_of(name, endpoints)]
    made = kinds(door, {80: ours}, [service(name) for name in names], slices)
    made[f"{API}/httproutes"] = [route(name, name, host) for name, host in zip(names, ROUTES, strict=True)]
    return made
