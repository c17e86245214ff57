"""Both images as containers on one network. Needs a container engine: without one the tests skip, in CI they fail."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import docker
import pytest
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from tools.version import version

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60.0
"""Seconds for a container to come up, which takes one or two."""
TIMEOUT = aiohttp.ClientTimeout(total=LIMIT)
BUILD_LIMIT = 900.0
"""Seconds for the first test, before which both images are built: minutes, where the engine has nothing cached."""

# As the chart runs them.
HARDENED: dict[str, Any] = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Any of them may be the first."""
    for item in items:
        if "images" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(BUILD_LIMIT))


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The engine's client."""
    client = connected()
    if isinstance(client, str):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(client)
    yield client
    client.close()


def connected() -> docker.DockerClient | str:
    """A client of the engine, or why there is none."""
    with warnings.catch_warnings():
        # docker-py does not close a socket that did not connect, which would fail the run at its end.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            client = docker.from_env()
            client.ping()
        except docker.errors.DockerException as error:
            reason = f"there is no container engine: {error}"
        else:
            return client
        gc.collect()
    return reason


@dataclass(frozen=True)
class Images:
    """Names and tags of the two images."""

    balancer: str
    pi: str


@pytest.fixture(scope="session")
def images(engine: docker.DockerClient) -> Images:
    """Both, built once by the command that a user would use."""
    done = subprocess.run(["make", "images"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return Images(f"lb-balancer:{version()}", f"lb-pi:{version()}")


@pytest.fixture(scope="session")
def network(engine: docker.DockerClient) -> Iterator[Network]:
    """The network on which containers find each other by name."""
    with Network() as made:
        yield made


class Balancer:
    """A running balancer, from outside."""

    def __init__(self, container: DockerContainer) -> None:
        self.container = container
        self.url = f"http://127.0.0.1:{container.get_exposed_port(8080)}"
        self._admin = f"http://127.0.0.1:{container.get_exposed_port(8081)}"

    def await_ready(self) -> None:
        """Until it has endpoints to send requests to."""
        deadline = time.monotonic() + LIMIT
        while True:
            try:
                with urllib.request.urlopen(f"{self._admin}/readyz", timeout=5) as response:
                    if response.status == 200:
                        return
            except (urllib.error.URLError, ConnectionError):
                pass
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.05)

    def logs(self) -> str:
        """All that it has written."""
        return b"".join(self.container.get_logs()).decode()

    async def served_by(
        self,
        count: int,
        clients: int = 1,
        headers: dict[str, str] | None = None,
        watch: Callable[[str], None] = lambda name: None,
    ) -> list[str]:
        """Who answered each of `count` requests, `clients` at a time, `watch` is called with each name at once.

        Fails when one was answered wrongly.
        """
        served: list[str] = []

        async def client(session: aiohttp.ClientSession) -> None:
            for _ in range(count // clients):
                async with session.get(f"{self.url}/10", headers=headers) as response:
                    assert (response.status, await response.text()) == (200, "3.1415926535\n"), self.logs()
                    served.append(response.headers["X-Served-By"])
                    watch(served[-1])

        async with aiohttp.ClientSession(timeout=TIMEOUT) as session, asyncio.TaskGroup() as tasks:
            for _ in range(clients):
                tasks.create_task(client(session))
        return served


Start = Callable[..., DockerContainer]


@pytest.fixture(scope="session")
def start_pi(images: Images, network: Network) -> Iterator[Start]:
    """Starts a Pi container that the network knows by `name`, with these variables."""
    with ExitStack() as stack:

        def start(name: str, **environ: str) -> DockerContainer:
            container = DockerContainer(images.pi).with_network(network).with_network_aliases(name)
            for variable, value in {"PI_NAME": name, "PI_WORKERS": "1", **environ}.items():
                container.with_env(variable, value)
            return stack.enter_context(container.with_kwargs(**HARDENED).with_exposed_ports(8000))

        yield start


@pytest.fixture(scope="session")
def pis(start_pi: Start) -> list[str]:
    """Three equal backends, for the tests that leave them as they are."""
    names = ["pi-1", "pi-2", "pi-3"]
    for name in names:
        start_pi(name)
    return names


@pytest.fixture
def start_balancer(images: Images, network: Network) -> Iterator[Callable[..., Balancer]]:
    """Starts a balancer over the named backends, with these variables, and waits until it is ready."""
    with ExitStack() as stack:

        def start(backends: list[str], **environ: str) -> Balancer:
            container = DockerContainer(images.balancer).with_network(network)
            given = {"LB_BACKENDS": ",".join(f"{name}:8000" for name in backends), "LB_ADMIN_HOST": "0.0.0.0"}
            for variable, value in {**given, **environ}.items():
                container.with_env(variable, value)
            container.with_kwargs(**HARDENED).with_exposed_ports(8080, 8081)
            balancer = Balancer(stack.enter_context(container))
            balancer.await_ready()
            return balancer

        yield start
