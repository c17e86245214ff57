"""One request over a fresh HTTP/2 connection, as a health check makes it; and gRPC's own health check on top.

Pure: bytes in, bytes out. What clients' requests travel on (proxy/http2) has flow control, pools and timers, of which
one small request needs nothing; frames and HPACK are the same.
Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

from balancer.counters import GRPC_CODES
from balancer.proxy.http2 import frames
from balancer.proxy.http2.hpack import BadBlock, Decoder, Encoder

Pair = tuple[bytes, bytes]

MAX_ANSWER: Final = 64 << 10
"""Bytes of a header block, a list of fields or a body; what an endpoint may send before any window is opened."""
STREAM: Final = 1
HEALTH_CHECK: Final = b"/grpc.health.v1.Health/Check"
STATUSES: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
"""What a server says of a service (grpc.health.v1.HealthCheckResponse.ServingStatus)."""
SERVING: Final = 1
NOT_FOUND: Final = 5
UNIMPLEMENTED: Final = 12


class CallFailed(Exception):
    """The endpoint did not answer; the text says why, in few words."""


class Call:
    """A request on a new connection: send `first`, then what `take` returns, until `done`."""

    def __init__(self, pairs: list[Pair], body: bytes = b"") -> None:
        """`pairs`: the request's fields, the pseudo-fields first."""
        wire = frames.four(STREAM)
        block = Encoder().encode(pairs)
        ended = 0 if body else frames.END_STREAM
        self.first = frames.PREFACE + frames.settings(
            [(frames.ENABLE_PUSH, 0), (frames.MAX_HEADER_LIST_SIZE, MAX_ANSWER)]
        )
        self.first += frames.head(frames.HEADERS, frames.END_HEADERS | ended, len(block)) + wire + block
        if body:
            self.first += frames.head(frames.DATA, frames.END_STREAM, len(body)) + wire + body
        self.done = False
        self.status = 0
        self.fields: dict[bytes, bytes] = {}
        """The response's fields, those of its trailers among them."""
        self.body = b""
        self._decoder = Decoder(MAX_ANSWER)
        self._held = b""
        self._block: bytes | None = None
        """The header block that has begun and not ended."""
        self._ends = False
        """Whether the stream ends with that block."""

    def take(self, data: bytes) -> bytes:
        """Read what came; what to send for it. Raises CallFailed."""
        held = self._held + data
        if not held.startswith(b"HTTP/"[: len(held)]):
            out = b""
            while len(held) >= 9 and not self.done:
                size = int.from_bytes(held[:3], "big")
                if size > frames.FRAME_SIZE:
                    raise CallFailed("its answer is not HTTP/2")
                if len(held) < 9 + size:
                    break
                out += self._frame(held[3], held[4], int.from_bytes(held[5:9], "big"), held[9 : 9 + size])
                held = held[9 + size :]
            self._held = held
            return out
        if len(held) >= 5:
            raise CallFailed("it answers in HTTP/1, not HTTP/2")
        self._held = held
        return b""

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        if self._block is not None and kind != frames.CONTINUATION:
            raise CallFailed("its answer is not HTTP/2")
        if kind == frames.SETTINGS:
            return b"" if flags & frames.ACK else frames.SETTINGS_ACK
        if kind == frames.PING:
            return b"" if flags & frames.ACK else frames.ping(payload, True)
        if kind == frames.GOAWAY:
            if int.from_bytes(payload[:4], "big") & frames.MAX_STREAM_ID < STREAM:
                raise CallFailed(f"GOAWAY {_code(payload[4:8])}")
        elif stream == STREAM and kind == frames.RST_STREAM:
            if payload != frames.four(frames.NO_ERROR) or not self.status:
                raise CallFailed(f"RST_STREAM {_code(payload)}")
            self.done = True
        elif stream == STREAM and kind in (frames.HEADERS, frames.CONTINUATION):
            self._headers(kind, flags, payload)
        elif stream == STREAM and kind == frames.DATA:
            self.body += _unpadded(flags, payload)
            if len(self.body) > MAX_ANSWER:
                raise CallFailed(f"an answer of more than {MAX_ANSWER} bytes")
            self.done = flags & frames.END_STREAM != 0
        return b""

    def _headers(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == frames.HEADERS:
            payload = _unpadded(flags, payload)
            self._block = payload[5:] if flags & frames.PRIORITISED else payload
            self._ends = flags & frames.END_STREAM != 0
        else:
            self._block = (self._block or b"") + payload
        if len(self._block) > MAX_ANSWER:
            raise CallFailed(f"a response head of more than {MAX_ANSWER} bytes")
        if not flags & frames.END_HEADERS:
            return
        block, self._block = self._block, None
        try:
            fields = dict(field.pair for field in self._decoder.decode(block).fields)
        except BadBlock:
            raise CallFailed("its answer is not HTTP/2") from None
        status = fields.get(b":status", b"")
        if status:
            if not status.isdigit():
                raise CallFailed("its answer is not HTTP/2")
            if status[:1] == b"1":
                return
            self.status = int(status)
        self.fields.update(fields)
        self.done = self._ends


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & frames.PADDED or not payload:
        return payload
    return payload[1 : max(1, len(payload) - payload[0])]


def _code(four: bytes) -> str:
    code = int.from_bytes(four, "big")
    return frames.CODES[code] if code < len(frames.CODES) else str(code)


def request(method: bytes, scheme: bytes, authority: str, path: bytes) -> list[Pair]:
    """The fields of a check's request."""
    return [
        (b":method", method),
        (b":scheme", scheme),
        (b":path", path),
        (b":authority", authority.encode()),
        (b"user-agent", b"lb-probe"),
    ]


def health_check(service: str, scheme: bytes, authority: str, timeout: float) -> Call:
    """A call of grpc.health.v1.Health/Check for `service`, "" for the whole server; `timeout` in seconds."""
    pairs = request(b"POST", scheme, authority, HEALTH_CHECK)
    pairs += [
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"grpc-timeout", b"%dm" % max(1, min(round(timeout * 1000), 99_999_999))),
    ]
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return Call(pairs, b"\x00" + frames.four(len(message)) + message)


def verdict(call: Call, service: str) -> str | None:
    """Why the service is not healthy by the answer to `health_check`; None: it is SERVING."""
    if call.status != 200:
        return f"status {call.status}"
    code = call.fields.get(b"grpc-status", b"")
    if not code.isdigit() or len(code) > 2:
        return "its answer is not gRPC"
    number = int(code)
    if number == UNIMPLEMENTED:
        return "UNIMPLEMENTED: the server offers no grpc.health.v1.Health"
    if number == NOT_FOUND and service:
        return f"NOT_FOUND: the server knows no service {service!r}"
    if number:
        name = GRPC_CODES[number] if number < len(GRPC_CODES) else code.decode()
        message = unquote(call.fields.get(b"grpc-message", b"").decode("latin-1"))[:100]
        return f"{name}: {message!r}" if message else name
    status = _status(call.body)
    if status is None:
        return "its answer is not gRPC"
    if status == SERVING:
        return None
    return STATUSES[status] if status < len(STATUSES) else f"status {status} of its service"


def _status(body: bytes) -> int | None:
    """The status in a message HealthCheckResponse with its gRPC prefix; None when that is not what it is."""
    if len(body) < 5 or body[0] or len(body) != 5 + int.from_bytes(body[1:5], "big"):
        return None
    message = body[5:]
    status = 0
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _read_varint(message, at)
            if key >> 3 == 1:
                status = value
        elif kind == 2:  # of a later version
            value, at = _read_varint(message, at)
            at += value
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            return None
    return status if at == len(message) else None


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
    return value, len(message) + 1  # It ends before its end: no message.


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
