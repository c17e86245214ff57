"""An address of an EndpointSlice, read as strictly as it must be before anything is sent there.

The API server stores addresses that are not in canonical form, with a warning: `010.0.0.1` is 10.0.0.1 to it and
8.0.0.1 to many a resolver. So no text of an address ever reaches a resolver: what goes on is what `ipaddress` has read,
and what it cannot read goes nowhere.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

_NAME = re.compile(r"(?!.*\.(0x[0-9a-f]*|[0-9]+)\.?$)[a-z]([a-z0-9.-]*[a-z0-9])?\.?", re.IGNORECASE)
"""A domain name that nobody could read as an address: its last label is no number (as WHATWG's URL standard asks)."""


@lru_cache(maxsize=1 << 15)
def read_address(text: object, family: str) -> str | None:
    """The address in canonical form, or None if `text` is none of this addressType."""
    if not isinstance(text, str):
        return None
    try:
        if family == "IPv4":
            return str(IPv4Address(text))
        if family == "IPv6":
            address = IPv6Address(text)
            # An IPv4 address in IPv6 clothes, or one that means something on one link alone, is no pod's.
            return None if address.ipv4_mapped or address.scope_id else str(address)
    except ValueError:
        return None
    return text if family == "FQDN" and _NAME.fullmatch(text) else None


def read_port(number: object) -> int | None:
    """A port that there is; uvloop would take any other modulo 65536, and reach another listener."""
    return number if isinstance(number, int) and 1 <= number <= 65535 else None
