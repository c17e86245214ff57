"""The simplest strategy to write: say how good an endpoint is, and the best is taken."""

from __future__ import annotations

from collections.abc import Collection

from mypy_extensions import mypyc_attr

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.request import RequestInfo
from balancer.balancing.rng import Random
from balancer.balancing.strategies.strategy import Strategy, turn


@mypyc_attr(allow_interpreted_subclasses=True)
class ByScore(Strategy):
    """Takes the lowest score; ties go by `turn`: the one chosen longest ago, or with the youngest request.

    A subclass writes `score`, which may look at the endpoint, the request and the time. Every choice scores every
    endpoint: good for some hundreds. `ByLoad` is for thousands.
    """

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._endpoints: dict[Endpoint, None] = {}

    def added(self, endpoint: Endpoint) -> None:
        """`endpoint` has become eligible."""
        self._endpoints[endpoint] = None

    def removed(self, endpoint: Endpoint) -> None:
        """`endpoint` is no longer eligible."""
        del self._endpoints[endpoint]

    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        """The endpoint with the lowest score that is not in `excluded`."""
        best: Endpoint | None = None
        lowest = 0.0
        for endpoint in self._endpoints:
            if excluded and endpoint in excluded:
                continue
            score = self.score(endpoint, request, now)
            if score != score:
                raise ValueError(f"the score of {endpoint.address} is not a number")
            if best is None or score < lowest or (score == lowest and turn(endpoint) < turn(best)):
                best = endpoint
                lowest = score
        return best

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        """How good `endpoint` is for `request`: lower wins. Changes nothing."""
        raise NotImplementedError(f"{type(self).__name__} has no score")
