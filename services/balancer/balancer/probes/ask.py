"""One check of one endpoint: a request over a plain stream, or just a connection.

It is no HTTP client's work, since an endpoint may expect a PROXY protocol header before anything else.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl

import dns.exception

from balancer import resolving
from balancer.balancing.endpoint import Endpoint
from balancer.balancing.outcome import LOCAL_ERRORS
from balancer.probes import http2_call
from balancer.probes.http2_call import Call, CallFailed
from balancer.proxy.endpoint_tls import EndpointTls, Trust
from balancer.proxy.http1.framing import ODD_STATUS_LINE
from balancer.settings import Settings

MAX_HEAD = 64 << 10

PROXY_HEADERS = {"off": b"", "v1": b"PROXY UNKNOWN\r\n", "v2": b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"}
"""A connection that carries no client's, in the PROXY protocol: UNKNOWN (its section 2.1), or command LOCAL (2.2)."""


class Ask:
    """One check of one endpoint, by LB_HEALTH_PATH.

    A path is asked for by GET, in the protocol in which the endpoint gets its requests; `grpc` and `grpc:SERVICE` call
    gRPC's own health check; `tcp` is just a connection, and its TLS handshake.
    """

    def __init__(self, settings: Settings, trust: Trust | None = None) -> None:
        """`trust`: by TLS, and which authorities to trust, whatever the settings say."""
        path = settings.health_path or "tcp"
        self._path = path
        self._service: str | None = path.partition(":")[2] if path.partition(":")[0] == "grpc" else None
        """The service to ask for by gRPC, "" being the whole server; None: not by gRPC."""
        self._protocol = settings.upstream_protocol if settings.mode == "http" else "http1"
        self._expected = settings.health_status
        self._timeout = settings.health_timeout
        self._proxy_header = PROXY_HEADERS[settings.upstream_proxy_protocol]
        self._tls = EndpointTls(settings, (), trust) if settings.upstream_tls or trust is not None else None

    async def __call__(self, endpoint: Endpoint) -> str | None:
        """Why the endpoint is not healthy, or None if it is. Raises OSError for what is no fault of the endpoint."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._check(endpoint)
        except TimeoutError:
            return f"no answer within {self._timeout:g} s"
        except ssl.SSLError as error:
            return f"TLS failed: {getattr(error, 'verify_message', '') or error.reason or error}"
        except CallFailed as failed:
            return str(failed)
        except asyncio.LimitOverrunError:
            return f"a response head of more than {MAX_HEAD} bytes"
        except EOFError:
            return "closed before its answer"
        except (UnicodeError, dns.exception.DNSException):
            return f"{endpoint.spec.host!r} is no host name"
        except resolving.ResolutionError as error:
            return str(error)
        except OSError as error:
            if error.errno in LOCAL_ERRORS:
                raise
            return _words(error)

    async def _check(self, endpoint: Endpoint) -> str | None:
        host = endpoint.spec.host
        by_http2 = self._by_http2(endpoint)
        context, name = None, None
        if self._tls is not None:
            context = self._tls.context(asyncio.get_running_loop().time(), "h2" if by_http2 else "")
            name = self._tls.name or host.rstrip(".")
        # With a PROXY header before it, TLS begins after the connection is made.
        first = None if self._proxy_header else context
        reader, writer = await self._connect(host, endpoint.spec.port, first, name if first else None)
        try:
            if self._proxy_header:
                writer.write(self._proxy_header)
                if context is not None:
                    await writer.start_tls(context, server_hostname=name)
            if self._tls is not None and not self._tls.accepts(writer.get_extra_info("ssl_object")):
                return "TLS failed: the certificate is for none of the names that it must be for"
            if self._path == "tcp":
                return None
            return await (self._call if by_http2 else self._get)(endpoint, reader, writer)
        finally:
            # At once, and still in order: nothing is left to be sent. A polite TLS close could wait for its answer.
            writer.transport.abort()

    async def _connect(
        self, host: str, port: int, context: ssl.SSLContext | None, name: str | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the first of a name's addresses that takes one, as requests would get it.

        The system's resolver would ask in one of a few threads: a name about which it is silent would hold up others.
        """

        async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_connection(address, port, limit=MAX_HEAD, ssl=context, server_hostname=name)

        if resolving.literal(host.partition("%")[0]):
            return await connect(host)
        *others, last = (await resolving.resolve(host)).addresses
        for address in others:
            try:
                # Half of the time for all of them together: the other half is the last one's.
                async with asyncio.timeout(self._timeout / 2 / len(others)):
                    return await connect(address)
            except OSError as error:  # TimeoutError is one too
                if isinstance(error, ssl.SSLError) or error.errno in LOCAL_ERRORS:
                    raise
        return await connect(last)

    def _by_http2(self, endpoint: Endpoint) -> bool:
        if self._service is not None or self._path == "tcp":
            return self._service is not None
        return self._protocol in ("h2c", "h2") or (self._protocol == "auto" and endpoint.spec.protocol == "h2c")

    async def _call(self, endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str | None:
        scheme = b"http"
        if self._tls is not None:
            scheme = b"https"
            if writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
                return "it does not agree on h2 by ALPN"
        service = self._service
        if service is None:
            call = Call(http2_call.request(b"GET", scheme, endpoint.address, self._path.encode()))
        else:
            call = http2_call.health_check(service, scheme, endpoint.address, self._timeout)
        writer.write(call.first)
        while not call.done:
            data = await reader.read(MAX_HEAD)
            if not data:
                raise EOFError
            writer.write(call.take(data))
        if service is not None:
            return http2_call.verdict(call, service)
        return self._as_expected(call.status)

    async def _get(self, endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str | None:
        head = f"GET {self._path} HTTP/1.1\r\nHost: {endpoint.address}\r\nUser-Agent: lb-probe\r\nAccept: */*\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode())
        while True:
            # Read as requests' responses are: where these pass, an endpoint is not unhealthy for how it writes them.
            line = await reader.readuntil(b"\n")
            status_line = ODD_STATUS_LINE.fullmatch(line[:-1].removesuffix(b"\r"))
            if status_line is None:
                return "its answer is not HTTP"
            status = int(status_line[3])
            while await reader.readuntil(b"\n") not in (b"\r\n", b"\n"):
                pass
            if status >= 200 or status == 101:
                break
        return self._as_expected(status)

    def _as_expected(self, status: int) -> str | None:
        if any(first <= status <= last for first, last in self._expected):
            return None
        return f"status {status}"


def _words(error: OSError) -> str:
    """`connection refused`, however it was phrased; a failed look-up's number is none of errno's."""
    number = error.errno or 0
    reason = os.strerror(number) if number in errno.errorcode else error.strerror or str(error)
    return reason.lower()
