"""Where endpoints come from: static, dns or kubernetes, each an async iterator of complete snapshots.

A discovery only says what there is; the pool decides what becomes of it. While its source cannot be read it yields
nothing, so that the last known endpoints go on serving, and says so in its `status`.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from balancer.balancing.endpoint import Snapshot
from balancer.discovery.follow import follow
from balancer.discovery.status import Status
from balancer.settings import Settings
from balancer.settings.backends import parse_backends

__all__ = ["Discovery", "Status", "create", "create_for_peers", "follow"]


class Discovery(Protocol):
    """One source of endpoints."""

    @property
    def status(self) -> Status:
        """How it fares: read by the admin port, and by the proxy to say why there is no endpoint."""

    def snapshots(self) -> AsyncGenerator[Snapshot, None]:
        """Every membership, whole, as it becomes known; the first may come late. Raises nothing but CancelledError.

        To be iterated once, and closed.
        """


def create(
    settings: Settings, events: dict[str, int] | None = None, clock: Callable[[], float] = time.monotonic
) -> Discovery:
    """The discovery that LB_DISCOVERY names.

    It counts its snapshots and faults in `events`, by kind; `clock` gives the seconds of `Status.fresh_at`.
    The libraries of dns and kubernetes are large, so each is imported only where it is used.
    """
    status = Status(settings.discovery, events, clock)
    if settings.discovery == "kubernetes":
        from balancer.discovery.kubernetes import KubernetesDiscovery
        from balancer.discovery.place import Whereabouts

        by_hints = settings.prefer_zone == "auto"
        return KubernetesDiscovery(
            service=settings.kubernetes_service or "",
            namespace=settings.kubernetes_namespace,
            port=settings.kubernetes_port,
            status=status,
            random=random.Random(),
            whereabouts=Whereabouts(settings.node_name or "", settings.zone or "", settings.own_service or "")
            if by_hints
            else None,
        )
    if settings.discovery == "dns":
        from balancer.discovery.dns import DnsDiscovery

        return DnsDiscovery(settings.dns_name or "", settings.dns_port or 0, status, random.Random())

    from balancer.discovery.static import FileDiscovery, ListDiscovery

    if settings.backends_file:
        return FileDiscovery(settings.backends_file, status)
    return ListDiscovery(settings.backends, status)


def create_for_peers(settings: Settings) -> Discovery:
    """The discovery of the admin ports of this balancer's replicas, as LB_PEERS says: listed, or a headless Service."""
    peers = settings.peers or ""
    status = Status("peers")
    if ":" in peers:
        from balancer.discovery.static import ListDiscovery

        return ListDiscovery(parse_backends(peers.split(",")), status)
    from balancer.discovery.kubernetes import KubernetesDiscovery

    return KubernetesDiscovery(service=peers, namespace=None, port="admin", status=status, random=random.Random())
