"""A WebSocket echo whose answers follow from the bytes it gets alone, and not from how they were cut on their way.

A server that reads what has come at once may find a broken frame behind a message before it has echoed the message, or
not, as the packets fell: Autobahn calls the one NON-STRICT and the other OK. This one takes one frame at a time, and
has answered it before it looks at the next. It takes messages of any size in any number of fragments.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection until its end: for asyncio.start_server."""
    protocol = ServerProtocol(extensions=[ServerPerMessageDeflateFactory()], max_size=None)
    try:
        with suppress(ConnectionError):
            protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
            for request in protocol.events_received():
                assert isinstance(request, Request)
                protocol.send_response(protocol.accept(request))
            await _send(protocol, writer)
            message: list[Frame] = []
            with suppress(asyncio.IncompleteReadError):
                while True:
                    protocol.receive_data(await _frame(reader))
                    _answer(protocol, message)
                    await _send(protocol, writer)
            protocol.receive_eof()
            await _send(protocol, writer)
    finally:
        writer.close()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """The next frame as it came. Raises IncompleteReadError."""
    head = await reader.readexactly(2)
    size = head[1] & 0x7F
    if size > 125:
        head += await reader.readexactly(2 if size == 126 else 8)
        size = int.from_bytes(head[2:])
    masked = 4 if head[1] & 0x80 else 0
    return head + await reader.readexactly(masked + size)


def _answer(protocol: ServerProtocol, message: list[Frame]) -> None:
    """Echo a message that is whole; the frames of one that is not yet are kept in `message`."""
    for frame in protocol.events_received():
        if isinstance(frame, Frame) and frame.opcode in DATA:
            message.append(frame)
            if frame.fin:
                data = b"".join(bytes(part.data) for part in message)
                if message[0].opcode is Opcode.BINARY:
                    protocol.send_binary(data)
                elif _is_text(data):
                    protocol.send_text(data)
                else:
                    protocol.fail(1007, "not UTF-8")
                message.clear()


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


async def _send(protocol: ServerProtocol, writer: asyncio.StreamWriter) -> None:
    for data in protocol.data_to_send():
        if data:
            writer.write(data)
        elif writer.can_write_eof():
            writer.write_eof()
    await writer.drain()
