"""The traffic of the end-to-end run, from a pod of its own: it checks every digit and tells what came of it.

    python load.py URL

Twelve clients ask without end: eight over connections that they keep, four with a new one each time. None ever repeats
a request, so that nothing is hidden but by the balancer. Four of those that keep their connections trust them: they ask
again until a response says `close`, and a connection that ends without that notice is a failed request. Twice a second
a line of JSON goes to standard output: the totals so far, who served since the line before, and every failure in words.

A connection for which the node finds no route (EHOSTUNREACH: nobody answers for the address that it chose) never came
to a balancer. It is counted apart and made once more; the reader of the lines decides how many are too many.
"""

from __future__ import annotations

import asyncio
import errno
import json
import math
import random
import socket
import sys
import time
from collections import Counter
from urllib.parse import urlsplit

import gmpy2  # type: ignore[import-untyped]

KEEPING, TRUSTING, CLOSING = 8, 4, 4
DIGITS = (0, 10, 100, 100, 1000, 1000, 5000, 30_000)
"""From no work at all to a request of some hundredths of a second, so that there is always one in flight."""
PAUSE = 0.15
"""Seconds between the requests of a client, on average."""
TIMEOUT = 20.0
REPORT_EVERY = 0.5


class Broken(Exception):
    """The answer is not the one that was asked for; the text says how."""


def pi_text(digits: int) -> str:
    gmpy2.get_context().precision = math.ceil((digits + 10) * math.log2(10)) + 10
    mantissa, _, _ = gmpy2.const_pi().digits(10, digits + 5)
    return f"3.{mantissa[1 : digits + 1]}"


class Load:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.address = ""
        self.pi = pi_text(max(DIGITS))
        self.lines = self.requests = self.failed = 0
        self.served: Counter[str] = Counter()
        self.failures: list[str] = []
        self.unrouted: list[str] = []
        self.slowest = 0.0

    async def run(self) -> None:
        await self.wait_for_the_service()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.report())
            for number in range(KEEPING + CLOSING):
                group.create_task(self.client(keeps=number < KEEPING, trusts=number < TRUSTING))

    async def wait_for_the_service(self) -> None:
        """Until it has an address and has answered once; from then on no request may fail."""
        while True:
            try:
                # Once: the Service's address stays, and cluster DNS is not what is tested.
                self.address = socket.gethostbyname(self.host)
                reader, writer = await asyncio.open_connection(self.address, self.port)
                try:
                    await self.ask(reader, writer, 10, closing=True)
                finally:
                    writer.close()
            except (OSError, Broken, asyncio.IncompleteReadError):
                await asyncio.sleep(0.2)
            else:
                return

    async def client(self, *, keeps: bool, trusts: bool) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while True:
            digits = random.choice(DIGITS)
            started = time.monotonic()
            state = "a kept connection" if connection else "a new connection"
            try:
                async with asyncio.timeout(TIMEOUT):
                    if connection is None:
                        connection = await self.connect()
                    ends = await self.ask(*connection, digits, closing=not keeps)
                if ends:
                    connection[1].close()
                    connection = None
            except (OSError, Broken, asyncio.IncompleteReadError) as error:
                self.failed += 1
                took = time.monotonic() - started
                self.failures.append(f"{time.strftime('%H:%M:%S')}, /{digits} on {state}, {took:.2f} s: {error!r}")
                if connection:
                    connection[1].close()
                connection = None
            self.requests += 1
            self.slowest = max(self.slowest, time.monotonic() - started)
            await asyncio.sleep(random.uniform(0, 2 * PAUSE))
            if connection and connection[0].at_eof() and not trusts:
                # Closed while nothing was asked: most clients would see it, and not ask on it.
                connection[1].close()
                connection = None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection, at the second attempt when the node found no route for the first. Raises OSError."""
        started = time.monotonic()
        try:
            return await asyncio.open_connection(self.address, self.port)
        except OSError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            self.unrouted.append(f"{time.strftime('%H:%M:%S')}, after {time.monotonic() - started:.2f} s: {error!r}")
        return await asyncio.open_connection(self.address, self.port)

    async def ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, digits: int, *, closing: bool
    ) -> bool:
        """One request; whether the connection is to be closed after it. Raises Broken, OSError, IncompleteReadError."""
        connection = "close" if closing else "keep-alive"
        lines = (f"GET /{digits} HTTP/1.1", f"Host: {self.host}", "Accept: text/plain", f"Connection: {connection}")
        writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except asyncio.IncompleteReadError as error:
            raise Broken(f"the connection ended after {len(error.partial)} bytes of the head") from None
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = (await reader.readexactly(int(headers.get("content-length", "0")))).decode()
        if not head[0].startswith("HTTP/1.1 200"):
            raise Broken(f"{head[0]}; {headers.get('proxy-status', '')}; {body.strip()[:200]}")
        expected = self.pi[: digits + 2] if digits else "3"
        if body.strip() != expected:
            raise Broken(f"{len(body)} wrong digits: {body[:20]!r}…")
        self.served[headers.get("x-served-by", "?")] += 1
        return closing or headers.get("connection", "").lower() == "close"

    async def report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY)
            self.lines += 1
            line = {
                "line": self.lines,
                "requests": self.requests,
                "failed": self.failed,
                "served": dict(self.served),
                "failures": self.failures,
                "unrouted": self.unrouted,
                "slowest": round(self.slowest, 3),
            }
            print(json.dumps(line), flush=True)  # noqa: T201
            self.served.clear()
            self.failures, self.unrouted, self.slowest = [], [], 0.0


if __name__ == "__main__":
    asyncio.run(Load(sys.argv[1]).run())
