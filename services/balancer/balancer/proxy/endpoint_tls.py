"""TLS towards endpoints: which authorities we trust, our certificate, the name in theirs; read again on a change."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from balancer.settings import Settings


class Trust:
    """The authorities to trust at the endpoints of one cluster, in place of what the settings say."""

    __slots__ = ("authorities", "name", "names")

    def __init__(self, name: str, authorities: str | None, names: Sequence[tuple[str, str]] = ()) -> None:
        self.name = name
        """In SNI, and what certificates must be for."""
        self.authorities = authorities
        """Certificates as PEM; empty: nobody is trusted; None: those that the system trusts."""
        self.names = tuple(names)
        """Where there are any, a certificate must be for one of these instead: `DNS` or `URI`, and a name."""

    def accepts(self, certificate: Mapping[str, object] | None) -> bool:
        """Whether a certificate that verifies, as ssl describes it, is for one of the names."""
        if not self.names:
            return True
        found = certificate.get("subjectAltName") if certificate else None
        alternatives = found if isinstance(found, tuple) else ()
        return any(_is_for(kind, name, *each) for kind, name in self.names for each in alternatives)


def _is_for(kind: str, name: str, its_kind: str, its_name: str) -> bool:
    if kind != its_kind:
        return False
    if kind == "DNS":
        name, its_name = name.lower(), its_name.lower()
        # A wildcard stands for one whole label, the first (RFC 9525 §6.3).
        if its_name.startswith("*."):
            return name.partition(".")[2] == its_name[2:]
    return name == its_name


LOOK_EVERY: Final = 2.0
"""Seconds between two looks at the files, when connections are opened."""
NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where a pod finds the name of its own."""

log = structlog.get_logger()


class EndpointTls:
    """How connections to endpoints are secured."""

    __slots__ = ("_alpn", "_authorities", "_certificate", "_contexts", "_key", "_looked_at", "_stamp", "name", "trust")

    def __init__(self, settings: Settings, alpn: Sequence[str], trust: Trust | None = None) -> None:
        """`alpn`: the protocols to offer; none: no offer is made. Raises OSError when a file can't be read."""
        self.trust = trust
        self.name: str | None = name_of_endpoints(settings) if trust is None else trust.name
        """The name in SNI and verification; None: each endpoint's own host."""
        self._alpn = tuple(alpn)
        self._authorities: Path | None = settings.upstream_tls_ca
        self._certificate: Path | None = settings.upstream_tls_cert
        self._key: Path | None = settings.upstream_tls_key
        self._stamp = self._stamp_now()
        self._contexts = {self._alpn: self._made(self._alpn)}
        self._looked_at = 0.0

    def context(self, now: float, agreed: str = "") -> ssl.SSLContext:
        """What a connection is opened with; `agreed`: the protocol that the client has agreed on, the only one then."""
        if now - self._looked_at >= LOOK_EVERY:
            self._looked_at = now
            self._reload_if_changed()
        alpn = (agreed,) if agreed else self._alpn
        context = self._contexts.get(alpn)
        if context is None:
            context = self._contexts[alpn] = self._made(alpn)
        return context

    def accepts(self, secured: ssl.SSLObject | None) -> bool:
        """Whether the certificate of an endpoint, which verifies, is for one of the names that it must be for."""
        trust = self.trust
        return trust is None or (secured is not None and trust.accepts(secured.getpeercert()))

    def _reload_if_changed(self) -> None:
        try:
            stamp = self._stamp_now()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._contexts = {alpn: self._made(alpn) for alpn in self._contexts}
        except OSError as error:
            log.warning("TLS to endpoints: files not reloaded", error=str(error))
        else:
            log.info("TLS to endpoints: files reloaded")

    def _made(self, alpn: Sequence[str]) -> ssl.SSLContext:
        trust = self.trust
        if trust is not None and trust.authorities is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            if trust.authorities:
                context.load_verify_locations(cadata=trust.authorities)
        else:
            context = ssl.create_default_context(cafile=str(self._authorities) if self._authorities else None)
        if trust is not None and trust.names:
            context.check_hostname = False  # `Trust.accepts` looks at the other names.
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._certificate is not None and self._key is not None:
            context.load_cert_chain(self._certificate, self._key)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def _stamp_now(self) -> tuple[tuple[int, int, int], ...]:
        files = [file for file in (self._authorities, self._certificate, self._key) if file is not None]
        stats = [file.stat() for file in files]
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)


def fault_of_authorities(pem: str) -> str:
    """What is wrong with the certificates of authorities, as PEM; empty: nothing."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None)
        return str(reason or error).lower().replace("_", " ")
    return ""


def name_of_endpoints(settings: Settings, own_namespace: Path = NAMESPACE) -> str | None:
    """The name that endpoints' certificates must have: as set, else the name by which they were found; None: none."""
    if settings.upstream_tls_name is not None:
        return settings.upstream_tls_name.rstrip(".")
    if settings.discovery == "dns" and settings.dns_name is not None:
        return settings.dns_name.rstrip(".")
    if settings.discovery == "kubernetes" and settings.kubernetes_service is not None:
        namespace = settings.kubernetes_namespace
        if namespace is None:
            try:
                namespace = own_namespace.read_text().strip()
            except OSError:
                namespace = "default"
        return f"{settings.kubernetes_service}.{namespace}.svc"
    return None
