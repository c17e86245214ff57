"""What wrk is made to ask for: a table, in the order of worth, and the bar of each (the issue's and the page's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.endpoints import SIZES

BROWSER_HEAD = (
    'sec-ch-ua: "Chromium";v="128", "Not;A=Brand";v="24", "Google Chrome";v="128"',
    "sec-ch-ua-mobile: ?0",
    'sec-ch-ua-platform: "Linux"',
    "Upgrade-Insecure-Requests: 1",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36",
    (
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
        "application/signed-exchange;v=b3;q=0.7"
    ),
    "Sec-Fetch-Site: none",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-User: ?1",
    "Sec-Fetch-Dest: document",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Accept-Language: en-US,en;q=0.9",
    "Cookie: session=abcdef0123456789abcdef0123456789; theme=dark",
)
"""With wrk's own Host, some 700 bytes: what Chrome sends, with a short cookie."""

CLOSE = ("Connection: close",)


@dataclass(frozen=True, slots=True)
class Bar:
    """What is to be reached: a share of the best of `against`, or where that is empty, an amount."""

    limit: float
    against: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """One load, and what its result is counted in."""

    name: str
    title: str
    path: str = "/"
    mode: Literal["http", "tcp"] = "http"
    connections: int = 64
    headers: tuple[str, ...] = ()
    upload: int = 0
    """Bytes of each request's body."""
    size: int = 0
    """Bytes of each response's body, where bytes are counted; 0: requests are."""
    access_log: bool = False
    bar: Bar | None = None


BEST = ("nginx", "haproxy")

WORKLOADS = (
    Workload("tiny", "Tiny GET", bar=Bar(1.0, BEST)),
    Workload("browser", "Tiny GET, a browser's head", headers=BROWSER_HEAD, bar=Bar(0.9, BEST)),
    Workload("64k", "64 KB responses", path="/f/64k", size=SIZES["64k"], bar=Bar(1.0, BEST)),
    Workload("10m", "10 MB responses", path="/f/10m", size=SIZES["10m"], connections=16, bar=Bar(1.0, BEST)),
    Workload("close", "A connection for each request", headers=CLOSE, bar=Bar(0.8, BEST)),
    Workload("tcp-small", "TCP mode, small", mode="tcp", bar=Bar(0.95, ("haproxy",))),
    Workload("tcp-1m", "TCP mode, 1 MB", mode="tcp", path="/f/1m", size=SIZES["1m"], bar=Bar(1.3, ("haproxy",))),
    Workload("upload", "1 MB uploads", path="/upload", upload=SIZES["1m"], size=SIZES["1m"]),
    Workload("1k", "1 KB responses", path="/f/1k"),
    Workload("chunked", "64 KB responses, chunked", path="/chunked/64k", size=SIZES["64k"]),
    Workload("1-connection", "Tiny GET, 1 connection", connections=1),
    Workload("1000-connections", "Tiny GET, 1,000 connections", connections=1000),
    Workload("access-log", "Tiny GET, access log on", access_log=True),
)
