"""Trace context on the wire, and spans as an OTLP receiver gets them: the product in a process of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
import pytest_asyncio
from aiohttp import web
from benchmarks.ports import free_port
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from tests.balancer.proxy.wire.ends import OK, Accepted, Client, Endpoint, always
from tests.balancer.proxy.wire.http2 import Asked, H2Client, H2Endpoint, asking
from tests.balancer.proxy.wire.messages import ADDED_TO_REQUESTS
from tests.balancer.proxy.wire.process import Balancer

from balancer.tracing import wanted

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
SOON = 20.0
"""Seconds within which a span must have come, on a machine under load."""


def get(path: str, *fields: str) -> str:
    return "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "Host: lb.test", *fields, ""))


def values(attributes: Iterable[KeyValue]) -> dict[str, str | int]:
    """Attributes as a plain mapping; only texts and whole numbers occur."""
    found: dict[str, str | int] = {}
    for attribute in attributes:
        value = attribute.value
        found[attribute.key] = value.string_value if value.HasField("string_value") else value.int_value
    return found


class Receiver:
    """An OTLP/HTTP receiver. Spans by their url.path, which each test chooses for itself."""

    def __init__(self) -> None:
        self.port = free_port()
        self.spans: dict[str, trace_pb2.Span] = {}
        self.resource: dict[str, str | int] = {}
        self._came = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def settings(self) -> dict[str, str]:
        """What makes a balancer send its spans here, and at once."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}", "OTEL_BSP_SCHEDULE_DELAY": "50"}

    async def _take(self, request: web.Request) -> web.Response:
        told = ExportTraceServiceRequest.FromString(await request.read())
        for group in told.resource_spans:
            self.resource = values(group.resource.attributes)
            for scope in group.scope_spans:
                for span in scope.spans:
                    path = str(values(span.attributes)["url.path"])
                    assert path not in self.spans, f"two spans for {path}"
                    self.spans[path] = span
        self._came.set()
        body = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=body, content_type="application/x-protobuf")

    async def span(self, path: str) -> trace_pb2.Span:
        """The span of the request for `path`, as soon as it has come."""
        async with asyncio.timeout(SOON):
            while path not in self.spans:
                self._came.clear()
                await self._came.wait()
        return self.spans[path]

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v1/traces", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as started:
        yield started


@pytest.fixture(scope="module")
def traced(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancer]:
    """A balancer with two endpoints that sends its spans to `receiver`."""
    balancer = Balancer(tmp_path_factory.mktemp("traced") / "log", 2, receiver.settings)
    yield balancer
    balancer.stop()


async def asked(balancer: Balancer, request: str, answer: bytes = OK) -> str:
    """The traceparent that an endpoint got with `request`."""
    first, second = (Endpoint(port, always(answer)) for port in balancer.endpoints)
    async with first, second, await Client.connect(balancer.port) as client:
        await client.ask(request)
    (seen,) = first.requests + second.requests
    return seen.get("traceparent") or ""


async def test_without_tracing_the_context_passes_through_untouched(tmp_path: Path) -> None:
    balancer = Balancer(tmp_path / "log")
    request = get("/", f"TraceParent: {SAMPLED}", "X-Between: 1", "tracestate: a=1", "Tracestate: b=2")
    try:
        async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
            await client.ask(request)
            await client.ask(get("/"))
    finally:
        balancer.stop()
    assert endpoint.requests[0].without(ADDED_TO_REQUESTS) == request.encode()
    assert endpoint.requests[1].get("traceparent") is None
    assert "opentelemetry" not in balancer.log().lower()


async def test_a_span_stands_between_the_client_s_and_the_endpoint_s(traced: Balancer, receiver: Receiver) -> None:
    endpoint = Endpoint(traced.endpoints[0])
    other = Endpoint(traced.endpoints[1])
    async with endpoint, other, await Client.connect(traced.port) as client:
        await client.ask(get("/between?secret=1", f"traceparent: {SAMPLED}", "tracestate: a=1", "tracestate: b=2"))
    (seen,) = endpoint.requests + other.requests
    span = await receiver.span("/between")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert seen.get("traceparent") == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert seen.get("tracestate") == span.trace_state == "a=1,b=2"


async def test_a_span_tells_of_the_request_and_of_the_choice(traced: Balancer, receiver: Receiver) -> None:
    await asked(traced, get("/told?secret=1"))
    span = await receiver.span("/told")
    told = values(span.attributes)
    assert f"127.0.0.1:{told.pop('server.port')}" in [f"127.0.0.1:{port}" for port in traced.endpoints]
    assert told.pop("lb.request_id")
    assert told == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.path": "/told",
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "network.protocol.version": "1.1",
        "server.address": "127.0.0.1",
        "lb.strategy": "round-robin",
        "lb.attempts": 1,
    }
    assert (span.name, span.kind, span.status.code) == ("GET", span.SPAN_KIND_SERVER, 0)
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < SOON * 1e9
    assert receiver.resource["service.name"] == "lb"


@pytest.mark.parametrize(("status", "is_error"), [("0", False), ("3", False), ("14", True)])
async def test_a_grpc_call_over_http_2_tells_how_it_ended(
    receiver: Receiver, tmp_path: Path, status: str, is_error: bool
) -> None:
    """Each stream is a span of its own, the child of the client's; UNAVAILABLE is an error, though it says 200."""

    async def answers(asked: Asked) -> None:
        await asked.whole.wait()
        await asked.respond(200, b"x", [("content-type", "application/grpc")], [("grpc-status", status)])

    path = f"/t.T/Status{status}"
    balancer = Balancer(tmp_path / "log", 1, {**receiver.settings, "LB_UPSTREAM_PROTOCOL": "h2c"})
    try:
        async with H2Endpoint(balancer.endpoints[0], answers) as endpoint:
            client = await H2Client.connect(balancer.port)
            extra = [("content-type", "application/grpc"), ("te", "trailers"), ("traceparent", SAMPLED)]
            await client.answer(await client.begin(asking(path, "POST", extra)))
            span = await receiver.span(path)
            await client.close()
    finally:
        balancer.stop()
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert endpoint.requests[0].field("traceparent") == f"00-{TRACE}-{span.span_id.hex()}-01"
    told = values(span.attributes)
    assert (told["network.protocol.version"], told["rpc.system"]) == ("2", "grpc")
    assert told["rpc.grpc.status_code"] == int(status)
    assert (span.status.code == 2, told.get("error.type")) == (is_error, "UNAVAILABLE" if is_error else None)


async def test_a_method_that_nobody_knows_names_no_span(traced: Balancer, receiver: Receiver) -> None:
    await asked(traced, get("/method").replace("GET", "BREW"))
    span = await receiver.span("/method")
    told = values(span.attributes)
    assert (span.name, told["http.request.method"], told["http.request.method_original"]) == ("HTTP", "_OTHER", "BREW")


async def test_each_request_of_a_connection_has_a_trace_of_its_own(traced: Balancer, receiver: Receiver) -> None:
    endpoint, other = (Endpoint(port) for port in traced.endpoints)
    async with endpoint, other, await Client.connect(traced.port) as client:
        await client.ask(get("/first"))
        await client.ask(get("/second"))
    first, second = await receiver.span("/first"), await receiver.span("/second")
    assert not first.parent_span_id
    assert first.trace_id != second.trace_id
    sent = {request.target: request.get("traceparent") for request in endpoint.requests + other.requests}
    for span, path in ((first, "/first"), (second, "/second")):
        assert (sent[path] or "").startswith(f"00-{span.trace_id.hex()}-{span.span_id.hex()}-")


@pytest.mark.parametrize(
    "fields",
    [
        ("traceparent: nonsense",),
        (f"traceparent: ff-{TRACE}-{PARENT}-01",),
        (f"traceparent: {SAMPLED}-more",),
        (f"traceparent: {SAMPLED.upper()}",),
        (f"traceparent: 00-{'0' * 32}-{PARENT}-01",),
        (f"traceparent: 00-{TRACE}-{'0' * 16}-01",),
        (f"traceparent: {SAMPLED}", f"traceparent: {SAMPLED}"),
        (),
    ],
    ids=["nonsense", "version ff", "too long", "upper case", "no trace", "no parent", "twice", "none"],
)
async def test_a_context_that_is_invalid_begins_a_new_trace(
    traced: Balancer, receiver: Receiver, fields: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    path = f"/{request.node.callspec.id.replace(' ', '-')}"
    endpoint, other = (Endpoint(port) for port in traced.endpoints)
    async with endpoint, other, await Client.connect(traced.port) as client:
        await client.ask(get(path, *fields, "tracestate: a=1"))
    (seen,) = endpoint.requests + other.requests
    span = await receiver.span(path)
    assert (span.trace_id.hex() != TRACE, span.parent_span_id) == (True, b"")
    assert (seen.get("traceparent") or "").split("-")[1:3] == [span.trace_id.hex(), span.span_id.hex()]
    assert seen.get("tracestate") is None


async def test_what_the_client_does_not_sample_is_passed_on_and_not_exported(
    traced: Balancer, receiver: Receiver
) -> None:
    version, trace, parent, flags = (await asked(traced, get("/unsampled", f"traceparent: {UNSAMPLED}"))).split("-")
    assert (version, trace, flags) == ("00", TRACE, "00")
    assert parent != PARENT
    await asked(traced, get("/sampled", f"traceparent: {SAMPLED}"))
    await receiver.span("/sampled")
    assert "/unsampled" not in receiver.spans


async def test_a_status_of_500_and_more_is_an_error_and_a_lesser_is_none(traced: Balancer, receiver: Receiver) -> None:
    for status in (404, 500):
        await asked(traced, get(f"/{status}"), f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
    lesser, error = await receiver.span("/404"), await receiver.span("/500")
    assert (lesser.status.code, error.status.code) == (0, trace_pb2.Status.STATUS_CODE_ERROR)
    assert values(error.attributes)["error.type"] == "500"
    assert "error.type" not in values(lesser.attributes)


async def test_where_no_endpoint_answers_the_span_says_why(traced: Balancer, receiver: Receiver) -> None:
    async with await Client.connect(traced.port) as client:
        response = await client.ask(get("/nobody"))
    span = await receiver.span("/nobody")
    told = values(span.attributes)
    assert span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    assert told["http.response.status_code"] == response.status == 502
    assert told["lb.attempts"] == 3
    assert str(told["lb.reason"]).startswith("connection refused")


async def test_all_attempts_of_a_request_are_children_of_one_span(traced: Balancer, receiver: Receiver) -> None:
    async def closes(connection: Accepted) -> None:
        await connection.request()

    failing, working = Endpoint(traced.endpoints[0], closes), Endpoint(traced.endpoints[1])
    async with failing, working, await Client.connect(traced.port) as client:
        for number in range(2):  # at least one of the two begins at the endpoint that fails
            await client.ask(get(f"/attempt-{number}"))
    failed = failing.requests[0]
    contexts = [request.get("traceparent") for request in working.requests if request.target == failed.target]
    assert contexts == [failed.get("traceparent")]
    span = await receiver.span(failed.target)
    assert (contexts[0] or "").split("-")[2] == span.span_id.hex()
    assert values(span.attributes)["lb.attempts"] == 2


async def test_a_response_that_breaks_off_is_an_error(traced: Balancer, receiver: Receiver) -> None:
    async def breaks_off(connection: Accepted) -> None:
        await connection.request()
        await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    first, second = (Endpoint(port, breaks_off) for port in traced.endpoints)
    async with first, second, await Client.connect(traced.port) as client:
        await client.send(get("/half"))
        await client.to_end()
    span = await receiver.span("/half")
    told = values(span.attributes)
    assert (told["http.response.status_code"], span.status.code) == (200, trace_pb2.Status.STATUS_CODE_ERROR)
    assert told["error.type"] == str(told["lb.reason"]).partition(":")[0] != ""


async def test_the_last_spans_are_exported_before_the_end_and_the_sdk_s_variables_count(
    receiver: Receiver, tmp_path: Path
) -> None:
    own = {"OTEL_BSP_SCHEDULE_DELAY": "600000", "OTEL_SERVICE_NAME": "edge"}
    balancer = Balancer(tmp_path / "log", 2, receiver.settings | own)
    try:
        await asked(balancer, get("/last"))
        assert "/last" not in receiver.spans
    finally:
        await asyncio.to_thread(balancer.stop)
    await receiver.span("/last")
    assert receiver.resource["service.name"] == "edge"


async def test_a_receiver_that_does_not_answer_holds_up_neither_requests_nor_the_end(tmp_path: Path) -> None:
    silent = Endpoint(free_port(), None)
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.port}",
        "OTEL_BSP_SCHEDULE_DELAY": "10",
        "OTEL_BSP_MAX_QUEUE_SIZE": "8",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4",
    }
    async with silent:
        balancer = Balancer(tmp_path / "log", 1, settings)
        try:
            async with Endpoint(balancer.endpoints[0]), await Client.connect(balancer.port) as client:
                for _ in range(50):
                    assert (await client.ask(get("/held-up"))).status == 200
                await silent.accept()
            began = time.monotonic()
            await asyncio.to_thread(balancer.stop)
            took = time.monotonic() - began
        finally:
            balancer.kill()
    assert balancer.process.returncode == 0
    assert took < 8.0, "the SDK alone would wait for ten seconds, or thirty"
    assert "the last spans are lost" in balancer.log()


async def test_without_the_extra_a_warning_says_what_to_install_and_requests_are_served(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "opentelemetry.py").write_text("raise ModuleNotFoundError('No module named opentelemetry')")
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "PYTHONPATH": str(absent)}
    balancer = Balancer(tmp_path / "log", 1, settings, forked=False)
    try:
        async with Endpoint(balancer.endpoints[0]) as endpoint, await Client.connect(balancer.port) as client:
            response = await client.ask(get("/", f"traceparent: {SAMPLED}"))
    finally:
        balancer.stop()
    assert response.status == 200
    assert endpoint.requests[0].get("traceparent") == SAMPLED
    (warning,) = [line for line in balancer.log().splitlines() if "OpenTelemetry" in line]
    assert '"level": "warning"' in warning.replace('":"', '": "')
    assert "pip install lb-balancer[otel]" in warning


@pytest.mark.parametrize(
    ("environ", "asked_for"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "edge"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
async def test_spans_are_exported_where_an_endpoint_is_set_and_the_sdk_is_not_off(
    environ: dict[str, str], asked_for: bool
) -> None:
    assert wanted(environ) is asked_for
