"""The two ends of HTTP/2, by the library `h2`: a client, an endpoint that answers by script; and raw frames."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self, TypeVar, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes, Settings
from hyperframe.frame import Frame
from tests.balancer.proxy.wire.ends import LIMIT, Client, End, let_accepted_begin, still_open
from tests.balancer.proxy.wire.messages import PATIENCE

F = TypeVar("F", bound=Frame)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Fields = list[tuple[str, str]]


def plain(headers: Iterable[tuple[bytes | str, bytes | str]] | None) -> Fields:
    """Fields as text."""
    return [(_text(name), _text(value)) for name, value in headers or ()]


def _text(part: bytes | str) -> str:
    return part.decode("latin-1") if isinstance(part, bytes) else part


class Answer:
    """What came back on one stream."""

    def __init__(self) -> None:
        self.interim: list[int] = []
        self.fields: Fields = []
        self.trailers: Fields = []
        self.body = b""
        self.ended = False
        self.reset: int | None = None
        """The code of RST_STREAM."""
        self.lost = False
        """Whether the connection ended first."""

    @property
    def status(self) -> int:
        return int(dict(self.fields).get(":status", 0))

    def field(self, name: str) -> str | None:
        return dict(self.fields).get(name)

    def trailer(self, name: str) -> str | None:
        return dict(self.trailers).get(name)

    @property
    def over(self) -> bool:
        return self.ended or self.lost or self.reset is not None


class H2Client:
    """A client's connection, read in the background."""

    def __init__(self, end: End, *, acknowledges: bool = True) -> None:
        """`acknowledges`: whether it opens its windows again as data comes."""
        self.end = end
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None, validate_outbound_headers=False))
        self.acknowledges = acknowledges
        self.answers: dict[int, Answer] = {}
        self.goaways: list[ConnectionTerminated] = []
        self.closed = False
        self._changed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, port: int, *, tls: ssl.SSLContext | None = None, acknowledges: bool = True) -> Self:
        client = cls(await Client.connect(port, tls=tls), acknowledges=acknowledges)
        client.h2.initiate_connection()
        await client.flush()
        client._reading = asyncio.get_running_loop().create_task(client._read())
        return client

    async def flush(self) -> None:
        data = self.h2.data_to_send()
        if data:
            await self.end.send(data)

    async def _read(self) -> None:
        try:
            while data := await self.end.reader.read(1 << 16):
                for event in self.h2.receive_data(data):
                    self._take(event)
                await self.flush()
                self._tell()
        except (ConnectionError, TimeoutError, ssl.SSLError):
            pass
        finally:
            self.closed = True
            for answer in self.answers.values():
                answer.lost = not answer.over
            self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _take(self, event: Event) -> None:
        if isinstance(event, ConnectionTerminated):
            self.goaways.append(event)
            return
        answer = self.answers.get(getattr(event, "stream_id", None) or 0)
        if answer is None:
            return
        if isinstance(event, InformationalResponseReceived):
            answer.interim.append(int(dict(plain(event.headers))[":status"]))
        elif isinstance(event, ResponseReceived):
            answer.fields = plain(event.headers)
        elif isinstance(event, TrailersReceived):
            answer.trailers = plain(event.headers)
        elif isinstance(event, DataReceived):
            answer.body += event.data
            if self.acknowledges and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            answer.ended = True
        elif isinstance(event, StreamReset):
            answer.reset = event.error_code

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that came makes it true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await self._changed.wait()

    async def begin(self, fields: Fields, *, ended: bool = True) -> int:
        """Send a header block; its stream."""
        stream = self.h2.get_next_available_stream_id()
        self.answers[stream] = Answer()
        self.h2.send_headers(stream, fields, end_stream=ended)
        await self.flush()
        return stream

    async def send(self, stream: int, data: bytes, *, ended: bool = False) -> None:
        """Send DATA, which has to fit the window."""
        self.h2.send_data(stream, data, end_stream=ended)
        await self.flush()

    async def answer(self, stream: int) -> Answer:
        """The whole answer, or what there is when the stream ended otherwise."""
        await self.until(lambda: self.answers[stream].over)
        return self.answers[stream]

    async def get(self, path: str = "/", extra: Fields | None = None, method: str = "GET") -> Answer:
        return await self.answer(await self.begin(asking(path, method, extra)))

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        await self.end.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def asking(path: str = "/", method: str = "GET", extra: Fields | None = None) -> Fields:
    """The fields of a request."""
    pseudo = [(":method", method), (":scheme", "http"), (":authority", "lb.test"), (":path", path)]
    return [*pseudo, *(extra or [])]


class Asked:
    """One request that came to an endpoint."""

    def __init__(self, served: H2Served, stream: int, fields: Fields) -> None:
        self.served = served
        self.stream = stream
        self.fields = fields
        self.body = b""
        self.trailers: Fields = []
        self.whole = asyncio.Event()
        self.reset: int | None = None

    def field(self, name: str) -> str | None:
        return dict(self.fields).get(name)

    async def respond(
        self, status: int = 200, body: bytes = b"ok", extra: Fields | None = None, trailers: Fields | None = None
    ) -> None:
        fields = [(":status", str(status)), *(extra or [])]
        h2 = self.served.h2
        h2.send_headers(self.stream, fields, end_stream=not body and trailers is None)
        if body:
            h2.send_data(self.stream, body, end_stream=trailers is None)
        if trailers is not None:
            h2.send_headers(self.stream, trailers, end_stream=True)
        await self.served.flush()

    async def refuse(self, code: int) -> None:
        self.served.h2.reset_stream(self.stream, code)
        await self.served.flush()


class H2Served:
    """One connection of the balancer's to an endpoint."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.end = End(reader, writer)
        self.number = number
        """Which of the endpoint's connections it is, from 1."""
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.asked: dict[int, Asked] = {}

    async def flush(self) -> None:
        data = self.h2.data_to_send()
        if data:
            await self.end.send(data)

    async def goaway(self, last: int) -> None:
        """Serve nothing above `last`."""
        frame = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + last.to_bytes(4, "big") + bytes(4)
        await self.end.send(self.h2.data_to_send() + frame)


Script2 = Callable[[Asked], Awaitable[None]]


async def ok(asked: Asked) -> None:
    await asked.whole.wait()
    await asked.respond()


class H2Endpoint:
    """An endpoint that speaks HTTP/2 (h2c), and plays a script for each request."""

    def __init__(
        self,
        port: int,
        script: Script2 = ok,
        *,
        max_streams: int = 100,
        connects: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`connects`: whether it says that it knows extended CONNECT."""
        self.connects = connects
        self.port = port
        self.script = script
        self.max_streams = max_streams
        self.tls = tls
        self.requests: list[Asked] = []
        self.connections: list[H2Served] = []
        self.broken: list[BaseException] = []
        self._uncut: list[H2Served] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that came makes it true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await self._changed.wait()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, limit=LIMIT, ssl=self.tls, reuse_address=True
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        async with asyncio.timeout(PATIENCE):
            while await self._cut() or still_open(self._server):  # noqa: ASYNC110 (asyncio has no event for it)
                await asyncio.sleep(0.001)
        if kind is None and self.broken:
            raise self.broken[0]

    async def _cut(self) -> bool:
        """Cut what is open; whether there was anything."""
        await let_accepted_begin()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        cut, self._uncut = self._uncut, []
        for served in cut:
            served.end.writer.transport.abort()
            await served.end.close()
        if tasks:
            await asyncio.wait(tasks, timeout=2)
        return bool(cut or tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served = H2Served(reader, writer, len(self.connections) + 1)
        self.connections.append(served)
        self._uncut.append(served)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            served.h2.local_settings = Settings(
                client=False,
                initial_values={
                    SettingCodes.MAX_CONCURRENT_STREAMS: self.max_streams,
                    SettingCodes.ENABLE_CONNECT_PROTOCOL: int(self.connects),
                },
            )
            served.h2.initiate_connection()
            await served.flush()
            while data := await reader.read(1 << 16):
                for event in served.h2.receive_data(data):
                    self._take(served, event)
                await served.flush()
                changed, self._changed = self._changed, asyncio.Event()
                changed.set()
        except (ConnectionError, asyncio.CancelledError, ssl.SSLError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    def _take(self, served: H2Served, event: Event) -> None:
        stream = getattr(event, "stream_id", None) or 0
        if isinstance(event, RequestReceived):
            asked = Asked(served, stream, plain(event.headers))
            served.asked[stream] = asked
            self.requests.append(asked)
            task = asyncio.get_running_loop().create_task(self._play(asked))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif isinstance(event, DataReceived):
            served.asked[stream].body += event.data
            if event.flow_controlled_length:
                served.h2.acknowledge_received_data(event.flow_controlled_length, stream)
        elif isinstance(event, TrailersReceived):
            served.asked[stream].trailers = plain(event.headers)
        elif isinstance(event, StreamEnded):
            served.asked[stream].whole.set()
        elif isinstance(event, StreamReset):
            served.asked[stream].reset = int(event.error_code)

    async def _play(self, asked: Asked) -> None:
        try:
            await self.script(asked)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except Exception as error:  # noqa: BLE001  (told by the test's end, not lost in a task)
            self.broken.append(error)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame as bytes."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def headers(stream: int, block: bytes, *, ended: bool = True) -> bytes:
    """A HEADERS frame that is whole."""
    return frame(1, 0x5 if ended else 0x4, stream, block)


class Frames:
    """A client that writes frames of its own making, and reads what comes as frames."""

    def __init__(self, end: End) -> None:
        self.end = end
        self.frames: list[Frame] = []
        self._held = b""

    @classmethod
    async def connect(cls, port: int, *, settings: bytes = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00") -> Self:
        frames = cls(await Client.connect(port))
        await frames.end.send(PREFACE + settings)
        return frames

    async def send(self, data: bytes) -> None:
        """Write, or notice nothing where the balancer has closed already."""
        try:
            await self.end.send(data)
        except ConnectionError:
            return

    async def next(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        async with asyncio.timeout(PATIENCE):
            while True:
                if len(self._held) >= 9:
                    frame, length = Frame.parse_frame_header(memoryview(self._held[:9]))
                    if len(self._held) >= 9 + length:
                        frame.parse_body(memoryview(self._held[9 : 9 + length]))
                        self._held = self._held[9 + length :]
                        self.frames.append(frame)
                        return frame
                try:
                    data = await self.end.reader.read(1 << 16)
                except ConnectionError:
                    return None
                if not data:
                    return None
                self._held += data

    async def until(self, kind: type[F] | tuple[type[Frame], ...]) -> F:
        """The next frame of this kind; fails when the connection ends before."""
        while (frame := await self.next()) is not None:
            if isinstance(frame, kind):
                return cast("F", frame)
        raise AssertionError(f"no {kind} among {self.frames}")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end.close()
