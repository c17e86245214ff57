"""LB_ENDPOINT_LOAD: what endpoints say of their load makes their weight, and goes no farther."""

from __future__ import annotations

import asyncio
import base64
import struct
import time

import pytest
from tests.balancer.proxy.wire.ends import Client, Endpoint, Script, answering
from tests.balancer.proxy.wire.http2 import Asked, H2Client, H2Endpoint, Script2
from tests.balancer.proxy.wire.messages import Message
from tests.balancer.proxy.wire.process import Balancer, Start

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\nTE: trailers\r\nConnection: TE\r\n\r\n"
ON = {"endpoint_load": "orca", "endpoint_load_blackout": 0, "strategy": "round-robin"}
NAME = "endpoint-load-metrics"


def said(form: str, utilization: float, rate: float) -> tuple[str, str]:
    """A report's field, in one of its forms."""
    if form == "TEXT":
        return NAME, f"TEXT cpu_utilization={utilization},rps_fractional={rate}"
    if form == "JSON":
        return NAME, f'JSON {{"cpu_utilization": {utilization}, "rps_fractional": {rate}}}'
    message = b"\x09" + struct.pack("<d", utilization) + b"\x31" + struct.pack("<d", rate)
    encoded = base64.b64encode(message).decode()
    return (NAME, f"BIN {encoded}") if form == "BIN" else (f"{NAME}-bin", encoded.rstrip("="))


def over_http1(name: str, field: tuple[str, str], where: str) -> Script:
    line = f"{field[0].title()}: {field[1]}\r\n"
    if where == "header":
        return answering(lambda _: f"HTTP/1.1 200 OK\r\n{line}X-Name: {name}\r\nContent-Length: 2\r\n\r\nok")
    head = f"HTTP/1.1 200 OK\r\nX-Name: {name}\r\nTransfer-Encoding: chunked\r\n\r\n"
    return answering(lambda _: f"{head}2\r\nok\r\n0\r\n{line}X-Sum: 1\r\n\r\n")


def over_http2(name: str, field: tuple[str, str], where: str) -> Script2:
    async def script(asked: Asked) -> None:
        await asked.whole.wait()
        if where == "header":
            await asked.respond(extra=[("x-name", name), field])
        else:
            await asked.respond(extra=[("x-name", name)], trailers=[("x-sum", "1"), field])

    return script


async def until_weighed(balancer: Balancer, client: Client) -> None:
    """Ask on until the reports have made weights."""
    deadline = time.monotonic() + 10
    while balancer.metric("lb_endpoint_weight") == 2:
        assert time.monotonic() < deadline, "the weights never changed"
        await client.ask(GET)
        await asyncio.sleep(0.01)


async def shares(client: Client, times: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for _ in range(times):
        answer = await client.ask(GET)
        assert not answer.all(NAME)
        assert not answer.all(f"{NAME}-bin")
        assert not [name for name, _ in answer.trailers if name.lower().startswith(NAME.encode())]
        name = answer.get("x-name") or ""
        counts[name] = counts.get(name, 0) + 1
    return counts


@pytest.mark.parametrize("where", ["header", "trailer"])
@pytest.mark.parametrize("form", ["TEXT", "JSON", "BIN", "binary"])
@pytest.mark.parametrize("protocol", ["http1", "h2c"])
async def test_utilisation_is_weight(protocol: str, form: str, where: str, start: Start) -> None:
    balancer = start(endpoints=2, fresh=True, upstream_protocol=protocol, **ON)
    fields = {"a": said(form, 0.25, 100.0), "b": said(form, 0.75, 100.0)}
    if protocol == "http1":
        ends: list[Endpoint | H2Endpoint] = [
            Endpoint(port, over_http1(name, fields[name], where), remembers=False)
            for port, name in zip(balancer.endpoints, "ab", strict=True)
        ]
    else:
        ends = [
            H2Endpoint(port, over_http2(name, fields[name], where))
            for port, name in zip(balancer.endpoints, "ab", strict=True)
        ]
    async with ends[0], ends[1], await Client.connect(balancer.port) as client:
        await until_weighed(balancer, client)
        counts = await shares(client, 200)
        assert 2.5 <= counts["a"] / counts["b"] <= 3.5, counts
        assert balancer.metric("lb_endpoint_utilization") == 1.0
        assert balancer.metric("lb_endpoint_bad_load_reports_total") == 0
        if where == "trailer":
            answer = await client.ask(GET)
            assert [name.lower() for name, _ in answer.trailers] == [b"x-sum"], "the other trailers pass"


async def test_an_http_2_client_gets_no_report_either(start: Start) -> None:
    balancer = start(endpoints=1, **ON)
    field = said("TEXT", 0.5, 10.0)
    async with Endpoint(balancer.endpoints[0], over_http1("a", field, "trailer")):
        async with await H2Client.connect(balancer.port) as client:
            answer = await client.get("/", [("te", "trailers")])
            assert answer.trailers == [("x-sum", "1")]
    async with Endpoint(balancer.endpoints[0], over_http1("a", field, "header")):
        async with await H2Client.connect(balancer.port) as client:
            assert (await client.get("/")).field(NAME) is None


@pytest.mark.parametrize(
    ("announced", "left"),
    [("Endpoint-Load-Metrics", []), ("X-Sum, endpoint-load-metrics-bin ,X-More", ["X-Sum, X-More"])],
)
async def test_a_trailer_that_stays_here_is_not_announced(announced: str, left: list[str], start: Start) -> None:
    balancer = start(endpoints=1, **ON)
    head = f"HTTP/1.1 200 OK\r\nTrailer: {announced}\r\nTransfer-Encoding: chunked\r\n\r\n"
    script = answering(lambda _: f"{head}2\r\nok\r\n0\r\n{NAME}: TEXT cpu_utilization=0.5\r\n\r\n")
    async with Endpoint(balancer.endpoints[0], script), await Client.connect(balancer.port) as client:
        assert (await client.ask(GET)).all("trailer") == left


@pytest.mark.parametrize("where", ["header", "trailer"])
async def test_without_the_setting_a_report_is_a_field_like_others(where: str, start: Start) -> None:
    balancer = start(endpoints=1)
    async with Endpoint(balancer.endpoints[0], over_http1("a", said("TEXT", 0.5, 10.0), where)):
        async with await Client.connect(balancer.port) as client:
            answer = await client.ask(GET)
    found = answer.headers if where == "header" else answer.trailers
    assert NAME.encode() in [name.lower() for name, _ in found]


async def keep_asking(client: Client) -> None:
    """Ask for so long that weights have followed the reports."""
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        assert (await client.ask(GET)).status == 200
        await asyncio.sleep(0.01)


async def test_reports_that_cannot_be_read_are_counted_and_change_nothing(start: Start) -> None:
    balancer = start(endpoints=2, fresh=True, **ON)
    bad = over_http1("a", (NAME, "TEXT cpu_utilization=lots"), "header")
    good = over_http1("b", said("TEXT", 0.5, 10.0), "header")
    async with Endpoint(balancer.endpoints[0], bad), Endpoint(balancer.endpoints[1], good):
        async with await Client.connect(balancer.port) as client:
            await keep_asking(client)
            assert balancer.metric("lb_endpoint_weight") == 2
            assert balancer.metric("lb_endpoint_bad_load_reports_total") > 10


@pytest.mark.parametrize("report", ["TEXT cpu_utilization=0.5,rps_fractional=1e308", f'JSON {{"eps": 1{"0" * 400}}}'])
@pytest.mark.parametrize("where", ["header", "trailer"])
async def test_a_report_of_absurd_numbers_harms_no_request(report: str, where: str, start: Start) -> None:
    balancer = start(endpoints=2, fresh=True, **ON)
    bad = over_http1("a", (NAME, report), where)
    good = over_http1("b", said("TEXT", 0.5, 10.0), where)
    async with Endpoint(balancer.endpoints[0], bad), Endpoint(balancer.endpoints[1], good):
        async with await Client.connect(balancer.port) as client:
            await keep_asking(client)
            assert balancer.metric("lb_endpoint_bad_load_reports_total") > 10


FORMAT = "endpoint-load-metrics-format"


def reports(forms: list[str]) -> list[tuple[str, str]]:
    """What Triton reports to a request that asks in these forms: one, in lower case, else nothing."""
    return [said("TEXT", 0.5, 10.0)] if forms == ["text"] else []


def on_demand(protocol: str, port: int, seen: list[list[str]]) -> Endpoint | H2Endpoint:
    """An endpoint that reports its load only to a request that asks; `seen`: the forms that each asked for."""

    def over_http1(request: Message) -> str:
        seen.append(request.all(FORMAT))
        lines = "".join([f"{name}: {value}\r\n" for name, value in reports(seen[-1])])
        return f"HTTP/1.1 200 OK\r\n{lines}X-Asked: {', '.join(seen[-1])}\r\nContent-Length: 2\r\n\r\nok"

    async def over_http2(asked: Asked) -> None:
        await asked.whole.wait()
        seen.append([value for name, value in asked.fields if name == FORMAT])
        grpc = asked.field("content-type") == "application/grpc"
        extra = [("content-type", "application/grpc")] if grpc else [("x-asked", ", ".join(seen[-1]))]
        trailers = [("grpc-status", "0"), *reports(seen[-1])] if grpc else None
        await asked.respond(extra=extra if grpc else [*extra, *reports(seen[-1])], trailers=trailers)

    return Endpoint(port, answering(over_http1)) if protocol == "http1" else H2Endpoint(port, over_http2)


CALL = [("content-type", "application/grpc"), ("te", "trailers")]


@pytest.mark.parametrize("own", [[], ["JSON"], ["text", "BIN"]])
@pytest.mark.parametrize("protocol", ["http1", "h2c"])
async def test_an_endpoint_that_reports_only_when_asked_is_asked(protocol: str, own: list[str], start: Start) -> None:
    balancer = start(endpoints=1, fresh=True, upstream_protocol=protocol, **ON)
    seen: list[list[str]] = []
    lines = "".join([f"{FORMAT.title()}: {form}\r\n" for form in own])
    async with on_demand(protocol, balancer.endpoints[0], seen):
        async with await Client.connect(balancer.port) as client:
            for target in ("/", "/", "/other", "http://lb.test/absolute"):
                answer = await client.ask(f"GET {target} HTTP/1.1\r\nHost: lb.test\r\n{lines}\r\n")
                assert not answer.all(NAME), "the client's own request for it is replaced, and the report taken out"
        async with await H2Client.connect(balancer.port) as h2:
            for path in ("/", "/", "/other"):
                assert (await h2.get(path, [(FORMAT, form) for form in own])).field(NAME) is None
        await until_utilised(balancer)
    assert seen == [["text"]] * 7
    assert balancer.metric("lb_endpoint_bad_load_reports_total") == 0


async def until_utilised(balancer: Balancer) -> None:
    deadline = time.monotonic() + 10
    while balancer.metric("lb_endpoint_utilization") != 0.5:
        assert time.monotonic() < deadline, "no report was read"
        await asyncio.sleep(0.05)


async def test_a_grpc_call_asks_too(start: Start) -> None:
    balancer = start(endpoints=1, fresh=True, upstream_protocol="h2c", **ON)
    seen: list[list[str]] = []
    async with on_demand("h2c", balancer.endpoints[0], seen), await H2Client.connect(balancer.port) as client:
        answer = await client.get("/pi.Pi/Digits", CALL)
        assert answer.trailers == [("grpc-status", "0")]
        await until_utilised(balancer)
    assert seen == [["text"]]


@pytest.mark.parametrize("protocol", ["http1", "h2c"])
async def test_without_the_setting_nothing_is_asked_and_a_client_gets_what_it_asks_for(
    protocol: str, start: Start
) -> None:
    balancer = start(endpoints=1, upstream_protocol=protocol)
    seen: list[list[str]] = []
    async with on_demand(protocol, balancer.endpoints[0], seen), await Client.connect(balancer.port) as client:
        assert not (await client.ask("GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n")).all(NAME)
        answer = await client.ask(f"GET / HTTP/1.1\r\nHost: lb.test\r\n{FORMAT}: text\r\n\r\n")
        assert answer.all(NAME) == [said("TEXT", 0.5, 10.0)[1]]
    assert seen == [[], ["text"]]
