"""A gRPC service to try the balancer with: Greeter, with gRPC's own health check, and a stop that loses no call.

    python examples/grpc/server.py PORT [NAME]

Messages are plain text, so that it is one file without generated code; with stubs of yours, the rest is the same.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVICE = "greeter.Greeter"
GRACE = 10.0
"""Seconds that calls have to end, when it stops."""


class Greeter:
    """Says hello, once or again and again, and who it is."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def hello(self, request: bytes, context: Any) -> bytes:
        """One request, one answer."""
        return b"hello %b, from %b" % (request, self.name.encode())

    async def hellos(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """A stream of each."""
        async for request in requests:
            yield await self.hello(request, context)

    def handler(self) -> grpc.GenericRpcHandler:
        """What generated code would call `add_GreeterServicer_to_server`."""
        methods = {
            "Hello": grpc.unary_unary_rpc_method_handler(self.hello),
            "Hellos": grpc.stream_stream_rpc_method_handler(self.hellos),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)


async def serve(port: int, name: str) -> None:
    """Serve until SIGTERM or Ctrl-C: then say NOT_SERVING, take no new calls, and let those under way end."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Greeter(name).handler(),))
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    await checks.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print(f"{name} serves {SERVICE} at 127.0.0.1:{port}", flush=True)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await stopping.wait()
    await checks.enter_graceful_shutdown()
    await server.stop(GRACE)


if __name__ == "__main__":
    if len(sys.argv) < 2 or not sys.argv[1].isdigit():
        sys.exit(__doc__)
    given = int(sys.argv[1])
    asyncio.run(serve(given, sys.argv[2] if len(sys.argv) > 2 else f"greeter-{given}"))
