"""What gRPC means to a balancer: whether a call went well is said by its trailers, and how long it may take by a field.

Pure. Source: the gRPC protocol over HTTP/2, and its mapping of statuses to those of HTTP.
"""

from __future__ import annotations

import re
from typing import Final

from balancer.counters import GRPC_AS_HTTP, GRPC_CODES
from balancer.proxy.messages import Headers

UNKNOWN_CODE: Final = len(GRPC_CODES)
"""Stands for any number that is none of them, where statuses are counted."""
UNKNOWN: Final = 2

_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def is_grpc(content_type: bytes) -> bool:
    """Whether a request with this Content-Type is a gRPC call; gRPC-Web is not, its trailers being part of its body."""
    return content_type.startswith(b"application/grpc") and not content_type.startswith(b"application/grpc-web")


def timeout_of(value: bytes) -> float:
    """Seconds that a grpc-timeout names; 0 for none that can be read."""
    match = _TIMEOUT.fullmatch(value)
    return 0.0 if match is None else max(int(match[1]) * _UNITS[match[2]], 1e-3)


def status_of(fields: Headers) -> int:
    """The grpc-status in trailers, or in the head of a response that has nothing else; UNKNOWN where there is none."""
    for name, value in fields:
        if name == b"grpc-status":
            return int(value) if value.isdigit() and len(value) < 3 else UNKNOWN
    return UNKNOWN


def as_http(status: int) -> int:
    """The status of HTTP that says the same of an endpoint."""
    return GRPC_AS_HTTP[status] if status < len(GRPC_AS_HTTP) else 500


def name_of(status: int) -> str:
    """The status by name."""
    return GRPC_CODES[status] if status < len(GRPC_CODES) else "UNKNOWN"
