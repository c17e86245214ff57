"""Who is out for a while, or taken back little by little: what passes with time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from balancer.balancing import ejection, slow_start
from balancer.balancing.endpoint import Endpoint
from balancer.balancing.policy import Policy

if TYPE_CHECKING:
    from balancer.balancing.pool import Pool

LONGEST_BACKOFF: Final = 30.0
"""However long an endpoint asks us to back off, it is for no longer than this (s)."""


def is_healthy(endpoint: Endpoint) -> bool:
    """Healthy, not ejected, not backed off from."""
    return endpoint.passing_probes and endpoint.ejected_until == 0.0 and endpoint.backoff_until == 0.0


def _counts(endpoint: Endpoint) -> bool:
    """Whether it is one of those that the share is of: neither draining nor drained by hand."""
    return not endpoint.spec.draining and not endpoint.drained


class OutlierDetection:
    """The endpoints of a pool that are ejected, backed off from or in slow start: a tick looks at no others."""

    __slots__ = ("_backing_off", "_ejected", "_policy", "_pool", "_rates_at", "_starting")

    def __init__(self, pool: Pool, policy: Policy) -> None:
        self._pool = pool
        self._policy = policy
        self._ejected: dict[Endpoint, None] = {}
        self._backing_off: dict[Endpoint, None] = {}
        self._starting: dict[Endpoint, None] = {}
        self._rates_at: float | None = None
        """When success rates are compared next (s)."""

    def failed(self, endpoint: Endpoint, now: float) -> None:
        """A lease of `endpoint` ended in a failure: eject it, if that was one too many."""
        after = self._policy.eject_after
        if after > 0 and endpoint.failures_in_row >= after:
            self._eject(endpoint, f"{endpoint.failures_in_row} failures in a row", now)

    def _eject(self, endpoint: Endpoint, why: str, now: float) -> None:
        if endpoint.ejected_until > 0.0 or not endpoint.discovered:
            return
        if not self._pool.may_leave_out_another(sum(map(_counts, self._ejected))):
            return
        seconds = ejection.eject(endpoint, self._policy.eject_time, now)
        self._ejected[endpoint] = None
        self._pool.notify(endpoint, "ejected", f"{why}, for {seconds:g} s")
        self._pool.update_health(endpoint, now)

    def outvoted(self, endpoint: Endpoint, now: float) -> None:
        """Most replicas have ejected `endpoint`: eject it here too, unless it was given another chance just now."""
        if now - endpoint.returned_at >= self._policy.eject_time:
            self._eject(endpoint, "most replicas have ejected it", now)

    def back_off(self, endpoint: Endpoint, seconds: float, now: float) -> None:
        """`endpoint` asked us to back off for some seconds."""
        if endpoint.backoff_until == 0.0 and not self._may_leave_out(endpoint):
            return
        seconds = min(seconds, LONGEST_BACKOFF)
        if endpoint.backoff_until == 0.0:
            self._pool.notify(endpoint, "backoff", f"for {seconds:g} s")
        endpoint.backoff_until = max(endpoint.backoff_until, now + seconds)
        endpoint.backoff_from = now
        if endpoint.discovered:
            self._backing_off[endpoint] = None
        self._pool.update_health(endpoint, now)

    def answers_again(self, endpoint: Endpoint, now: float) -> None:
        """`endpoint` has answered well a request made since it asked us to back off: that is over."""
        self._backing_off.pop(endpoint, None)
        endpoint.backoff_until = 0.0
        self._pool.update_health(endpoint, now)

    def _may_leave_out(self, endpoint: Endpoint) -> bool:
        """Whether `endpoint` may be backed off from beside those that are out already: the rest carry their load."""
        out = sum(_counts(each) for each in self._backing_off | self._ejected if each is not endpoint)
        return endpoint.discovered and self._pool.may_leave_out_another(out)

    def start_slowly(self, endpoint: Endpoint, now: float) -> None:
        """`endpoint` is new, or is back: begin its slow start, where that is wanted."""
        if self._policy.slow_start > 0 and endpoint.discovered:
            endpoint.slow_start_from = now
            self._starting[endpoint] = None
            self.weigh(endpoint, now)

    def weigh(self, endpoint: Endpoint, now: float) -> None:
        """Bring its weight in force up to date."""
        since = endpoint.slow_start_from
        window = self._policy.slow_start
        ends = since is not None and now - since >= window
        if ends:
            endpoint.slow_start_from = None
            self._starting.pop(endpoint, None)
        full = endpoint.spec.weight
        weight = full if since is None or ends else slow_start.weight(full, since, window, now)
        if weight != endpoint.weight or ends:
            endpoint.weight = weight
            self._pool.reweighed(endpoint)

    def tick(self, now: float) -> None:
        """Let time pass."""
        for endpoint in [e for e in self._ejected if now >= e.ejected_until]:
            del self._ejected[endpoint]
            ejection.readmit(endpoint, self._policy.eject_after, now)
            self._pool.notify(endpoint, "returned", "")
            self.start_slowly(endpoint, now)
            self._pool.update_health(endpoint, now)
        for endpoint in [e for e in self._backing_off if now >= e.backoff_until]:
            del self._backing_off[endpoint]
            endpoint.backoff_until = 0.0
            self._pool.update_health(endpoint, now)
        for endpoint in list(self._starting):
            self.weigh(endpoint, now)
        self._compare_rates(now)

    def _compare_rates(self, now: float) -> None:
        if self._rates_at is None:
            self._rates_at = now + ejection.INTERVAL
        if now >= self._rates_at and self._policy.eject_after > 0:
            self._rates_at = now + ejection.INTERVAL
            for endpoint in ejection.low_success(self._pool.endpoints):
                self._eject(endpoint, "success rate far below the others'", now)

    def forget(self, endpoint: Endpoint) -> None:
        """`endpoint` has left the pool."""
        self._starting.pop(endpoint, None)
        self._ejected.pop(endpoint, None)
        self._backing_off.pop(endpoint, None)

    def resume(self, endpoint: Endpoint, now: float) -> None:
        """An endpoint that is remembered is back: what was to end meanwhile has ended, the rest goes on."""
        if endpoint.ejected_until > now:
            self._ejected[endpoint] = None
        elif endpoint.ejected_until > 0.0:
            ejection.readmit(endpoint, self._policy.eject_after, now)
        if endpoint.backoff_until > now:
            self._backing_off[endpoint] = None
        else:
            endpoint.backoff_until = 0.0
        endpoint.healthy = is_healthy(endpoint)
