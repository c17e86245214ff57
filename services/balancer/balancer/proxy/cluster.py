"""What belongs to one fleet of endpoints, as the data plane uses it: one object, which a router chooses by request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy_extensions import mypyc_attr

from balancer.balancing.pool import Pool
from balancer.balancing.request import RequestInfo
from balancer.balancing.retry import RetryBudget
from balancer.proxy.interfaces import Upstreams
from balancer.proxy.messages import RequestHead, ResponseHead
from balancer.proxy.responses import Error
from balancer.routing.rule import Edits, Mirror, Retrying

if TYPE_CHECKING:
    from balancer.settings import Settings


class Policy:
    """How requests to one cluster are tried: times in seconds, and what a retry may be made for."""

    __slots__ = (
        "connect_timeout",
        "queue_timeout",
        "reads_load",
        "response_timeout",
        "retries",
        "retry_buffer",
        "retry_statuses",
        "total_timeout",
    )

    def __init__(self, settings: Settings) -> None:
        self.connect_timeout: float = settings.connect_timeout
        self.response_timeout: float = settings.response_timeout
        self.queue_timeout: float = settings.queue_timeout
        self.total_timeout: float = settings.total_timeout
        """0: none."""
        self.reads_load: bool = settings.endpoint_load
        """Whether endpoints are asked how loaded they are."""
        self.retries: int = settings.retries
        self.retry_buffer: int = settings.retry_buffer
        """Bytes of a request's body that are kept to be sent again."""
        self.retry_statuses: frozenset[int] = settings.retry_statuses


class Cluster:
    """A fleet of endpoints that can take one another's requests: reached through `exchange.cluster`."""

    __slots__ = ("budget", "discovered", "mirroring", "name", "policy", "pool", "upstreams")

    def __init__(self, name: str, pool: Pool, policy: Policy, budget: RetryBudget, upstreams: Upstreams) -> None:
        self.name = name
        """Of few values: metrics and logs carry it."""
        self.pool = pool
        self.policy = policy
        self.budget = budget
        self.upstreams = upstreams
        """How its endpoints are reached: protocol, TLS, the connections that are kept."""
        self.mirroring = 0
        """Mirrored requests that are under way here."""
        self.discovered = False
        """Whether the first complete snapshot of its endpoints has come."""


class Mirrored:
    """One mirror of a request: where to, and what is sent there."""

    __slots__ = ("cluster", "head", "share")

    def __init__(self, cluster: Cluster, head: RequestHead, share: Mirror) -> None:
        self.cluster = cluster
        self.head = head
        self.share = share
        """Says which of the requests."""


class Routed:
    """What becomes of a request: its cluster, and what is changed on the way there and back; or an answer of our own.

    Made once for all requests that are alike, and not changed after that.
    """

    __slots__ = (
        "_edited",
        "_edited_from",
        "attempt_timeout",
        "cluster",
        "error",
        "head",
        "info",
        "max_body",
        "mirrors",
        "redirect",
        "response",
        "retrying",
        "route",
        "timeout",
    )

    def __init__(self, cluster: Cluster, route: str = "") -> None:
        self.cluster = cluster
        """Where it goes; of no meaning where there is an answer of our own."""
        self.route = route
        """The name of the route, for the log; empty where there is only one way."""
        self.head: RequestHead | None = None
        """What the endpoint is sent instead of the client's head; None: that."""
        self.info: RequestInfo | None = None
        """What strategies see instead of the client's own; None: that."""
        self.max_body = -1
        """Bytes of the request's body, where that is less than LB_MAX_BODY_BYTES; below 0: as that says."""
        self.retrying: Retrying | None = None
        """When it is sent again, where that is not as the cluster's policy says."""
        self.mirrors: tuple[Mirrored, ...] = ()
        """Where else it is sent."""
        self.response: Edits | None = None
        """Changes of the response's fields."""
        self.redirect: ResponseHead | None = None
        """Sends the client elsewhere."""
        self.error: Error | None = None
        """Why it goes nowhere."""
        self.attempt_timeout = 0.0
        """Seconds for an endpoint to begin its response; 0: as the settings say."""
        self.timeout = -1.0
        """Seconds for the whole request; 0: no limit; below 0: as the cluster's policy says."""
        self._edited_from: ResponseHead | None = None
        self._edited: ResponseHead | None = None

    def edited(self, head: ResponseHead) -> ResponseHead:
        """The response's head as the client gets it. An endpoint repeats its heads: so does this."""
        if self.response is None:
            return head
        edited = self._edited
        if edited is None or self._edited_from is not head:
            edited = head.with_fields(self.response.applied(head.fields))
            self._edited_from, self._edited = head, edited
        return edited


@mypyc_attr(allow_interpreted_subclasses=True)
class Router:
    """Says where a request goes. By environment settings there is one cluster, and nothing to decide."""

    __slots__ = ("_routed", "only")

    def __init__(self, only: Cluster) -> None:
        self.only = only
        self._routed = Routed(only)

    def route(self, head: RequestHead) -> Routed:
        """What becomes of a request."""
        return self._routed
