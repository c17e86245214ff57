"""Random messages, whole and broken, in random pieces: an endpoint never gets anything but what h11 reads in them too.

A state machine plays one client: it sends messages one after the other, mutilated now and then. What reaches the
endpoint is read by h11, and so are the client's own bytes: the first must be the beginning of the second.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import h11
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from tests.balancer.proxy.conftest import assert_at_rest
from tests.balancer.proxy.wire.ends import Accepted, Client, Endpoint, close_all
from tests.balancer.proxy.wire.messages import Closed
from tests.balancer.proxy.wire.process import Balancer

HOPS = {"connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "http2-settings"}
ADDED = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "via", "x-request-id"}
QUIET = 0.03
"""Seconds of silence after which a broken message is taken to be one that the balancer waits for the rest of."""

Reading = tuple[str, str, tuple[tuple[str, str], ...], bytes, tuple[tuple[str, str], ...]]
"""Method, target, fields for the whole way, body, trailers."""


def fields_of(headers: Iterator[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    pairs = [(name.decode("latin-1"), value.decode("latin-1").strip(" \t")) for name, value in headers]
    named = {option.strip().lower() for name, value in pairs if name == "connection" for option in value.split(",")}
    return tuple(pair for pair in pairs if pair[0] not in HOPS | ADDED | named)


class Reader:
    """h11 in the place of a server: the whole requests in the bytes fed to it, until the first fault."""

    def __init__(self, whole: list[Reading]) -> None:
        self.connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        self.whole = whole
        self.fault = ""
        self._head: h11.Request | None = None
        self._body = b""

    def feed(self, data: bytes) -> bytes:
        """Read on; the responses to what became whole."""
        answers = b""
        waiting = self.connection.trailing_data[0]
        if self.connection.their_state is h11.IDLE and (waiting + data).startswith(b"\r\n") and not self.fault:
            # h11 takes no empty line before a request line, where RFC 9112 2.2 has one skipped.
            self.connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
            data = (waiting + data).removeprefix(b"\r\n")
            return self.feed(data)
        try:
            self.connection.receive_data(data)
            while (event := self.connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                answers += self._take(event)
        except h11.ProtocolError as error:
            self.fault = str(error)
        return answers

    def _take(self, event: object) -> bytes:
        if isinstance(event, h11.Request):
            self._head, self._body = event, b""
        elif isinstance(event, h11.Data):
            self._body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage) and self._head is not None:
            head = self._head
            trailers = fields_of(iter(event.headers))
            self.whole.append(
                (
                    head.method.decode(),
                    head.target.decode("latin-1"),
                    fields_of(iter(head.headers)),
                    self._body,
                    trailers,
                )
            )
            answer = self.connection.send(h11.Response(status_code=200, headers=[("Content-Length", "2")])) or b""
            if head.method == b"HEAD":
                answer += self.connection.send(h11.EndOfMessage()) or b""
            else:
                answer += self.connection.send(h11.Data(data=b"ok")) or b""
                answer += self.connection.send(h11.EndOfMessage()) or b""
            if self.connection.our_state is h11.DONE and self.connection.their_state is h11.DONE:
                self.connection.start_next_cycle()
                answer += self.feed(b"") if self.connection.trailing_data[0].startswith(b"\r\n") else b""
            return answer
        return b""


# Messages.

tokens = st.text("abcXYZ019-_.!", min_size=1, max_size=8)
values = st.text("abc XYZ09\t;,=/\xe9\"'", max_size=20).map(str.strip)
names = tokens.map(lambda token: "X-" + token)
fields = st.lists(st.tuples(names, values), max_size=4)
odd_fields = st.sampled_from(
    [
        "Connection: keep-alive",
        "Connection: X-a",
        "TE: trailers",
        "Accept: */*",
        "Content-Type: a/b",
        "Cookie: a=b; c=d",
    ]
)
targets = st.sampled_from(["/", "/a?b=c", "/%00", "//x", "/a/../b", "/" + "p" * 300])
chunks = st.lists(st.binary(min_size=1, max_size=300), max_size=4)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A valid request."""
    method = draw(st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE", "BREW"]))
    lines = [f"{method} {draw(targets)} HTTP/1.1", "Host: lb.test"]
    lines += [f"{name}: {value}" for name, value in draw(fields)] + draw(st.lists(odd_fields, max_size=2))
    framing = draw(st.sampled_from(["none", "length", "chunked"]))
    body = b""
    if framing == "length":
        body = b"".join(draw(chunks))
        lines.append(f"Content-Length: {len(body)}")
    elif framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        for piece in draw(chunks):
            body += draw(st.sampled_from([b"%x", b"%X", b"00%x"])) % len(piece)
            body += draw(st.sampled_from([b"", b";a=b", b';a="q"'])) + b"\r\n" + piece + b"\r\n"
        body += b"0\r\n" + draw(st.sampled_from([b"", b"X-Sum: 1\r\n"])) + b"\r\n"
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


# fmt: off
INSERTS = [
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b"\0", b":", b"\x0b", b"\xff", b"0",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
]
SWAPS = [
    (b"\r\n", b"\n"), (b"\r\n\r\n", b"\r\n"), (b": ", b" : "), (b": ", b":\r\n "), (b"chunked", b"xchunked"),
    (b"Length: ", b"Length: +"), (b"1.1", b"1.0"), (b"Host", b"Hosx"), (b"0\r\n", b"0x0\r\n"), (b"HTTP", b"http"),
]
# fmt: on


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A request with one to three faults, each at a random place."""
    data = draw(messages())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        fault = draw(st.sampled_from(["insert", "delete", "swap", "flip"]))
        if fault == "insert":
            data = data[:at] + draw(st.sampled_from(INSERTS)) + data[at:]
        elif fault == "delete":
            data = data[:at] + data[at + draw(st.integers(1, 5)) :]
        elif fault == "swap":
            old, new = draw(st.sampled_from(SWAPS))
            data = data.replace(old, new, 1)
        elif at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
    return data


cuts = st.lists(st.floats(0, 1), max_size=4)


class World:
    """What all runs of the machine share: one balancer, one event loop, one endpoint."""

    def __init__(self, folder: Path) -> None:
        self.runner = asyncio.Runner()
        self.balancer = Balancer(folder / "log", settings={"LB_RETRIES": "0", "LB_ACCESS_LOG": "off"})
        self.readers: list[Reader] = []
        self.whole: list[Reading] = []
        """What has reached the endpoint, in order: one client's requests come one after the other."""
        self.endpoint = Endpoint(self.balancer.endpoints[0], self.script)
        self.runner.run(self.endpoint.start())

    async def script(self, connection: Accepted) -> None:
        reader = Reader(self.whole)
        self.readers.append(reader)
        while data := await connection.reader.read(65536):
            await connection.send(reader.feed(data))

    async def settled(self) -> None:
        """Return when nothing of an earlier connection can reach the endpoint any more."""
        while await asyncio.to_thread(self.balancer.metric, "lb_downstream_connections_open"):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        for _ in range(3):
            await asyncio.sleep(0.001)

    def close(self) -> None:
        self.runner.run(close_all())
        self.runner.close()
        self.balancer.stop()


class OneClient(RuleBasedStateMachine):
    """One client and its connection, opened again when the balancer has closed it."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.client: Client | None = None

    def connect(self) -> Client:
        """The connection that is open, or a new one."""
        if self.client is None:
            self.world.runner.run(self.world.settled())
            self.sent = Reader([])
            self.before = len(self.world.whole)
            self.client = self.world.runner.run(Client.connect(self.world.balancer.port))
        return self.client

    @rule(message=messages(), at=cuts)
    def a_valid_message_is_answered(self, message: bytes, at: list[float]) -> None:
        method = message.partition(b" ")[0].decode()
        client = self.connect()
        self.sent.feed(message)
        self.world.runner.run(self.send(message, at))
        response = self.world.runner.run(client.response(method))
        assert response.status == 200, (message, response.raw)
        assert self.got() == self.sent.whole

    @rule(message=broken(), at=cuts)
    def a_broken_message_is_refused_or_read_as_h11_reads_it(self, message: bytes, at: list[float]) -> None:
        self.connect()
        before = len(self.sent.whole)
        self.sent.feed(message)
        self.world.runner.run(self.send(message, at))
        self.world.runner.run(self.read_until_quiet())
        got = self.got()
        assert got == self.sent.whole[: len(got)], (message, got[before:], self.sent.whole[before:], self.sent.fault)
        assert not any(reader.fault for reader in self.world.readers), (message, [r.fault for r in self.world.readers])

    def got(self) -> list[Reading]:
        """What has reached the endpoint since this connection was opened."""
        return self.world.whole[self.before :]

    async def send(self, message: bytes, at: list[float]) -> None:
        assert self.client is not None
        places = sorted({int(share * len(message)) for share in at} - {0})
        try:
            for begin, end in zip([0, *places], [*places, len(message)], strict=True):
                await self.client.send(message[begin:end])
                await asyncio.sleep(0.0005)
        except ConnectionError:
            pass

    async def read_until_quiet(self) -> None:
        """Read what comes, and give the connection up: whether it was refused, or waits for more."""
        assert self.client is not None
        try:
            while await self.client.some(within=QUIET):
                pass
        except Closed:
            pass
        await self.client.close()
        self.client = None

    def teardown(self) -> None:
        if self.client is not None:
            self.world.runner.run(self.client.close())


@pytest.mark.timeout(400)
def test_an_endpoint_gets_only_what_h11_reads_too() -> None:
    with tempfile.TemporaryDirectory() as folder:
        OneClient.world = World(Path(folder))
        try:
            run_state_machine_as_test(
                OneClient,
                settings=settings(
                    max_examples=int(os.environ.get("LB_TEST_EXAMPLES", "60")),
                    stateful_step_count=6,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
            assert_at_rest(OneClient.world.balancer)
        finally:
            OneClient.world.close()
