"""Endpoints from a DNS name: every address of it, asked for again as its TTL says (resolving.py)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from random import Random

import dns.rdatatype

from balancer import resolving
from balancer.balancing.endpoint import EndpointSpec, Snapshot
from balancer.discovery.status import Status
from balancer.resolving import FAMILIES, HOSTS_TTL, TTL_LEAST, TTL_MOST, Answer, ResolutionError

MISSING_TTLS, MISSING_MOST = 10, 60.0
"""An address that answers no longer name leaves after so many TTLs, at most so many seconds but never at the first
answer without it: many servers name a changing part of a large set, eight of a hundred, in each answer."""
BACKOFF_FIRST, BACKOFF_MOST = 1.0, 10.0


class DnsDiscovery:
    """Every address of `name`, IPv4 and IPv6, with `port`. A name without address leaves the last ones in force, and an
    address that is missing from an answer is gone only after a while.
    """

    def __init__(
        self, name: str, port: int, status: Status, random: Random, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.status = status
        self.resolv_conf = resolving.RESOLV_CONF
        self.server_port = resolving.SERVER_PORT
        self.hosts = resolving.HOSTS
        self.lifetime = resolving.LIFETIME
        self.ttl_least = TTL_LEAST
        self._clock = clock
        self._name = name
        self._port = port
        self._random = random
        self._known: dict[dns.rdatatype.RdataType, dict[str, float]] = {}
        """The addresses of each family, with when an answer last named them (s)."""

    async def snapshots(self) -> AsyncGenerator[Snapshot, None]:
        """The addresses after each change. Ends by being closed."""
        given: Snapshot | None = None
        failures = 0
        while True:
            try:
                answer = await self._resolve()
            except ResolutionError as error:
                failures += 1
                known = given is not None
                after = "The last known endpoints go on serving." if known else "No endpoint is known yet."
                self.status.fault(error.kind, f"{error} {after}")
                most = min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** min(failures - 1, 10))
                await asyncio.sleep(most * self._random.uniform(0.5, 1.0))
                continue
            failures = 0
            self.status.fresh()
            snapshot = tuple(EndpointSpec(address, self._port) for address in answer.addresses)
            if snapshot != given:
                self.status.count("snapshot")
                given = snapshot
                yield snapshot
            await asyncio.sleep(min(TTL_MOST, max(self.ttl_least, answer.ttl)))

    async def _resolve(self) -> Answer:
        """Ask the resolvers. Raises ResolutionError."""
        literal = resolving.literal(self._name)
        if literal:
            return Answer((literal,), TTL_MOST)
        local = resolving.in_hosts(self.hosts, self._name)
        if local:
            return Answer(resolving.usable(local), HOSTS_TTL)
        # Made each time, so that a changed resolv.conf counts.
        resolver = resolving.configured(self.resolv_conf, self.server_port)
        results = await asyncio.gather(
            *(resolving.ask(resolver, self._name, family, self.lifetime, "LB_DNS_NAME") for family in FAMILIES)
        )
        # One family may fail alone (servers that drop AAAA are common): its last answer stands.
        ttls, faults = [], []
        for family, result in zip(FAMILIES, results, strict=True):
            if isinstance(result, Answer):
                self._remember(family, result)
                ttls += [result.ttl] if result.addresses else []
            else:
                faults.append(result)
        if not ttls:
            raise faults[0] if faults else resolving.without_address(self._name)
        return Answer(
            resolving.usable(address for family in FAMILIES for address in self._known.get(family, ())), min(ttls)
        )

    def _remember(self, family: dns.rdatatype.RdataType, answer: Answer) -> None:
        """Take the addresses of an answer, and let go those that have been missing for long enough."""
        now = self._clock()
        ttl = min(TTL_MOST, max(self.ttl_least, answer.ttl))
        # Never at the first answer without it, which comes a TTL after the last that named it.
        patience = max(min(MISSING_TTLS * ttl, MISSING_MOST), 1.5 * ttl)
        # An answer without any address is no part of a set: it says that this family is over.
        known = self._known.get(family, {}) if answer.addresses else {}
        kept = {address: seen for address, seen in known.items() if now - seen <= patience}
        self._known[family] = kept | dict.fromkeys(answer.addresses, now)
