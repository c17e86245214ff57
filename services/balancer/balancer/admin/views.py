"""What the API and the dashboard show of an endpoint and of a decision, as plain JSON values."""

from __future__ import annotations

import json

from balancer.admin.state import state_of
from balancer.admin.status import Running
from balancer.balancing.decision import Candidate, Decision
from balancer.balancing.endpoint import Endpoint
from balancer.balancing.learned import endpoint_work, kinds
from balancer.balancing.pool import Pool

View = dict[str, object]


def work_view(endpoint: Endpoint, pool: Pool, now: float) -> View | None:
    """What is believed of an endpoint's work; None where the strategy does not follow that."""
    work = endpoint_work(endpoint, now) if pool.follows_work else None
    if work is None:
        return None
    return {
        "workers": work.workers,
        "pace": round(work.pace, 3),
        "expected": rounded(work.expected),
        "wait": rounded(work.wait),
    }


def costs_view(pool: Pool, limit: int) -> View:
    """The kinds of request of one cluster, those with the most requests first, with what each is expected to cost."""
    known = kinds(pool.costs)
    return {
        "cluster": pool.cluster,
        "strategy": pool.strategy_name,
        "learning": pool.follows_work,
        "distinct": pool.costs.distinct,
        "mean": rounded(pool.costs.mean),
        "total": len(known),
        "kinds": [
            {
                "kind": kind.title,
                "samples": kind.samples,
                "recent": kind.recent,
                "cost": rounded(kind.expected),
                "deviation": rounded(kind.deviation),
                "waits": kind.waits,
            }
            for kind in known[:limit]
        ],
    }


def endpoint_view(endpoint: Endpoint, running: Running, now: float) -> View:
    """One endpoint: what it is, its state and why, its load, and what it has answered. Durations in seconds."""
    pool = running.pool_of(endpoint)
    ineligible_reason = pool.ineligible_reason(endpoint, now)
    spec = endpoint.spec
    return {
        "cluster": endpoint.cluster,
        "address": endpoint.address,
        "pod": spec.name,
        "zone": spec.zone,
        "node": spec.node,
        "state": state_of(endpoint, now),
        "eligible": ineligible_reason is None,
        "ineligible_reason": ineligible_reason,
        "in_flight": endpoint.in_flight,
        "latency": rounded(endpoint.latency.average(now)),
        "weight": spec.weight,
        "weight_in_force": rounded(endpoint.weight),
        "work": work_view(endpoint, pool, now),
        "ejected_for": rounded(left(endpoint.health.ejected_until, now)),
        "backoff_for": rounded(left(endpoint.health.backoff_until, now)),
        "slow_start_for": rounded(slow_start_left(endpoint, running.settings.slow_start, now)),
        "ejections": endpoint.health.ejections,
        "failures_in_row": endpoint.health.failures_in_row,
        "passing_probes": endpoint.health.passing_probes,
        "drained": endpoint.health.drained,
        # The old names, until 0.3.
        "why_out": ineligible_reason,
        "left_alone_for": rounded(left(endpoint.health.backoff_until, now)),
        "healthy": endpoint.health.passing_probes,
        "held": endpoint.health.drained,
        "answered": {f"{digit}xx": count for digit, count in enumerate(endpoint.stats.answered) if count and digit},
        "failed": dict(endpoint.stats.failed),
        "connections": {
            "open": endpoint.stats.connections_open,
            "idle": running.proxy.idle_connections(endpoint),
            "opened": endpoint.stats.connections_opened,
            "reused": endpoint.stats.connections_reused,
        },
        "bytes": {"sent": endpoint.stats.bytes_sent, "received": endpoint.stats.bytes_received},
    }


def left(until: float, now: float) -> float | None:
    """Seconds until `until`, None when it is past."""
    return until - now if until > now else None


def slow_start_left(endpoint: Endpoint, slow_start: float, now: float) -> float | None:
    """Seconds of slow start that are left, None when there is none."""
    return None if endpoint.slow_start_from is None else left(endpoint.slow_start_from + slow_start, now)


def decision_view(decision: Decision, wall: float) -> View:
    """One decision; `wall` is 0 of the pool's clock in Unix time (s). No two have the same `at`."""
    return {
        "at": round(decision.at + wall, 3),
        "cluster": decision.cluster,
        "strategy": decision.strategy,
        "client": decision.client,
        "method": decision.method,
        "path": decision.path,
        "chosen": decision.chosen,
        "cost": rounded(decision.cost),
        "by": decision.by,
        "candidates": [_candidate_view(candidate) for candidate in decision.candidates],
        "others": decision.others,
    }


def _candidate_view(candidate: Candidate) -> View:
    return {
        "address": candidate.address,
        "score": rounded(candidate.score),
        "ineligible_reason": candidate.ineligible_reason,
        "why_not": candidate.ineligible_reason,  # Its old name, until 0.3.
        "in_flight": candidate.in_flight,
        "latency": rounded(candidate.latency),
        "weight": rounded(candidate.weight),
        "wait": rounded(candidate.wait),
        "pace": None if candidate.pace is None else round(candidate.pace, 3),
    }


def rounded(value: float | None) -> float | None:
    """Six digits after the point; what JSON cannot say (infinity) as None."""
    return None if value is None or value in (float("inf"), float("-inf")) or value != value else round(value, 6)


def to_json(value: object) -> str:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
