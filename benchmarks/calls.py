"""gRPC calls without a library: endpoints that answer each alike, and a generator that asks as fast as it is answered.

h2load varies a call's path, and nothing else of its head. Here each call may have a traceparent of its own, as those of
a traced service have. What every call says alike is put into HPACK's table by the first one on a connection, as gRPC's
own clients do; path and traceparent are never put there.

`python -m benchmarks.calls serve PORT…` answers. `python -m benchmarks.calls ask PORT CONNECTIONS STREAMS SECONDS`
asks, and prints as JSON how many calls have ended, in how many seconds, and how many of them had no answer with a
message and trailers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import time
from itertools import count

import uvloop
from benchmarks.ports import trusting

from balancer.proxy.http2.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITISED,
    RST_STREAM,
    SETTINGS,
    WINDOW,
    WINDOW_UPDATE,
)

ROOM = 0x7FFF0000 - WINDOW
"""Bytes of window that a connection is given at first: it needs no more."""
MESSAGE = b"\x00\x00\x00\x00\x0b\x0a\x09something"
"""A message of gRPC, of the size of hello-world's."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def field(name: bytes, value: bytes, first: int = 0x00) -> bytes:
    """A field as a literal with its name (RFC 7541 §6.2), both shorter than 127 bytes; `first` 0x40 keeps it."""
    return bytes((first, len(name))) + name + bytes((len(value),)) + value


def unpadded(payload: bytes, flags: int) -> bytes:
    """The header block of a frame of HEADERS."""
    if flags & PADDED:
        payload = payload[1 : len(payload) - payload[0]]
    return payload[5:] if flags & PRIORITISED else payload


class Connection(asyncio.Protocol):
    """Reads frames and answers those that speak of the connection; subclasses say what the others mean."""

    begins = b""
    """What is sent before the first frame."""

    def __init__(self) -> None:
        self.flags = 0
        """Those of the frame that is being read."""
        self._held = b""
        self._out: list[bytes] = []
        self._unsent: list[bytes] = []
        """Messages for which the peer has opened no window yet, each with the frames before and behind it."""
        self._window = WINDOW

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        opened = frame(WINDOW_UPDATE, 0, 0, ROOM.to_bytes(4, "big"))
        self._transport.write(self.begins + frame(SETTINGS, 0, 0, b"") + opened)

    def data_received(self, data: bytes) -> None:
        data = self._held + data
        at, size = 0, len(data)
        while size - at >= 9:
            end = at + 9 + (data[at] << 16 | data[at + 1] << 8 | data[at + 2])
            if end > size:
                break
            kind = data[at + 3]
            self.flags = flags = data[at + 4]
            stream = int.from_bytes(data[at + 5 : at + 9], "big")
            if kind <= HEADERS:
                self.came(kind, stream, flags & END_STREAM, data[at + 9 : end])
            elif kind == WINDOW_UPDATE:
                if stream == 0:
                    self._window += int.from_bytes(data[at + 9 : end], "big")
                    self._send_on()
            elif kind == RST_STREAM:
                self.was_reset(stream)
            elif kind in (SETTINGS, PING) and not flags & ACK:
                self._out.append(frame(kind, ACK, 0, data[at + 9 : end] if kind == PING else b""))
            at = end
        self._held = data[at:]
        self.flush()

    def send(self, frames: bytes) -> None:
        """Send frames with one MESSAGE among them, when the connection's window has room for it."""
        if self._window < len(MESSAGE):
            self._unsent.append(frames)
            return
        self._window -= len(MESSAGE)
        self._out.append(frames)

    def _send_on(self) -> None:
        waiting, self._unsent = self._unsent, []
        for frames in waiting:
            self.send(frames)

    def flush(self) -> None:
        """Write what has been collected."""
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def came(self, kind: int, stream: int, ended: int, payload: bytes) -> None:
        """A frame of DATA or HEADERS."""
        raise NotImplementedError

    def was_reset(self, stream: int) -> None:
        """The peer gave a stream up."""


class Called(Connection):
    """An endpoint's side: frames begin behind the client's preface."""

    def __init__(self) -> None:
        super().__init__()
        self._left = len(PREFACE)

    def data_received(self, data: bytes) -> None:
        if self._left:
            skipped = min(self._left, len(data))
            self._left -= skipped
            data = data[skipped:]
        super().data_received(data)


class Answering(Called):
    """Answers each call by a message, and trailers that say that it went well."""

    def __init__(self) -> None:
        super().__init__()
        head = b"\x88" + b"\x0f\x10\x10application/grpc"
        trailers = field(b"grpc-status", b"0")
        self._pieces = (
            frame(HEADERS, END_HEADERS, 0, head)[:5],
            head + frame(DATA, 0, 0, MESSAGE)[:5],
            MESSAGE + frame(HEADERS, END_HEADERS | END_STREAM, 0, trailers)[:5],
            trailers,
        )

    def came(self, kind: int, stream: int, ended: int, payload: bytes) -> None:
        if ended:
            self.send(stream.to_bytes(4, "big").join(self._pieces))


class Load:
    """What all connections of the generator share."""

    def __init__(self, paths: int, traced: bool, streams: int) -> None:
        self.streams = streams
        self.paths = [b"/shop.v1.Items/Get%04d" % number for number in range(paths)]
        self.traced = traced
        self.number = count()
        self.trace = secrets.token_hex(8).encode()
        self.asking = True
        self.ended = 0
        self.failed = 0

    def block(self, known: bytes) -> bytes:
        """The header block of the next call; `known`: the authority, and the fields that all say alike."""
        number = next(self.number)
        path = self.paths[number % len(self.paths)]
        block = b"\x83\x86\x04%c%b%b" % (len(path), path, known)
        if self.traced:
            block += b"\x00\x0btraceparent\x3700-%b%016x-%016x-01" % (self.trace, number, number)
        return block


class Asking(Connection):
    """A client's side: so many calls at once, each followed by another."""

    begins = PREFACE

    def __init__(self, load: Load) -> None:
        super().__init__()
        self._load = load
        self._next = 1
        self._with_message: set[int] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        first = b"\x41\x09127.0.0.1" + b"\x5f\x10application/grpc" + field(b"te", b"trailers", 0x40)
        self._ask(first + b"\x7a\x12grpc-bench/1.0 lb1")
        for _ in range(self._load.streams - 1):
            self._ask()
        self.flush()

    def _ask(self, known: bytes = b"\xc1\xc0\xbf\xbe") -> None:
        stream, self._next = self._next, self._next + 2
        block = self._load.block(known)
        self.send(frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, MESSAGE))

    def came(self, kind: int, stream: int, ended: int, payload: bytes) -> None:
        if kind == DATA and not ended:
            self._with_message.add(stream)
        elif ended:
            self._end(stream, kind == HEADERS and stream in self._with_message)

    def was_reset(self, stream: int) -> None:
        self._end(stream, False)

    def _end(self, stream: int, well: bool) -> None:
        load = self._load
        self._with_message.discard(stream)
        load.ended += 1
        load.failed += not well
        if load.asking:
            self._ask()


async def _serve(ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    for port in ports:
        await loop.create_server(Answering, "127.0.0.1", port, backlog=4096)
    await asyncio.Event().wait()


async def _ask(asked: argparse.Namespace) -> None:
    load = Load(asked.paths, asked.traced, asked.streams)
    loop = asyncio.get_running_loop()
    context = trusting() if asked.tls else None
    if context is not None:
        context.set_alpn_protocols(["h2"])
    began = time.perf_counter()
    for _ in range(asked.connections):
        await loop.create_connection(lambda: Asking(load), "127.0.0.1", asked.port, ssl=context)
    await asyncio.sleep(asked.seconds)
    load.asking = False
    print(json.dumps([load.ended, time.perf_counter() - began, load.failed]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    serve = kinds.add_parser("serve")
    serve.add_argument("ports", type=int, nargs="+")
    ask = kinds.add_parser("ask")
    for name in ("port", "connections", "streams"):
        ask.add_argument(name, type=int)
    ask.add_argument("seconds", type=float)
    ask.add_argument("--paths", type=int, default=1)
    ask.add_argument("--traced", action="store_true", help="a traceparent of its own in each call")
    ask.add_argument("--tls", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = _arguments()
    uvloop.run(_serve(arguments.ports) if arguments.kind == "serve" else _ask(arguments))
