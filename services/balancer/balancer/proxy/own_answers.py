"""The answers that we give without an endpoint: errors, redirects, and what Max-Forwards asks of us. Pure rules."""

from __future__ import annotations

from balancer.proxy import grpc_errors, responses
from balancer.proxy.fields import prefers_json
from balancer.proxy.messages import NO_FIELDS, Headers, RequestHead, ResponseHead


class OwnAnswer:
    """A whole response of our own."""

    __slots__ = ("body", "fields", "grpc_status", "head")

    def __init__(self, head: ResponseHead, fields: Headers, body: bytes = b"", grpc_status: int = -1) -> None:
        self.head = head
        self.fields = fields
        """Fields beside the head's own."""
        self.body = body
        self.grpc_status = grpc_status
        """What it says to a gRPC client; below 0 for others."""


def error(error: responses.Error, request: RequestHead, request_id: bytes, date: bytes) -> OwnAnswer:
    """An error, in the form that the client of `request` understands: gRPC's, JSON, or a line of text."""
    if request.fields.grpc:
        return OwnAnswer(grpc_errors.render(error), NO_FIELDS, b"", grpc_errors.status_for(error))
    head, body = responses.render(error, request_id, prefers_json(request.fields.received))
    return OwnAnswer(head, [(b"Date", date)], b"" if request.is_head else body)


def redirect(head: ResponseHead, date: bytes) -> OwnAnswer:
    """A redirect that a route asks for."""
    return OwnAnswer(head, [(b"Date", date)])


def options(date: bytes) -> OwnAnswer:
    """What an OPTIONS request gets whose Max-Forwards has come to 0 here (RFC 9110 §7.6.2)."""
    head = ResponseHead(200)
    head.length = 0
    head.fields = [(b"Allow", responses.ALLOWED), (b"Content-Length", b"0")]
    return OwnAnswer(head, [(b"Date", date)])
