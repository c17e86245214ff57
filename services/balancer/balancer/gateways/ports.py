"""One port of a Gateway, listening: what its clients want there may change at any time, and costs no connection.

Requests and bytes that are carried have a proxy each. Where TLS clients want now this and now that, the one of requests
listens, and what asks for another's name is passed to the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from balancer.balancing.endpoint import Endpoint
from balancer.discovery.gateway.objects import Secret
from balancer.discovery.gateway.result import PortPlan
from balancer.proxy.cluster import Cluster
from balancer.proxy.http import HttpProxy
from balancer.proxy.place import PASSED, REQUESTS, TERMINATED
from balancer.proxy.routes import SiteRouter
from balancer.proxy.service import Context
from balancer.proxy.sni import Certificates
from balancer.proxy.sorting import Sorter
from balancer.proxy.tcp import TcpProxy
from balancer.proxy.tcp_routes import SiteTcpRouter
from balancer.settings import Settings
from balancer.tracing import Tracer

WANTED: Final = {"HTTPS": REQUESTS, "Passthrough": PASSED, "Terminate": TERMINATED}
"""What clients want, by what their listener does."""

Clusters = Mapping[str, Cluster]


class OpenPort:
    """A port while it is served; a subclass says by what. The one that is made listens from then on."""

    front: HttpProxy | TcpProxy
    """The proxy that listens."""

    def __init__(self, plan: PortPlan) -> None:
        self.plan = plan

    def serves(self, plan: PortPlan) -> bool:
        """Whether it can go on for another plan without being opened again."""
        mine = self.plan
        return (plan.gateway, plan.port, plan.protocol) == (mine.gateway, mine.port, mine.protocol)

    def use(self, plan: PortPlan, clusters: Clusters) -> None:
        """Serve what this plan says from now on. Raises OSError for a certificate that cannot be used."""
        raise NotImplementedError

    @property
    def proxies(self) -> Sequence[HttpProxy | TcpProxy]:
        """All that carry connections of the port."""
        return (self.front,)

    @property
    def requests(self) -> int:
        """Requests begun here, and connections whose bytes are carried."""
        return sum(proxy.requests for proxy in self.proxies)

    @property
    def responses(self) -> list[int]:
        """Final responses sent here, by the first digit of the status."""
        return self.front.responses if isinstance(self.front, HttpProxy) else []

    def cut_tunnels(self, endpoint: Endpoint) -> int:
        """Reset what is tunnelled to `endpoint`; how many tunnels those were."""
        return sum(proxy.cut_tunnels(endpoint) for proxy in self.proxies)

    def drain(self) -> None:
        """From now on every response says that its connection closes."""
        self.front.drain()

    def stop_listening(self) -> None:
        """Accept no more, and close what idles."""
        self.front.stop_listening()

    async def all_closed(self) -> None:
        """Wait, once stopped, until no connection is open any more."""
        await self.front.all_closed()

    def cut(self) -> int:
        """Cut whatever is still open; how many requests and connections that were."""
        return sum(proxy.cut() for proxy in self.proxies)


class TcpPort(OpenPort):
    """Of a listener of TCP."""

    def __init__(self, plan: PortPlan, settings: Settings, context: Context, nowhere: Cluster) -> None:
        super().__init__(plan)
        self._router = SiteTcpRouter(nowhere)
        self.front = TcpProxy(settings, context, self._router)
        self.front.start(None)

    def use(self, plan: PortPlan, clusters: Clusters) -> None:
        self.plan = plan
        self._router.use(plan.streams, clusters)


class HttpPort(OpenPort):
    """Of listeners of HTTP, or of HTTPS and TLS."""

    def __init__(
        self, plan: PortPlan, settings: Settings, context: Context, nowhere: Cluster, tracer: Tracer | None
    ) -> None:
        super().__init__(plan)
        self._settings = settings
        self._context = context
        self._nowhere = nowhere
        self._router = SiteRouter(nowhere, plan.port)
        proxy = HttpProxy(settings, context, self._router)
        if tracer is not None:
            proxy.trace(tracer)
        self._certificates = Certificates(["h2", "http/1.1"] if settings.http2 else ["http/1.1"]) if plan.tls else None
        self.front: HttpProxy = proxy
        self._streams: Streams | None = None
        proxy.start(self._certificates.context if self._certificates else None)

    @property
    def proxies(self) -> Sequence[HttpProxy | TcpProxy]:
        return (self.front,) if self._streams is None else (self.front, self._streams.proxy)

    def use(self, plan: PortPlan, clusters: Clusters) -> None:
        if self._certificates is not None:
            self._certificates.use([(host, _pairs(secrets)) for host, secrets in plan.certificates])
            wanted = {host: WANTED[mode] for host, mode in plan.modes.items() if mode in WANTED}
            if self._streams is None and any(each != REQUESTS for each in wanted.values()):
                self._streams = Streams(self._settings, self._context, self._nowhere)
            if self._streams is not None:
                self._streams.use(plan, wanted, clusters)
                self.front.sort(self._streams.sorter)
        self.plan = plan
        self._router.use(plan.site, clusters)


class Streams:
    """What TLS clients of one port want beside requests."""

    def __init__(self, settings: Settings, context: Context, nowhere: Cluster) -> None:
        self._router = SiteTcpRouter(nowhere)
        self._certificates = Certificates(settings.tls_alpn)
        self.proxy = TcpProxy(settings, context, self._router)
        self.sorter = Sorter(self.proxy, self._certificates.context)

    def use(self, plan: PortPlan, wanted: Mapping[str, int], clusters: Clusters) -> None:
        """Serve what this plan says. Raises OSError for a certificate that cannot be used."""
        self._certificates.use([(host, _pairs(secrets)) for host, secrets in plan.stream_certificates])
        self._router.use(plan.streams, clusters)
        self.sorter.use(wanted)


def _pairs(secrets: Sequence[Secret]) -> list[tuple[bytes, bytes]]:
    return [(each.certificate, each.key) for each in secrets if each.certificate is not None and each.key is not None]
