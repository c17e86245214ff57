"""The addresses of a name and for how long to believe them: /etc/hosts first, then DNS.

dnspython asks, because the system's resolver gives no TTL and no reason why it found nothing. What that resolver also
does is done here: names of /etc/hosts come first, search domains count (RFC 1034, section 3.6.2 and resolv.conf's
ndots), `localhost` is loopback (RFC 6761, section 6.3), and an address family that this machine has no route for is
left out (RFC 3493's AI_ADDRCONFIG).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver

TTL_LEAST, TTL_MOST = 1.0, 60.0
"""Bounds of the time (s) that an answer is believed: 0 would ask without pause, a day would miss every change."""
HOSTS_TTL = 5.0
"""Seconds until /etc/hosts is looked at again."""
SECOND_FAMILY = 0.2
"""Seconds for which one family's addresses wait for the other's: some servers drop AAAA (RFC 8305, section 3)."""
LIFETIME = 5.0
"""Seconds for one resolution, with all its servers and search domains."""
RESOLV_CONF = Path("/etc/resolv.conf")
HOSTS = Path("/etc/hosts")
SERVER_PORT = 53

FAMILIES = (dns.rdatatype.A, dns.rdatatype.AAAA)


class ResolutionError(Exception):
    """The name gave no address; `kind` is no_name, no_address, server_failure, timed_out or unconfigured."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Answer:
    """Addresses, and for how long to believe them (s)."""

    addresses: tuple[str, ...]
    ttl: float


async def resolve(name: str) -> Answer:
    """Every address of `name`, at least one, IPv4 first. Raises ResolutionError."""
    local = in_hosts(HOSTS, name)
    if local:
        return Answer(usable(local), HOSTS_TTL)
    resolver = configured(RESOLV_CONF, SERVER_PORT)
    results = await _of_both_families(resolver, name)
    found = [result for result in results if isinstance(result, Answer) and result.addresses]
    if not found:
        raise next((result for result in results if isinstance(result, ResolutionError)), without_address(name))
    ttl = min(TTL_MOST, max(TTL_LEAST, min(answer.ttl for answer in found)))
    return Answer(usable(address for answer in found for address in answer.addresses), ttl)


async def _of_both_families(resolver: dns.asyncresolver.Resolver, name: str) -> list[Answer | ResolutionError]:
    """What is answered for each family; one that is silent is not waited for where the other has addresses."""
    asking = [asyncio.create_task(ask(resolver, name, family, LIFETIME)) for family in FAMILIES]
    try:
        done, others = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        if others:
            answers = [task.result() for task in done]
            found = any(isinstance(answer, Answer) and answer.addresses for answer in answers)
            await asyncio.wait(others, timeout=SECOND_FAMILY if found else None)
    finally:
        for task in asking:
            task.cancel()  # nothing where it has ended
        await asyncio.gather(*asking, return_exceptions=True)
    return [task.result() for task in asking if not task.cancelled()]


def configured(resolv_conf: Path, port: int) -> dns.asyncresolver.Resolver:
    """A resolver as the file says. Raises ResolutionError where it names no server."""
    try:
        resolver = dns.asyncresolver.Resolver(str(resolv_conf))
    except (dns.exception.DNSException, OSError) as error:
        raise ResolutionError("unconfigured", f"{resolv_conf} names no DNS server: {error}.") from error
    resolver.port = port
    resolver.use_edns(0, 0, 1232)  # or an answer of 30 addresses needs TCP
    return resolver


async def ask(
    resolver: dns.asyncresolver.Resolver,
    name: str,
    family: dns.rdatatype.RdataType,
    lifetime: float,
    setting: str = "LB_BACKENDS",
) -> Answer | ResolutionError:
    """The addresses of one family, perhaps none; `setting` is where the name stands. Raises nothing."""
    try:
        answer = await resolver.resolve(name, family, lifetime=lifetime, search=True, raise_on_no_answer=False)
    except dns.resolver.NXDOMAIN:
        return ResolutionError("no_name", f"The name {name} does not exist (NXDOMAIN): is {setting} spelt right?")
    except dns.exception.Timeout:
        servers = ", ".join(str(server) for server in resolver.nameservers)
        words = f"No DNS server answered for {name} within {lifetime:g} s ({servers}): can they be reached?"
        return ResolutionError("timed_out", words)
    except (dns.exception.DNSException, OSError) as error:
        return ResolutionError("server_failure", f"The DNS servers cannot resolve {name}: {error}")
    addresses = tuple(record.address for record in answer.rrset or ())
    return Answer(addresses, float(answer.chaining_result.minimum_ttl))


def without_address(name: str) -> ResolutionError:
    """What to raise for a name that exists, and has no address."""
    return ResolutionError("no_address", f"The name {name} exists and has no address, neither A nor AAAA.")


def literal(name: str) -> str:
    """The address that `name` is; empty for a name."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return ""


def in_hosts(hosts: Path, name: str) -> list[str]:
    """The addresses that the hosts file gives to `name`; `localhost` has its own even without it."""
    wanted = name.rstrip(".").lower()
    found: list[str] = []
    with contextlib.suppress(OSError):
        for line in hosts.read_text(errors="replace").splitlines():
            address, *names = line.partition("#")[0].split() or [""]
            if wanted in (each.lower() for each in names) and (own := literal(address)):
                found.append(own)
    if not found and (wanted == "localhost" or wanted.endswith(".localhost")):
        return ["127.0.0.1", "::1"]
    return found


def usable(addresses: Iterable[str]) -> tuple[str, ...]:
    """Each address once, in order, IPv4 first; those that there is no route for only if there are no others."""
    # Servers rotate their answers: an order of our own keeps `n-to-one` and the comparison of snapshots steady.
    ordered = sorted({ipaddress.ip_address(address) for address in addresses}, key=lambda each: (each.version, each))
    routed = [address for address in ordered if address.version == 4 or has_route(str(address))]
    return tuple(str(address) for address in routed or ordered)


def has_route(address: str) -> bool:
    """Whether this machine could send to an IPv6 address; connecting a UDP socket sends nothing."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 53))
    except OSError:
        return False
    return True
