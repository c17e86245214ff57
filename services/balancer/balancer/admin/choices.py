"""The strategy in force, those there are, and the choices that were recorded."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import islice, takewhile
from math import inf

from balancer.admin.remedies import for_good, place
from balancer.admin.status import Running
from balancer.admin.views import View, decision_view
from balancer.balancing import strategies
from balancer.balancing.decision import Decision

MEANINGS = {
    "n-to-one": "Every request to the first endpoint that can take it; the others stand by.",
    "round-robin": "Each endpoint in its turn, as often as its weight says.",
    "least-connections": "The endpoint with the fewest requests in flight for its weight.",
    "least-response-time": "The endpoint that would answer soonest: its recent latency times its load.",
    "least-work": "The endpoint that would be done first: what requests cost, its pace and its workers are learned.",
    "random-of-two": "The less loaded of two drawn at random.",
    "consistent-hash": "The same key to the same endpoint, as far as load allows.",
}
"""What the dashboard says of each."""


class Choices:
    """Reads the pool's strategy and its log of decisions."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._place = place()
        self._wall = time.time() - running.clock()
        first = running.settings.strategy
        self.names = [*strategies.STRATEGIES, *([] if first in strategies.STRATEGIES else [first])]
        """What one may switch to: the registry's, and the class that LB_STRATEGY names if it is one's own."""

    def view(self) -> View:
        """The answer to GET /api/strategy."""
        return {
            "strategy": self._running.pool.strategy_name,
            "strategies": [
                {"name": name, "meaning": MEANINGS.get(name, "A class of your own.")} for name in self.names
            ],
            "replica": self._running.proxy.replica,
            "note": for_good(self._place, self._running.peers is not None),
        }

    def latest(self, limit: int, after: float = -inf) -> list[Decision]:
        """The latest decisions recorded, the newest first, of those later than `after` (s, the pool's clock)."""
        later = takewhile(lambda decision: decision.at > after, self._running.pool.decisions)
        return list(islice(later, limit))

    def views(self, decisions: Iterable[Decision]) -> View:
        """The answer to GET /api/decisions."""
        return {"decisions": [decision_view(decision, self._wall) for decision in decisions]}
