"""Endpoints as a person writes them: `host:port[;weight=N]`, in LB_BACKENDS or one a line in LB_BACKENDS_FILE."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from balancer.balancing.endpoint import EndpointSpec
from balancer.settings.kinds import ItemsError

ALLOWED = "host:port or host:port;weight=N, an IPv6 host in brackets"


def parse_backend(text: str) -> EndpointSpec:
    """One endpoint. Raises ValueError that says what is wrong with it."""
    place, *options = (part.strip() for part in text.split(";"))
    if "://" in place:
        raise ValueError("a URL: give host:port alone")
    if "[" not in place and place.count(":") > 1:
        raise ValueError("an IPv6 host stands in brackets, as [::1]:8000")
    match = re.fullmatch(r"(?:\[(?P<v6>[^\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>.*))?", place)
    if not match:
        raise ValueError("no host:port")
    return EndpointSpec(host=_host(match["v6"], match["host"]), port=_port(match["port"]), weight=_weight(options))


def parse_backends(items: Iterable[str]) -> tuple[EndpointSpec, ...]:
    """All endpoints, in their order. Raises ItemsError, a ValueError that names each malformed item."""
    specs: dict[str, EndpointSpec] = {}
    faults: list[tuple[str, str]] = []
    for item in items:
        try:
            spec = parse_backend(item)
        except ValueError as error:
            faults.append((item, str(error)))
            continue
        if spec.address in specs:
            faults.append((item, "given twice"))
        specs[spec.address] = spec
    if faults:
        raise ItemsError(faults)
    return tuple(specs.values())


def parse_backends_file(text: str) -> tuple[EndpointSpec, ...]:
    """The endpoints of a file: one a line; empty lines and what follows a `#` are left out. Raises ItemsError."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return parse_backends(line for line in lines if line)


def show_backend(spec: EndpointSpec) -> str:
    """The endpoint as one would write it."""
    return spec.address if spec.weight == 1 else f"{spec.address};weight={spec.weight:g}"


def _host(v6: str | None, host: str | None) -> str:
    if v6 is not None:
        try:
            return str(IPv6Address(v6))
        except AddressValueError:
            raise ValueError(f"[{v6}] is no IPv6 address") from None
    if not host or not re.fullmatch(r"[0-9A-Za-z_]([0-9A-Za-z_.-]*[0-9A-Za-z_])?\.?", host):
        raise ValueError("no host before the colon" if not host else f"{host!r} is no host name or address")
    if re.fullmatch(
        r"[0-9.]+", host
    ):  # digits and dots alone: an address, so a misspelt one is not looked up as a name
        try:
            return str(IPv4Address(host))
        except AddressValueError:
            raise ValueError(f"{host!r} is no IPv4 address") from None
    if len(host) > 253 or any(not label or len(label) > 63 for label in host.rstrip(".").split(".")):
        raise ValueError(f"{host!r} is no host name: a part of it is empty or too long")
    return host


def _port(text: str | None) -> int:
    if text is None:
        raise ValueError("no port")
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ValueError(f"the port {text!r} is no number from 1 to 65535")
    return int(text)


def _weight(options: list[str]) -> float:
    weight = 1.0
    for option in options:
        match = re.fullmatch(r"weight\s*=\s*([0-9]{1,6}(?:\.[0-9]{1,6})?)", option)
        if not match:
            raise ValueError(f"{option!r} is not weight=N")
        weight = float(match[1])
        if weight <= 0:
            raise ValueError("the weight must be above 0")
    return weight
