"""Hostile requests: each is refused, or reaches the endpoint as exactly the bytes that the corpus says."""

from __future__ import annotations

import asyncio
import random

import h11
import pytest
from tests.balancer.proxy.wire.corpus import Case, all_cases
from tests.balancer.proxy.wire.ends import Accepted, Client, Endpoint
from tests.balancer.proxy.wire.messages import ADDED_TO_REQUESTS, Message, read_request, read_response
from tests.balancer.proxy.wire.process import Start

CASES = all_cases("requests")


class Witness:
    """An endpoint's connections as h11 reads them: a second opinion about where each request ends."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.targets: list[str] = []
        self.complaints: list[str] = []

    async def script(self, connection: Accepted) -> None:
        number = len(self.raw)
        self.raw.append(b"")
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        try:
            while data := await connection.reader.read(1 << 20):
                self.raw[number] += data
                parser.receive_data(data)
                await self.answer(connection, parser)
        except h11.RemoteProtocolError as error:
            self.complaints.append(f"{error}: {self.raw[number]!r}")

    async def answer(self, connection: Accepted, parser: h11.Connection) -> None:
        while (event := parser.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Request):
                self.targets.append(event.target.decode())
            if not isinstance(event, h11.EndOfMessage):
                continue
            await connection.send(
                (parser.send(h11.Response(status_code=200, headers=[("Content-Length", "0")])) or b"")
                + (parser.send(h11.EndOfMessage()) or b"")
            )
            self.targets.append("(whole)")
            parser.start_next_cycle()

    @property
    def whole(self) -> int:
        """Requests that have reached the endpoint whole."""
        return self.targets.count("(whole)")


def reader_of(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1 << 24)
    reader.feed_data(data)
    reader.feed_eof()
    return reader


async def requests_in(data: bytes) -> list[Message]:
    """The requests that our own reader finds in `data`, the added fields left out."""
    reader = reader_of(data)
    found = []
    while not reader.at_eof():
        found.append(await read_request(reader))
    return found


def comparable(request: Message) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
    """Head less what the balancer adds, body and trailers: how a body is cut into chunks does not matter."""
    head = request.without(ADDED_TO_REQUESTS).partition(b"\r\n\r\n")[0]
    return head, request.body, request.trailers


def canonical(request: Message) -> bool:
    """Chunk sizes are spelt the one plain way: lower case, no zeros before, no extension."""
    body = request.raw.partition(b"\r\n\r\n")[2]
    return not request.chunks or all(b"%x\r\n" % size in body for size in request.chunks)


def pieces(data: bytes, count: int) -> list[bytes]:
    cuts = sorted(random.Random(len(data)).sample(range(1, len(data)), min(count - 1, len(data) - 1)))
    return [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


async def send_in_pieces(client: Client, case: Case, count: int) -> None:
    try:
        for piece in pieces(case.sent, count):
            await client.send(piece)
            if count > 1:
                await asyncio.sleep(0.001)
        if "half-close" in case.flags:
            client.half_close()
    except ConnectionError:
        pass  # refused before all was sent


async def one_refusal(client: Client, case: Case, *, or_end: bool = False) -> None:
    """The client reads one response of the balancer's own with an expected status, and then the end."""
    if or_end:
        got = await client.to_end()
        if got in (b"", b"(reset)"):
            return
        response = await read_response(reader_of(got))
        assert got == response.raw
    else:
        response = await client.response()
    assert response.status in case.statuses, response.raw
    assert response.get("proxy-status") is not None, response.raw
    rest = await client.to_end()
    assert rest == b"", rest


@pytest.mark.parametrize("count", [1, 4], ids=["whole", "split"])
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_hostile_request_is_refused_or_normalised(case: Case, count: int, start: Start) -> None:
    balancer = start(retries=0, http2="off")
    witness = Witness()
    expected = await requests_in(case.expected or case.sent) if case.verdict == "passed" or case.expected else []
    async with Endpoint(balancer.endpoints[0], witness.script), await Client.connect(balancer.port) as client:
        sending = asyncio.create_task(send_in_pieces(client, case, count))
        for request in expected:
            response = await read_response(client.reader, request.method)
            assert response.status == 200, response.raw
        if case.verdict == "passed":
            if "closed" not in case.flags:
                await sending
                client.half_close()
            assert await client.to_end() == b""
        else:
            await one_refusal(client, case, or_end=case.verdict == "broken")
        await sending
        await at_witness(case, witness, expected)


async def at_witness(case: Case, witness: Witness, expected: list[Message]) -> None:
    assert not witness.complaints, witness.complaints
    assert not any("smuggled" in target for target in witness.targets), witness.raw
    if case.verdict == "broken":
        assert witness.whole == 0, witness.raw
        return
    got = await requests_in(b"".join(witness.raw))
    assert [comparable(request) for request in got] == [comparable(request) for request in expected]
    assert witness.whole == len(expected)
    assert all(canonical(request) for request in got)


def test_the_corpus_is_large_enough() -> None:
    hostile = [case for case in CASES if case.verdict != "passed" or case.expected is not None]
    assert len(hostile) >= 300
    assert len({case.sent for case in CASES}) == len(CASES), "two cases send the same bytes"
