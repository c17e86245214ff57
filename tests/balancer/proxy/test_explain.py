"""A decision in a response's header fields says what least-work expected, where it expected something."""

from __future__ import annotations

from balancer.balancing.decision import Candidate, Decision
from balancer.proxy.explain import fields


def decision(cost: float | None, candidate: Candidate) -> Decision:
    told = "192.0.2.1", "GET", "/report", candidate.address, "the only candidate", (candidate,)
    return Decision(1.0, "least-work", *told, {}, cost=cost)


def test_cost_wait_and_pace_are_shown_where_the_strategy_follows_work() -> None:
    candidate = Candidate("10.0.0.1:80", 0.6, None, 2, 0.25, 1.0, wait=0.3, pace=1.5)
    shown = dict(fields(decision(0.2, candidate)))
    assert shown[b"X-LB-Cost"] == b"0.200000"
    assert shown[b"X-LB-Candidate"] == (
        b"10.0.0.1:80; score=0.6; in-flight=2; weight=1; wait=0.300000; pace=1.5; latency=0.250000"
    )


def test_else_the_fields_are_as_they_were() -> None:
    shown = dict(fields(decision(None, Candidate("10.0.0.1:80", 0.6, None, 2, None, 1.0))))
    assert b"X-LB-Cost" not in shown
    assert shown[b"X-LB-Candidate"] == b"10.0.0.1:80; score=0.6; in-flight=2; weight=1"
