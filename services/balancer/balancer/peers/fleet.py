"""What operators asked of the whole fleet: kept by every replica, so that it outlives any of them."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nextafter

import structlog

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.pool import Pool
from balancer.peers.intent import Intent, Wish

log = structlog.get_logger(__name__)


class FleetIntent:
    """The intent as it is known here, applied to the pool; the later of two wishes counts, wherever it was asked."""

    def __init__(self, pool: Pool, switch_strategy: Callable[[str], None], wall: Callable[[], float]) -> None:
        """`switch_strategy` raises ValueError for a strategy that this replica lacks; `wall` gives Unix time (s)."""
        self._pool = pool
        self._switch_strategy = switch_strategy
        self._wall = wall
        self.intent = Intent()
        self._taken_back: dict[str, Wish] = {}
        """Drains by address that were taken back while the endpoint was gone: it is remembered as drained for a while,
        and comes back so."""

    def strategy(self, name: str) -> None:
        """Somebody switched the fleet's strategy here, and it is in force here already."""
        self.intent = self.intent.merged(Intent(self._later(), name))

    def drain(self, address: str, drained: bool) -> None:
        """Somebody drained an endpoint in the whole fleet, or took it back, here.

        Pods whose address another one has are taken back: they are gone.
        """
        endpoint = self._pool.find(address)
        uid = endpoint.spec.uid if endpoint is not None and drained else ""
        before = self.intent.wishes.get(address)
        if before is not None and before.drained and not drained and self._find(address, before) is None:
            self._taken_back[address] = before
        wishes = self._gone() | {address: Wish(self._later(), drained, uid)}
        self.intent = self.intent.merged(Intent(wishes=wishes))

    def take(self, intent: Intent, replica: str, now: float) -> None:
        """Another replica knows of this intent: follow what is later in it than in ours."""
        before, merged = self.intent, self.intent.merged(intent)
        if merged == before:
            return
        self.intent = merged
        strategy = merged.strategy
        switched = (merged.switched, strategy) != (before.switched, before.strategy)
        if switched and strategy and strategy != self._pool.strategy_name:
            try:
                self._switch_strategy(strategy)
                log.info("strategy switched", strategy=strategy, by=replica)
            except ValueError as error:
                log.warning("the fleet's strategy is not known here", strategy=strategy, error=str(error))
        addresses = merged.addresses
        for address, wish in before.wishes.items():
            if wish.drained and address not in addresses and not self._drain(address, wish, False, now):
                self._taken_back[address] = wish
        self.enforce(now)

    def drains(self, endpoint: Endpoint) -> bool:
        """Whether the fleet wants `endpoint` drained."""
        wish = self.intent.wishes.get(endpoint.address)
        return wish is not None and wish.drained and self._find(endpoint.address, wish) is endpoint

    def enforce(self, now: float) -> None:
        """Drain what the fleet wants drained, and take back what it does not, endpoints that have just joined too."""
        for address, wish in list(self._taken_back.items()):
            latest = self.intent.wishes.get(address)
            if latest is None or latest.drained or self._drain(address, wish, False, now):
                del self._taken_back[address]
        for address, wish in self.intent.wishes.items():
            if wish.drained:
                self._drain(address, wish, True, now)

    def _drain(self, address: str, wish: Wish, drained: bool, now: float) -> bool:
        """Drain the endpoint meant, or take it back; False where it is not there."""
        endpoint = self._find(address, wish)
        if endpoint is not None:
            self._pool.drain(endpoint, drained, now)
        return endpoint is not None

    def _gone(self) -> dict[str, Wish]:
        """Wishes that take back, and count after those alone, pods whose address another pod has."""
        return {
            address: Wish(nextafter(wish.at, inf), False)
            for address, wish in self.intent.wishes.items()
            if wish.drained and self._find(address, wish) is None and self._pool.find(address) is not None
        }

    def _find(self, address: str, wish: Wish) -> Endpoint | None:
        """The endpoint meant. Another pod that has got the address since is another endpoint."""
        endpoint = self._pool.find(address)
        return endpoint if endpoint is not None and wish.uid in ("", endpoint.spec.uid) else None

    def _later(self) -> float:
        """Now, but after what is known, whatever the clocks say."""
        return max(self._wall(), nextafter(self.intent.at, inf))
