"""Endpoints from a DNS name: every address of it, asked for again as its TTL says.

dnspython asks, because the system's resolver gives no TTL and not why it found nothing. What that resolver also
does is done here: names of /etc/hosts come first, search domains count (RFC 1034, section 3.6.2 and resolv.conf's
ndots), `localhost` is loopback (RFC 6761, section 6.3), and an address family that this machine has no route for is
left out (RFC 3493's AI_ADDRCONFIG).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver

from balancer.balancing.endpoint import EndpointSpec, Snapshot
from balancer.discovery.status import Status

TTL_LEAST, TTL_MOST = 1.0, 60.0
"""Bounds of the time (s) that an answer is believed: 0 would ask without pause, a day would miss every change."""
HOSTS_TTL = 5.0
"""Seconds until /etc/hosts is looked at again."""
MISSING_TTLS, MISSING_MOST = 10, 60.0
"""An address that answers no longer name leaves after so many TTLs, at most so many seconds but never at the first
answer without it: many servers name a changing part of a large set, eight of a hundred, in each answer."""
LIFETIME = 5.0
"""Seconds for one resolution, with all its servers and search domains."""
BACKOFF_FIRST, BACKOFF_MOST = 1.0, 10.0

FAMILIES = (dns.rdatatype.A, dns.rdatatype.AAAA)


class ResolutionError(Exception):
    """The name gave no address; `kind` is no_name, no_address, server_failure, timed_out or unconfigured."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Answer:
    """What one resolution gave: at least one address, and for how long to believe it (s)."""

    addresses: tuple[str, ...]
    ttl: float


class DnsDiscovery:
    """Every address of `name`, IPv4 and IPv6, with `port`. A name without address leaves the last ones in force, and an
    address that is missing from an answer is gone only after a while.
    """

    def __init__(
        self, name: str, port: int, status: Status, random: Random, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.status = status
        self.resolv_conf = Path("/etc/resolv.conf")
        self.server_port = 53
        self.hosts = Path("/etc/hosts")
        self.lifetime = LIFETIME
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
        literal = _literal(self._name)
        if literal:
            return Answer((literal,), TTL_MOST)
        local = _in_hosts(self.hosts, self._name)
        if local:
            return Answer(_usable(local), HOSTS_TTL)
        try:
            # Made each time, so that a changed resolv.conf counts.
            resolver = dns.asyncresolver.Resolver(str(self.resolv_conf))
        except (dns.exception.DNSException, OSError) as error:
            raise ResolutionError("unconfigured", f"{self.resolv_conf} names no DNS server: {error}.") from error
        resolver.port = self.server_port
        resolver.use_edns(0, 0, 1232)  # or an answer of 30 addresses needs TCP
        results = await asyncio.gather(*(self._ask(resolver, family) for family in FAMILIES))
        # One family may fail alone (servers that drop AAAA are common): its last answer stands.
        ttls, faults = [], []
        for family, result in zip(FAMILIES, results, strict=True):
            if isinstance(result, Answer):
                self._remember(family, result)
                ttls += [result.ttl] if result.addresses else []
            else:
                faults.append(result)
        if not ttls:
            raise faults[0] if faults else self._without_address()
        return Answer(_usable(address for family in FAMILIES for address in self._known.get(family, ())), min(ttls))

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

    async def _ask(
        self, resolver: dns.asyncresolver.Resolver, family: dns.rdatatype.RdataType
    ) -> Answer | ResolutionError:
        """The addresses of one family, perhaps none. Raises nothing."""
        try:
            answer = await resolver.resolve(
                self._name, family, lifetime=self.lifetime, search=True, raise_on_no_answer=False
            )
        except dns.resolver.NXDOMAIN:
            words = f"The name {self._name} does not exist (NXDOMAIN): is LB_DNS_NAME spelt right?"
            return ResolutionError("no_name", words)
        except dns.exception.Timeout:
            servers = ", ".join(str(server) for server in resolver.nameservers)
            words = (
                f"No DNS server answered for {self._name} within {self.lifetime:g} s ({servers}): can they be reached?"
            )
            return ResolutionError("timed_out", words)
        except (dns.exception.DNSException, OSError) as error:
            return ResolutionError("server_failure", f"The DNS servers cannot resolve {self._name}: {error}")
        addresses = tuple(record.address for record in answer.rrset or ())
        return Answer(addresses, float(answer.chaining_result.minimum_ttl))

    def _without_address(self) -> ResolutionError:
        return ResolutionError("no_address", f"The name {self._name} exists and has no address, neither A nor AAAA.")


def _literal(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return ""


def _in_hosts(hosts: Path, name: str) -> list[str]:
    """The addresses that the hosts file gives to `name`; `localhost` has its own even without it."""
    wanted = name.rstrip(".").lower()
    found: list[str] = []
    with contextlib.suppress(OSError):
        for line in hosts.read_text(errors="replace").splitlines():
            address, *names = line.partition("#")[0].split() or [""]
            if wanted in (each.lower() for each in names) and (literal := _literal(address)):
                found.append(literal)
    if not found and (wanted == "localhost" or wanted.endswith(".localhost")):
        return ["127.0.0.1", "::1"]
    return found


def _usable(addresses: Iterable[str]) -> tuple[str, ...]:
    """Each address once, in order, IPv4 first; those that there is no route for only if there are no others."""
    # Servers rotate their answers: an order of our own keeps `n-to-one` and the comparison of snapshots steady.
    ordered = sorted({ipaddress.ip_address(address) for address in addresses}, key=lambda each: (each.version, each))
    routed = [address for address in ordered if address.version == 4 or _has_route(str(address))]
    return tuple(str(address) for address in routed or ordered)


def _has_route(address: str) -> bool:
    """Whether this machine could send to an IPv6 address; connecting a UDP socket sends nothing."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 53))
    except OSError:
        return False
    return True
