"""What settings must not say together. Pure; each contradiction names its variables and the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from balancer.settings.model import Settings


@dataclass(frozen=True)
class Contradiction:
    """A fault of several settings together."""

    fields: frozenset[str]
    """The settings it speaks of."""
    text: str


def contradictions(settings: Settings) -> Iterator[Contradiction]:
    """Every contradiction in `settings`."""
    for wrong, fields, text in RULES:
        if wrong(settings):
            yield Contradiction(frozenset(fields.split()), text)


def _ports_clash(s: Settings) -> bool:
    wildcards = {"0.0.0.0", "::", ""}  # noqa: S104
    hosts, admin_hosts = set(s.host), {host.strip() for host in s.admin_host.split(",")}
    overlap = hosts & admin_hosts or (hosts | admin_hosts) & wildcards
    return s.port == s.admin_port != 0 and bool(overlap)


def _fronts(s: Settings) -> bool:
    """Whether Services are balanced by routes."""
    return bool(s.gateway_class or s.ingress_class)


Rule = tuple[Callable[["Settings"], bool], str, str]

RULES: list[Rule] = [
    (
        lambda s: s.discovery == "static" and not s.backends and s.backends_file is None and not _fronts(s),
        "discovery backends backends_file",
        "LB_DISCOVERY=static needs endpoints: set LB_BACKENDS=host:port,… (or LB_BACKENDS_FILE, or another discovery)",
    ),
    (
        lambda s: s.discovery == "static" and bool(s.backends) and s.backends_file is not None,
        "discovery backends backends_file",
        "LB_BACKENDS and LB_BACKENDS_FILE are both set: set one of them",
    ),
    (
        lambda s: s.discovery == "dns" and s.dns_name is None,
        "discovery dns_name",
        "LB_DISCOVERY=dns needs LB_DNS_NAME, the name whose addresses are the endpoints",
    ),
    (
        lambda s: s.discovery == "dns" and s.dns_port is None,
        "discovery dns_port",
        "LB_DISCOVERY=dns needs LB_DNS_PORT, the endpoints' port",
    ),
    (
        lambda s: s.discovery == "kubernetes" and s.kubernetes_service is None,
        "discovery kubernetes_service",
        "LB_DISCOVERY=kubernetes needs LB_KUBERNETES_SERVICE, the Service whose EndpointSlices to watch",
    ),
    (
        lambda s: _fronts(s) and s.own_service is None,
        "gateway_class ingress_class own_service",
        "LB_GATEWAY_CLASS and LB_INGRESS_CLASS need LB_OWN_SERVICE, the Service of the balancer's own pods",
    ),
    (
        lambda s: _fronts(s) and s.mode == "tcp",
        "gateway_class ingress_class mode",
        "LB_GATEWAY_CLASS and LB_INGRESS_CLASS need LB_MODE=http: their routes look at requests",
    ),
    (
        lambda s: (s.tls_cert is None) != (s.tls_key is None),
        "tls_cert tls_key",
        "LB_TLS_CERT and LB_TLS_KEY go together: set both or neither",
    ),
    (
        lambda s: (s.admin_tls_cert is None) != (s.admin_tls_key is None),
        "admin_tls_cert admin_tls_key",
        "LB_ADMIN_TLS_CERT and LB_ADMIN_TLS_KEY go together: set both or neither",
    ),
    (
        lambda s: (s.peers_tls_ca is not None or s.peers_tls_name is not None) and s.admin_tls_cert is None,
        "admin_tls_cert peers_tls_ca peers_tls_name",
        "LB_PEERS_TLS_CA and LB_PEERS_TLS_NAME have no effect without LB_ADMIN_TLS_CERT: replicas meet at that port",
    ),
    (
        lambda s: s.upstream_tls_ca is not None and not s.upstream_tls,
        "upstream_tls upstream_tls_ca",
        "LB_UPSTREAM_TLS_CA has no effect without LB_UPSTREAM_TLS=on",
    ),
    (
        lambda s: s.upstream_protocol == "h2" and not s.upstream_tls,
        "upstream_protocol upstream_tls",
        "LB_UPSTREAM_PROTOCOL=h2 is HTTP/2 by TLS and needs LB_UPSTREAM_TLS=on; in plain text it is h2c",
    ),
    (
        lambda s: s.upstream_protocol == "h2c" and s.upstream_tls,
        "upstream_protocol upstream_tls",
        "LB_UPSTREAM_PROTOCOL=h2c is HTTP/2 in plain text and contradicts LB_UPSTREAM_TLS=on; by TLS it is h2",
    ),
    (
        lambda s: (s.upstream_tls_cert is None) != (s.upstream_tls_key is None),
        "upstream_tls_cert upstream_tls_key",
        "LB_UPSTREAM_TLS_CERT and LB_UPSTREAM_TLS_KEY go together: set both or neither",
    ),
    (
        lambda s: (s.upstream_tls_cert is not None or s.upstream_tls_name is not None) and not s.upstream_tls,
        "upstream_tls upstream_tls_cert upstream_tls_name",
        "LB_UPSTREAM_TLS_CERT and LB_UPSTREAM_TLS_NAME have no effect without LB_UPSTREAM_TLS=on",
    ),
    (
        lambda s: bool(s.tls_alpn) and s.mode != "tcp",
        "tls_alpn mode",
        "LB_TLS_ALPN needs LB_MODE=tcp: in http mode the balancer knows itself what it speaks",
    ),
    (
        lambda s: s.max_uri_bytes > s.max_header_bytes,
        "max_uri_bytes max_header_bytes",
        "LB_MAX_URI_BYTES must not be above LB_MAX_HEADER_BYTES, which counts the request line too",
    ),
    (
        lambda s: s.proxy_protocol and not s.trusted_proxies,
        "proxy_protocol trusted_proxies",
        "LB_PROXY_PROTOCOL=on needs LB_TRUSTED_PROXIES, the networks that send the header",
    ),
    (
        lambda s: s.mode == "tcp" and s.strategy == "consistent-hash" and s.hash_key != "client-ip",
        "mode strategy hash_key",
        "LB_MODE=tcp sees no request: LB_HASH_KEY can only be client-ip there",
    ),
    (
        lambda s: s.mode == "http" and s.upstream_proxy_protocol != "off",
        "mode upstream_proxy_protocol",
        "LB_UPSTREAM_PROXY_PROTOCOL needs LB_MODE=tcp: in http mode clients share connections (see X-Forwarded-For)",
    ),
    (
        lambda s: s.endpoint_load and s.mode == "tcp",
        "endpoint_load mode",
        "LB_ENDPOINT_LOAD needs LB_MODE=http: reports come in responses",
    ),
    (
        lambda s: s.peers is not None and s.peers_token is None,
        "peers peers_token",
        "LB_PEERS needs LB_PEERS_TOKEN, the same for every replica: any long random text",
    ),
    (
        lambda s: s.peers is not None and ":" not in s.peers and s.discovery != "kubernetes",
        "peers discovery",
        "LB_PEERS names a Service, which needs LB_DISCOVERY=kubernetes: or list host:port of the admin ports",
    ),
    (
        _ports_clash,
        "port admin_port host admin_host",
        "LB_PORT and LB_ADMIN_PORT are the same on the same address: change one of them",
    ),
]
