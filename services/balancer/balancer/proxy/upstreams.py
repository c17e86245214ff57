"""By which protocol an endpoint is spoken to: as a setting says for all, or the endpoint's own port."""

from __future__ import annotations

from typing import TYPE_CHECKING

from balancer.balancing.endpoint import Endpoint
from balancer.proxy.connector import Connector
from balancer.proxy.endpoint_tls import Trust
from balancer.proxy.http1.upstreams import Http1Upstreams
from balancer.proxy.http2.upstreams import Http2Upstreams
from balancer.proxy.interfaces import ClientStream, Connecting, Receiver, Upstreams

if TYPE_CHECKING:
    from balancer.proxy.service import Context
    from balancer.settings import Settings


def upstreams(settings: Settings, context: Context, trust: Trust | None = None) -> Upstreams:
    """The connections to endpoints, as LB_UPSTREAM_PROTOCOL says; `trust`: by TLS, and which authorities to trust.

    Raises OSError for authorities that can't be read.
    """
    if settings.upstream_protocol == "http1":
        return Http1Upstreams(settings, context, trust)
    if settings.upstream_protocol == "auto":
        return ByEndpoint(Http1Upstreams(settings, context, trust), _http2(settings, context, trust))
    return _http2(settings, context, trust)


def _http2(settings: Settings, context: Context, trust: Trust | None) -> Http2Upstreams:
    return Http2Upstreams(settings, context, Connector(settings, context, ("h2",), trust))


class ByEndpoint(Upstreams):
    """Each endpoint by the protocol that its port is said to speak; HTTP/1.1 where nothing is said."""

    __slots__ = ("_http1", "_http2")

    def __init__(self, http1: Upstreams, http2: Upstreams) -> None:
        self._http1 = http1
        self._http2 = http2

    def take(self, endpoint: Endpoint, receiver: Receiver, idle_since: float) -> ClientStream | None:
        return self._of(endpoint).take(endpoint, receiver, idle_since)

    def connect(self, endpoint: Endpoint, receiver: Receiver) -> Connecting:
        return self._of(endpoint).connect(endpoint, receiver)

    def close_idle(self, endpoint: Endpoint) -> None:
        self._http1.close_idle(endpoint)
        self._http2.close_idle(endpoint)

    def close(self) -> None:
        self._http1.close()
        self._http2.close()

    def idle_to(self, endpoint: Endpoint) -> int:
        return self._http1.idle_to(endpoint) + self._http2.idle_to(endpoint)

    def _of(self, endpoint: Endpoint) -> Upstreams:
        return self._http2 if endpoint.spec.protocol == "h2c" else self._http1
