"""The frames of HTTP/2 (RFC 9113 §4 and §6): kinds, flags, codes, and how the small ones are written.

Frames are read where connections read them (connection.py): their head is nine bytes, and a call for each would cost
more than to read it.
"""

from __future__ import annotations

from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client's connection begins with."""

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITISED: Final = 0x20

NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
INTERNAL_ERROR: Final = 2
FLOW_CONTROL_ERROR: Final = 3
SETTINGS_TIMEOUT: Final = 4
STREAM_CLOSED: Final = 5
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
COMPRESSION_ERROR: Final = 9
CONNECT_ERROR: Final = 10
ENHANCE_YOUR_CALM: Final = 11
INADEQUATE_SECURITY: Final = 12
HTTP_1_1_REQUIRED: Final = 13

CODES: Final = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)
"""The names of the error codes, for logs and metrics."""

HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6
ENABLE_CONNECT_PROTOCOL: Final = 8

WINDOW: Final = 65535
"""Bytes of a window before anything is said of it."""
MAX_WINDOW: Final = (1 << 31) - 1
FRAME_SIZE: Final = 16384
"""Bytes of the longest payload, unless the receiver allows more."""
MAX_STREAM_ID: Final = (1 << 31) - 1


class ConnectionFault(Exception):
    """The peer broke the protocol: the connection ends with GOAWAY and `code`. `fault` is for log and metric."""

    def __init__(self, code: int, fault: str) -> None:
        super().__init__(fault)
        self.code = code
        self.fault = fault


def head(kind: int, flags: int, length: int) -> bytes:
    """The first five bytes of a frame; its stream's four follow, then `length` bytes of payload."""
    if length < REPEATED and flags < 8:
        heads = _HEADS[kind << 3 | flags & 7]
        if not heads:
            heads += [b""] * REPEATED
        known = heads[length]
        if not known:
            known = heads[length] = _head(kind, flags, length)
        return known
    return _head(kind, flags, length)


def _head(kind: int, flags: int, length: int) -> bytes:
    return bytes((length >> 16, length >> 8 & 0xFF, length & 0xFF, kind, flags))


REPEATED: Final = 2048
"""Lengths of payloads whose heads are kept."""
_HEADS: Final[list[list[bytes]]] = [[] for _ in range(10 << 3)]
"""By kind and the flags that we send, then by length."""


def four(number: int) -> bytes:
    """A number of four bytes, as a stream's identifier is one."""
    return number.to_bytes(4, "big")


def rst_stream(stream: bytes, code: int) -> bytes:
    """End one stream; `stream` is its identifier's four bytes."""
    return b"\x00\x00\x04\x03\x00" + stream + four(code)


def settings(values: list[tuple[int, int]]) -> bytes:
    """SETTINGS, by identifier and value."""
    payload = b"".join([key.to_bytes(2, "big") + four(value) for key, value in values])
    return head(SETTINGS, 0, len(payload)) + b"\x00\x00\x00\x00" + payload


SETTINGS_ACK: Final = b"\x00\x00\x00\x04\x01\x00\x00\x00\x00"


def ping(payload: bytes, answer: bool) -> bytes:
    """Eight bytes to be sent back, or that are."""
    return b"\x00\x00\x08\x06" + (b"\x01" if answer else b"\x00") + b"\x00\x00\x00\x00" + payload


def goaway(last: int, code: int, debug: bytes = b"") -> bytes:
    """Say that no stream above `last` is or will be served."""
    return head(GOAWAY, 0, 8 + len(debug)) + b"\x00\x00\x00\x00" + four(last) + four(code) + debug


def window_update(stream: bytes, size: int) -> bytes:
    """Let the peer send `size` bytes more."""
    return b"\x00\x00\x04\x08\x00" + stream + four(size)


def settings_of(payload: bytes) -> list[tuple[int, int]]:
    """Read a SETTINGS frame's payload, each value checked (RFC 9113 §6.5.2). Raises ConnectionFault."""
    values = []
    for at in range(0, len(payload), 6):
        key = int.from_bytes(payload[at : at + 2], "big")
        value = int.from_bytes(payload[at + 2 : at + 6], "big")
        if key in (ENABLE_PUSH, ENABLE_CONNECT_PROTOCOL) and value > 1:
            raise ConnectionFault(PROTOCOL_ERROR, "malformed SETTINGS")
        if key == INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "malformed SETTINGS")
        if key == MAX_FRAME_SIZE and not FRAME_SIZE <= value < 1 << 24:
            raise ConnectionFault(PROTOCOL_ERROR, "malformed SETTINGS")
        values.append((key, value))
    return values
