"""What the load generators are made to ask for: a table, in the order of worth, and the bar of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.endpoints import SIZES
from benchmarks.peers.peer import ROUTES, Mode

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
    mode: Mode = "http"
    tool: Literal["wrk", "h2load", "openssl"] = "wrk"
    """The generator: openssl's `s_time` makes a connection for each request, where TLS is what is measured."""
    connections: int = 64
    streams: int = 1
    """Requests that an HTTP/2 connection has open at once."""
    paths: int = 1
    """How many different ones are asked for in turn, where HTTP/2 is spoken."""
    resumed: bool = False
    """Whether a new connection takes up the TLS session of the one before."""
    headers: tuple[str, ...] = ()
    upload: int = 0
    """Bytes of each request's body."""
    size: int = 0
    """Bytes of each response's body, where bytes are counted; 0: requests are."""
    access_log: bool = False
    bar: Bar | None = None

    @property
    def group(self) -> str:
        """The table of docs/performance.md that its result stands in."""
        return "http2" if self.mode.startswith("h2") else "tls" if self.mode == "tls" else "throughput"


NGINX = ("nginx", "nginx-new")
HAPROXY = ("haproxy", "haproxy-new", "haproxy-3")
BEST = (*NGINX, *HAPROXY)
HTTP2 = (*BEST, "envoy")

HTTP = (
    Workload("tiny", "Tiny GET", bar=Bar(1.05, BEST)),
    Workload("browser", "Tiny GET, a browser's head", headers=BROWSER_HEAD, bar=Bar(0.9, BEST)),
    Workload("64k", "64 KB responses", path="/f/64k", size=SIZES["64k"], bar=Bar(1.0, BEST)),
    Workload("10m", "10 MB responses", path="/f/10m", size=SIZES["10m"], connections=16, bar=Bar(1.0, BEST)),
    Workload("close", "A connection for each request", headers=CLOSE, bar=Bar(0.95, BEST)),
    Workload("tcp-small", "TCP mode, small", mode="tcp", bar=Bar(1.0, HAPROXY)),
    Workload("tcp-1m", "TCP mode, 1 MB", mode="tcp", path="/f/1m", size=SIZES["1m"], bar=Bar(1.2, HAPROXY)),
    Workload("upload", "1 MB uploads", path="/upload", upload=SIZES["1m"], size=SIZES["1m"]),
    Workload("1k", "1 KB responses", path="/f/1k"),
    Workload("chunked", "64 KB responses, chunked", path="/chunked/64k", size=SIZES["64k"]),
    Workload("1-connection", "Tiny GET, 1 connection", connections=1),
    Workload("1000-connections", "Tiny GET, 1,000 connections", connections=1000),
    Workload("access-log", "Tiny GET, access log on", access_log=True, bar=Bar(1.0, BEST)),
    Workload(
        "routes", "Tiny GET by one of 10 routes", mode="routes", headers=(f"Host: {ROUTES[7]}",), bar=Bar(1.0, BEST)
    ),
)


def _http2(
    name: str, title: str, bar: Bar, *, mode: Mode = "h2", path: str = "/", paths: int = 1, streams: int = 32
) -> Workload:
    """One by h2load: 256 requests open at once, or where a connection has one stream only, 64."""
    size = SIZES.get(path.rpartition("/")[2], 0)
    connections = 8 if streams > 1 else 64
    return Workload(name, title, path, mode, "h2load", connections, streams=streams, paths=paths, size=size, bar=bar)


OVER_HTTP2 = (
    _http2("h2-tiny", "HTTP/2, tiny GET, 32 streams on each of 8 connections", Bar(2.0, HTTP2)),
    _http2("h2-paths", "HTTP/2, tiny GET, 5,000 paths", Bar(1.3, HAPROXY), paths=5000),
    _http2("h2-single", "HTTP/2, tiny GET, 1 on each of 64", Bar(1.3, HAPROXY), streams=1),
    _http2("h2-16k", "HTTP/2, 16 KB responses", Bar(1.5, HAPROXY), path="/f/16k"),
    _http2("h2-64k", "HTTP/2, 64 KB responses", Bar(1.5, HAPROXY), path="/f/64k"),
    _http2("h2-tls", "HTTP/2 by TLS in, plain out, tiny GET", Bar(2.0, HAPROXY), mode="h2-tls"),
    _http2("h2-to-http1", "HTTP/2 in, HTTP/1.1 out, tiny GET", Bar(0.9, HAPROXY), mode="h2-to-http1"),
)


@dataclass(frozen=True, slots=True)
class Calls:
    """gRPC calls, made by benchmarks/calls.py."""

    name: str
    title: str
    bar: Bar
    paths: int = 1
    """With more than one, each call has a traceparent of its own too."""
    connections: int = 8
    streams: int = 32
    mode: Mode = "h2"


CALLS = (
    Calls("h2-grpc", "gRPC, a small message and trailers, 32 calls on each of 8 connections", Bar(2.0, HTTP2)),
    Calls("h2-grpc-traced", "gRPC, 5,000 paths, a traceparent of its own in each call", Bar(1.3, HAPROXY), 5000),
    Calls("h2-grpc-single", "gRPC, 1 call on each of 64 connections", Bar(1.3, HAPROXY), connections=64, streams=1),
    Calls("h2-grpc-tls", "gRPC, by TLS in, plain out", Bar(2.0, HAPROXY), mode="h2-tls"),
)

OVER_TLS = (
    Workload("tls-tiny", "TLS, tiny GET", mode="tls", bar=Bar(0.95, BEST)),
    Workload("tls-handshake", "TLS, a full handshake for each request", "/", "tls", "openssl", 8, bar=Bar(0.6, NGINX)),
    Workload(
        "tls-resumed", "TLS, a resumed handshake for each", "/", "tls", "openssl", 8, resumed=True, bar=Bar(0.6, NGINX)
    ),
    Workload("tls-64k", "TLS, 64 KB responses", "/f/64k", "tls", size=SIZES["64k"], bar=Bar(1.0, BEST)),
    Workload("tls-1m", "TLS, 1 MB responses", "/f/1m", "tls", size=SIZES["1m"], bar=Bar(1.2, BEST)),
)

WORKLOADS = (*HTTP, *OVER_HTTP2, *OVER_TLS)
