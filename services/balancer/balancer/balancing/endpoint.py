"""An endpoint: what discovery says of it, and what we have learned of it since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mypy_extensions import mypyc_attr

from balancer.balancing.latency import PeakEwma
from balancer.balancing.work import NOTHING_KNOWN

if TYPE_CHECKING:
    from balancer.balancing.lease import Lease


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One endpoint as a discovery names it; two specs of the same `key` are the same endpoint."""

    host: str
    """An IP address, or a name that is resolved when connecting."""
    port: int
    weight: float = 1.0
    """Share of the traffic relative to the others, above 0."""
    name: str = ""
    """The pod's name, if it has one: `n-to-one` prefers the first by name."""
    uid: str = ""
    """The pod's UID: an address that is used again by another pod is another endpoint."""
    zone: str = ""
    node: str = ""
    draining: bool = False
    """Terminating but still serving: used only when nothing better is left."""
    near: bool = False
    """Meant for clients where we run, as its hints say: like an endpoint of the preferred zone."""
    protocol: str = ""
    """What its discovery says it speaks: `h2c` (HTTP/2 with prior knowledge) or `http1`; "" when it does not say."""

    @property
    def address(self) -> str:
        """`host:port`, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def key(self) -> tuple[str, str]:
        """The identity: the address and the pod's UID."""
        return self.address, self.uid


Snapshot = Sequence[EndpointSpec]
"""All endpoints there are at one moment, in the order in which `n-to-one` prefers them."""


@mypyc_attr(acyclic=True)  # Left to reference counting, without the collector's header: a line of the cache each.
class Endpoint:
    """The live state of one endpoint, owned by the pool; the rooms read it and only the pool and leases write it."""

    __slots__ = (
        "address",
        "answered_2xx",
        "answered_other",
        "backoff_from",
        "backoff_until",
        "bytes_received",
        "bytes_sent",
        "chosen_at",
        "cluster",
        "connections_open",
        "connections_opened",
        "connections_reused",
        "discovered",
        "drained",
        "ejected_until",
        "ejection_level",
        "ejections",
        "eligible",
        "elsewhere",
        "failed",
        "failures_in_row",
        "healthy",
        "in_flight",
        "in_rotation",
        "latency",
        "newest",
        "oldest",
        "order",
        "passing_probes",
        "probe_fault",
        "recent",
        "recent_failures",
        "returned_at",
        "slow_start_from",
        "spec",
        "weight",
        "work",
    )

    def __init__(self, spec: EndpointSpec) -> None:
        # What every choice touches comes first: compiled, it shares two cache lines.
        self.in_flight = 0
        """Leases open, from the moment of selection."""
        self.elsewhere = 0.0
        """Requests that other replicas are believed to have there: strategies count them as in flight."""
        self.weight = spec.weight
        """The weight in force: the spec's, less while in slow start."""
        self.chosen_at = 0
        """Number of the pool's choice that took it last: ties go to the smallest."""
        self.eligible = False
        """Eligible: used, below its limit, and the strategy knows."""
        self.in_rotation = False
        """May be chosen whenever it is below its limit."""
        self.failures_in_row = 0
        self.recent = 0
        """Successes and failures in the current interval of the success-rate rule."""
        self.answered_2xx = 0
        self.oldest: Lease | None = None
        """Of the leases sent whole that still wait for the response's head, the one sent first; `newer` leads on."""
        self.newest: Lease | None = None
        self.latency = PeakEwma()
        self.work = NOTHING_KNOWN
        """What it has to do, in expected seconds, where the strategy asks for that."""

        self.cluster = ""
        """The name of its pool's cluster, once it belongs to one."""
        self.spec = spec
        self.address = spec.address
        self.order = 0
        """Its place in the order in which `n-to-one` prefers the endpoints; the smallest is the first."""
        self.discovered = False
        """The last snapshot names it."""
        self.healthy = True
        """Healthy, not ejected, not backed off from."""
        self.passing_probes = True
        """What the active probes say."""
        self.probe_fault = ""
        """Why they fail, in a few words."""
        self.drained = False
        """Drained by hand, through the API."""
        self.ejected_until = 0.0
        """Time (s) until which it is ejected; 0 when it is not."""
        self.ejections = 0
        """How often it was ejected, ever."""
        self.ejection_level = 0
        """How many ejections its next one is reckoned to follow: grows by repetition, decays with time."""
        self.returned_at = 0.0
        """When its last ejection ended (s)."""
        self.recent_failures = 0
        self.backoff_until = 0.0
        """Time (s) until which it asked us to back off (503 with Retry-After); 0 when it did not."""
        self.backoff_from = 0.0
        """When it asked last (s): a good answer to a later request ends it."""
        self.slow_start_from: float | None = None
        """When its slow start began (s); None when it is past."""

        # Counted for the metrics, never read by a strategy.
        self.answered_other = [0, 0, 0, 0, 0, 0]
        self.failed: dict[str, int] = {}
        """Leases that ended without a whole response, by the outcome's reason."""
        self.connections_opened = 0
        self.connections_open = 0
        self.connections_reused = 0
        self.bytes_sent = 0
        """Bytes sent to the endpoint."""
        self.bytes_received = 0
        """Bytes received from the endpoint."""

    @property
    def waiting(self) -> dict[Lease, float]:
        """Leases sent whole that still wait for the response's head, oldest first, with the time they were sent (s)."""
        waiting: dict[Lease, float] = {}
        lease = self.oldest
        while lease is not None:
            waiting[lease] = lease.sent_at or 0.0
            lease = lease.newer
        return waiting

    def age(self, now: float) -> float:
        """How long (s) the oldest of those has waited; 0 when none waits."""
        oldest = self.oldest
        if oldest is None or oldest.sent_at is None:
            return 0.0
        return max(now - oldest.sent_at, 0.0)

    @property
    def answered(self) -> list[int]:
        """Responses by the first digit of their status; 0 is not used."""
        counts = list(self.answered_other)
        counts[2] = self.answered_2xx
        return counts

    def __repr__(self) -> str:
        return f"<Endpoint {self.address}>"
