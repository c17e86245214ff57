"""A decision as response header fields, for whoever asked with X-LB-Explain and may know."""

from __future__ import annotations

from balancer.balancing.decision import Decision


def fields(decision: Decision) -> bytes:
    """Field lines that tell the strategy, the winner, by what it won, and each candidate's score or why it was out."""
    lines = [
        f"X-LB-Strategy: {decision.strategy}",
        f"X-LB-Endpoint: {decision.chosen or 'none'}",
        f"X-LB-Reason: {decision.by}",
    ]
    for candidate in decision.candidates:
        told = f"score={candidate.score:.6g}" if candidate.score is not None else f'out="{candidate.why_not}"'
        lines.append(
            f"X-LB-Candidate: {candidate.address}; {told}; in-flight={candidate.in_flight}; weight={candidate.weight:g}"
            + (f"; latency={candidate.latency:.6f}" if candidate.latency is not None else "")
        )
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1", "replace")
