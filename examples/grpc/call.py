"""Calls the example's service, or any server's health check, as grpcurl would: shows answers and statuses.

python examples/grpc/call.py ADDRESS hello [NUMBER]
python examples/grpc/call.py ADDRESS stream [NUMBER]
python examples/grpc/call.py ADDRESS health [SERVICE]
"""

from __future__ import annotations

import sys
from collections import Counter

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

DEADLINE = 5.0
"""Seconds that a call may take, retries and all."""


def main(address: str, what: str, argument: str) -> int:
    """The exit status: 0 when every call went well."""
    with grpc.insecure_channel(address) as channel:
        try:
            if what == "health":
                stub = health_pb2_grpc.HealthStub(channel)
                answer = stub.Check(health_pb2.HealthCheckRequest(service=argument), timeout=DEADLINE)
                print(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
            else:
                number = int(argument or 8)
                if what == "stream":
                    call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
                        "/greeter.Greeter/Hellos"
                    )
                    answers = list(call(iter([b"you"] * number), timeout=DEADLINE))
                else:
                    hello: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/greeter.Greeter/Hello")
                    answers = [hello(b"you", timeout=DEADLINE) for _ in range(number)]
                for text, count in sorted(Counter(answers).items()):
                    print(f"{count} x {text.decode()}")
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}")
            return 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[2] not in ("hello", "stream", "health"):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""))
