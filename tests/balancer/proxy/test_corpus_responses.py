"""Hostile responses: each becomes a 502, is cut so that the client notices, or reaches it as the bytes expected."""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.balancer.proxy.wire.corpus import Case, all_cases
from tests.balancer.proxy.wire.ends import Accepted, Client, Endpoint
from tests.balancer.proxy.wire.messages import ADDED_TO_RESPONSES, PATIENCE, Closed, Message, read_response
from tests.balancer.proxy.wire.process import Start

CASES = all_cases("responses")
NEXT = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext"


def pieces(data: bytes, count: int) -> list[bytes]:
    cuts = sorted(random.Random(len(data)).sample(range(1, len(data)), max(0, min(count, len(data)) - 1)))
    return [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


class Hostile:
    """Answers `/case` with the case's bytes, `/next` with an honest response; notes which connection got which."""

    def __init__(self, case: Case, count: int) -> None:
        self.case = case
        self.count = count
        self.asked: dict[str, int] = {}
        self.said = asyncio.Event()

    async def script(self, connection: Accepted) -> None:
        while True:
            request = await connection.request()
            assert request.target not in self.asked, "asked twice: a response like this must not be retried"
            self.asked[request.target] = connection.number
            if request.target == "/next":
                await connection.send(NEXT)
                continue
            try:
                for piece in pieces(self.case.sent, self.count):
                    await connection.send(piece)
                    if self.count > 1:
                        await asyncio.sleep(0.001)
            finally:
                self.said.set()
            if "close" in self.case.flags:
                return


def reader_of(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1 << 24)
    reader.feed_data(data)
    reader.feed_eof()
    return reader


async def responses_until_final(reader: asyncio.StreamReader, method: str) -> list[Message]:
    """Interim responses and the final one."""
    got: list[Message] = []
    while not got or got[-1].status < 200:
        got.append(await read_response(reader, method))
    return got


def comparable(response: Message) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
    head = response.without(ADDED_TO_RESPONSES).partition(b"\r\n\r\n")[0]
    return head, response.body, response.trailers


async def check_client(client: Client, case: Case) -> None:
    if case.verdict == "cut":
        with pytest.raises(Closed):
            await responses_until_final(client.reader, case.method)
        return
    got = await responses_until_final(client.reader, case.method)
    assert b"poison" not in got[-1].raw
    assert b"surprise" not in got[-1].raw
    if case.verdict == "refused":
        assert got[-1].status == 502, got[-1].raw
        assert got[-1].get("proxy-status"), got[-1].raw
        return
    wanted = await responses_until_final(reader_of(case.expected or case.sent), case.method)
    assert [comparable(response) for response in got] == [comparable(response) for response in wanted]


@pytest.mark.parametrize("count", [1, 4], ids=["whole", "split"])
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_hostile_response_is_refused_cut_or_normalised(case: Case, count: int, start: Start) -> None:
    balancer = start(retries=0)
    hostile = Hostile(case, count)
    body = "Content-Length: 2\r\n\r\nhi" if case.method == "POST" else "\r\n"
    async with Endpoint(balancer.endpoints[0], hostile.script):
        async with await Client.connect(balancer.port) as client:
            await client.send(f"{case.method} /case HTTP/1.1\r\nHost: lb.test\r\n{body}")
            await check_client(client, case)
            if case.verdict != "cut":
                # On the same client connection, so that whatever is left of the first would come here; but not before
                # all of it has been said: what comes during the next request, nobody can tell from its answer.
                async with asyncio.timeout(PATIENCE):
                    await hostile.said.wait()
                await asyncio.sleep(0.005)
                client.writer.write(b"GET /next HTTP/1.1\r\nHost: lb.test\r\nConnection: close\r\n\r\n")
                rest = await client.to_end()
                assert rest == b"" or rest.endswith(b"\r\n\r\nnext"), rest
                assert rest.count(b"HTTP/1.1") < 2, rest
        async with await Client.connect(balancer.port) as client:
            if "/next" not in hostile.asked:
                answer = await client.ask("GET /next HTTP/1.1\r\nHost: lb.test\r\n\r\n")
                assert answer.body == b"next"
        if case.verdict != "passed" or "fresh" in case.flags:
            assert hostile.asked["/case"] != hostile.asked["/next"], "a spoilt connection was used again"


def test_the_corpus_is_large_enough() -> None:
    assert len([case for case in CASES if case.verdict != "passed"]) >= 100, "malformed ones"
    assert len({(case.method, case.sent, *case.flags) for case in CASES}) == len(CASES), "two cases send the same bytes"
