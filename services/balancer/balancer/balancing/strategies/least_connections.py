"""Least-connections: the endpoint with the least to do."""

from __future__ import annotations

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies.by_load import ByLoad
from balancer.balancing.strategies.strategy import load_of


class LeastConnections(ByLoad):
    """The fewest requests in flight for its weight, counted from the moment of selection."""

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        """Requests in flight, this one included, for each unit of weight."""
        return load_of(endpoint)
