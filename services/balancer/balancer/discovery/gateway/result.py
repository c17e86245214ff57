"""What a plan is: listeners and clusters for the data plane, statuses and Services for the API."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from balancer.discovery.gateway.addresses import PortMap, ServiceWrite
from balancer.discovery.gateway.backends import ClusterSpec
from balancer.discovery.gateway.listeners import Checked, Usable
from balancer.discovery.gateway.objects import Gateway, Json, Key, Meta, Secret, Stated
from balancer.routing.candidates import Entry
from balancer.routing.site import Site

Certificates = Sequence[tuple[str, Sequence[Secret]]]
NOTHING: Final = Site({})


@dataclass(frozen=True, slots=True)
class Context:
    """What a plan depends on beside the world."""

    usable: Usable
    protocols: frozenset[str]
    """Those that we speak to endpoints."""
    features: Sequence[str]
    """What the GatewayClass's status claims, by name."""
    front: str
    """The release's own Service, in our namespace: those of Gateways are made like it."""
    now: str
    """RFC 3339."""
    ingress_class: str = ""
    """The class of the Ingresses that are served too; empty: none."""
    usable_authorities: Callable[[str], str] = lambda pem: "" if pem else "there are none"
    """Says what is wrong with authorities' certificates (PEM); empty: nothing."""


@dataclass(frozen=True, slots=True)
class PortPlan:
    """One port of one Gateway."""

    gateway: str
    port: int
    """The Gateway's."""
    ours: int
    """Where we listen for it."""
    protocol: str
    """HTTP, TLS or TCP: what a connection begins with."""
    certificates: Certificates = ()
    """Those of HTTPS, by a listener's host name (empty: every one), the first listener first."""
    site: Site = NOTHING
    """Where requests go."""
    streams: Site = NOTHING
    """Where connections go whose bytes are carried, by the name that TLS says, if any."""
    modes: Mapping[str, str] = field(default_factory=dict)
    """By host name, what a listener of TLS does: HTTPS, or with bytes that are carried Passthrough or Terminate."""
    stream_certificates: Certificates = ()
    """Those of Terminate."""

    @property
    def tls(self) -> bool:
        """Whether clients speak TLS there."""
        return self.protocol == "TLS"


@dataclass(frozen=True, slots=True)
class StatusWrite:
    """The status of an object, which is not what it should be."""

    kind: str
    key: Key
    version: str
    """Of the object that the status was made for: a write that comes too late is refused, and made again."""
    status: Json


@dataclass(slots=True)
class Plan:
    """What follows from a world."""

    ports: dict[int, PortPlan] = field(default_factory=dict)
    clusters: dict[str, ClusterSpec] = field(default_factory=dict)
    statuses: list[StatusWrite] = field(default_factory=list)
    services: list[ServiceWrite] = field(default_factory=list)
    obsolete: list[Meta] = field(default_factory=list)
    """Services that go."""
    routes: int = 0
    """How many are attached to one of our Gateways."""


@dataclass(slots=True)
class Draft:
    """A Gateway on the way."""

    gateway: Gateway
    listeners: list[Checked]
    parts: dict[str, dict[str, tuple[Entry, ...]]] = field(default_factory=dict)
    """By listener and route."""
    attached: dict[str, set[str]] = field(default_factory=dict)
    """By listener, the routes that it has."""
    ports: PortMap = field(default_factory=dict)
    """Those on record in its Service."""


def note(result: Plan, found: Stated, status: Json) -> None:
    """Have a status written that is not what it should be."""
    write = status_write(found, status)
    if write is not None:
        result.statuses.append(write)


def status_write(found: Stated, status: Json) -> StatusWrite | None:
    """How to make a status what it should be; None where it is. What others have put beside ours stays as it is."""
    if any(found.status.get(name) != value for name, value in status.items()):
        return StatusWrite(found.meta.kind, found.meta.key, found.meta.version, status)
    return None
