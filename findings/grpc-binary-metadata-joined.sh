#!/usr/bin/env bash
# grpcio 1.85.3 and grpclib 0.4.9 (PyPI): gRPC's protocol (PROTOCOL-HTTP2.md in grpc/grpc) lets values of one metadata name
# be joined by commas, as HTTP does, and has every implementation split binary ones (`-bin`) before decoding. Neither
# Python server does. gRPC's own ends the call with INTERNAL. grpclib gives the application the first value alone where
# that is padded, and nobody hears of the others: base64 decoding in Python stops at the padding.
#
# So a proxy that joins repeated fields, which is harmless for all fields that are lists, breaks such calls or loses metadata
# of them, though it keeps to the letter of both protocols. Repeated fields of gRPC have to pass in lines of their own.
#
# Seen with Python 3.11 on 2026-11-30, for the values 00 01 and 01 02 of a-bin:
#   grpcio, in two lines: OK [b'\x00\x01', b'\x01\x02']
#   grpcio, joined: INTERNAL (Error parsing 'a-bin' metadata: illegal base64 encoding)
#   grpclib, in two lines: OK [b'\x00\x01', b'\x01\x02']
#   grpclib, joined: OK [b'\x00\x01']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check grpcio==1.85.3 grpclib==0.4.9 h2==4.4.1 hpack==4.2.0
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase
from grpclib.server import Server, Stream
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, TrailersReceived

LINES = [("a-bin", "AAE="), ("a-bin", "AQI=")]
JOINED = [("a-bin", "AAE=,AQI=")]
PATH = "/shop.Shop/Metadata"


def call(port: int, content_type: str, metadata: list[tuple[str, str]]) -> str:
    """The status and the message of a call with such metadata."""
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        h2 = H2Connection()
        h2.initiate_connection()
        pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", "shop.test"), (":path", PATH)]
        h2.send_headers(1, [*pseudo, ("te", "trailers"), ("content-type", content_type), *metadata])
        h2.send_data(1, bytes(5), end_stream=True)
        fields: dict[bytes, bytes] = {}
        message = b""
        while True:
            client.sendall(h2.data_to_send())
            received = client.recv(65536)
            assert received, "the connection was closed"
            for event in h2.receive_data(received):
                if isinstance(event, ResponseReceived | TrailersReceived):
                    fields |= dict(event.headers)
                elif isinstance(event, DataReceived):
                    message += event.data
                elif isinstance(event, StreamEnded):
                    code = int(fields[b"grpc-status"])
                    status = next(status for status in grpc.StatusCode if status.value[0] == code)
                    said = message[5:].decode() or f"({fields[b'grpc-message'].decode()})"
                    return f"{status.name} {said}"


class Generic(grpc.GenericRpcHandler):
    """Answers any method of grpcio by the values of a-bin."""

    def service(self, _: object) -> grpc.RpcMethodHandler:
        def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
            return str([value for name, value in context.invocation_metadata() if name == "a-bin"]).encode()

        return grpc.unary_unary_rpc_method_handler(answer)


class Raw(CodecBase):
    """Messages as they are."""

    __content_subtype__ = "raw"

    def encode(self, message: bytes, message_type: type) -> bytes:
        return message

    def decode(self, data: bytes, message_type: type) -> bytes:
        return data


class Shop:
    """The same for grpclib."""

    async def answer(self, stream: Stream) -> None:
        await stream.recv_message()
        await stream.send_message(str(stream.metadata.getall("a-bin")).encode())

    def __mapping__(self) -> dict[str, Handler]:
        return {PATH: Handler(self.answer, Cardinality.UNARY_UNARY, bytes, bytes)}


def of_grpcio() -> list[str]:
    """What becomes of calls with metadata in lines and joined."""
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Generic(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        return [call(port, "application/grpc", metadata) for metadata in (LINES, JOINED)]
    finally:
        server.stop(None).wait(20)


async def of_grpclib() -> list[str]:
    """The same."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Server([Shop()], codec=Raw())
        await server.start(sock=listening)
        port = listening.getsockname()[1]
        told = [await asyncio.to_thread(call, port, "application/grpc+raw", metadata) for metadata in (LINES, JOINED)]
        server.close()
    return told


grpcio, grpclib = of_grpcio(), asyncio.run(of_grpclib())
for name, (lines, joined) in {"grpcio": grpcio, "grpclib": grpclib}.items():
    print(f"{name}, in two lines: {lines}\n{name}, joined: {joined}")
both = r"OK [b'\x00\x01', b'\x01\x02']"
assert grpcio == [both, "INTERNAL (Error parsing 'a-bin' metadata: illegal base64 encoding)"], "the behaviour has changed"
assert grpclib == [both, r"OK [b'\x00\x01']"], "the behaviour has changed"
PYTHON
echo "as described"
