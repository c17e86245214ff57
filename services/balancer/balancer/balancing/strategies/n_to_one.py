"""N-to-one: all to one, the others stand by."""

from __future__ import annotations

from typing import ClassVar

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies.by_load import ByLoad


class NToOne(ByLoad):
    """The first eligible endpoint, in configured order or by the pod's name; fails over to the next, and back."""

    watches_load: ClassVar[bool] = False

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        """Its place in the order."""
        return float(endpoint.order)
