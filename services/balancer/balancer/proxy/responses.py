"""The responses that we make ourselves: one table from what went wrong to what the client receives.

Each error has a status, a token for the Proxy-Status field (RFC 9209 §2.3), and words. The reason is the same in the
header, in the log line and in the metric label. docs/errors.md gives cause and remedy of each.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final

from balancer.balancing.errors import AllAtLimit, AllEjected, AllTried, NoEndpoint, QueueFull
from balancer.balancing.outcome import Kind
from balancer.proxy.messages import ResponseHead


class Error:
    """One kind of error: `status`, `token` for Proxy-Status, `reason` for header, log and metric, `detail` in words."""

    __slots__ = ("detail", "reason", "retry_after", "status", "token")

    def __init__(self, status: int, token: str, reason: str, detail: str, retry_after: int = 0) -> None:
        self.status = status
        self.token = token
        self.reason = reason
        self.detail = detail
        self.retry_after = retry_after
        """Seconds after which the client may try again; 0 says nothing."""


class Refused(Exception):
    """A request that is well-formed and not taken; `error` is the answer to the client."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.reason)
        self.error = error


def bad_request(status: int, fault: str) -> Error:
    """The client's message was refused; `fault` says why."""
    return Error(status, "http_request_error", fault, f"The request was refused: {fault}.")


REQUEST_TIMEOUT: Final = Error(408, "http_request_error", "request timed out", "The request did not arrive in time.")
URI_TOO_LONG: Final = bad_request(414, "request target too long")
HEADER_TOO_LARGE: Final = bad_request(431, "header fields too large")
TOO_MANY_FIELDS: Final = bad_request(431, "too many header fields")
BODY_TOO_LARGE: Final = bad_request(413, "body too large")
ALLOWED: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
REFUSED_METHODS: Final = frozenset({b"CONNECT", b"TRACE"})
"""CONNECT would make us an open proxy; TRACE shows a client what others added to its request."""
METHOD_REFUSED: Final = bad_request(405, "method refused")
NOT_TLS: Final = Error(
    400,
    "tls_protocol_error",
    "plain HTTP on the TLS port",
    "This port speaks TLS: ask for https:// instead of http://.",
)
NO_ROUTE: Final = bad_request(404, "no route")
NOT_ALLOWED: Final = bad_request(403, "address not allowed")
NO_BACKEND: Final = Error(
    500, "proxy_configuration_error", "no backend", "The route leads to no backend that may be used."
)

DISCOVERY_PENDING: Final = Error(
    503, "destination_unavailable", "discovery is stale", "Discovery has not found the endpoints yet.", 1
)
QUEUE_TIMEOUT: Final = Error(
    503, "connection_limit_reached", "queue timed out", "No endpoint got below its limit in time.", 1
)
TOTAL_TIMEOUT: Final = Error(
    504, "http_response_timeout", "total time exceeded", "The request took longer than LB_TOTAL_TIMEOUT."
)
NOT_SWITCHED: Final = Error(
    502,
    "http_protocol_error",
    "no switch of protocols",
    "The endpoint answered the request for a WebSocket as if it were an ordinary one.",
)
TOO_MANY_CONNECTIONS: Final = Error(
    503, "connection_limit_reached", "too many connections from this client", "Close other connections first.", 1
)

# First match wins: subclasses stand before their bases.
_NO_ENDPOINT: Final[list[tuple[type[NoEndpoint], str]]] = [
    (QueueFull, "connection_limit_reached"),
    (AllAtLimit, "connection_limit_reached"),
    (AllTried, "destination_unavailable"),
    (AllEjected, "destination_unavailable"),
    (NoEndpoint, "destination_unavailable"),
]

_NOT_TAKEN: Final = Error(
    503, "destination_unavailable", Kind.NOT_TAKEN.value, "The endpoint took the request on no stream.", 1
)

_FAILED_ATTEMPT: Final = {
    Kind.NOT_TAKEN: _NOT_TAKEN,
    Kind.UNUSED: _NOT_TAKEN,
    Kind.REFUSED: Error(502, "connection_refused", Kind.REFUSED.value, "No endpoint accepted a connection."),
    Kind.CONNECT_TIMEOUT: Error(504, "connection_timeout", Kind.CONNECT_TIMEOUT.value, "Connecting took too long."),
    Kind.CERTIFICATE: Error(
        502,
        "tls_certificate_error",
        Kind.CERTIFICATE.value,
        "The endpoint's TLS certificate does not verify, or it does not accept ours.",
    ),
    Kind.HANDSHAKE: Error(
        502, "tls_protocol_error", Kind.HANDSHAKE.value, "The endpoint speaks no TLS, or none that we share with it."
    ),
    Kind.LOCAL: Error(
        503, "proxy_internal_error", Kind.LOCAL.value, "The balancer has no descriptor or port left to connect with.", 1
    ),
    Kind.RESET: Error(
        502, "connection_terminated", Kind.RESET.value, "The endpoint closed the connection before its response."
    ),
    Kind.TIMED_OUT: Error(
        504, "http_response_timeout", Kind.TIMED_OUT.value, "The endpoint did not respond within LB_RESPONSE_TIMEOUT."
    ),
    Kind.BAD_RESPONSE: Error(
        502, "http_protocol_error", Kind.BAD_RESPONSE.value, "The endpoint's response is not one that may be passed on."
    ),
}


def no_endpoint(error: NoEndpoint) -> Error:
    """The answer where there was no endpoint, with the reason: always 503."""
    token = next(token for kind, token in _NO_ENDPOINT if isinstance(error, kind))
    return Error(503, token, error.reason, error.remedy, retry_after=1)


def failed_attempt(kind: Kind) -> Error:
    """The answer to the client after the last attempt's failure."""
    return _FAILED_ATTEMPT[kind]


def render(error: Error, request_id: bytes, as_json: bool) -> tuple[ResponseHead, bytes]:
    """The response: problem+json (RFC 9457) where the client accepts JSON, else a line of text."""
    phrase = HTTPStatus(error.status).phrase
    if as_json:
        kind = b"application/problem+json"
        body = json.dumps(
            {
                "type": "about:blank",
                "title": phrase,
                "status": error.status,
                "detail": error.detail,
                "reason": error.reason,
                "requestId": request_id.decode("latin-1"),
            }
        )
    else:
        kind = b"text/plain; charset=utf-8"
        body = f"{error.status} {phrase}: {error.detail} ({error.reason})"
    payload = f"{body}\n".encode()
    head = ResponseHead(error.status)
    head.length = len(payload)
    head.fields = [
        (b"Content-Type", kind),
        (b"Content-Length", b"%d" % len(payload)),
        (b"Proxy-Status", f'lb; error={error.token}; details="{error.reason}"'.encode("latin-1")),
        (b"Cache-Control", b"no-store"),
    ]
    if error.retry_after:
        head.fields.append((b"Retry-After", b"%d" % error.retry_after))
    if error is METHOD_REFUSED:
        head.fields.append((b"Allow", ALLOWED))
    return head, payload
