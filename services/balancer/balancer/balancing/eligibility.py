"""Which endpoints are in rotation: one set of rules, applied once for all strategies.

An endpoint is healthy when its probes pass, it is not ejected, and we do not back off from it. The healthy ones among
those that are ready are in rotation; the exceptions, the strongest first:

- Drained by an operator: never in rotation.
- Panic: when none is healthy, or fewer than the panic share, all that are ready are in rotation. A panic share of 0
  switches this off, except that saturation is no failure: when none is healthy, the saturated ones are in rotation.
- Draining (terminating, but still serving): in rotation when no endpoint that is ready is healthy.
- Zone: while at least `ENOUGH` of the preferred zone's endpoints, or of those that hints mean for us, are healthy, only
  they are in rotation.

Sources: Envoy's panic threshold, and its overprovisioning factor of 1.4 for priority levels (here the zone);
kube-proxy's use of terminating endpoints (Kubernetes, KEP-1669).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from balancer.balancing.endpoint import Endpoint

ENOUGH: Final = 1 / 1.4


@dataclass(frozen=True, slots=True)
class _Group:
    """Endpoints that all rules treat alike are counted together, in one of these."""

    draining: bool
    near: bool
    healthy: bool


class Eligibility:
    """Counts by which the rules decide, kept as endpoints join, leave and change: no rule needs to look at them all.

    After a change of an endpoint: `recount` it, then `decide`.
    """

    __slots__ = (
        "_draining",
        "_draining_healthy",
        "_groups",
        "_panic_share",
        "_prefer_zone",
        "_zone_healthy",
        "_zone_ready",
        "healthy",
        "none_healthy",
        "panic",
        "ready",
        "zone_exhausted",
        "zone_only",
    )

    def __init__(self, panic_share: float, prefer_zone: str | None) -> None:
        self._panic_share = panic_share
        self._prefer_zone = prefer_zone or ""
        self._groups: dict[Endpoint, _Group] = {}
        """In which group each endpoint is counted."""
        self.ready = 0
        """Endpoints neither draining nor drained by an operator."""
        self.healthy = 0
        """Of these, the healthy ones."""
        self._zone_ready = 0
        self._zone_healthy = 0
        self._draining = 0
        self._draining_healthy = 0
        self.zone_exhausted = False
        """No endpoint of the preferred zone could take a request, all tried or at their limit: admit the others."""

        # What was decided.
        self.panic = False
        self.none_healthy = True
        self.zone_only = False

    def recount(self, endpoint: Endpoint) -> None:
        """Count `endpoint` as it is now, and no longer as it was when last counted."""
        before = self._groups.pop(endpoint, None)
        if before is not None:
            self._add(before, -1)
        if endpoint.discovered and not endpoint.health.drained:
            group = _Group(endpoint.spec.draining, self._near(endpoint), endpoint.health.healthy)
            self._groups[endpoint] = group
            self._add(group, 1)

    def _add(self, group: _Group, step: int) -> None:
        healthy = step if group.healthy else 0
        if group.draining:
            self._draining += step
            self._draining_healthy += healthy
            return
        self.ready += step
        self.healthy += healthy
        if group.near:
            self._zone_ready += step
            self._zone_healthy += healthy

    def decide(self) -> bool:
        """Apply the rules to the counts; True when that may change who else is admitted."""
        none_healthy = self.healthy == 0
        too_few = self.ready > 0 and (none_healthy or self.healthy < self._panic_share * self.ready)
        panic = too_few and self._panic_share > 0
        enough = self._zone_healthy > 0 and self._zone_healthy >= ENOUGH * self._zone_ready
        zone_only = enough and not panic and not self.zone_exhausted
        # Without a healthy one among those ready, the draining ones decide too: look at all again.
        changed = (
            panic != self.panic or none_healthy or none_healthy != self.none_healthy or zone_only != self.zone_only
        )
        self.panic = panic
        self.none_healthy = none_healthy
        self.zone_only = zone_only
        return changed

    def admits(self, endpoint: Endpoint) -> bool:
        """Whether the rules let `endpoint` be in rotation."""
        health = endpoint.health
        if health.drained:
            return False
        if endpoint.spec.draining:
            nothing_else = self.ready == 0 and self._draining_healthy == 0
            return self.none_healthy and (health.healthy or nothing_else)
        if self.panic:
            return True
        if self.none_healthy:
            return health.passing_probes and not health.ejected
        return health.healthy and not (self.zone_only and not self._near(endpoint))

    def ineligible_reason(self, endpoint: Endpoint, limit: int, now: float) -> str:
        """Why `endpoint`, which is not eligible, is not, in a few words: `ejected for 7 s more`."""
        if not endpoint.discovered:
            return "gone"
        health = endpoint.health
        if health.drained:
            return "drained by hand"
        if not health.passing_probes:
            why = health.probe_fault
            return f"its health checks fail: {why}" if why else "its health checks fail"
        if health.ejected:
            return f"ejected for {max(health.ejected_until - now, 0.0):.0f} s more"
        if health.backoff_until > 0.0:
            return f"asked us to back off for {max(health.backoff_until - now, 0.0):.0f} s more"
        if endpoint.spec.draining:
            return "draining"
        if endpoint.in_flight >= limit:
            return f"at its limit of {limit} requests"
        return f"not in zone {self._prefer_zone}" if self._prefer_zone else "its hints say that it is for others"

    def _near(self, endpoint: Endpoint) -> bool:
        """Of the preferred zone; or by its hints meant for us, where the discovery looks at them."""
        spec = endpoint.spec
        return spec.near or (self._prefer_zone != "" and spec.zone == self._prefer_zone)
