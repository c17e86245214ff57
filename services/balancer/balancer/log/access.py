"""The access log: one JSON object a line."""

from __future__ import annotations

import time
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as quoted
from random import Random
from typing import Final

from balancer.log.output import Output

MAX_FIELD: Final = 1024
"""Characters of a client's data that a line carries."""
MAX_REMEMBERED: Final = 4096
"""Texts whose quoted form is kept, of each kind."""
_DIGITS: Final = [f"{number:03d}" for number in range(1000)]


class AccessEntry:
    """What the access log says about one request (in TCP mode, one connection). The proxy fills and reuses it."""

    __slots__ = (
        "attempts",
        "bytes_received",
        "bytes_sent",
        "client",
        "cluster",
        "connect",
        "endpoint",
        "first_byte",
        "grpc_status",
        "method",
        "path",
        "queue",
        "reason",
        "request_id",
        "route",
        "status",
        "strategy",
        "tls_name",
        "total",
    )

    def __init__(self) -> None:
        self.request_id = ""
        self.client = ""
        """The client's IP address."""
        self.method = ""
        self.path = ""
        """Without the query, which may carry secrets."""
        self.status = 0
        """Of the final response; 0 when there was none."""
        self.bytes_received = 0
        """Body bytes from the client."""
        self.bytes_sent = 0
        """Body bytes to the client."""
        self.queue: float | None = None
        """Seconds in the queue; None when it did not wait."""
        self.connect: float | None = None
        """Seconds to connect; None on a connection that was open already."""
        self.first_byte: float | None = None
        """Seconds from the end of sending to the response's first byte."""
        self.total = 0.0
        """Seconds from the request's head to the response's last byte."""
        self.endpoint = ""
        """`host:port` of the last attempt's endpoint."""
        self.cluster = ""
        """Whose endpoints were to choose from."""
        self.route = ""
        """The route that the request or connection went by, with its namespace; empty where there is none."""
        self.attempts = 0
        self.strategy = ""
        self.reason = ""
        """Why it failed, in the words of Proxy-Status and the metrics; empty when it did not."""
        self.grpc_status = ""
        """How a gRPC call ended, by name; empty for other requests."""
        self.tls_name = ""
        """The name that a TLS client has asked for, of a connection whose bytes are carried; empty for all others."""


class AccessLog:
    """One JSON object a line for each request that is to be logged."""

    def __init__(
        self,
        output: Output,
        sample: float = 1.0,
        slow: float | None = None,
        random: Random | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Log the share `sample` of the requests, and those that took `slow` seconds or more in any case."""
        self.output = output
        self._sample = sample
        self._slow = slow
        self._random = random or Random()
        self._wall = wall
        self._second = -1
        self._date = ""
        self._millisecond = -1
        self._prefix = ""
        self._recurrent: dict[str, str] = {}
        self._endings: dict[tuple[str, int, str, str, str, str], str] = {}

    def record(self, entry: AccessEntry) -> None:
        """Log `entry` if it is to be logged. It may be reused as soon as this returns."""
        if self.wants(entry.total):
            self.write(entry)

    def wants(self, total: float) -> bool:
        """Whether a request that took `total` seconds is to be logged: asked once for each."""
        if self._sample >= 1.0 or (self._slow is not None and total >= self._slow):
            return True
        return self._random.random() < self._sample

    def write(self, entry: AccessEntry) -> None:
        """Log `entry`. One f-string, whose texts that come again are quoted once: a third of the time of json.dumps."""
        now = self._wall()
        millisecond = int(now * 1000.0)
        if millisecond != self._millisecond:
            self._stamp(millisecond)
        more = f',"grpc_status":"{entry.grpc_status}"' if entry.grpc_status else ""
        if entry.tls_name:
            more += f',"tls_name":{_quoted(entry.tls_name)}'
        self.output.write(
            f'{self._prefix}{_quoted(entry.request_id)},"client":{self._recurring(entry.client)},'
            f'"method":{self._recurring(entry.method)},"path":{_quoted(entry.path)},"status":{entry.status},'
            f'"bytes_received":{entry.bytes_received},"bytes_sent":{entry.bytes_sent},"queue":{_seconds(entry.queue)},'
            f'"connect":{_seconds(entry.connect)},"first_byte":{_seconds(entry.first_byte)},'
            f'"total":{_seconds(entry.total)},{self._ending(entry)}{more}}}\n'
        )

    def _stamp(self, millisecond: int) -> None:
        second, thousandths = divmod(millisecond, 1000)
        if second != self._second:
            self._second = second
            self._date = time.strftime('{"time":"%Y-%m-%dT%H:%M:%S.', time.gmtime(second))
        self._millisecond = millisecond
        self._prefix = f'{self._date}{_DIGITS[thousandths]}Z","request_id":'

    def _recurring(self, text: str) -> str:
        """`text` quoted: a client's address or a method, which come again and again."""
        known = self._recurrent.get(text)
        if known is None:
            if len(self._recurrent) >= MAX_REMEMBERED:
                self._recurrent.clear()
            known = self._recurrent[text] = _quoted(text)
        return known

    def _ending(self, entry: AccessEntry) -> str:
        """Where the request went and how it ended."""
        key = (entry.endpoint, entry.attempts, entry.strategy, entry.reason, entry.cluster, entry.route)
        ending = self._endings.get(key)
        if ending is None:
            if len(self._endings) >= MAX_REMEMBERED:
                self._endings.clear()
            where = f'"cluster":{quoted(entry.cluster)},"route":{_or_null(entry.route)},' if entry.cluster else ""
            ending = self._endings[key] = (
                f'{where}"endpoint":{_or_null(entry.endpoint)},"attempts":{entry.attempts},'
                f'"strategy":{quoted(entry.strategy)},"reason":{_or_null(entry.reason)}'
            )
        return ending

    def close(self) -> None:
        """Write out what is left."""
        self.output.close()


def _quoted(text: str) -> str:
    return quoted(text if len(text) <= MAX_FIELD else text[:MAX_FIELD] + "…")


def _or_null(text: str) -> str:
    return quoted(text) if text else "null"


def _seconds(value: float | None) -> str:
    """With six places after the point, of which formatting a float would take three times as long to write."""
    if value is None:
        return "null"
    microseconds = int(value * 1e6 + 0.5)
    below = microseconds % 1_000_000
    return f"{microseconds // 1_000_000}.{_DIGITS[below // 1000]}{_DIGITS[below % 1000]}"
