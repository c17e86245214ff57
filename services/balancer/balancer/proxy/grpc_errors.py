"""The errors that we make ourselves, as a gRPC client gets them: 200, and a status with a message.

A client library turns any other status of HTTP into words of its own, and drops ours.
"""

from __future__ import annotations

import re
from typing import Final

from balancer.proxy.messages import Headers, ResponseHead
from balancer.proxy.responses import TOTAL_TIMEOUT, Error

DEADLINE_EXCEEDED: Final = 4
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14

_OF_HTTP: Final = {404: UNIMPLEMENTED, 408: DEADLINE_EXCEEDED, 413: RESOURCE_EXHAUSTED, 431: RESOURCE_EXHAUSTED}
_PLAIN: Final = re.compile(r"[ -$&-~]*")


def status_for(error: Error) -> int:
    """How an error of our own is sent."""
    if error is TOTAL_TIMEOUT:
        return DEADLINE_EXCEEDED
    code = _OF_HTTP.get(error.status)
    if code is not None:
        return code
    return INTERNAL if error.status < 500 else UNAVAILABLE


def trailers(error: Error) -> Headers:
    """How an error of our own ends a call."""
    message = f"{error.detail} ({error.reason})"
    if _PLAIN.fullmatch(message) is None:
        message = "".join(each if _PLAIN.fullmatch(each) else _encoded(each) for each in message)
    return [(b"grpc-status", b"%d" % status_for(error)), (b"grpc-message", message.encode("latin-1"))]


def _encoded(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())


def render(error: Error) -> ResponseHead:
    """A response that is nothing but an error of our own."""
    head = ResponseHead(200)
    head.fields = [
        (b"content-type", b"application/grpc"),
        *trailers(error),
        (b"proxy-status", f'lb; error={error.token}; details="{error.reason}"'.encode("latin-1")),
    ]
    return head
