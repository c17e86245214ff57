"""WebSocket echo: an endpoint that echoes, and a client that keeps one small frame under way on each connection.

What goes over the wire is what a browser and a server would send; neither end looks into the frames, which all have
one size. `python -m benchmarks.websocket serve PORT`, `… ask PORT CONNECTIONS SECONDS` (prints the frames echoed).
"""

from __future__ import annotations

import asyncio
import sys
import time

import uvloop

PAYLOAD = b"m" * 64
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
MASKED = b"\x82" + bytes([0x80 | len(PAYLOAD)]) + b"\0\0\0\0" + PAYLOAD
"""A client's binary frame; the mask of zeros leaves the payload as it is."""
BARE = b"\x82" + bytes([len(PAYLOAD)]) + PAYLOAD


class Echo(asyncio.Protocol):
    """Answers the upgrade, then each whole frame by its payload; before an upgrade, whatever is asked by 200."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._upgraded = False
        self._partial = 0

    def data_received(self, data: bytes) -> None:
        if self._upgraded:
            frames, self._partial = divmod(self._partial + len(data), len(MASKED))
            self._transport.write(BARE * frames)
        elif b"pgrade: websocket" in data:
            self._upgraded = True
            self._transport.write(ACCEPTED)
        else:
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


class Asker(asyncio.Protocol):
    """Sends a frame, waits for its echo, sends the next."""

    upgraded = 0
    echoed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._head = b""
        self._upgraded = False
        self._got = 0
        self._transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        if not self._upgraded:
            self._head += data
            self._upgraded = b"\r\n\r\n" in self._head
            if self._upgraded and b" 101 " in self._head:
                Asker.upgraded += 1
                self._transport.write(MASKED)
            return
        self._got += len(data)
        if self._got >= len(BARE):
            self._got -= len(BARE)
            Asker.echoed += 1
            self._transport.write(MASKED)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


async def _ask(port: int, connections: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(Asker, "127.0.0.1", port)
    began = time.perf_counter()
    Asker.echoed = 0
    await asyncio.sleep(seconds)
    if Asker.upgraded < connections:
        sys.exit(f"only {Asker.upgraded} of {connections} connections were upgraded")
    print(Asker.echoed, time.perf_counter() - began)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        uvloop.run(_serve(int(sys.argv[2])))
    else:
        uvloop.run(_ask(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
