"""A thousand changes of a Gateway's routes, backends and certificates under load: not one request may fail.

`.venv-compiled/bin/python -m benchmarks.changes` runs a balancer (the interpreter's), a stand-in for the Kubernetes
API, endpoints, and clients who ask without a pause: over kept connections and new ones, by HTTP, HTTPS, TCP, TLS passed
on and TLS ended. Each change is one write to the API. Any answer but the right one counts as failed, and any connection
that ends before its answer is whole.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Final

import aiohttp
import trustme
from benchmarks import gateway
from benchmarks.gateway import API, Json
from benchmarks.ports import free_port

HOST: Final = "shop.example.com"
PASSED: Final = "db.example.com"
ENDED: Final = "mqtt.example.com"
SECRETS: Final = "/api/v1/secrets"
POLICIES: Final = "/apis/policy.lb/v1alpha1/loadbalancingpolicies"
VERSIONS: Final = ("blue", "green")
"""Every Service has two versions, which routes change between."""
EACH: Final = 2
"""Clients of each kind."""
PAYLOAD: Final = b"x" * 2000
LIMIT: Final = 10.0
"""Seconds for a request."""


class Endpoints:
    """Of each version two that speak HTTP, two that echo, and two that echo by TLS, at addresses of their own."""

    def __init__(self, authority: trustme.CA) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(PASSED).configure_cert(self._context)
        self.addresses: dict[str, list[str]] = {}
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        for version in VERSIONS:
            for kind, serve, context in (("web", _http, None), ("echo", _echo, None), ("tls", _echo, self._context)):
                for _ in range(2):
                    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
                    self._servers.append(server)
                    port = server.sockets[0].getsockname()[1]
                    self.addresses.setdefault(f"{kind}-{version}", []).append(f"127.0.0.1:{port}")

    def stop(self) -> None:
        for server in self._servers:
            server.close()


async def _http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass
    writer.close()


def parent(section: str) -> list[Json]:
    return [{"name": "door", "sectionName": section}]


def http_route(version: str) -> Json:
    refs = [{"name": f"web-{each}", "port": 80, "weight": 9 if each == version else 1} for each in VERSIONS]
    parents = parent("http") + parent("https")
    return {"metadata": gateway.named("shop"), "spec": {"parentRefs": parents, "rules": [{"backendRefs": refs}]}}


def tcp_route(version: str) -> Json:
    rules = [{"backendRefs": [{"name": f"echo-{version}", "port": 80}]}]
    return {"metadata": gateway.named("raw"), "spec": {"parentRefs": parent("tcp"), "rules": rules}}


def tls_route(section: str, host: str, kind: str, version: str) -> Json:
    rules = [{"backendRefs": [{"name": f"{kind}-{version}", "port": 80}]}]
    spec = {"parentRefs": parent(section), "hostnames": [host], "rules": rules}
    return {"metadata": gateway.named(section), "spec": spec}


def secret(name: str, certificate: trustme.LeafCert) -> Json:
    chain = b"".join(each.bytes() for each in certificate.cert_chain_pems)
    data = {"tls.crt": chain, "tls.key": certificate.private_key_pem.bytes()}
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return {"metadata": gateway.named(name), "type": "kubernetes.io/tls", "data": encoded}


def policy(number: int) -> Json:
    targets = [{"kind": "Service", "name": f"{kind}-blue"} for kind in ("web", "echo")]
    spec = {"targetRefs": targets, "strategy": ("least-connections", "round-robin")[number % 2]}
    return {"metadata": gateway.named("own"), "spec": spec}


def door(further: bool) -> Json:
    """The Gateway; `further`: with a listener that nobody uses."""

    def tls(name: str, mode: str, host: str, certificate: str = "") -> Json:
        refs = {"certificateRefs": [{"name": certificate}]} if certificate else {}
        protocol = "TLS" if name != "https" else "HTTPS"
        return {"name": name, "port": 443, "protocol": protocol, "hostname": host, "tls": {"mode": mode, **refs}}

    listeners = [
        {"name": "http", "port": 80, "protocol": "HTTP"},
        {"name": "tcp", "port": 5432, "protocol": "TCP"},
        tls("https", "Terminate", HOST, "web"),
        tls("passed", "Passthrough", PASSED),
        tls("ended", "Terminate", ENDED, "mqtt"),
    ]
    if further:
        listeners += [tls("more", "Passthrough", "more.example.com"), {"name": "x", "port": 81, "protocol": "HTTP"}]
    return gateway.gateway(*listeners)


class Changes:
    """Writes one object after the other, as the users of a cluster would, each kind in its turn."""

    def __init__(self, session: aiohttp.ClientSession, api: str, authority: trustme.CA, endpoints: Endpoints) -> None:
        self._session = session
        self._api = api
        self._certificates = {
            name: cycle([secret(name, authority.issue_cert(host)) for _ in range(3)])
            for name, host in (("web", HOST), ("mqtt", ENDED))
        }
        self._endpoints = endpoints
        self.made: Counter[str] = Counter()

    async def make(self, number: int) -> None:
        """The change of this number."""
        version, turn = VERSIONS[number // 7 % 2], number // 7
        kind, written = list(self._written(number, version, turn))[number % 7]
        for path, item in written:
            await self.put(path, item)
        self.made[kind] += 1

    def _written(self, number: int, version: str, turn: int) -> Iterator[tuple[str, list[tuple[str, Json]]]]:
        yield "HTTPRoute", [(f"{API}/httproutes", http_route(version))]
        yield "TCPRoute", [(f"{API}/tcproutes", tcp_route(version))]
        host, kind, section = ((PASSED, "tls", "passed"), (ENDED, "echo", "ended"))[turn // 2 % 2]
        yield "TLSRoute", [(f"{API}/tlsroutes", tls_route(section, host, kind, version))]
        name = ("web", "mqtt")[turn % 2]
        yield "certificate", [(SECRETS, next(self._certificates[name]) if number % 7 == 3 else {})]
        # One of two endpoints goes, or comes again: it serves on, as a pod does that leaves.
        name = f"{('web', 'echo', 'tls')[turn // 2 % 3]}-{VERSIONS[turn // 6 % 2]}"
        gone = gateway.slices_of(name, self._endpoints.addresses[name])[1]
        gone["endpoints"][0]["conditions"] = {"ready": turn % 2 == 1}
        yield "endpoints", [(gateway.SLICES, gone)]
        yield "Gateway", [(f"{API}/gateways", door(turn % 2 == 0))]
        yield "policy", [(POLICIES, policy(turn))]

    async def put(self, path: str, item: Json) -> None:
        """Write an object that is there."""
        base, _, plural = path.rpartition("/")
        url = f"{self._api}{base}/namespaces/shop/{plural}/{item['metadata']['name']}"
        async with self._session.put(url, json=item) as answer:
            if answer.status != 200:
                raise RuntimeError(await answer.text())


class Load:
    """Clients of every kind, who ask until `stop`, and say what went wrong."""

    def __init__(self, ports: dict[int, int], authority: trustme.CA) -> None:
        self._ports = ports
        self._trusting = ssl.create_default_context()
        authority.configure_trust(self._trusting)
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._over = False

    def stop(self) -> None:
        self._over = True

    async def run(self) -> None:
        """Ask until `stop`."""
        connector = aiohttp.TCPConnector(ssl=self._trusting)
        async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

            async def http() -> None:
                await self._get(session, f"http://127.0.0.1:{self._ports[80]}/")

            async def https() -> None:
                await self._get(session, f"https://127.0.0.1:{self._ports[443]}/")

            async def closing() -> None:
                await self._get(session, f"https://127.0.0.1:{self._ports[443]}/", Connection="close")

            kinds: dict[str, Callable[[], Awaitable[None]]] = {
                "HTTP": http,
                "HTTPS": https,
                "HTTPS, new connections": closing,
                "TCP": lambda: self._echoed(5432),
                "TLS passed on": lambda: self._echoed(443, PASSED),
                "TLS ended": lambda: self._echoed(443, ENDED),
            }
            asking = [self._repeat(name, ask) for name, ask in kinds.items() for _ in range(EACH)]
            await asyncio.gather(*asking, self._lasting("one TCP connection"))

    async def _repeat(self, name: str, ask: Callable[[], Awaitable[None]]) -> None:
        while not self._over:
            try:
                async with asyncio.timeout(LIMIT):
                    await ask()
                self.done[name] += 1
            except (OSError, EOFError, TimeoutError, aiohttp.ClientError, AssertionError) as error:
                self.failed[f"{name}: {error!r}"] += 1
            await asyncio.sleep(0.005)

    async def _get(self, session: aiohttp.ClientSession, url: str, **fields: str) -> None:
        async with session.get(url, headers={"Host": HOST, **fields}, server_hostname=HOST) as answer:
            body = await answer.read()
            if (answer.status, body) != (200, b"hello"):
                raise AssertionError(f"{answer.status} {body[:100]!r}")

    async def _echoed(self, port: int, name: str = "") -> None:
        secured = {"ssl": self._trusting, "server_hostname": name} if name else {}
        reader, writer = await asyncio.open_connection("127.0.0.1", self._ports[port], **secured)  # type: ignore[arg-type]
        try:
            writer.write(PAYLOAD)
            if await reader.readexactly(len(PAYLOAD)) != PAYLOAD:
                raise AssertionError("another echo")
        finally:
            writer.close()

    async def _lasting(self, name: str) -> None:
        """One connection that is used all the while: no change may end it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._ports[5432])

        async def ask() -> None:
            writer.write(b"ping")
            if await reader.readexactly(4) != b"ping":
                raise AssertionError("another echo")

        await self._repeat(name, ask)
        writer.close()


def _served(routes: Json) -> bool:
    return len(routes["listeners"]) == 3 and all(each["eligible"] for each in routes["clusters"])


async def run(count: int, pause: float) -> tuple[Load, Changes, float]:
    """Make so many changes under load, one each `pause` seconds; and how long that took."""
    authority = trustme.CA()
    endpoints = Endpoints(authority)
    await endpoints.start()
    ports = {port: free_port() for port in (80, 81, 443, 5432)}
    names = list(endpoints.addresses)
    slices = [each for name in names for each in gateway.slices_of(name, endpoints.addresses[name])]
    kinds = gateway.kinds(door(False), ports, [gateway.service(name) for name in names], slices)
    kinds[f"{API}/httproutes"] = [http_route("blue")]
    kinds[f"{API}/tcproutes"] = [tcp_route("blue")]
    kinds[f"{API}/tlsroutes"] = [
        tls_route("passed", PASSED, "tls", "blue"),
        tls_route("ended", ENDED, "echo", "blue"),
    ]
    kinds[SECRETS] = [secret(name, authority.issue_cert(host)) for name, host in (("web", HOST), ("mqtt", ENDED))]
    kinds[POLICIES] = [policy(0)]
    with tempfile.TemporaryDirectory() as name:
        api, admin = gateway.Api(Path(name), kinds), free_port()
        try:
            async with gateway.balancer(Path(name), api, admin), aiohttp.ClientSession() as session:
                await gateway.until(admin, _served)
                load = Load(ports, authority)
                changes = Changes(session, f"http://127.0.0.1:{api.port}", authority, endpoints)
                running = asyncio.create_task(load.run())
                began = time.monotonic()
                for number in range(count):
                    await changes.make(number)
                    await asyncio.sleep(pause)
                took = time.monotonic() - began
                load.stop()
                await running
        finally:
            api.stop()
            endpoints.stop()
    return load, changes, took


def main() -> int:
    """Run it, and print what came of it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--changes", type=int, default=1_000, help="(%(default)s)")
    arguments.add_argument("--pause", type=float, default=0.03, help="seconds between two changes (%(default)s)")
    chosen = arguments.parse_args()
    load, changes, took = asyncio.run(run(chosen.changes, chosen.pause))
    print(
        f"{changes.made.total():,} changes in {took:.0f} s: {', '.join(f'{n} of {k}' for k, n in changes.made.items())}"
    )
    print(f"{load.done.total():,} requests: {', '.join(f'{n:,} {kind}' for kind, n in load.done.items())}")
    print(f"failed: {load.failed.total()}")
    for what, number in load.failed.most_common(20):
        print(f"  {number} x {what}")
    return int(bool(load.failed))


if __name__ == "__main__":
    sys.exit(main())
