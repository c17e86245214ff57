"""An endpoint: what discovery says of it (`EndpointSpec`), its load (`Endpoint`), health and statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mypy_extensions import mypyc_attr

from balancer.balancing.elsewhere import Elsewhere
from balancer.balancing.health import Change, Health
from balancer.balancing.latency import PeakEwma
from balancer.balancing.variability import Variability
from balancer.balancing.work import NOTHING_KNOWN, Job


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


@mypyc_attr(acyclic=True)
class Pending:
    """A request sent whole to an endpoint, whose response has not begun: one of a list, the oldest first."""

    __slots__ = ("job", "newer", "older", "sent_at")

    def __init__(self) -> None:
        self.sent_at: float | None = None
        """When the request was sent whole (s); None before."""
        self.job: Job | None = None
        """The request as work, where the strategy follows that."""
        self.older: Pending | None = None
        """Its neighbours in the endpoint's linked list, which is 100 ns faster than a dict (compiled)."""
        self.newer: Pending | None = None


@mypyc_attr(acyclic=True)
class Statistics:
    """What is counted of one endpoint for metrics and the API. No strategy and no rule reads it."""

    __slots__ = (
        "answered_2xx",
        "answered_other",
        "bytes_received",
        "bytes_sent",
        "connections_open",
        "connections_opened",
        "connections_reused",
        "failed",
        "malformed_at",
        "malformed_in_row",
    )

    def __init__(self) -> None:
        self.answered_2xx = 0
        self.answered_other = [0, 0, 0, 0, 0, 0]
        self.failed: dict[str, int] = {}
        """Leases that ended without a whole response, by the outcome's reason."""
        self.malformed_in_row = 0
        """Malformed responses in a row: enough of them make a failure (`outcome.py`)."""
        self.malformed_at = 0
        """How many other responses it had sent when the last malformed one arrived."""
        self.connections_opened = 0
        self.connections_open = 0
        self.connections_reused = 0
        self.bytes_sent = 0
        """Bytes sent to the endpoint."""
        self.bytes_received = 0
        """Bytes received from the endpoint."""

    @property
    def answered(self) -> list[int]:
        """Responses by the first digit of their status; 0 is not used."""
        counts = list(self.answered_other)
        counts[2] = self.answered_2xx
        return counts

    def count_answer(self, status: int) -> None:
        """Count one response."""
        if 200 <= status < 300:  # By far the most: a slot of its own saves 80 of 400 ns.
            self.answered_2xx += 1
        else:
            self.answered_other[min(status // 100, 5)] += 1

    def count_malformed(self, counted: int) -> int:
        """Count a malformed response; the length of the run. `counted`: 1 if it is among `answered` already, else 0."""
        answered = sum(self.answered_other) + self.answered_2xx - counted
        self.malformed_in_row = self.malformed_in_row + 1 if answered == self.malformed_at else 1
        self.malformed_at = answered + counted
        return self.malformed_in_row

    def count_failure(self, reason: str) -> None:
        """Count one lease that ended without a whole response."""
        self.failed[reason] = self.failed.get(reason, 0) + 1


@mypyc_attr(acyclic=True)  # Without the garbage collector's header each takes one cache line less.
class Endpoint:
    """One endpoint as a strategy sees it: its load and its weight; beside that its spec, health and statistics.

    Strategies and rules read it. Only the pool and its leases write it.
    """

    __slots__ = (
        "address",
        "chosen_at",
        "cluster",
        "discovered",
        "eligible",
        "elsewhere",
        "health",
        "in_flight",
        "in_rotation",
        "lasting",
        "latency",
        "load_elsewhere",
        "load_factor",
        "newest",
        "oldest",
        "order",
        "slow_start_from",
        "spec",
        "stats",
        "utilization",
        "variability",
        "weight",
        "work",
    )

    def __init__(self, spec: EndpointSpec) -> None:
        # Its load. What every choice touches comes first: compiled, it shares two cache lines.
        self.in_flight = 0
        """Leases open, from the moment of selection."""
        self.load_elsewhere = 0.0
        """Requests that count beside those in flight: what other replicas have there, and the bias."""
        self.weight = spec.weight
        """The weight in force: the spec's, less while in slow start."""
        self.chosen_at = 0
        """Number of the pool's choice that took it last: ties go to the smallest."""
        self.eligible = False
        """The strategy may choose it: in rotation, and below its limit."""
        self.in_rotation = False
        """The rules admit it: it is eligible whenever it is below its limit."""
        self.lasting = 0
        """Leases whose response has begun: what lasts after that, as a WebSocket does, is no work that waits."""
        self.oldest: Pending | None = None
        """Of the requests sent whole whose response has not begun, the one sent first; `newer` leads on."""
        self.newest: Pending | None = None
        self.latency = PeakEwma()
        self.variability = Variability()
        """How much response times differ: its pool's, of all endpoints together."""
        self.elsewhere = Elsewhere()
        """What other replicas have there, in detail."""
        self.work = NOTHING_KNOWN
        """What it has to do, in expected seconds, where the strategy follows that."""
        self.load_factor = 1.0
        """What its weight is multiplied by, for what it says of its load."""
        self.utilization = -1.0
        """The utilisation that it last reported, 1 being all of it; below 0: it has not."""
        self.slow_start_from: float | None = None
        """When its slow start began (s); None when it is past."""

        # Its place in the fleet.
        self.spec = spec
        self.address = spec.address
        self.cluster = ""
        """The name of its pool's cluster, once it belongs to one."""
        self.discovered = False
        """The last snapshot names it."""
        self.order = 0
        """Its place in the order in which `n-to-one` prefers the endpoints; the smallest is the first."""

        self.health = Health()
        self.stats = Statistics()

    def others_have(self, requests: float, unknown_cost: float, seconds: float, bias: float) -> bool:
        """Note what other replicas have there, as the fields of `elsewhere`: whether that is news."""
        elsewhere = self.elsewhere
        if requests == elsewhere.requests and seconds == elsewhere.seconds and bias == elsewhere.bias:
            return False
        elsewhere.requests = requests
        elsewhere.unknown_cost = unknown_cost
        elsewhere.seconds = seconds
        elsewhere.bias = bias
        self.load_elsewhere = requests + bias
        return True

    @property
    def waiting(self) -> dict[Pending, float]:
        """Requests sent whole whose response has not begun, oldest first, with the time they were sent (s)."""
        waiting: dict[Pending, float] = {}
        pending = self.oldest
        while pending is not None:
            waiting[pending] = pending.sent_at or 0.0
            pending = pending.newer
        return waiting

    def age(self, now: float) -> float:
        """How long (s) the oldest request without a response has waited; 0 when none waits."""
        oldest = self.oldest
        if oldest is None or oldest.sent_at is None:
            return 0.0
        return max(now - oldest.sent_at, 0.0)

    def append(self, pending: Pending) -> None:
        """Add a request that is now sent whole."""
        newest = self.newest
        self.newest = pending
        if newest is None:
            self.oldest = pending
        else:
            newest.newer = pending
            pending.older = newest

    def remove(self, pending: Pending) -> None:
        """Remove a request whose response has begun, or never will."""
        older = pending.older
        newer = pending.newer
        if older is None:
            self.oldest = newer
        else:
            older.newer = newer
        if newer is None:
            self.newest = older
        else:
            newer.older = older
        pending.older = None
        pending.newer = None

    def __repr__(self) -> str:
        return f"<Endpoint {self.address}>"


@dataclass(frozen=True, slots=True)
class Transition:
    """A step of an endpoint's health that somebody has decided; it takes effect when the pool applies it."""

    endpoint: Endpoint
    change: Change
    detail: str = ""
    """For subscribers: why, and for how long."""
    until: float = 0.0
    """When (s) an ejection or a back-off that begins is to end."""
