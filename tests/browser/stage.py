"""The balancer's process, endpoints in this one, and clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web
from benchmarks.ports import free_port

TOKEN = "open-sesame"
RATE = 20.0
"""Requests a second."""
START_LIMIT = 30.0


class Endpoint:
    """Answers at once with 200, unless told otherwise."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.status = 200
        self.delay = 0.0
        self._runner = web.ServerRunner(web.Server(self._answer))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _answer(self, _request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(self.delay)
        return web.Response(status=self.status, text="3.14159")


class Stage:
    """A running balancer at `url` and `admin`, its endpoints, and clients that ask all the time."""

    def __init__(
        self,
        endpoints: int,
        token: str | None = TOKEN,
        listening: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._port, self._admin_port, *ports = [free_port() for _ in range(endpoints + 2)]
        self.url = f"http://127.0.0.1:{self._port}"
        self.admin = f"http://127.0.0.1:{self._admin_port}"
        self.endpoints = [Endpoint(port) for port in ports]
        self._listening = self.endpoints[:listening]
        self._token = token
        self._settings = settings or {}
        self._process: Process | None = None
        self._clients: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        for endpoint in self._listening:
            await endpoint.start()
        await self.start_balancer()
        self._clients = asyncio.create_task(self._ask())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._clients is not None:
            self._clients.cancel()
            await asyncio.gather(self._clients, return_exceptions=True)
        await self.stop_balancer()
        for endpoint in self._listening:
            await endpoint.stop()

    def mend(self) -> None:
        """Every endpoint is well again."""
        for endpoint in self.endpoints:
            endpoint.status, endpoint.delay = 200, 0.0

    async def start_balancer(self) -> None:
        """Start it at the same ports each time, and wait until it is ready."""
        settings = {
            "LB_HOST": "127.0.0.1",
            "LB_PORT": str(self._port),
            "LB_ADMIN_PORT": str(self._admin_port),
            "LB_BACKENDS": ",".join(endpoint.address for endpoint in self.endpoints),
            "LB_EJECT_TIME": "3",
            "LB_STRATEGY": "round-robin",
            "LB_ACCESS_LOG": "off",
            "LB_TRUSTED_PROXIES": "127.0.0.1",
            **({"LB_ADMIN_TOKEN": self._token} if self._token else {}),
            **self._settings,
        }
        others = {name: value for name, value in os.environ.items() if not name.startswith("LB_")}
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "balancer"), env={**others, **settings}, stdout=DEVNULL, stderr=DEVNULL
        )
        async with asyncio.timeout(START_LIMIT), aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{self.admin}/readyz") as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(0.05)

    async def stop_balancer(self) -> None:
        """Kill it, as a crash would."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    def hang(self) -> None:
        """It does nothing any more, and does not say so."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    async def _ask(self) -> None:
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as clients:
            while True:
                clients.create_task(self._ask_once(session))
                await asyncio.sleep(1 / RATE)

    async def _ask_once(self, session: aiohttp.ClientSession) -> None:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with session.get(f"{self.url}/pi/100") as response:
                await response.read()
