"""Real gRPC clients and servers: every kind of call, status, deadline, cancellation, and a server that goes away."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from benchmarks.ports import free_port
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from tests.balancer.proxy.wire.ends import Client
from tests.balancer.proxy.wire.http2 import Asked, H2Client, H2Endpoint, asking
from tests.balancer.proxy.wire.process import Balancer, Start

H2C = {"upstream_protocol": "h2c"}
Context = grpc.aio.ServicerContext[bytes, bytes]
UNBOUNDED = [("grpc.server.max_pending_requests", 1 << 20), ("grpc.server.max_pending_requests_hard_limit", 1 << 20)]
"""Else a server cancels calls by chance where more than 1,000 wait for its Python, and each beyond 3,000."""


class Service(grpc.GenericRpcHandler):
    """A service of bytes: no generated code is needed to see what passes."""

    def __init__(self, name: str = "a") -> None:
        self.name = name
        self.calls: list[str] = []
        self.cancelled = 0

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        method = handler_call_details.method.rpartition("/")[2]
        self.calls.append(method)
        made: dict[str, Callable[[], grpc.RpcMethodHandler[bytes, bytes]]] = {
            "Unary": lambda: grpc.unary_unary_rpc_method_handler(self.unary),
            "Fail": lambda: grpc.unary_unary_rpc_method_handler(self.fail),
            "Out": lambda: grpc.unary_stream_rpc_method_handler(self.out),
            "In": lambda: grpc.stream_unary_rpc_method_handler(self.into),
            "Both": lambda: grpc.stream_stream_rpc_method_handler(self.both),
            "Slow": lambda: grpc.unary_unary_rpc_method_handler(self.slow),
        }
        return made[method]() if method in made else None

    async def unary(self, request: bytes, context: Context) -> bytes:
        await context.send_initial_metadata((("x-head", "1"),))
        context.set_trailing_metadata((("x-tail", "2"), ("served-by", self.name)))
        return request

    async def fail(self, request: bytes, context: Context) -> bytes:
        await context.abort(grpc.StatusCode[request.decode()], "told so")
        raise AssertionError

    async def out(self, request: bytes, _context: Context) -> AsyncIterator[bytes]:
        number, size = map(int, request.split())
        for each in range(number):
            yield bytes([each % 256]) * size

    async def into(self, requests: AsyncIterator[bytes], _context: Context) -> bytes:
        sizes = [len(request) async for request in requests]
        return b"%d %d" % (len(sizes), sum(sizes))

    async def both(self, requests: AsyncIterator[bytes], _context: Context) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    async def slow(self, request: bytes, _context: Context) -> bytes:
        try:
            await asyncio.sleep(float(request))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return b"slow"


@asynccontextmanager
async def serving(port: int, service: Service) -> AsyncIterator[grpc.aio.Server]:
    server = grpc.aio.server(options=UNBOUNDED)
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield server
    finally:
        await server.stop(None)


@asynccontextmanager
async def calling(balancer: Balancer) -> AsyncIterator[Any]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{balancer.port}", options=options) as channel:
        yield channel
    # Calls hold their channel, and by it the connection; the tracebacks of those that failed hold the calls.
    gc.collect()


async def pieces(number: int, size: int) -> AsyncIterator[bytes]:
    for each in range(number):
        yield bytes([each % 256]) * size


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (nothing tells of it)
            await asyncio.sleep(0.005)


async def status_of(call: Any) -> tuple[grpc.StatusCode, str]:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    raise AssertionError("it went well")


async def test_every_kind_of_call_passes(start: Start) -> None:
    balancer = start(1, **H2C)
    async with serving(balancer.endpoints[0], Service()), calling(balancer) as channel:
        call = channel.unary_unary("/t.T/Unary")(b"hello")
        assert await call == b"hello"
        assert ("x-head", "1") in tuple(await call.initial_metadata())
        assert ("x-tail", "2") in tuple(await call.trailing_metadata())

        received = [len(each) async for each in channel.unary_stream("/t.T/Out")(b"100 30000")]
        assert received == [30000] * 100
        assert await channel.stream_unary("/t.T/In")(pieces(100, 30000)) == b"100 3000000"
        echoed = [len(each) async for each in channel.stream_stream("/t.T/Both")(pieces(100, 30000))]
        assert echoed == [30000] * 100


async def test_each_call_is_a_choice_of_its_own(start: Start) -> None:
    balancer = start(2, **H2C)
    a, b = Service("a"), Service("b")
    async with serving(balancer.endpoints[0], a), serving(balancer.endpoints[1], b), calling(balancer) as channel:
        for _ in range(20):
            await channel.unary_unary("/t.T/Unary")(b"x")
    assert (len(a.calls), len(b.calls)) == (10, 10)


async def test_a_status_passes_and_says_whose_fault_it_was(start: Start) -> None:
    """UNAVAILABLE says that the endpoint fails, INVALID_ARGUMENT that the request does."""
    balancer = start(1, fresh=True, **H2C)
    async with serving(balancer.endpoints[0], Service()), calling(balancer) as channel:
        fail = channel.unary_unary("/t.T/Fail")
        for _ in range(3):
            assert await status_of(fail(b"INVALID_ARGUMENT")) == (grpc.StatusCode.INVALID_ARGUMENT, "told so")
        for _ in range(2):
            assert await status_of(fail(b"UNAVAILABLE")) == (grpc.StatusCode.UNAVAILABLE, "told so")
    assert balancer.metric("lb_grpc_responses_total", code="INVALID_ARGUMENT") == 3
    assert balancer.metric("lb_grpc_responses_total", code="UNAVAILABLE") == 2


async def test_an_endpoint_that_answers_unavailable_is_ejected(start: Start) -> None:
    balancer = start(2, fresh=True, eject_after=3, eject_time=30, **H2C)

    class Broken(Service):
        async def unary(self, request: bytes, context: Context) -> bytes:
            return await self.fail(b"UNAVAILABLE", context)

    bad, good = Broken(), Service()
    async with serving(balancer.endpoints[0], bad), serving(balancer.endpoints[1], good), calling(balancer) as channel:
        outcomes = []
        for _ in range(30):
            try:
                outcomes.append(await channel.unary_unary("/t.T/Unary")(b"x"))
            except grpc.aio.AioRpcError:
                outcomes.append(b"failed")
    assert outcomes.count(b"failed") == 3
    assert outcomes[-20:] == [b"x"] * 20


async def test_a_client_of_an_invalid_request_ejects_nobody(start: Start) -> None:
    balancer = start(1, fresh=True, eject_after=3, **H2C)
    async with serving(balancer.endpoints[0], Service()), calling(balancer) as channel:
        for code in ("INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED", "FAILED_PRECONDITION"):
            for _ in range(4):
                assert (await status_of(channel.unary_unary("/t.T/Fail")(code.encode())))[0].name == code
    assert balancer.metric("lb_endpoint_ejections_total") == 0


async def test_our_own_errors_are_told_as_a_status(start: Start) -> None:
    balancer = start(1, **H2C)
    async with calling(balancer) as channel:
        code, details = await status_of(channel.unary_unary("/t.T/Unary")(b"x"))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "refused" in details


async def test_the_clients_deadline_bounds_the_attempts(start: Start) -> None:
    balancer = start(1, **H2C)
    service = Service()
    async with serving(balancer.endpoints[0], service), calling(balancer) as channel:
        code, _ = await status_of(channel.unary_unary("/t.T/Slow")(b"30", timeout=0.4))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await channel.unary_unary("/t.T/Unary")(b"x") == b"x"

    async def hangs(asked: Asked) -> None:
        await asyncio.Event().wait()

    # A client that sets a deadline and does not watch over it itself.
    balancer = start(1, **H2C, request_timeout=7)
    async with H2Endpoint(balancer.endpoints[0], hangs) as endpoint, await H2Client.connect(balancer.port) as client:
        extra = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "300m")]
        answer = await client.answer(await client.begin(asking("/t.T/Slow", "POST", extra)))
        assert (answer.status, answer.field("grpc-status")) == (200, "4")
        await endpoint.until(lambda: endpoint.requests[0].reset is not None)


async def test_a_cancelled_call_is_cancelled_at_the_endpoint(start: Start) -> None:
    balancer = start(1, **H2C)
    service = Service()
    async with serving(balancer.endpoints[0], service), calling(balancer) as channel:
        call = channel.unary_unary("/t.T/Slow")(b"30")
        await until(lambda: bool(service.calls))
        call.cancel()
        await until(lambda: bool(service.cancelled))


async def test_a_server_that_leaves_in_mid_flight_loses_no_call(start: Start) -> None:
    """It stops with grace: GOAWAY, calls under way end, the others go to the one that stays."""
    balancer = start(2, retry_budget=1, **H2C)
    leaving, staying = Service("leaving"), Service("staying")
    async with (
        serving(balancer.endpoints[0], leaving) as server,
        serving(balancer.endpoints[1], staying),
        calling(balancer) as channel,
    ):
        slow = channel.unary_unary("/t.T/Slow")
        under_way = [asyncio.ensure_future(slow(b"0.3")) for _ in range(20)]
        await until(lambda: len(leaving.calls) + len(staying.calls) == 20)
        stopping = asyncio.ensure_future(server.stop(5))
        more = [asyncio.ensure_future(slow(b"0.01")) for _ in range(50)]
        assert await asyncio.gather(*under_way, *more) == [b"slow"] * 70
        await stopping


async def test_a_stalled_stream_stalls_no_other(start: Start) -> None:
    balancer = start(1, **H2C)
    async with serving(balancer.endpoints[0], Service()), calling(balancer) as channel:
        stalled = channel.unary_stream("/t.T/Out")(b"1000 60000")
        await stalled.read()
        for _ in range(50):
            assert await channel.unary_unary("/t.T/Unary")(b"x") == b"x"
        stalled.cancel()


async def test_calls_are_under_way_by_the_thousand_with_grpcio_at_both_ends(start: Start) -> None:
    """None is answered before the last has reached its server: more than one connection carries on either side.

    With 10,000 on ten channels too, in 5 to 12 s: grpcio makes and serves 1,000 to 2,000 of them a second in a process,
    and no more without a balancer in between, whose CPU time is a fifth of all.
    """
    number, channels = 2_100, 3
    balancer = start(2, access_log="off", **H2C)
    services = Holding(), Holding()
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(60):
        for port, service in zip(balancer.endpoints, services, strict=True):
            await stack.enter_async_context(serving(port, service))
        calls = []
        for each in range(channels):
            hold = (await stack.enter_async_context(calling(balancer))).unary_unary("/t.T/Hold")
            calls += [hold(b"%d" % index) for index in range(each, number, channels)]
        while sum(service.held for service in services) < number:  # noqa: ASYNC110  (two of them tell)
            await asyncio.sleep(0.02)
        assert balancer.metric("lb_requests_in_flight") == number
        assert abs(services[0].held - services[1].held) <= 2
        for service in services:
            service.release.set()
        assert sorted(map(int, await asyncio.gather(*calls))) == list(range(number))


class Holding(Service):
    """Answers no call before it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.held = 0
        self.release = asyncio.Event()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.unary_unary_rpc_method_handler(self.hold)

    async def hold(self, request: bytes, _context: Context) -> bytes:
        self.held += 1
        await self.release.wait()
        return request


async def test_deadlines_and_cancels_by_the_hundred_leave_nothing(start: Start) -> None:
    balancer = start(2, **H2C)
    services = Service("a"), Service("b")
    async with (
        serving(balancer.endpoints[0], services[0]),
        serving(balancer.endpoints[1], services[1]),
        calling(balancer) as channel,
    ):
        slow = channel.unary_unary("/t.T/Slow")
        late = [asyncio.ensure_future(status_of(slow(b"30", timeout=0.3))) for _ in range(150)]
        left = [slow(b"30") for _ in range(150)]
        assert {code for code, _ in await asyncio.gather(*late)} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        for call in left:
            call.cancel()
        await until(lambda: balancer.metric("lb_requests_in_flight") == 0)
        assert await channel.unary_unary("/t.T/Unary")(b"x") == b"x"


async def test_streams_of_both_sides_survive_silence_and_end_where_they_are_cancelled(start: Start) -> None:
    """A stream may be silent for longer than LB_IDLE_TIMEOUT, as watches are."""
    balancer = start(1, idle_timeout=0.3, **H2C)
    async with serving(balancer.endpoints[0], Service()), calling(balancer) as channel:
        call = channel.stream_stream("/t.T/Both")()
        for each in (b"1", b"2"):
            await call.write(each)
            assert await call.read() == each
            await asyncio.sleep(0.8)  # twice the limit, and a look in between
        await call.write(b"3")
        assert await call.read() == b"3"
        await call.done_writing()
        assert await call.read() == grpc.aio.EOF


@pytest.mark.parametrize("kind", ["application/grpc-web+proto", "application/grpc-web-text"])
@pytest.mark.parametrize("by", ["http1", "h2c"])
async def test_grpc_web_passes(start: Start, kind: str, by: str) -> None:
    """It is HTTP like any other: its trailers are part of its body, and its errors statuses of HTTP."""
    message = b"\x00\x00\x00\x00\x02hi\x80\x00\x00\x00\x0fgrpc-status:0\r\n"

    async def answers(asked: Asked) -> None:
        await asked.whole.wait()
        await asked.respond(200, asked.body, [("content-type", asked.field("content-type") or "")])

    balancer = start(1, upstream_protocol="h2c")
    async with H2Endpoint(balancer.endpoints[0], answers):
        if by == "http1":
            head = f"POST /t.T/Unary HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nX-Grpc-Web: 1\r\n"
            async with await Client.connect(balancer.port) as client:
                await client.send(f"{head}Content-Length: {len(message)}\r\n\r\n".encode() + message)
                response = await client.response()
            assert (response.status, response.body, response.get("content-type")) == (200, message, kind)
        else:
            async with await H2Client.connect(balancer.port) as own:
                stream = await own.begin(asking("/t.T/Unary", "POST", [("content-type", kind)]), ended=False)
                await own.send(stream, message, ended=True)
                answer = await own.answer(stream)
            assert (answer.status, answer.body, answer.field("content-type")) == (200, message, kind)
    async with await H2Client.connect(balancer.port) as own:
        answer = await own.answer(await own.begin(asking("/t.T/Unary", "POST", [("content-type", kind)])))
        assert (answer.status, answer.field("grpc-status")) == (502, None)


async def test_statuses_that_nobody_knows_are_counted_under_one_name(start: Start) -> None:
    """Whatever endpoints and clients send, metrics have no more series than there are statuses."""

    async def answers(asked: Asked) -> None:
        number = (asked.field(":path") or "").rpartition("/")[2]
        await asked.respond(200, b"", [("content-type", "application/grpc"), ("grpc-status", number)], None)

    balancer = start(1, fresh=True, **H2C)
    extra = [("content-type", "application/grpc"), ("te", "trailers")]
    async with H2Endpoint(balancer.endpoints[0], answers), await H2Client.connect(balancer.port) as client:
        for number in (0, 16, 17, 99, 100, 12345, -1):
            await client.answer(await client.begin(asking(f"/t.T{number}/{number}", "POST", extra)))
    series = [name for name in balancer.metrics() if name.startswith("lb_grpc_responses_total")]
    assert len(series) <= 18
    assert not any("t.T" in name for name in balancer.metrics())
    assert balancer.metric("lb_grpc_responses_total") == 7


async def test_the_access_log_tells_the_status(start: Start) -> None:
    balancer = start(1, fresh=True, access_log="on", **H2C)
    async with serving(balancer.endpoints[0], Service()), calling(balancer) as channel:
        await status_of(channel.unary_unary("/t.T/Fail")(b"NOT_FOUND"))
        await until(lambda: '"/t.T/Fail"' in balancer.log())
    lines = [json.loads(line) for line in balancer.log().splitlines() if '"/t.T/Fail"' in line]
    assert lines[0]["grpc_status"] == "NOT_FOUND"
    assert lines[0]["status"] == 200


class Reporting(Service):
    """Sends an ORCA load report with each answer, as gRPC's servers do: a binary trailer."""

    def __init__(self, name: str, utilization: float) -> None:
        super().__init__(name)
        self._report = b"\x09" + struct.pack("<d", utilization) + b"\x31" + struct.pack("<d", 100.0)

    async def unary(self, request: bytes, context: Context) -> bytes:
        tail = (("x-tail", "2"), ("served-by", self.name), ("endpoint-load-metrics-bin", self._report))
        context.set_trailing_metadata(tail)
        return request


async def test_load_reports_of_a_grpc_server_make_its_weight_and_go_no_farther(start: Start) -> None:
    balancer = start(
        endpoints=2, fresh=True, endpoint_load="orca", endpoint_load_blackout=0, strategy="round-robin", **H2C
    )
    served: list[str] = []
    async with (
        serving(balancer.endpoints[0], Reporting("a", 0.25)),
        serving(balancer.endpoints[1], Reporting("b", 0.75)),
    ):
        async with calling(balancer) as channel:

            async def ask() -> None:
                call = channel.unary_unary("/test.Service/Unary")(b"x")
                await call
                tail = dict(await call.trailing_metadata())
                assert "endpoint-load-metrics-bin" not in tail
                assert tail["x-tail"] == "2"
                served.append(tail["served-by"])

            async with asyncio.timeout(10):
                while balancer.metric("lb_endpoint_weight") == 2:
                    await ask()
                    await asyncio.sleep(0.01)
            served.clear()
            for _ in range(200):
                await ask()
    assert 2.5 <= served.count("a") / served.count("b") <= 3.5
    assert balancer.metric("lb_endpoint_bad_load_reports_total") == 0


async def test_a_health_check_takes_a_service_out_and_back(start: Start) -> None:
    """By the check of gRPC itself (LB_HEALTH_PATH=grpc:SERVICE) of real servers; log and API say what was wrong."""
    serves = health_pb2.HealthCheckResponse.SERVING
    ill, well = Service("ill"), Service("well")
    ports = (free_port(), free_port())
    checks = [health.aio.HealthServicer(), health.aio.HealthServicer()]
    await checks[1].set("t.T", serves)
    async with serving(ports[0], ill) as first, serving(ports[1], well) as second:
        for check, server in zip(checks, (first, second), strict=True):
            health_pb2_grpc.add_HealthServicer_to_server(check, server)
        balancer = start(
            backends=",".join(f"127.0.0.1:{port}" for port in ports),
            fresh=True,
            health_path="grpc:t.T",
            health_interval=0.1,
            health_fall=1,
            health_rise=1,
            panic_share=0,
            **H2C,
        )
        async with calling(balancer) as channel:
            await until(lambda: balancer.metric("lb_endpoints", state="unhealthy") == 1)
            for _ in range(10):
                await channel.unary_unary("/t.T/Unary")(b"x")
            assert "Unary" not in ill.calls
            told = json.loads(balancer.admin("/api/endpoints")[1])["endpoints"]
            why = "its health checks fail: NOT_FOUND: the server knows no service 't.T'"
            assert [each["ineligible_reason"] for each in told] == [why, None]
            assert "the server knows no service 't.T'" in balancer.log()
            await checks[0].set("t.T", serves)
            await until(lambda: balancer.metric("lb_endpoints", state="unhealthy") == 0)
            for _ in range(10):
                await channel.unary_unary("/t.T/Unary")(b"x")
            assert "Unary" in ill.calls
