"""HTTP/1.1 messages as they are on the wire: every byte kept, nothing tolerated that a test did not ask for.

A small reader of our own, on purpose: what the tests expect must not depend on the parser that the product uses.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

PATIENCE = 10.0
"""How long (s) a test waits for bytes that should come at once: only a failing test ever waits that long."""

ADDED_TO_REQUESTS = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"via", b"x-request-id"})
ADDED_TO_RESPONSES = frozenset({b"x-request-id", b"date"})


class Closed(Exception):
    """The stream ended; `partial` is what came before the end."""

    def __init__(self, partial: bytes) -> None:
        super().__init__(f"closed after {partial!r}")
        self.partial = partial


@dataclass
class Message:
    """One request or response."""

    start: bytes
    """The first line, without its CRLF."""
    headers: list[tuple[bytes, bytes]]
    """Names as written, values without surrounding blanks, in their order."""
    body: bytes = b""
    """Without the chunked coding."""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    chunks: list[int] = field(default_factory=list)
    """Sizes of the chunks, the last one's 0 too."""
    raw: bytes = b""
    """Everything, as it came."""

    @property
    def status(self) -> int:
        return int(self.start.split(b" ", 2)[1])

    @property
    def method(self) -> str:
        return self.start.split(b" ", 1)[0].decode("latin-1")

    @property
    def target(self) -> str:
        return self.start.split(b" ")[1].decode("latin-1")

    def all(self, name: str) -> list[str]:
        """Every value of the field `name`, in order."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == wanted]

    def get(self, name: str) -> str | None:
        """The only value of the field `name`, or None."""
        values = self.all(name)
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None

    def without(self, names: frozenset[bytes]) -> bytes:
        """The raw bytes less the header lines of `names`: what is left must be exact."""
        head, mark, rest = self.raw.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        kept = [line for line in lines[1:] if line.split(b":", 1)[0].lower() not in names]
        return b"\r\n".join([lines[0], *kept]) + mark + rest


def parse_fields(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    """Name and value of each header line."""
    fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        assert colon, f"not a header line: {line!r}"
        assert name == name.strip(), f"blank around a header's name: {line!r}"
        assert not any(byte < 0x20 and byte != 9 for byte in line), f"control character in {line!r}"
        fields.append((name, value.strip(b" \t")))
    return fields


def parse_head(raw: bytes) -> Message:
    """A head that ends with an empty line."""
    lines = raw[:-4].split(b"\r\n")
    return Message(lines[0], parse_fields(lines[1:]), raw=raw)


async def read_until(reader: asyncio.StreamReader, mark: bytes) -> bytes:
    """Bytes up to and with `mark`. Raises Closed, or TimeoutError."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await reader.readuntil(mark)
    except asyncio.IncompleteReadError as end:
        raise Closed(end.partial) from None
    except ConnectionError:
        raise Closed(b"(reset)") from None


async def read_exactly(reader: asyncio.StreamReader, size: int) -> bytes:
    """`size` bytes. Raises Closed, or TimeoutError."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await reader.readexactly(size)
    except asyncio.IncompleteReadError as end:
        raise Closed(end.partial) from None
    except ConnectionError:
        raise Closed(b"(reset)") from None


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """Whatever comes until the other side closes its half; a reset is an end too, marked so."""
    got = b""
    try:
        async with asyncio.timeout(PATIENCE):
            while data := await reader.read(65536):
                got += data
    except ConnectionError:
        return got + b"(reset)"
    except TimeoutError:
        raise TimeoutError(f"no end came; got {got!r}") from None
    return got


async def read_head(reader: asyncio.StreamReader) -> Message:
    """The next head. Raises Closed."""
    return parse_head(await read_until(reader, b"\r\n\r\n"))


async def read_chunked(reader: asyncio.StreamReader, message: Message) -> None:
    """A chunked body with its trailers, into `message`."""
    size = -1
    while size != 0:
        line = await read_until(reader, b"\r\n")
        message.raw += line
        size = int(line[:-2].split(b";")[0], 16)
        message.chunks.append(size)
        if size:
            data = await read_exactly(reader, size + 2)
            assert data.endswith(b"\r\n"), f"no CRLF after a chunk: {data[-4:]!r}"
            message.raw += data
            message.body += data[:-2]
    lines = []
    while (line := await read_until(reader, b"\r\n")) != b"\r\n":
        message.raw += line
        lines.append(line[:-2])
    message.raw += line
    message.trailers = parse_fields(lines)


async def read_request(reader: asyncio.StreamReader) -> Message:
    """The next request, whole. Raises Closed."""
    request = await read_head(reader)
    assert request.start.endswith(b" HTTP/1.1"), f"an endpoint is spoken to in HTTP/1.1, got {request.start!r}"
    coding, length = request.get("transfer-encoding"), request.get("content-length")
    assert coding is None or length is None, "both framings reached an endpoint"
    if coding is not None:
        assert coding.lower() == "chunked"
        await read_chunked(reader, request)
    elif length is not None:
        request.body = await read_exactly(reader, int(length))
        request.raw += request.body
    return request


async def read_response(reader: asyncio.StreamReader, method: str = "GET") -> Message:
    """The next response (an interim one too), whole. Raises Closed."""
    response = await read_head(reader)
    if response.status < 200 or response.status in (204, 304) or method == "HEAD":
        return response
    coding, length = response.get("transfer-encoding"), response.get("content-length")
    assert coding is None or length is None, "both framings reached a client"
    if coding is not None:
        assert coding.lower() == "chunked"
        await read_chunked(reader, response)
    elif length is not None:
        response.body = await read_exactly(reader, int(length))
        response.raw += response.body
    else:
        response.body = await read_to_end(reader)
        response.raw += response.body
    return response
