"""WebSocket frames (RFC 6455), as replicas need them: whole messages of text, and what tests or ends a connection.

Pure. Written here since a report is small and there are many: a library's queues and tasks take several times as long.
"""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Final

TEXT: Final = 0x1
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
GOING_AWAY: Final = 1001
"""Close code: the replica stops."""
ABNORMAL: Final = 1006
"""Close code, never sent: the connection ended without one."""
LONGEST_CONTROL: Final = 125
"""Bytes of the longest close, ping or pong (§5.5)."""
_WHOLE: Final = 0x80
_MASKED: Final = 0x80
_MAGIC: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class BadFrame(ValueError):
    """What came is no frame that is read here; its text says why."""


def frame(opcode: int, payload: bytes, masked: bool) -> bytes:
    """One frame; who has connected masks all of its own."""
    length, mask = len(payload), _MASKED if masked else 0
    if length < 126:
        head = bytes((_WHOLE | opcode, mask | length))
    elif length < 1 << 16:
        head = bytes((_WHOLE | opcode, mask | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((_WHOLE | opcode, mask | 127)) + length.to_bytes(8, "big")
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + _mask(payload, key)


def close_frame(code: int, reason: str, masked: bool) -> bytes:
    """The last frame, which says why."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason.encode()[:100], masked)


def close_code(payload: bytes) -> int:
    """Why the other closes."""
    return int.from_bytes(payload[:2], "big") if len(payload) >= 2 else ABNORMAL


class Frames:
    """Cuts what arrives into frames."""

    __slots__ = ("_mask_bit", "_missing", "_most", "_parts")

    def __init__(self, most: int, masked: bool) -> None:
        """`most`: bytes of the longest message that is read; `masked`: they are a client's, which masks all (§5.1)."""
        self._most = most
        self._mask_bit = _MASKED if masked else 0
        self._parts: list[bytes] = []
        self._missing = 0
        """Bytes without which what is there is of no use yet."""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Opcode and payload of each frame that is whole now. Raises BadFrame."""
        if len(data) < self._missing:
            self._parts.append(data)
            self._missing -= len(data)
            return []
        if self._parts:
            self._parts.append(data)
            data = b"".join(self._parts)
            self._parts = []
        self._missing = 0
        frames: list[tuple[int, bytes]] = []
        at, end = 0, len(data)
        while at < end:
            begin, after = self._bounds(data, at)
            if after > end:
                self._parts = [data[at:]]
                self._missing = after - end
                break
            payload = data[begin:after]
            frames.append((data[at] & 0xF, _mask(payload, data[begin - 4 : begin]) if self._mask_bit else payload))
            at = after
        return frames

    def _bounds(self, data: bytes, at: int) -> tuple[int, int]:
        """Where the payload of the frame at `at` begins and ends: beyond `data` where its head is not whole."""
        begin, end = at + 2, len(data)
        if begin > end:
            return begin, begin
        if data[at] & 0xF0 != _WHOLE or data[at] & 0xF not in (TEXT, CLOSE, PING, PONG):
            raise BadFrame("not a whole message of text")
        if data[at + 1] & _MASKED != self._mask_bit:
            raise BadFrame("not masked" if self._mask_bit else "masked by a server")
        length = data[at + 1] & 0x7F
        if length > LONGEST_CONTROL and data[at] & 0xF != TEXT:
            raise BadFrame("a close, ping or pong that is too long")
        size = 2 if length == 126 else 8 if length == 127 else 0
        begin += size
        if begin > end:
            return begin, begin
        if size:
            length = int.from_bytes(data[begin - size : begin], "big")
        if length > self._most:
            raise BadFrame(f"a message of {length} bytes, and {self._most} at the most are read")
        if self._mask_bit:
            begin += 4
        return begin, begin + length


def opening(address: str, path: str, token: str) -> tuple[bytes, str]:
    """The request that opens a connection, and what its answer must say in Sec-WebSocket-Accept."""
    key = base64.b64encode(os.urandom(16))
    accept = base64.b64encode(hashlib.sha1(key + _MAGIC, usedforsecurity=False).digest()).decode()
    head = (
        f"GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key.decode()}\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
    return head.encode(), accept


def opened(head: bytes, accept: str) -> int:
    """Status of the answer's head; 101 only where it is that of a WebSocket, and 0 where it is none at all."""
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
        return 0
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    status = int(words[1])
    return 0 if status == 101 and fields.get("sec-websocket-accept") != accept else status


def _mask(payload: bytes, key: bytes) -> bytes:
    length = len(payload)
    keys = (key * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(keys, "little")).to_bytes(length, "little")
