"""The traffic of the soak: clients of every kind, over endpoints that die, hang and come back."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

from tests.balancer.proxy.wire.corpus import all_cases
from tests.balancer.proxy.wire.ends import Accepted, Client, Endpoint
from tests.balancer.proxy.wire.messages import Closed, Message

BLOCK = b"x" * 65536
HOST = "Host: lb.test\r\n"
SHORT = [case for case in all_cases("requests") if len(case.sent) < 5000]
HTTP_2 = "preface-h2"
"""The cases that begin so are refused where HTTP/2 is off, which it is not here."""
REFUSED = [case for case in SHORT if case.verdict == "refused" and not case.flags and HTTP_2 not in case.name]


class Tally:
    """What came of the requests, as the clients saw it."""

    def __init__(self) -> None:
        self.whole: Counter[str] = Counter()
        """Answered as hoped, by kind of client."""
        self.told: Counter[str] = Counter()
        """Answered with an error that says its reason: `503 connection_refused`, `503 of the endpoint`."""
        self.cut: Counter[str] = Counter()
        """The connection ended before the response was whole, by kind of client."""
        self.unexplained: list[str] = []

    def note(self, kind: str, response: Message) -> None:
        """Count one response."""
        status = response.status
        if status < 400:
            self.whole[kind] += 1
            return
        reason = response.get("proxy-status")
        if reason is not None:
            self.told[f"{status} {reason.partition('details=')[2]}"] += 1
        elif response.get("x-soak"):
            self.told[f"{status} of the endpoint"] += 1
        else:
            self.unexplained.append(f"{kind}: {response.raw!r}")


# Endpoints.


class Fleet:
    """Four endpoints: one is steady, one dies and returns, one hangs at times, one is busy or fails at times."""

    def __init__(self, ports: list[int], chance: random.Random) -> None:
        self.chance = chance
        self.hanging = False
        self.endpoints = [Endpoint(port, self.script(number), remembers=False) for number, port in enumerate(ports)]

    def script(self, number: int) -> Callable[[Accepted], Awaitable[None]]:
        async def serve(connection: Accepted) -> None:
            while True:
                request = await connection.request()
                if number == 2 and self.hanging:
                    await connection.to_end()
                    return
                if number == 3 and self.chance.random() < 0.1:
                    await connection.send(
                        self.chance.choice(
                            [
                                "HTTP/1.1 503 Busy\r\nX-Soak: 1\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
                                "HTTP/1.1 500 Oh\r\nX-Soak: 1\r\nContent-Length: 0\r\n\r\n",
                            ]
                        )
                    )
                    continue
                if request.get("upgrade"):
                    await self.echo(connection)
                    return
                await self.answer(connection, request)
                if self.chance.random() < 0.02:
                    return

        return serve

    async def answer(self, connection: Accepted, request: Message) -> None:
        if request.target.startswith("/large"):
            await connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {40 * len(BLOCK)}\r\n\r\n")
            for _ in range(40):
                await connection.send(BLOCK)
        elif request.target.startswith("/events"):
            await connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(5):
                await connection.send("9\r\ndata: x\n\n\r\n")
                await asyncio.sleep(0.02)
            await connection.send("0\r\n\r\n")
        else:
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def echo(self, connection: Accepted) -> None:
        await connection.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        while data := await connection.reader.read(65536):
            await connection.send(data)

    async def live(self) -> None:
        """Die, hang and come back until cancelled."""
        while True:
            await asyncio.sleep(self.chance.uniform(0.5, 2.0))
            await self.endpoints[1].stop()
            self.hanging = True
            await asyncio.sleep(self.chance.uniform(0.5, 1.5))
            await self.endpoints[1].start()
            self.hanging = False


# Clients. Each does one thing on a connection of its own, and says what came of it.


class Crowd:
    """All clients; `run` plays one after the other of a kind until told to stop."""

    def __init__(self, port: int, chance: random.Random) -> None:
        self.port = port
        self.chance = chance
        self.tally = Tally()
        self.stopping = False
        self.kinds: dict[str, Callable[[Client], Awaitable[None]]] = {
            "small": self.small,
            "large": self.large,
            "upload": self.upload,
            "slow": self.slow,
            "events": self.events,
            "aborted": self.aborted,
            "websocket": self.websocket,
            "broken": self.broken,
        }

    async def run(self, kind: str, pause: float) -> None:
        while not self.stopping:
            client = await Client.connect(self.port)
            try:
                await self.kinds[kind](client)
            except (Closed, ConnectionError):
                self.tally.cut[kind] += 1
            except TimeoutError:
                self.tally.unexplained.append(f"{kind}: no answer in time")
            finally:
                await client.close()
            await asyncio.sleep(self.chance.uniform(0, 2 * pause))

    async def small(self, client: Client) -> None:
        for _ in range(self.chance.randrange(1, 100)):
            response = await client.ask(f"GET /small HTTP/1.1\r\n{HOST}\r\n")
            self.tally.note("small", response)
            if response.get("connection") == "close":
                return

    async def large(self, client: Client) -> None:
        self.tally.note("large", await client.ask(f"GET /large HTTP/1.1\r\n{HOST}\r\n"))

    async def upload(self, client: Client) -> None:
        await client.send(f"PUT /upload HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            await client.send(b"10000\r\n" + BLOCK + b"\r\n")
        await client.send("0\r\n\r\n")
        self.tally.note("upload", await client.response())

    async def slow(self, client: Client) -> None:
        await client.dribble(f"POST /slow HTTP/1.1\r\n{HOST}Content-Length: 40\r\n\r\n" + "x" * 40, 4)
        self.tally.note("slow", await client.response())

    async def events(self, client: Client) -> None:
        self.tally.note("events", await client.ask(f"GET /events HTTP/1.1\r\n{HOST}\r\n"))

    async def aborted(self, client: Client) -> None:
        await client.send(self.chance.choice([f"GET /large HTTP/1.1\r\n{HOST}\r\n", "POST / HTTP/1.1\r\nHos"]))
        await asyncio.sleep(self.chance.uniform(0, 0.02))
        client.reset()
        self.tally.whole["aborted"] += 1

    async def websocket(self, client: Client) -> None:
        await client.send(f"GET /chat HTTP/1.1\r\n{HOST}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        head = await client.head()
        if head.status != 101:
            self.tally.note("websocket", head)
            return
        for _ in range(10):
            await client.send(BLOCK[:5000])
            await client.exactly(5000)
            await asyncio.sleep(0.01)
        self.tally.whole["websocket"] += 1

    async def broken(self, client: Client) -> None:
        case = self.chance.choice(REFUSED)
        await client.send(case.sent)
        response = await client.response()
        assert response.status in case.statuses, f"{case.name}: {response.raw!r}"
        self.tally.note("broken", response)
