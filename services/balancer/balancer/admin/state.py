"""The state of an endpoint in one word: the same in the metrics, the API and the dashboard."""

from __future__ import annotations

from balancer.balancing.endpoint import Endpoint

STATES = {
    "ready": "takes its share of the requests",
    "slow-start": "new or returned, and takes less than its share for a while",
    "standby": "in another zone than LB_PREFER_ZONE, which has enough",
    "at-limit": "has as many requests as LB_ENDPOINT_MAX_REQUESTS allows",
    "backoff": "answered 503 with Retry-After: we back off that long",
    "ejected": "failed too often, and is tried again when its ejection ends",
    "unhealthy": "fails the active probes",
    "drained": "drained by hand, through the API",
    "draining": "terminating in Kubernetes, but still serving",
}
"""Each state and what it means, from the best to the worst."""


def state_of(endpoint: Endpoint, now: float) -> str:
    """One of STATES. In panic an ejected endpoint is used all the same: its state stays `ejected`."""
    if endpoint.spec.draining:
        return "draining"
    if endpoint.health.drained:
        return "drained"
    if not endpoint.health.passing_probes:
        return "unhealthy"
    if endpoint.health.ejected_until > now:
        return "ejected"
    if endpoint.health.backoff_until > now:
        return "backoff"
    if not endpoint.eligible:
        return "at-limit" if endpoint.in_rotation else "standby"
    return "ready" if endpoint.slow_start_from is None else "slow-start"
