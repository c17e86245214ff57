"""A decision as response header fields, for a client that sent X-LB-Explain with the token."""

from __future__ import annotations

from balancer.balancing.decision import Decision
from balancer.proxy.messages import Headers


def fields(decision: Decision) -> Headers:
    """Fields that name the strategy, the winner, by what it won, and each candidate's score or why it was out."""
    fields = [
        ("X-LB-Strategy", decision.strategy),
        ("X-LB-Endpoint", decision.chosen or "none"),
        ("X-LB-Reason", decision.by),
    ]
    if decision.cost is not None:
        fields.append(("X-LB-Cost", f"{decision.cost:.6f}"))
    for candidate in decision.candidates:
        score = (
            f"score={candidate.score:.6g}" if candidate.score is not None else f'out="{candidate.ineligible_reason}"'
        )
        latency = f"; latency={candidate.latency:.6f}" if candidate.latency is not None else ""
        load = f"in-flight={candidate.in_flight}; weight={candidate.weight:g}"
        if candidate.wait is not None and candidate.pace is not None:
            load += f"; wait={candidate.wait:.6f}; pace={candidate.pace:.3g}"
        fields.append(("X-LB-Candidate", f"{candidate.address}; {score}; {load}{latency}"))
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in fields]
