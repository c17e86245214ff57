"""A stand-in for the Kubernetes API: one EndpointSlice to list, and a watch on which nothing happens.

`python -m benchmarks.kubeapi PORT KUBECONFIG ADDRESS…` writes a kubeconfig that points here once it serves.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from aiohttp import web


def kubeconfig_for(port: int, namespace: str = "default") -> str:
    """A kubeconfig that leads to a stand-in at `port` of this machine, in plain text."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "us", "user": {"token": "none"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "us", "namespace": namespace}}],
        "current-context": "here",
    }
    return json.dumps(config)


def _slice(addresses: list[str]) -> dict[str, Any]:
    """One slice can name one port only, so that every endpoint is at the first address's."""
    port = int(addresses[0].rpartition(":")[2])
    ready = {"ready": True, "serving": True, "terminating": False}
    return {
        "metadata": {"name": "shop-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "shop"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": ready, "targetRef": {"kind": "Pod", "uid": "1"}}],
    }


async def _serve(port: int, kubeconfig: Path, addresses: list[str]) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            response = web.StreamResponse()
            await response.prepare(request)
            await asyncio.sleep(3600)
            return response
        kind = {"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1"}
        return web.json_response({**kind, "metadata": {"resourceVersion": "1"}, "items": [_slice(addresses)]})

    app = web.Application()
    app.router.add_get("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    kubeconfig.write_text(kubeconfig_for(port))  # noqa: ASYNC240 (once, before anybody is served)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
