"""Outlier detection and back-off: who is out for a while. It decides transitions; the pool applies them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from balancer.balancing import ejection
from balancer.balancing.endpoint import Endpoint, Transition
from balancer.balancing.health import Change
from balancer.balancing.policy import Policy

LONGEST_BACKOFF: Final = 30.0
"""However long a Retry-After wants us to back off, we do so for no longer than this (s)."""


def _counts(endpoint: Endpoint) -> bool:
    """Whether it is one of the `ready` endpoints: neither draining nor drained by an operator."""
    return not endpoint.spec.draining and not endpoint.health.drained


class OutlierDetection:
    """The endpoints of a pool that are ejected or backed off from: a tick looks at no others.

    `ready` is how many endpoints there are to take the load: LB_EJECT_MAX_SHARE is a share of those.
    """

    __slots__ = ("_backing_off", "_ejected", "_policy", "_rates_at")

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._ejected: dict[Endpoint, None] = {}
        self._backing_off: dict[Endpoint, None] = {}
        self._rates_at: float | None = None
        """When success rates are compared next (s)."""

    @property
    def ejected(self) -> frozenset[str]:
        """Addresses of the endpoints that are ejected."""
        return frozenset([endpoint.address for endpoint in self._ejected])

    def failed(self, endpoint: Endpoint, ready: int, now: float) -> list[Transition]:
        """A lease of `endpoint` ended in a failure: eject it, if that was one too many."""
        after = self._policy.eject_after
        failures = endpoint.health.failures_in_row
        if after <= 0 or failures < after:
            return []
        return self._eject(endpoint, f"{failures} failures in a row", ready, now)

    def outvoted(self, endpoint: Endpoint, ready: int, now: float) -> list[Transition]:
        """Most replicas have ejected `endpoint`: eject it here too, unless its last ejection ended just now."""
        if self._policy.eject_after <= 0 or now - endpoint.health.returned_at < self._policy.eject_time:
            return []
        return self._eject(endpoint, "most replicas have ejected it", ready, now)

    def _eject(self, endpoint: Endpoint, why: str, ready: int, now: float) -> list[Transition]:
        out = sum(map(_counts, self._ejected))
        if endpoint.health.ejected or not endpoint.discovered or not self._may_leave_out_another(out, ready):
            return []
        seconds = ejection.begin(endpoint.health, self._policy.eject_time, now)
        self._ejected[endpoint] = None
        return [Transition(endpoint, Change.EJECT, f"{why}, for {seconds:g} s", now + seconds)]

    def saturated(self, endpoint: Endpoint, seconds: float, ready: int, now: float) -> list[Transition]:
        """`endpoint` wants us to back off for some seconds."""
        health = endpoint.health
        seconds = min(seconds, LONGEST_BACKOFF)
        until = now + seconds
        if health.backoff_until > 0.0:
            health.backoff_since = now
            health.backoff_until = max(health.backoff_until, until)
            return []
        # The rest carry the load of all that are out, for whatever reason.
        out = sum(_counts(each) for each in self._backing_off | self._ejected if each is not endpoint)
        if not endpoint.discovered or not self._may_leave_out_another(out, ready):
            return []
        health.backoff_since = now
        self._backing_off[endpoint] = None
        return [Transition(endpoint, Change.BACK_OFF, f"for {seconds:g} s", until)]

    def succeeded(self, endpoint: Endpoint, opened_at: float) -> list[Transition]:
        """`endpoint` has answered well: that ends its back-off, if the request was sent since that began."""
        health = endpoint.health
        if health.backoff_until == 0.0 or opened_at < health.backoff_since:
            return []
        self._backing_off.pop(endpoint, None)
        return [Transition(endpoint, Change.RESUME)]

    def _may_leave_out_another(self, out: int, ready: int) -> bool:
        return ejection.may_eject(out, ready, self._policy.eject_max_share)

    def expired(self, now: float) -> list[Transition]:
        """Every ejection and every back-off that ends now."""
        transitions: list[Transition] = []
        for endpoint in [each for each in self._ejected if now >= each.health.ejected_until]:
            del self._ejected[endpoint]
            ejection.end(endpoint.health, self._policy.eject_after, now)
            transitions.append(Transition(endpoint, Change.READMIT))
        for endpoint in [each for each in self._backing_off if now >= each.health.backoff_until]:
            del self._backing_off[endpoint]
            transitions.append(Transition(endpoint, Change.RESUME))
        return transitions

    def compare_rates(self, endpoints: Iterable[Endpoint], ready: int, now: float) -> list[Transition]:
        """Once in each interval, eject those whose success rate is far below the others'."""
        if self._rates_at is None:
            self._rates_at = now + ejection.INTERVAL
        if now < self._rates_at or self._policy.eject_after <= 0:
            return []
        self._rates_at = now + ejection.INTERVAL
        transitions: list[Transition] = []
        for endpoint in ejection.low_success(endpoints):
            transitions += self._eject(endpoint, "success rate far below the others'", ready, now)
        return transitions

    def forget(self, endpoint: Endpoint) -> None:
        """`endpoint` has left the pool."""
        self._ejected.pop(endpoint, None)
        self._backing_off.pop(endpoint, None)

    def recall(self, endpoint: Endpoint, now: float) -> list[Transition]:
        """`endpoint` is back with its state: what was to end meanwhile ends, the rest goes on."""
        health = endpoint.health
        transitions: list[Transition] = []
        if health.ejected_until > now:
            self._ejected[endpoint] = None
        elif health.ejected:
            ejection.end(health, self._policy.eject_after, now)
            transitions.append(Transition(endpoint, Change.READMIT))
        if health.backoff_until > now:
            self._backing_off[endpoint] = None
        elif health.backoff_until > 0.0:
            transitions.append(Transition(endpoint, Change.RESUME))
        return transitions
