"""Connections whose bytes are carried, by TLSRoute and TCPRoute: a whole balancer, real clients, real endpoints."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.balancer.discovery.gateway import cluster
from tests.balancer.discovery.gateway.pods import slice_of
from tests.balancer.discovery.gateway.replicas import GATEWAYS, SECRETS, SERVICES, SLICES, until
from tests.balancer.discovery.gateway.test_traffic import INGRESSES, POLICIES, Here, running
from tests.balancer.proxy.test_client_hello import hello, in_records

from balancer.balancing.pool import Pool

API = "/apis/gateway.networking.k8s.io/v1"
TLS_ROUTES, TCP_ROUTES = f"{API}/tlsroutes", f"{API}/tcproutes"


class Echo:
    """Says its name, a line of its own, and then what it hears, until its client has said all."""

    def __init__(self, name: str, host: str, context: ssl.SSLContext | None = None) -> None:
        self.name = name
        self.host = host
        self.port = 0
        self.asked: list[str] = []
        """The first line of each connection that is no TLS, where it is a PROXY header."""
        self._context = context
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            writer.write(f"{self.name}\n".encode())
            while data := await reader.read(65536):
                if data.startswith(b"PROXY "):
                    line, _, data = data.partition(b"\r\n")
                    self.asked.append(line.decode())
                writer.write(data)
                await writer.drain()
            if self._context is None:
                writer.write(b"bye")
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.transport.abort()

    def slice(self, *, ready: bool = True) -> dict[str, Any]:
        return slice_of(self.name, self.host, self.port, ready)


class Carried:
    """A Gateway with a port of TCP, one of TLS, and one of HTTPS and TLS, and what is behind them."""

    def __init__(self, here: Here, authority: trustme.CA, echoes: dict[str, Echo]) -> None:
        self.here = here
        self.echoes = echoes
        self.trusting = ssl.create_default_context()
        authority.configure_trust(self.trusting)

    def port(self, number: int) -> int:
        gateways = self.here.balancer.gateways
        assert gateways is not None
        return next(
            ours
            for ours, port in gateways.ports.items()
            if (port.plan.gateway, port.plan.port) == ("shop/door", number)
        )

    async def connect(self, number: int, name: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not name:
            return await asyncio.open_connection("127.0.0.1", self.port(number))
        return await asyncio.open_connection(
            "127.0.0.1", self.port(number), ssl=self.trusting, server_hostname=name, ssl_handshake_timeout=10
        )

    async def reached(self, number: int, name: str = "") -> str:
        """The name of the endpoint that a new connection reaches; `reset` where it is refused."""
        try:
            reader, writer = await self.connect(number, name)
            line = await reader.readline()
            writer.close()
        except (ConnectionError, ssl.SSLError) as error:
            return "alert" if "UNRECOGNIZED_NAME" in str(error) else "reset"
        return line.decode().strip() or "end"

    async def until_reached(self, wanted: str, number: int, name: str = "") -> None:
        async with asyncio.timeout(20):
            while await self.reached(number, name) != wanted:  # noqa: ASYNC110 (another program changes it)
                await asyncio.sleep(0.005)

    def pool(self, service: str) -> Pool:
        gateways = self.here.balancer.gateways
        assert gateways is not None
        return gateways.fleets[f"shop/{service}:8080@tcp"].cluster.pool

    async def policy(self, **settings: object) -> None:
        """Settings for the Service `db`, once they are in force."""
        before = self.pool("db")
        spec = {"targetRefs": [{"kind": "Service", "name": "db"}], **settings}
        self.here.api.put(POLICIES, {"metadata": cluster.metadata("own"), "spec": spec})
        await until(lambda: self.pool("db") is not before and list(self.pool("db").endpoints))

    def metrics(self) -> dict[str, int]:
        counters = self.here.balancer._counters
        return {**counters.errors, **counters.client_faults}


def secret(authority: trustme.CA, name: str, *hosts: str) -> dict[str, Any]:
    issued = authority.issue_cert(*hosts)
    chain = b"".join(each.bytes() for each in issued.cert_chain_pems)
    data = {"tls.crt": chain, "tls.key": issued.private_key_pem.bytes()}
    return {
        "metadata": cluster.metadata(name),
        "type": "kubernetes.io/tls",
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def listener(name: str, port: int, protocol: str, mode: str = "", host: str = "", certificate: str = "") -> Any:
    tls: dict[str, Any] = {"mode": mode} if mode else {}
    if certificate:
        tls["certificateRefs"] = [{"name": certificate}]
    return cluster.listener(
        name, port, protocol, **({"tls": tls} if tls else {}), **({"hostname": host} if host else {})
    )


LISTENERS = [
    listener("tcp", 5432, "TCP"),
    listener("pass", 443, "TLS", "Passthrough", "*.pass.test"),
    listener("end", 8443, "TLS", "Terminate", "end.test", "end"),
    listener("mixed-pass", 8443, "TLS", "Passthrough", "mixed.test"),
    listener("web", 8443, "HTTPS", "", "web.test", "web"),
]


def to(*names: str, name: str = "route", section: str, hosts: list[str] | None = None, port: int = 8080) -> Any:
    """A route to Services by equal weights."""
    backends = [cluster.backend(each, port) for each in names]
    more: dict[str, Any] = {"hostnames": hosts} if hosts else {}
    parents: list[Any] = [{"name": "door", "sectionName": section}]
    return cluster.route({"backendRefs": backends}, name=name, parents=parents, **more)


@asynccontextmanager
async def carrying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **more: str) -> AsyncIterator[Carried]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("*.pass.test", "mixed.test").configure_cert(context)
    echoes = {
        "db": Echo("db", "127.0.7.1"),
        "cache": Echo("cache", "127.0.7.2"),
        "secure": Echo("secure", "127.0.7.3", context),
    }
    for echo in echoes.values():
        await echo.start()
    services = [cluster.service("front", "lb-system", [{"port": 80}], selector={"app": "lb"}), cluster.service()]
    kinds: dict[str, list[Any]] = {
        INGRESSES: [],
        GATEWAYS: [cluster.gateway(*LISTENERS)],
        SERVICES: [*services, *(cluster.service(name) for name in (*echoes, "empty"))],
        SLICES: [echo.slice() for echo in echoes.values()],
        SECRETS: [secret(authority, "end", "end.test"), secret(authority, "web", "web.test")],
        f"{API}/httproutes": [],
        TCP_ROUTES: [to("db", name="tcp", section="tcp")],
        TLS_ROUTES: [
            to("secure", name="pass", section="pass", hosts=["a.pass.test"]),
            to("db", name="end", section="end", hosts=["end.test"]),
            to("secure", name="mixed", section="mixed-pass", hosts=["mixed.test"]),
        ],
    }
    settings = {"LB_REQUEST_TIMEOUT": "2", "LB_ACCESS_LOG": "on", **more}
    async with running(tmp_path, monkeypatch, settings, kinds, ports=4) as here:
        yield Carried(here, authority, echoes)
    for echo in echoes.values():
        await echo.stop()


@pytest.fixture
async def carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Carried]:
    async with carrying(tmp_path, monkeypatch) as there:
        yield there


async def test_connections_go_where_their_port_and_their_tls_name_say(carried: Carried) -> None:
    assert await carried.reached(5432) == "db"
    reader, writer = await carried.connect(443, "a.pass.test")
    assert await reader.readline() == b"secure\n"
    shown = writer.get_extra_info("ssl_object").getpeercert()["subjectAltName"]
    assert ("DNS", "*.pass.test") in shown, "TLS ends at the endpoint, whose certificate the client sees"
    writer.write(b"x" * 300_000)
    assert await reader.readexactly(300_000) == b"x" * 300_000
    writer.close()
    assert await carried.reached(8443, "end.test") == "db", "ended here, plain bytes to the endpoint"
    assert await carried.reached(8443, "mixed.test") == "secure", "passed on, at the same port"
    reader, writer = await carried.connect(8443, "web.test")
    writer.write(b"GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 404"), "requests, at the same port"
    writer.close()
    gateways = carried.here.balancer.gateways
    assert gateways is not None
    begun = {port: requests for name, port, requests, _ in gateways.listeners() if name == "shop/door"}
    assert begun == {5432: 1, 443: 1, 8443: 3}


async def test_who_has_no_route_or_no_backend_is_reset(carried: Carried) -> None:
    api = carried.here.api
    assert await carried.reached(443, "b.pass.test") == "reset", "a listener's name, and no route's"
    assert await carried.reached(443, "other.test") == "reset", "nobody's name"
    assert await carried.reached(8443, "other.test") == "alert", "where TLS ends, it can be said"
    assert carried.metrics()["no route"] == 2
    api.put(TCP_ROUTES, to("gone", name="tcp", section="tcp"))
    await carried.until_reached("reset", 5432)
    assert carried.metrics()["no backend"] >= 1
    api.put(TCP_ROUTES, to("empty", name="tcp", section="tcp"))
    gateways = carried.here.balancer.gateways
    assert gateways is not None
    await until(lambda: "shop/empty:8080@tcp" in gateways.fleets)
    assert await carried.reached(5432) == "reset"
    api.put(TCP_ROUTES, to("db", "gone", name="tcp", section="tcp"))
    await carried.until_reached("db", 5432)
    await carried.until_reached("reset", 5432)
    found = [await carried.reached(5432) for _ in range(40)]
    assert 18 <= found.count("db") <= 22
    assert found.count("db") + found.count("reset") == 40


async def test_a_change_leaves_open_connections_and_counts_for_new_ones(carried: Carried) -> None:
    api = carried.here.api
    plain, plain_writer = await carried.connect(5432)
    passed, passed_writer = await carried.connect(443, "a.pass.test")
    ended, ended_writer = await carried.connect(8443, "end.test")
    for reader, name in ((plain, b"db\n"), (passed, b"secure\n"), (ended, b"db\n")):
        assert await reader.readline() == name
    api.put(TCP_ROUTES, to("cache", name="tcp", section="tcp"))
    api.put(TLS_ROUTES, to("cache", name="end", section="end", hosts=["end.test"]))
    api.put(TLS_ROUTES, to("empty", name="pass", section="pass", hosts=["a.pass.test"]))
    await carried.until_reached("cache", 5432)
    await carried.until_reached("cache", 8443, "end.test")
    await carried.until_reached("reset", 443, "a.pass.test")
    # HTTPS comes to the port that only passed on until now.
    api.put(GATEWAYS, dict(cluster.gateway(*LISTENERS, listener("shop", 443, "HTTPS", "", "web.test", "web"))))
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await carried.connect(443, "web.test")
            except ConnectionError:
                continue
            writer.close()
            break
    for reader, writer in ((plain, plain_writer), (passed, passed_writer), (ended, ended_writer)):
        writer.write(b"still")
        assert await reader.readexactly(5) == b"still"
        writer.close()


async def test_a_half_close_passes_through_a_route(carried: Carried) -> None:
    reader, writer = await carried.connect(5432)
    writer.write(b"all")
    writer.write_eof()
    assert await reader.read() == b"db\nallbye"
    writer.close()


async def test_a_policy_has_the_proxy_protocol_spoken_to_the_endpoints_of_a_route(carried: Carried) -> None:
    await carried.policy(upstreamProxyProtocol="v1")
    reader, writer = await carried.connect(5432)
    writer.write(b"x")
    assert await reader.readexactly(4) == b"db\nx"
    writer.close()
    assert carried.echoes["db"].asked[0].startswith("PROXY TCP4 127.0.0.1 127.0.0.1 ")


async def test_connections_beyond_the_limit_wait_as_long_as_the_queue_lets_them(carried: Carried) -> None:
    await carried.policy(endpointMaxRequests=1, queueTimeout=0.3)
    reader, writer = await carried.connect(5432)
    assert await reader.readline() == b"db\n"
    assert await carried.reached(5432) == "reset", "the queue's time is over"
    second, second_writer = await carried.connect(5432)
    writer.close()
    assert await second.readline() == b"db\n", "it waited for the first to end"
    second_writer.close()


async def test_an_endpoint_that_cannot_be_connected_to_is_ejected_and_no_client_notices(carried: Carried) -> None:
    await carried.policy(ejectAfter=2, ejectMaxShare=0.5)
    found = carried.echoes["db"].slice()
    found["endpoints"].append({"addresses": ["127.0.7.9"], "conditions": {"ready": True}})
    carried.here.api.put(SLICES, found)
    await until(lambda: len(list(carried.pool("db").endpoints)) == 2)
    assert {await carried.reached(5432) for _ in range(8)} == {"db"}
    admin = carried.here.balancer._admin.port
    async with carried.here.client.get(f"http://127.0.0.1:{admin}/metrics") as response:
        counted = [line for line in (await response.text()).splitlines() if line.startswith("lb_transitions_total")]
    assert [line.split()[-1] for line in counted if '"ejected"' in line] == ["1.0"]


async def test_what_is_no_first_message_of_tls_is_refused_in_bounded_time_and_bytes(carried: Carried) -> None:
    async def answer(data: bytes, number: int = 443, *, end: bool = False) -> bytes:
        reader, writer = await carried.connect(number)
        try:
            writer.write(data)
            if end:
                writer.write_eof()
            async with asyncio.timeout(8):
                return await reader.read()
        except ConnectionError:
            return b"(reset)"
        finally:
            writer.close()

    refused = {b"(reset)", b""}
    assert await answer(b"GET / HTTP/1.1\r\nHost: a.pass.test\r\n\r\n") in refused
    assert (await answer(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 8443)).startswith(b"HTTP/1.1 400"), "HTTPS is there"
    assert await answer(hello(None)) in refused, "no name"
    assert await answer(in_records(b"\x01\0\x40\x01" + bytes(100), 100)) in refused, "it says that it is too long"
    assert await answer(in_records(b"\x01\0\x3f\xff" + bytes(16_380), 1)) in refused, "too long on the wire"
    assert await answer(hello("a.pass.test")[:100], end=True) in refused, "half of one, and the end"
    faults = carried.metrics()["handshake failed"]
    assert faults >= 2
    # Slowly: a byte now and then keeps nothing open for longer than LB_REQUEST_TIMEOUT.
    began = asyncio.get_running_loop().time()
    assert await answer(hello("a.pass.test")[:100]) in refused
    assert 1.5 < asyncio.get_running_loop().time() - began < 7
    assert carried.metrics()["handshake timed out"] == 1
    # A real one in many segments and records is let in.
    reader, writer = await carried.connect(443)
    data = in_records(hello("a.pass.test")[5:], 60)
    for start in range(0, len(data), 50):
        writer.write(data[start : start + 50])
        await asyncio.sleep(0.001)
    assert (await reader.readexactly(1))[0] == 22, "the endpoint's ServerHello"
    writer.close()


async def test_a_proxy_header_comes_before_the_first_message_of_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusting = {"LB_PROXY_PROTOCOL": "on", "LB_TRUSTED_PROXIES": "127.0.0.0/8"}
    async with carrying(tmp_path, monkeypatch, **trusting) as carried:
        await carried.policy(upstreamProxyProtocol="v1")
        header = b"PROXY TCP4 192.0.2.7 192.0.2.9 7 9\r\n"
        for sent in (header + hello("a.pass.test"), header):
            reader, writer = await carried.connect(443)
            writer.write(sent)
            if sent == header:
                await writer.drain()
                writer.write(hello("a.pass.test"))
            assert (await reader.readexactly(1))[0] == 22, "the endpoint's ServerHello"
            writer.close()
        reader, writer = await carried.connect(5432)
        writer.write(header + b"x")
        assert await reader.readexactly(4) == b"db\nx"
        writer.close()
        assert carried.echoes["db"].asked == ["PROXY TCP4 192.0.2.7 192.0.2.9 7 9"]


async def test_a_reset_of_the_endpoint_reaches_the_client(carried: Carried) -> None:
    reader, writer = await carried.connect(5432)
    assert await reader.readline() == b"db\n"
    (theirs,) = carried.echoes["db"]._open
    theirs.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.transport.abort()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_the_access_log_and_the_api_know_route_and_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with carrying(tmp_path, monkeypatch) as carried:
        assert await carried.reached(443, "a.pass.test") == "secure"
        assert await carried.reached(443, "b.pass.test") == "reset"
        admin = carried.here.balancer._admin.port
        async with carried.here.client.get(f"http://127.0.0.1:{admin}/api/routes") as response:
            view = await response.json()
    listed = {
        (each["port"], each["protocol"], each["routes"]) for each in view["listeners"] if each["gateway"] == "shop/door"
    }
    assert listed == {(5432, "TCP", 1), (443, "TLS", 1), (8443, "TLS", 2)}
    (found,) = [each for each in view["routes"] if each["route"] == "shop/pass"]
    assert (found["host"], found["kind"]) == ("a.pass.test", "connection")
    assert found["backends"] == [{"cluster": "shop/secure:8080@tcp", "weight": 1}]
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines() if '"request_id"' in line]
    told = {line["tls_name"]: (line.get("route"), line.get("cluster"), line["reason"]) for line in lines}
    assert told == {
        "a.pass.test": ("shop/pass", "shop/secure:8080@tcp", None),
        "b.pass.test": (None, None, "no route"),
    }
