"""A real DNS server on loopback that answers, lies and falls silent on command."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

Record = tuple[str, list[str]]
"""A type and its values."""


class Server(asyncio.DatagramProtocol):
    """Answers from `zone`; names that are not in it do not exist."""

    def __init__(self) -> None:
        self.zone: dict[str, list[Record]] = {}
        self.ttl = 1
        self.ttls: dict[str, int] = {}
        """Of names whose records have another."""
        self.rcodes: dict[str, dns.rcode.Rcode] = {}
        """A failure to answer with, by type of the question."""
        self.silent: set[str] = set()
        """Types of question, and names, that get no answer."""
        self.asked: list[tuple[str, str]] = []
        self.port = 0
        self.transport: asyncio.DatagramTransport | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def serving(cls) -> AsyncIterator[Server]:
        """One that answers by UDP and TCP on a port of its own."""
        made = cls()
        tcp = await asyncio.start_server(made.serve_tcp, "127.0.0.1", 0)
        made.port = tcp.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        udp, _ = await loop.create_datagram_endpoint(lambda: made, local_addr=("127.0.0.1", made.port))
        yield made
        udp.close()
        tcp.close()
        await tcp.wait_closed()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        reply = self.answer(data, 512)
        if reply is not None and self.transport is not None:
            self.transport.sendto(reply, addr)

    async def serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        reply = self.answer(await reader.readexactly(length), 65535)
        if reply is not None:
            writer.write(struct.pack("!H", len(reply)) + reply)
        await reader.read()
        writer.close()

    def answer(self, data: bytes, limit: int) -> bytes | None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        if kind in self.silent or name in self.silent:
            return None
        reply = dns.message.make_response(query)
        records = self.zone.get(name)
        if kind in self.rcodes:
            reply.set_rcode(self.rcodes[kind])
        elif records is None:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        else:
            owner = name
            for type_, values in records:
                if type_ == "CNAME":
                    reply.answer.append(dns.rrset.from_text(owner, self.ttls.get(name, self.ttl), "IN", type_, *values))
                    owner = values[0]
                elif type_ == kind and values:
                    reply.answer.append(dns.rrset.from_text(owner, self.ttls.get(name, self.ttl), "IN", type_, *values))
        wire = reply.to_wire(max_size=65535)
        if len(wire) > max(limit, query.payload):
            reply.answer.clear()
            reply.flags |= dns.flags.TC
            wire = reply.to_wire()
        return wire
