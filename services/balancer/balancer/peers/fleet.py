"""What an operator asked of the whole fleet: kept by every replica, so that it outlives any of them."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from balancer.balancing.pool import Pool
from balancer.peers.report import Intent

log = structlog.get_logger(__name__)


class FleetIntent:
    """The latest intent known here, applied to the pool; the later of two wins, wherever it was asked."""

    def __init__(self, pool: Pool, switch_strategy: Callable[[str], None], wall: Callable[[], float]) -> None:
        """`switch_strategy` raises ValueError for a strategy that this replica lacks; `wall` gives Unix time (s)."""
        self._pool = pool
        self._switch_strategy = switch_strategy
        self._wall = wall
        self.intent = Intent()

    def strategy(self, name: str) -> None:
        """Somebody switched the fleet's strategy here, and it is in force here already."""
        self.intent = Intent(self._later(), name, self.intent.drained)

    def drain(self, address: str, drained: bool) -> None:
        """Somebody drained an endpoint in the whole fleet, or took it back, here."""
        drains = self.intent.drained | {address} if drained else self.intent.drained - {address}
        self.intent = Intent(self._later(), self.intent.strategy, drains)

    def take(self, intent: Intent, replica: str, now: float) -> None:
        """Another replica knows of this intent: follow it, if it is later than ours."""
        if not intent.newer_than(self.intent):
            return
        before, self.intent = self.intent, intent
        if intent.strategy and intent.strategy != self._pool.strategy_name:
            try:
                self._switch_strategy(intent.strategy)
                log.info("strategy switched", strategy=intent.strategy, by=replica)
            except ValueError as error:
                log.warning("the fleet's strategy is not known here", strategy=intent.strategy, error=str(error))
        for address in before.drained - intent.drained:
            self._drain(address, False, now)
        self.enforce(now)

    def enforce(self, now: float) -> None:
        """Drain what the fleet wants drained, endpoints that have just joined among them."""
        for address in self.intent.drained:
            self._drain(address, True, now)

    def _drain(self, address: str, drained: bool, now: float) -> None:
        endpoint = self._pool.find(address)
        if endpoint is not None:
            self._pool.drain(endpoint, drained, now)

    def _later(self) -> float:
        """Now, but after what is known, whatever the clocks say."""
        return max(self._wall(), self.intent.at + 0.000_001)
