"""What the replicas of one balancer report to each other, so that each sees the load that the others send.

`report` and `belief` are pure: what one replica says, and what another makes of it as the news ages. `link` carries
the reports over WebSockets of the admin port. Kubernetes says which replicas there are; nothing here is a membership
protocol. A replica that is silent, late or of another version costs the others nothing but its news.
"""

from __future__ import annotations

from balancer.peers.belief import Belief
from balancer.peers.peers import Peers
from balancer.peers.report import BadReport, Report

__all__ = ["BadReport", "Belief", "Peers", "Report"]
