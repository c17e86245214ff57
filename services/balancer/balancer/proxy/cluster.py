"""What belongs to one fleet of endpoints, as the data plane uses it: one object, which a router chooses by request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy_extensions import mypyc_attr

from balancer.balancing.pool import Pool
from balancer.balancing.retry import RetryBudget
from balancer.proxy.interfaces import Upstreams
from balancer.proxy.messages import RequestHead

if TYPE_CHECKING:
    from balancer.settings import Settings


class Policy:
    """How requests to one cluster are tried: times in seconds, and what a retry may be made for."""

    __slots__ = (
        "connect_timeout",
        "queue_timeout",
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
        self.retries: int = settings.retries
        self.retry_buffer: int = settings.retry_buffer
        """Bytes of a request's body that are kept to be sent again."""
        self.retry_statuses: frozenset[int] = settings.retry_statuses


class Cluster:
    """A fleet of endpoints that can take one another's requests: reached through `exchange.cluster`."""

    __slots__ = ("budget", "discovered", "name", "policy", "pool", "upstreams")

    def __init__(self, name: str, pool: Pool, policy: Policy, budget: RetryBudget, upstreams: Upstreams) -> None:
        self.name = name
        """Of few values: metrics and logs carry it."""
        self.pool = pool
        self.policy = policy
        self.budget = budget
        self.upstreams = upstreams
        """How its endpoints are reached: protocol, TLS, the connections that are kept."""
        self.discovered = False
        """Whether the first complete snapshot of its endpoints has come."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Router:
    """Says which cluster a request goes to. By environment settings there is one cluster, and nothing to decide."""

    __slots__ = ("only",)

    def __init__(self, only: Cluster) -> None:
        self.only = only

    def route(self, head: RequestHead) -> Cluster | None:
        """The cluster for a request; None: no route matches it, and the client gets 404."""
        return self.only
