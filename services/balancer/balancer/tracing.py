"""Spans by the OpenTelemetry SDK, where it is installed and OTEL_EXPORTER_OTLP_ENDPOINT says where to send them.

Elsewhere there is no tracer, nothing of OpenTelemetry is imported, and `traceparent` and `tracestate` pass through as
any other field. The variables OTEL_… are the SDK's own and are read by it; none of them is a setting of ours.

Spans are exported by a thread of the SDK's (its BatchSpanProcessor) from a bounded queue: while the receiver is slow or
away, spans are dropped and requests are not held up.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from balancer import __version__
from balancer.counters import GRPC_CODES
from balancer.log import AccessEntry

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""One of these has to be set for spans to be exported."""

REMEDY: Final = "pip install lb-balancer[otel]"
CLOSE_LIMIT: Final = 2.0
"""Seconds for the last spans to reach the receiver, when the balancer stops."""

GRPC_ERRORS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Statuses of a gRPC call that are errors of the server's side (semantic conventions for gRPC)."""
METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
"""Those of RFC 9110 and PATCH. Others are `_OTHER` (semantic conventions), so that no client makes up span names."""

log = structlog.get_logger()


class Request(Protocol):
    """What is known of a request when its span begins."""

    @property
    def method(self) -> str: ...

    @property
    def path(self) -> str:
        """Without the query, which may carry secrets."""

    @property
    def client(self) -> str:
        """The client's IP address."""


def create() -> Tracer | None:
    """The tracer that the environment asks for; None where it asks for none, or what it asks for cannot be had.

    What stands in the way is logged as a warning: a balancer without traces is better than none.
    """
    if not wanted(os.environ):
        return None
    try:
        provider = _provider()
    except ImportError as error:
        log.warning("no spans are exported: the OpenTelemetry SDK is not installed", error=str(error), remedy=REMEDY)
    except ValueError as error:
        remedy = "correct the variable OTEL_… that it names"
        log.warning(
            "no spans are exported: the OpenTelemetry SDK refuses its settings", error=str(error), remedy=remedy
        )
    else:
        return Tracer(provider)
    return None


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether spans are to be exported: there is an endpoint, and the SDK's own switches are not off."""
    return (
        any(environ.get(name) for name in ENDPOINTS)
        and environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"
        and environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() != "none"
    )


class Tracer:
    """Begins a span for each request, as the child of the client's span if the client names one."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("balancer", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._server = SpanKind.SERVER
        self._root = Context()

    def begin(self, request: Request, scheme: bytes, version: int, context: Sequence[tuple[bytes, bytes]]) -> Span:
        """A span for a request of HTTP `version` (10, 11, 20); `context` has the client's traceparent and tracestate.

        A traceparent that is invalid, or there more than once, begins a new trace, and tracestate with it is dropped
        (W3C Trace Context §3.2.2, §3.3.1). Whether the span is recorded is for OTEL_TRACES_SAMPLER to say: by default
        it is unless the client's says that it is not sampled.
        """
        method = request.method if request.method in METHODS else "_OTHER"
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "url.path": request.path,
            "url.scheme": scheme.decode("latin-1"),
            "client.address": request.client,
            "network.protocol.version": "2" if version == 20 else f"1.{version % 10}",
        }
        if method != request.method:
            attributes["http.request.method_original"] = request.method
        name = "HTTP" if method == "_OTHER" else method
        parent = self._parent(context) if context else self._root
        return Span(self._tracer.start_span(name, parent, self._server, attributes))

    def close(self, limit: float = CLOSE_LIMIT) -> None:
        """Export what is left, for at most `limit` seconds. The SDK itself would wait for up to half a minute."""
        thread = threading.Thread(target=self._provider.shutdown, name="tracer's end", daemon=True)
        thread.start()
        thread.join(limit)
        if thread.is_alive():
            log.warning("the last spans are lost: their receiver did not take them in time", limit=limit)

    def _parent(self, fields: Sequence[tuple[bytes, bytes]]) -> Context:
        carrier: dict[str, list[str]] = {}
        for name, value in fields:
            carrier.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        if len(carrier.get("traceparent", ())) != 1:
            return self._root
        return self._propagator.extract(carrier, self._root)


class Span:
    """One request's span."""

    __slots__ = ("_span", "fields", "recorded")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self.recorded: bool = span.is_recording()
        """Whether anybody will see it: else nothing is recorded."""
        context = span.get_span_context()
        parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        self.fields: list[tuple[bytes, bytes]] = [(b"traceparent", parent.encode())]
        """Fields for the endpoint, which make its spans the children of this one."""
        if context.trace_state:
            self.fields.append((b"tracestate", context.trace_state.to_header().encode("latin-1")))

    def end(self, entry: AccessEntry, cut: bool) -> None:
        """The request has ended as `entry` says; `cut`: its response breaks off, by no fault of the client's.

        A status below 500 is no error of ours (semantic conventions for HTTP servers).
        """
        span = self._span
        attributes: dict[str, str | int] = {
            "lb.strategy": entry.strategy,
            "lb.attempts": entry.attempts,
            "lb.request_id": entry.request_id,
        }
        if entry.status:
            attributes["http.response.status_code"] = entry.status
        if entry.reason:
            attributes["lb.reason"] = entry.reason
        if entry.grpc_status:
            attributes["rpc.system"] = "grpc"
            if entry.grpc_status in GRPC_CODES:
                attributes["rpc.grpc.status_code"] = GRPC_CODES.index(entry.grpc_status)
        if entry.endpoint:
            host, _, port = entry.endpoint.rpartition(":")
            attributes["server.address"] = host.strip("[]")
            attributes["server.port"] = int(port)
        if cut or entry.status >= 500:
            from opentelemetry.trace import StatusCode

            # Of few values: without what exactly was wrong, which stands behind the reason's colon.
            attributes["error.type"] = entry.reason.partition(":")[0] if cut else str(entry.status)
            span.set_status(StatusCode.ERROR, entry.reason or None)
        elif entry.grpc_status in GRPC_ERRORS:
            from opentelemetry.trace import StatusCode

            attributes["error.type"] = entry.grpc_status
            span.set_status(StatusCode.ERROR, entry.reason or None)
        span.set_attributes(attributes)
        span.end()


def _provider() -> TracerProvider:
    """What exports spans by OTLP over HTTP. Raises ImportError and ValueError."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # What OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say comes before our defaults.
    own = Resource({"service.name": "lb", "service.version": __version__})
    found = Resource.create()
    named = not str(found.attributes.get("service.name", "")).startswith("unknown_service")
    resource = own.merge(found) if named else found.merge(own)
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
