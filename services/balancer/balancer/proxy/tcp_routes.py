"""Where a connection goes whose bytes are carried: by settings to one cluster, by routes as the TLS name says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from mypy_extensions import mypyc_attr

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.pool import Pool
from balancer.balancing.retry import RetryBudget
from balancer.proxy.cluster import Cluster, Policy
from balancer.proxy.connector import Connector
from balancer.proxy.endpoint_tls import Trust
from balancer.proxy.interfaces import Upstreams
from balancer.proxy.place import PASSED, Place
from balancer.routing.match import RouteRequest
from balancer.routing.site import Site

if TYPE_CHECKING:
    from balancer.proxy.service import Context
    from balancer.settings import Settings

NO_ROUTE: Final = "no route"
NO_BACKEND: Final = "no backend"


class NoneKept(Upstreams):
    """The connections to endpoints that are kept unused, where bytes are carried: none."""

    __slots__ = ()

    def close_idle(self, endpoint: Endpoint) -> None:
        """Connections under way go on to their end."""

    def close(self) -> None:
        """Nothing is kept."""

    def idle_to(self, endpoint: Endpoint) -> int:
        return 0


class TcpCluster(Cluster):
    """A fleet of endpoints that bytes are carried to."""

    __slots__ = ("_connector", "_plain", "proxy_version")

    def __init__(
        self,
        name: str,
        pool: Pool,
        settings: Settings,
        context: Context,
        alpn: Sequence[str] = (),
        trust: Trust | None = None,
    ) -> None:
        """`alpn`: the protocols to offer with TLS; `trust`: use it, and its authorities, whatever the settings say.

        Raises OSError when a certificate's file can't be read.
        """
        super().__init__(name, pool, Policy(settings), RetryBudget(settings.retry_budget), NoneKept())
        self._connector = Connector(settings, context, alpn, trust)
        self._plain = Connector(settings, context) if trust is not None else self._connector
        self.proxy_version = "" if settings.upstream_proxy_protocol == "off" else settings.upstream_proxy_protocol
        """Of the PROXY protocol that is spoken to endpoints; empty: none is."""

    def connector(self, place: Place) -> Connector:
        """What makes the connection to an endpoint for a client's: a TLS connection passed on is not secured again."""
        return self._plain if place.carries == PASSED else self._connector


class Way:
    """Where a connection goes."""

    __slots__ = ("cluster", "nowhere", "route")

    def __init__(self, cluster: Cluster, route: str = "", nowhere: str = "") -> None:
        self.cluster = cluster
        """Of no meaning where it goes nowhere."""
        self.route = route
        """The name of the route, for the log; empty where there is only one way."""
        self.nowhere = nowhere
        """Why it goes nowhere; empty: it does."""


@mypyc_attr(allow_interpreted_subclasses=True)
class TcpRouter:
    """Says where a connection goes. By environment settings there is one cluster, and nothing to decide."""

    __slots__ = ("_way", "only")

    def __init__(self, only: Cluster) -> None:
        self.only = only
        self._way = Way(only)

    def way(self, place: Place) -> Way:
        """Where the connection of a client goes; asked once for each."""
        return self._way


class SiteTcpRouter(TcpRouter):
    """Goes by the rules of a site, which may be replaced at any time: connections that are open stay where they are."""

    __slots__ = ("_clusters", "_site")

    def __init__(self, nowhere: Cluster) -> None:
        """`nowhere` is the cluster of what goes to none."""
        super().__init__(nowhere)
        self._site = Site({})
        self._clusters: Mapping[str, Cluster] = {}

    def use(self, site: Site, clusters: Mapping[str, Cluster]) -> None:
        """Go by these rules from now on, to clusters by name."""
        self._site = site
        self._clusters = clusters

    def way(self, place: Place) -> Way:
        rule = self._site.route(RouteRequest(place.name.removesuffix(".").encode(), b"/"))
        if rule is None:
            return Way(self.only, "", NO_ROUTE)
        backend = rule.choose()
        cluster = self._clusters.get(backend.cluster) if backend is not None else None
        if not isinstance(cluster, TcpCluster):
            return Way(self.only, rule.name, NO_BACKEND)
        return Way(cluster, rule.name)
