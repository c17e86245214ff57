"""Which endpoints may be used: one set of rules, applied once for all strategies.

An endpoint is healthy when its probes pass, it is not ejected, and we do not back off from it. The healthy ones among
those that are ready are used; the exceptions, in the order of their strength:

- Drained by hand: never used.
- Panic: when none is healthy, or fewer than the panic share, all that are ready are used. A panic share of 0 switches
  this off, except that saturation is no failure: when none is healthy, those that asked us to back off are used.
- Draining (terminating, but still serving): used when no endpoint that is ready is healthy.
- Zone: while at least `ENOUGH` of the preferred zone's endpoints, or of those that hints mean for us, are healthy, only
  they are used.

Sources: Envoy's panic threshold, and its overprovisioning factor of 1.4 for priority levels (here the zone);
kube-proxy's use of terminating endpoints (Kubernetes, KEP-1669).
"""

from __future__ import annotations

from typing import Final

from balancer.balancing.endpoint import Endpoint

ENOUGH: Final = 1 / 1.4


class Eligibility:
    """Counts by which the rules decide, kept as endpoints come, go and change: no rule needs to look at them all.

    Whoever changes what an endpoint's standing depends on calls `count(endpoint, -1)` before and `count(endpoint, 1)`
    after, then `decide`.
    """

    __slots__ = (
        "_draining",
        "_draining_healthy",
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
        self.ready = 0
        """Endpoints neither draining nor drained by hand."""
        self.healthy = 0
        """Of these, the healthy ones."""
        self._zone_ready = 0
        self._zone_healthy = 0
        self._draining = 0
        self._draining_healthy = 0
        self.zone_exhausted = False
        """The preferred zone had nobody for a request, all being tried or at their limit: use the others as well."""

        # What was decided.
        self.panic = False
        self.none_healthy = True
        self.zone_only = False

    def count(self, endpoint: Endpoint, step: int) -> None:
        """Add (1) or take away (-1) `endpoint` as it stands now."""
        if endpoint.drained:
            return
        healthy = step if endpoint.healthy else 0
        if endpoint.spec.draining:
            self._draining += step
            self._draining_healthy += healthy
            return
        self.ready += step
        self.healthy += healthy
        if self._near(endpoint):
            self._zone_ready += step
            self._zone_healthy += healthy

    def decide(self) -> bool:
        """Apply the rules to the counts; True when another set of endpoints is to be used than before."""
        none_healthy = self.healthy == 0
        too_few = self.ready > 0 and (none_healthy or self.healthy < self._panic_share * self.ready)
        panic = too_few and self._panic_share > 0
        enough = self._zone_healthy > 0 and self._zone_healthy >= ENOUGH * self._zone_ready
        zone_only = enough and not panic and not self.zone_exhausted
        # Without a healthy one among those ready, who else is used depends on the draining ones too: look at all again.
        changed = (
            panic != self.panic or none_healthy or none_healthy != self.none_healthy or zone_only != self.zone_only
        )
        self.panic = panic
        self.none_healthy = none_healthy
        self.zone_only = zone_only
        return changed

    def admits(self, endpoint: Endpoint) -> bool:
        """Whether the rules let `endpoint` be used."""
        if endpoint.drained:
            return False
        if endpoint.spec.draining:
            nothing_else = self.ready == 0 and self._draining_healthy == 0
            return self.none_healthy and (endpoint.healthy or nothing_else)
        if self.panic:
            return True
        if self.none_healthy:
            return endpoint.passing_probes and endpoint.ejected_until == 0.0
        return endpoint.healthy and not (self.zone_only and not self._near(endpoint))

    def ineligible_reason(self, endpoint: Endpoint, limit: int, now: float) -> str:
        """Why `endpoint`, which is not eligible, is not, in a few words: `ejected for 7 s more`."""
        if not endpoint.discovered:
            return "gone"
        if endpoint.drained:
            return "drained by hand"
        if not endpoint.passing_probes:
            why = endpoint.probe_fault
            return f"its health checks fail: {why}" if why else "its health checks fail"
        if endpoint.ejected_until > 0.0:
            return f"ejected for {max(endpoint.ejected_until - now, 0.0):.0f} s more"
        if endpoint.backoff_until > 0.0:
            return f"asked us to back off for {max(endpoint.backoff_until - now, 0.0):.0f} s more"
        if endpoint.spec.draining:
            return "draining"
        if endpoint.in_flight >= limit:
            return f"at its limit of {limit} requests"
        return f"not in zone {self._prefer_zone}" if self._prefer_zone else "its hints say that it is for others"

    def _near(self, endpoint: Endpoint) -> bool:
        """Of the preferred zone; or by its hints meant for us, where the discovery looks at them."""
        spec = endpoint.spec
        return spec.near or (self._prefer_zone != "" and spec.zone == self._prefer_zone)
