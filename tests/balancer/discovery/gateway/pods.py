"""A Service of one pod, served by the test itself: what it answers is the subclass's business."""

from __future__ import annotations

from typing import Any

from aiohttp import web


def slice_of(name: str, host: str, port: int, ready: bool = True) -> dict[str, Any]:
    """The EndpointSlice of a Service of one endpoint."""
    return {
        "metadata": {"name": f"{name}-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": port}],
        "endpoints": [{"addresses": [host], "conditions": {"ready": ready}}],
    }


class Pod:
    """The only pod of the Service `name` in the namespace `shop`; `start` it, and `stop` it."""

    name: str
    host: str
    """An address that no other test listens at."""

    def __init__(self) -> None:
        self.port = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, 0).start()
        self.port = self._runner.addresses[0][1]

    async def answer(self, request: web.Request) -> web.Response:
        raise NotImplementedError

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def slice(self, *, ready: bool = True) -> dict[str, Any]:
        """The Service's EndpointSlice."""
        return slice_of(self.name, self.host, self.port, ready)
