"""The name in SNI and in the verification of endpoints: by default the one by which they were found."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from benchmarks.ports import free_port
from tests.balancer.discovery.nameserver import Server
from tests.balancer.proxy.wire.authority import Authority
from tests.balancer.proxy.wire.ends import Accepted, Client, Endpoint, always
from tests.balancer.proxy.wire.process import Balancer, Start

from balancer.proxy.endpoint_tls import name_of_endpoints
from balancer.settings import Settings

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\nConnection: close\r\n\r\n"
OK = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
Begin = Callable[..., Balancer]


@pytest.fixture
def begin(start: Start, tmp_path: Path, authority: Authority) -> Begin:
    """Starts a balancer that resolves by a DNS server of the test, and trusts the test's authority."""

    def begin(server: Server, **settings: object) -> Balancer:
        resolv_conf = tmp_path / "resolv.conf"
        resolv_conf.write_text("nameserver 127.0.0.1\noptions timeout:1\n")
        trust = {"upstream_tls": "on", "upstream_tls_ca": authority.file}
        return start(fresh=True, test_dns=f"{resolv_conf}:{server.port}", **trust, **settings)

    return begin


class Named:
    """A context for an endpoint whose certificate is for a name, and the names in SNI that clients asked for."""

    def __init__(self, authority: Authority, name: str) -> None:
        self.context = authority.server(name)
        self.context.sni_callback = self._ask
        self.asked: list[str | None] = []

    def _ask(self, _: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
        self.asked.append(name)


async def ask(balancer: Balancer, request: str = GET) -> int:
    async with await Client.connect(balancer.port) as client:
        return (await client.ask(request)).status


@pytest.mark.parametrize("dot", ["", "."])
@pytest.mark.parametrize("found", ["static", "dns"])
async def test_the_name_by_which_endpoints_were_found_is_the_one_that_is_verified(
    found: str, dot: str, begin: Begin, authority: Authority
) -> None:
    port = free_port()
    by = {"backends": f"pods.test{dot}:{port}"}
    if found == "dns":
        by = {"discovery": "dns", "dns_name": f"pods.test{dot}", "dns_port": str(port)}
    named = Named(authority, "pods.test")
    async with Server.serving() as server:
        server.zone["pods.test."] = [("A", ["127.0.0.1"])]
        # A start that waits for the first snapshot would keep the DNS server, which is ours, from answering.
        ready = 503 if found == "dns" else 200
        balancer = begin(server, ready=ready, health_path="/", health_interval=0.2, **by)
        async with asyncio.timeout(10):
            while balancer.admin("/readyz")[0] != 200:  # noqa: ASYNC110 (another process)
                await asyncio.sleep(0.05)
        async with Endpoint(port, always(OK), tls=named.context) as endpoint:
            assert await ask(balancer) == 200
            assert await ask(balancer, "GET / HTTP/1.0\r\n\r\n") == 200
            async with asyncio.timeout(5):
                while len(named.asked) < 4:  # noqa: ASYNC110 (health checks of another process)
                    await asyncio.sleep(0.02)
        assert set(named.asked) == {"pods.test"}
        hosts = [request.get("host") for request in endpoint.requests if request.get("host") != "lb.test"]
        if found == "static":
            assert hosts[0] == f"pods.test{dot}:{port}", "the dot is part of the name everywhere else"


async def test_a_certificate_for_another_name_is_not_taken_for_that_of_a_name_with_a_dot(
    begin: Begin, authority: Authority
) -> None:
    port = free_port()
    async with Server.serving() as server:
        server.zone["pods.test."] = [("A", ["127.0.0.1"])]
        balancer = begin(server, backends=f"pods.test.:{port}")
        async with Endpoint(port, always(OK), tls=authority.server("other.test")):
            assert await ask(balancer) == 502
    assert balancer.metric("lb_endpoint_failures_total", reason="certificate not trusted") > 0


async def test_the_name_holds_in_tcp_mode(begin: Begin, authority: Authority) -> None:
    port = free_port()
    named = Named(authority, "pods.test")
    async with Server.serving() as server:
        server.zone["pods.test."] = [("A", ["127.0.0.1"])]
        balancer = begin(server, mode="tcp", backends=f"pods.test.:{port}")
        async with Endpoint(port, always(OK), tls=named.context):
            assert await ask(balancer) == 200
    assert named.asked == ["pods.test"]


@pytest.mark.parametrize(("namespace", "name"), [("shop", "pi.shop.svc"), (None, "pi.from-the-pod.svc")])
def test_the_default_name_of_a_service(namespace: str | None, name: str, tmp_path: Path) -> None:
    file = tmp_path / "namespace"
    file.write_text("from-the-pod\n")
    settings = Settings(discovery="kubernetes", kubernetes_service="pi", kubernetes_namespace=namespace)
    assert name_of_endpoints(settings, file) == name
    assert name_of_endpoints(settings.model_copy(update={"upstream_tls_name": "a.test."}), file) == "a.test"


@pytest.mark.parametrize("mode", ["http", "tcp"])
async def test_a_new_client_certificate_is_shown_to_endpoints(
    mode: str, start: Start, authority: Authority, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    authority.issue("old.test", certificate, key)
    shown: list[str] = []

    async def looks(connection: Accepted) -> None:
        seen = connection.writer.get_extra_info("ssl_object").getpeercert()
        shown.append(dict(seen["subjectAltName"])["DNS"])
        await connection.request()
        await connection.send(OK)

    context = authority.server("127.0.0.1")
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    balancer = start(
        fresh=True,
        mode=mode,
        upstream_tls="on",
        upstream_tls_ca=authority.file,
        upstream_tls_cert=certificate,
        upstream_tls_key=key,
    )
    async with Endpoint(balancer.endpoints[0], looks, tls=context):
        assert await ask(balancer) == 200
        authority.issue("new.test", certificate, key)
        async with asyncio.timeout(10):
            while shown[-1] != "new.test":
                await asyncio.sleep(0.2)
                assert await ask(balancer) == 200
    assert shown[0] == "old.test"


@contextlib.contextmanager
def refusing(port: int, context: ssl.SSLContext) -> Iterator[None]:
    """An endpoint whose handshake fails and says why: asyncio's would cut instead of sending the alert."""

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = listening.accept()
                accepted.settimeout(5)
                secured = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
                with contextlib.suppress(OSError):
                    secured.do_handshake()
                plain = socket.socket(fileno=secured.detach())
                with contextlib.suppress(OSError):
                    plain.shutdown(socket.SHUT_WR)
                    while plain.recv(65536):
                        pass
                plain.close()

    with socket.create_server(("127.0.0.1", port)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        yield
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("protocol", ["http1", "h2"])
async def test_an_endpoint_that_does_not_accept_our_certificate_is_told_as_that(
    protocol: str, version: ssl.TLSVersion, start: Start, authority: Authority, tmp_path: Path
) -> None:
    strangers = Authority(tmp_path)
    context = authority.server("127.0.0.1")
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version
    context.set_alpn_protocols(["h2" if protocol == "h2" else "http/1.1"])
    balancer = start(
        fresh=True,
        retries=0,
        upstream_protocol=protocol,
        upstream_tls="on",
        upstream_tls_ca=authority.file,
        upstream_tls_cert=strangers.certificate,
        upstream_tls_key=strangers.key,
    )
    with refusing(balancer.endpoints[0], context):
        async with await Client.connect(balancer.port) as client:
            answer = await client.ask(GET)
    assert answer.status == 502
    assert answer.get("proxy-status") == 'lb; error=tls_certificate_error; details="certificate not trusted"'


async def logged(balancer: Balancer, text: str) -> None:
    """Wait until the log has it."""
    async with asyncio.timeout(5):
        while text not in balancer.log():  # noqa: ASYNC110 (a file has no event)
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("protocol", ["http1", "h2"])
@pytest.mark.parametrize("does", ["speaks plainly", "knows no h2", "closes", "resets", "closes behind the hello"])
async def test_a_handshake_that_fails_is_told_as_that(
    does: str, protocol: str, start: Start, authority: Authority
) -> None:
    """An endpoint that only ended it, without an alert, had accepted the connection: it did not refuse it."""
    if does == "knows no h2" and protocol == "http1":
        return
    balancer = start(retries=0, upstream_tls="on", upstream_tls_ca=authority.file, upstream_protocol=protocol)

    async def script(connection: Accepted) -> None:
        if does == "speaks plainly":
            await connection.some(5)
            await connection.send("HTTP/1.1 400 Bad Request\r\n\r\n")
        elif does == "knows no h2":
            await connection.to_end()
        elif does == "closes behind the hello":
            await connection.exactly(5)
            # The head of a ServerHello, and no more.
            await connection.send(b"\x16\x03\x03\x00\x7a\x02\x00")
        elif does == "resets":
            await connection.exactly(5)
            connection.writer.transport.abort()

    context = authority.server("127.0.0.1") if does == "knows no h2" else None
    reason = "TLS handshake failed"
    before = balancer.metric("lb_endpoint_failures_total", reason=reason)
    async with Endpoint(balancer.endpoints[0], script, tls=context), await Client.connect(balancer.port) as client:
        answer = await client.ask(GET)
    assert answer.status == 502
    assert answer.get("proxy-status") == f'lb; error=tls_protocol_error; details="{reason}"'
    assert balancer.metric("lb_endpoint_failures_total", reason=reason) == before + 1
    await logged(balancer, f'"reason":"{reason}: ')


async def test_in_tcp_mode_a_handshake_that_only_ends_is_told_as_that(start: Start, authority: Authority) -> None:
    balancer = start(mode="tcp", retries=0, upstream_tls="on", upstream_tls_ca=authority.file)

    async def script(connection: Accepted) -> None:
        await connection.exactly(5)

    async with Endpoint(balancer.endpoints[0], script), await Client.connect(balancer.port) as client:
        assert await client.to_end() in (b"", b"(reset)")
    assert balancer.metric("lb_endpoint_failures_total", reason="TLS handshake failed") == 1
    assert balancer.metric("lb_endpoint_failures_total", reason="connection refused") == 0


@pytest.mark.parametrize(
    ("protocol", "stands_at"), [("http1", "TLS handshake"), ("h2", "TLS handshake"), ("h2c", "SETTINGS")]
)
async def test_silence_in_the_handshake_is_a_connection_that_timed_out(
    protocol: str, stands_at: str, start: Start, authority: Authority
) -> None:
    """The log says what was waited for: the endpoint's port was open."""
    tls = {} if protocol == "h2c" else {"upstream_tls": "on", "upstream_tls_ca": authority.file}
    balancer = start(retries=0, connect_timeout=0.3, upstream_protocol=protocol, **tls)

    async def script(connection: Accepted) -> None:
        await connection.to_end()

    async with Endpoint(balancer.endpoints[0], script), await Client.connect(balancer.port) as client:
        answer = await client.ask(GET)
    assert answer.status == 504
    assert answer.get("proxy-status") == 'lb; error=connection_timeout; details="connection timed out"'
    await logged(balancer, f'"reason":"connection timed out: {stands_at}"')
