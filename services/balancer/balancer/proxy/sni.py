"""Certificates by the name that a client asks for, replaced while connections come and go. They never lie on a disk.

OpenSSL reads certificates from files: each is put into one that exists in memory alone. A connection keeps what it was
shown; the next one sees what there is by then.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence
from typing import TypeVar

Pair = tuple[bytes, bytes]
"""A certificate with its chain, and its key, as PEM."""

T = TypeVar("T")


def most_specific(by_host: Mapping[str, T], name: str) -> T | None:
    """What there is for a name in lower case: by itself, by its longest wildcard (`*.example.com`), or for all.

    The dot that may end it is not looked for: RFC 6066 §3 wants names without, and some clients send it.
    """
    name = name.removesuffix(".")
    found = by_host.get(name)
    dot = name.find(".", 1)
    while found is None and dot > 0:
        found = by_host.get("*" + name[dot:])
        dot = name.find(".", dot + 1)
    return found if found is not None else by_host.get("")


def fault_of(certificate: bytes, key: bytes) -> str:
    """What is wrong with a certificate and its key; empty: nothing."""
    try:
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), (certificate, key))
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None)
        return str(reason or error).lower().replace("_", " ")
    return ""


class Certificates:
    """What the clients of one port are shown."""

    def __init__(self, alpn: Sequence[str]) -> None:
        self._alpn = list(alpn)
        self._by_host: dict[str, ssl.SSLContext] = {}
        self._made: dict[tuple[Pair, ...], ssl.SSLContext] = {}
        self.context = self._fresh()
        """For the listener: it takes the certificate's place as soon as a client has said its name."""
        self.context.sni_callback = self._named

    def use(self, certificates: Sequence[tuple[str, Sequence[Pair]]]) -> None:
        """Show these from now on, by host name or wildcard (`*.example.com`); empty: whatever is asked for.

        Raises OSError for one that cannot be used; what was shown before then stays.
        """
        made = {
            pairs: self._made.get(pairs) or self._filled(pairs) for pairs in (tuple(each) for _, each in certificates)
        }
        by_host: dict[str, ssl.SSLContext] = {}
        for host, pairs in certificates:
            by_host.setdefault(host, made[tuple(pairs)])
        self._made, self._by_host = made, by_host

    def _named(self, tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
        found = self.find(name)
        if found is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        tls.context = found
        return None

    def find(self, name: str | None) -> ssl.SSLContext | None:
        """What a client that asks for `name` is shown; one that says none sees what there is for all, or the first."""
        by_host = self._by_host
        if not name:
            return by_host.get("") or next(iter(by_host.values()), None)
        return most_specific(by_host, name.lower())

    def _filled(self, pairs: Sequence[Pair]) -> ssl.SSLContext:
        context = self._fresh()
        for pair in pairs:
            _load(context, pair)
        return context

    def _fresh(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._alpn:
            context.set_alpn_protocols(self._alpn)
        return context


def _load(context: ssl.SSLContext, pair: Pair) -> None:
    """Raises OSError where the two are no certificate and its key."""
    file = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(file, pair[0] + b"\n" + pair[1])
        context.load_cert_chain(f"/proc/self/fd/{file}", password=_no_password)
    finally:
        os.close(file)


def _no_password() -> str:
    """An encrypted key must not make OpenSSL ask at the terminal."""
    raise ValueError("the key is encrypted")
