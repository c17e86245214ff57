"""What an operator asked of the whole fleet: kept by every replica, so that it outlives any of them."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nextafter
from typing import Final

import structlog

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.pool import Pool
from balancer.peers.report import Intent, address_of

MOST: Final = 1000
"""Drained endpoints that this replica keeps though it does not know them: it may yet discover them."""

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
        """Somebody drained an endpoint in the whole fleet, or took it back, here.

        Pods whose address another one has are forgotten; of more than `MOST` also those that are not known here.
        """
        others = [each for each in self.intent.drained if address_of(each) != address]
        few = len(others) < MOST
        drains = frozenset(each for each in others if self._find(each) is not None or (few and not self._is_new(each)))
        if drained:
            endpoint = self._pool.find(address)
            uid = endpoint.spec.uid if endpoint is not None else ""
            drains |= {f"{address} {uid}" if uid else address}
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
        addresses = intent.addresses
        for each in before.drained - intent.drained:
            if address_of(each) not in addresses:  # Else it is only named otherwise.
                self._drain(each, False, now)
        self.enforce(now)

    def drains(self, endpoint: Endpoint) -> bool:
        """Whether the fleet wants `endpoint` drained."""
        return any(self._find(each) is endpoint for each in self.intent.drained)

    def enforce(self, now: float) -> None:
        """Drain what the fleet wants drained, endpoints that have just joined among them."""
        for each in self.intent.drained:
            self._drain(each, True, now)

    def _drain(self, each: str, drained: bool, now: float) -> None:
        endpoint = self._find(each)
        if endpoint is not None:
            self._pool.drain(endpoint, drained, now)

    def _is_new(self, each: str) -> bool:
        """Whether another pod has its address."""
        return self._find(each) is None and self._pool.find(address_of(each)) is not None

    def _find(self, each: str) -> Endpoint | None:
        """The endpoint meant. Another pod that has got the address since is another endpoint."""
        address, _, uid = each.partition(" ")
        endpoint = self._pool.find(address)
        return endpoint if endpoint is not None and uid in ("", endpoint.spec.uid) else None

    def _later(self) -> float:
        """Now, but after what is known, whatever the clocks say."""
        return max(self._wall(), nextafter(self.intent.at, inf))
