"""gRPC's health check: of real grpcio servers in plain text and by TLS, of what is none, and of bytes of every kind."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from balancer.balancing.endpoint import Endpoint, EndpointSpec
from balancer.probes import Ask
from balancer.probes.http2_call import Call, CallFailed, health_check, request, verdict
from balancer.settings import Settings

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
STATUS = health_pb2.HealthCheckResponse


async def asked(spec: EndpointSpec, path: str = "grpc", **fields: Any) -> str | None:
    settings = Settings(**{"backends": (spec,), "health_path": path, "health_timeout": 5.0, **fields})
    return await Ask(settings)(Endpoint(spec))


@asynccontextmanager
async def serving(
    servicer: object | None = None, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[EndpointSpec]:
    """A real grpcio server; without a servicer it offers no service at all."""
    server = grpc.aio.server()
    if servicer is not None:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield EndpointSpec("127.0.0.1", port)
    finally:
        await server.stop(None)


async def test_a_server_that_serves_is_healthy_and_each_other_answer_says_why_not() -> None:
    servicer = health.aio.HealthServicer()
    await servicer.set("up", STATUS.SERVING)
    await servicer.set("down", STATUS.NOT_SERVING)
    await servicer.set("odd", STATUS.UNKNOWN)
    async with serving(servicer) as spec:
        assert await asked(spec) is None
        assert await asked(spec, "grpc:up") is None
        assert await asked(spec, "grpc:down") == "NOT_SERVING"
        assert await asked(spec, "grpc:odd") == "UNKNOWN"
        assert await asked(spec, "grpc:missing") == "NOT_FOUND: the server knows no service 'missing'"
        await servicer.enter_graceful_shutdown()
        assert await asked(spec) == "NOT_SERVING"
    assert await asked(spec) == "connection refused"


async def test_a_server_without_the_service_is_unhealthy() -> None:
    async with serving() as spec:
        assert await asked(spec) == "UNIMPLEMENTED: the server offers no grpc.health.v1.Health"


async def test_a_status_of_the_call_is_the_reason() -> None:
    class Denying(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
        async def Check(self, request: object, context: grpc.aio.ServicerContext[object, object]) -> object:  # noqa: N802
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "who is it? é")
            raise AssertionError

    class Unknown(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
        async def Check(self, request: object, context: object) -> object:  # noqa: N802
            return STATUS(status=STATUS.SERVICE_UNKNOWN)

    async with serving(Denying()) as spec:
        assert await asked(spec) == "PERMISSION_DENIED: 'who is it? é'"
    async with serving(Unknown()) as spec:
        assert await asked(spec) == "SERVICE_UNKNOWN"


async def test_a_server_that_hangs_is_unhealthy() -> None:
    class Hanging(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
        async def Check(self, request: object, context: object) -> object:  # noqa: N802
            await asyncio.Event().wait()
            raise AssertionError

    async with serving(Hanging()) as spec:
        assert await asked(spec, health_timeout=0.2) in (
            "no answer within 0.2 s",
            "DEADLINE_EXCEEDED: 'Deadline Exceeded'",
            "RST_STREAM CANCEL",
        )


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def test_it_goes_by_the_tls_of_the_settings(authority: trustme.CA, tmp_path: Path) -> None:
    """The authority, the name in the certificate, and our own certificate, where the server asks for one."""
    theirs = authority.issue_cert("greeter.test")
    ours = authority.issue_cert("lb.test")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    ours.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    ours.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    credentials = grpc.ssl_server_credentials(
        [(theirs.private_key_pem.bytes(), theirs.cert_chain_pems[0].bytes())],
        root_certificates=authority.cert_pem.bytes(),
        require_client_auth=True,
    )
    trusting: dict[str, Any] = {"upstream_tls": True, "upstream_tls_ca": tmp_path / "ca.pem"}
    named = trusting | {"upstream_tls_name": "greeter.test"}
    shown = named | {"upstream_tls_cert": tmp_path / "cert.pem", "upstream_tls_key": tmp_path / "key.pem"}
    async with serving(health.aio.HealthServicer(), credentials) as spec:
        assert await asked(spec, **shown) is None
        assert "certificate" in str(await asked(spec, **(shown | {"upstream_tls_name": "other.test"})))
        assert await asked(spec, **named) is not None
        assert "certificate" in str(await asked(spec, **(trusting | {"upstream_tls_ca": None})))


async def test_a_path_too_is_asked_for_with_the_name_and_certificate_of_the_settings(
    authority: trustme.CA, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("greeter.test").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    ours = authority.issue_cert("lb.test")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    ours.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    ours.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    async with scripted(b"HTTP/1.1 200 OK\r\n\r\n", tls=context) as spec:
        assert (
            await asked(
                spec,
                "/healthz",
                upstream_tls=True,
                upstream_tls_ca=tmp_path / "ca.pem",
                upstream_tls_name="greeter.test",
                upstream_tls_cert=tmp_path / "cert.pem",
                upstream_tls_key=tmp_path / "key.pem",
            )
            is None
        )


# What is no gRPC server.


@asynccontextmanager
async def scripted(
    answer: bytes, heard: list[bytes] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[EndpointSpec]:
    """Sends `answer` as soon as something has come, then closes its side."""
    ended = asyncio.Event()
    under_way = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal under_way
        under_way += 1
        try:
            data = await reader.read(1 << 16)
            if heard is not None:
                heard.append(data)
            writer.write(answer)
            await writer.drain()
            if tls is None:
                writer.write_eof()
            await reader.read()
        except OSError:
            pass
        finally:
            writer.transport.abort()
            under_way -= 1
            ended.set()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield EndpointSpec("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        async with asyncio.timeout(10):
            while under_way:
                ended.clear()
                await ended.wait()


SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def frame(kind: int, flags: int, payload: bytes, stream: int = 1) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it answers in HTTP/1, not HTTP/2"),
        (b"220 mail ready\r\n", "its answer is not HTTP/2"),
        (b"", "closed before its answer"),
        (SETTINGS, "closed before its answer"),
        (SETTINGS + frame(7, 0, bytes(4) + b"\x00\x00\x00\x0b", 0), "GOAWAY ENHANCE_YOUR_CALM"),
        (SETTINGS + frame(3, 0, b"\x00\x00\x00\x07"), "RST_STREAM REFUSED_STREAM"),
        (SETTINGS + frame(1, 5, b"\x8d"), "status 404"),
        (SETTINGS + frame(1, 5, b"\x88"), "its answer is not gRPC"),
        (SETTINGS + frame(1, 4, b"\x88") + frame(0, 1, b"hello"), "its answer is not gRPC"),
        (SETTINGS + frame(1, 4, b"\xff"), "its answer is not HTTP/2"),
        (SETTINGS + frame(1, 0, b"\x88") + frame(0, 1, b""), "its answer is not HTTP/2"),
    ],
)
async def test_what_is_no_such_answer_is_unhealthy(answer: bytes, why: str) -> None:
    async with scripted(answer) as spec:
        assert await asked(spec) == why


async def test_endpoints_that_take_requests_by_http_2_are_asked_for_a_path_by_http_2() -> None:
    heard: list[bytes] = []
    answer = SETTINGS + frame(1, 5, b"\x88")
    async with scripted(answer, heard) as spec:
        assert await asked(spec, "/healthz", upstream_protocol="h2c") is None
        assert await asked(spec, "/healthz", upstream_protocol="h2c", health_status=((204, 204),)) == "status 200"
        own = EndpointSpec(spec.host, spec.port, protocol="h2c")
        assert await asked(own, "/healthz") is None  # as its Service's appProtocol says
        assert await asked(own, "/healthz", upstream_protocol="http1") == "closed before its answer"
    assert [data[:3] for data in heard] == [b"PRI", b"PRI", b"PRI", b"GET"]


async def test_an_endpoint_that_does_not_agree_on_h2_is_told_so(authority: trustme.CA, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with scripted(b"", tls=context) as spec:
        why = await asked(spec, upstream_tls=True, upstream_tls_ca=tmp_path / "ca.pem")
    assert why == "it does not agree on h2 by ALPN"


# Bytes of every kind.


def answered(message: bytes, status: bytes = b"0") -> str | None:
    call = health_check("", b"http", "a:1", 1.0)
    call.status, call.body = 200, b"\x00" + len(message).to_bytes(4, "big") + message
    call.fields[b"grpc-status"] = status
    return verdict(call, "")


@given(st.sampled_from([STATUS.UNKNOWN, STATUS.SERVING, STATUS.NOT_SERVING, STATUS.SERVICE_UNKNOWN]))
def test_the_message_is_read_as_protobuf_reads_it(status: int) -> None:
    message = STATUS(status=status).SerializeToString()
    assert answered(message) == (None if status == STATUS.SERVING else STATUS.ServingStatus.Name(status))
    later = b"\x12\x03abc\x1d\x00\x00\x00\x00" + message + b"\x78\x80\x01"
    assert answered(later) == answered(message)


@given(st.binary(max_size=40))
def test_any_bytes_have_a_verdict(data: bytes) -> None:
    answered(data)
    answered(b"\x08\x01", data)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_answer_ends_or_fails_however_it_is_cut(data: bytes, size: int) -> None:
    def read(pieces: list[bytes]) -> tuple[str, int, bytes]:
        call = Call(request(b"GET", b"http", "a:1", b"/"))
        try:
            for piece in pieces:
                call.take(piece)
        except CallFailed as failed:
            return str(failed), 0, b""
        return "", call.status, call.body

    whole = SETTINGS + data
    assert read([whole]) == read([whole[at : at + size] for at in range(0, len(whole), size)])


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=300))
def test_the_service_is_named_as_protobuf_names_it(service: str) -> None:
    call = health_check(service, b"http", "a:1", 1.0)
    message = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    assert call.first.endswith(b"\x00" + len(message).to_bytes(4, "big") + message)
