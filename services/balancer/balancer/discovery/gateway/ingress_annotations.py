"""What ingress-nginx's annotations mean here: one table, which the translator and `ingress-check` both read.

An annotation that keeps somebody out, or changes what is sent, is never passed over in silence: an Ingress with one
that we do not have is refused. Its paths answer 500, where without authentication everybody would have been let in.

Above 300 lines because it is the table of annotations, each with the few lines that read it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Final

from balancer.routing.cors import Cors
from balancer.routing.rule import Networks

PREFIX: Final = "nginx.ingress.kubernetes.io/"

SAME: Final = "same"
DIFFERS: Final = "differs"
IGNORED: Final = "ignored"
REFUSED: Final = "refused"

AUTHENTICATE: Final = "put an authenticating proxy between, or authenticate in the service"

ANNOTATIONS: Final[Mapping[str, tuple[str, str]]] = {
    "ssl-redirect": (SAME, ""),
    "force-ssl-redirect": (SAME, ""),
    "preserve-trailing-slash": (SAME, ""),
    "app-root": (SAME, ""),
    "permanent-redirect": (SAME, ""),
    "permanent-redirect-code": (SAME, ""),
    "temporal-redirect": (SAME, ""),
    "temporal-redirect-code": (SAME, ""),
    "upstream-vhost": (SAME, ""),
    "whitelist-source-range": (SAME, ""),
    "allowlist-source-range": (SAME, ""),
    "denylist-source-range": (SAME, ""),
    "proxy-body-size": (SAME, ""),
    "canary": (SAME, ""),
    "canary-weight": (SAME, ""),
    "canary-weight-total": (SAME, ""),
    "canary-by-header": (SAME, ""),
    "canary-by-header-value": (SAME, ""),
    "canary-by-header-pattern": (DIFFERS, "the pattern has to match all of the value"),
    "canary-by-cookie": (SAME, ""),
    "use-regex": (DIFFERS, "only for the paths of this Ingress, and not for all of its host; no repeated groups"),
    "rewrite-target": (SAME, ""),
    "proxy-read-timeout": (DIFFERS, "until the response begins; after that LB_IDLE_TIMEOUT counts"),
    "proxy-connect-timeout": (SAME, ""),
    "backend-protocol": (SAME, ""),
    "affinity": (DIFFERS, "by consistent hashing of the cookie: an endpoint that comes takes its share of sessions"),
    "affinity-mode": (DIFFERS, "always as `balanced`, but that only as few sessions move as must"),
    "session-cookie-name": (SAME, ""),
    "session-cookie-path": (SAME, ""),
    "session-cookie-max-age": (SAME, ""),
    "session-cookie-expires": (DIFFERS, "sent as Max-Age"),
    "session-cookie-secure": (SAME, ""),
    "session-cookie-samesite": (SAME, ""),
    "upstream-hash-by": (IGNORED, "write a LoadBalancingPolicy: strategy consistent-hash, hashKey"),
    "load-balance": (IGNORED, "write a LoadBalancingPolicy: strategy"),
    "proxy-send-timeout": (IGNORED, "LB_IDLE_TIMEOUT ends a connection on which nothing moves"),
    "proxy-next-upstream": (IGNORED, "write a LoadBalancingPolicy: retries, retryStatuses"),
    "proxy-next-upstream-tries": (IGNORED, "write a LoadBalancingPolicy: retries"),
    "proxy-next-upstream-timeout": (IGNORED, "write a LoadBalancingPolicy: totalTimeout"),
    "proxy-buffering": (IGNORED, "nothing is held back: a response is passed on as it comes"),
    "proxy-buffer-size": (IGNORED, "LB_MAX_HEADER_BYTES bounds a head"),
    "proxy-buffers-number": (IGNORED, "LB_MAX_BUFFER_MEMORY bounds all that waits"),
    "proxy-request-buffering": (IGNORED, "a request is passed on as it comes"),
    "proxy-http-version": (IGNORED, "HTTP/1.1, or HTTP/2 by the Service's appProtocol"),
    "client-body-buffer-size": (IGNORED, "LB_RETRY_BUFFER bounds what is kept for a retry"),
    "service-upstream": (IGNORED, "the Service's pods are always balanced over"),
    "enable-access-log": (IGNORED, "LB_ACCESS_LOG, for all"),
    "enable-rewrite-log": (IGNORED, "there is none"),
    "ssl-ciphers": (IGNORED, "those of OpenSSL's default, TLS 1.2 and later"),
    "ssl-prefer-server-ciphers": (IGNORED, "as OpenSSL's default has it"),
    "connection-proxy-header": (IGNORED, "Connection is each hop's own"),
    "proxy-max-temp-file-size": (IGNORED, "nothing is written to a disk"),
    "x-forwarded-prefix": (REFUSED, "set X-Forwarded-Prefix by an HTTPRoute's RequestHeaderModifier"),
    "enable-cors": (SAME, ""),
    "cors-allow-origin": (SAME, ""),
    "cors-allow-methods": (SAME, ""),
    "cors-allow-headers": (SAME, ""),
    "cors-expose-headers": (SAME, ""),
    "cors-allow-credentials": (SAME, ""),
    "cors-max-age": (SAME, ""),
    "auth-type": (REFUSED, AUTHENTICATE),
    "auth-secret": (REFUSED, AUTHENTICATE),
    "auth-url": (REFUSED, AUTHENTICATE),
    "auth-signin": (REFUSED, AUTHENTICATE),
    "auth-tls-secret": (REFUSED, "client certificates are not asked for"),
    "auth-tls-verify-client": (REFUSED, "client certificates are not asked for"),
    "configuration-snippet": (REFUSED, "nginx's own language has no counterpart"),
    "server-snippet": (REFUSED, "nginx's own language has no counterpart"),
    "stream-snippet": (REFUSED, "nginx's own language has no counterpart"),
    "enable-modsecurity": (REFUSED, "put a web application firewall in front"),
    "modsecurity-snippet": (REFUSED, "put a web application firewall in front"),
    "limit-rps": (REFUSED, "limit in the service, or in front"),
    "limit-rpm": (REFUSED, "limit in the service, or in front"),
    "limit-connections": (REFUSED, "LB_MAX_CONNECTIONS_PER_CLIENT, for all"),
    "limit-whitelist": (REFUSED, "limit in the service, or in front"),
    "satisfy": (REFUSED, "all that is asked for must hold"),
    "mirror-target": (REFUSED, "copy requests in the service"),
    "server-alias": (REFUSED, "write a rule for each host"),
    "from-to-www-redirect": (REFUSED, "write an Ingress for the other host with permanent-redirect"),
    "default-backend": (REFUSED, "a Service without endpoints answers 503"),
    "custom-http-errors": (REFUSED, "the endpoint's own responses are passed on"),
    "ssl-passthrough": (REFUSED, "TLS ends here, or use LB_MODE=tcp"),
    "custom-headers": (REFUSED, "write an HTTPRoute with a ResponseHeaderModifier"),
}
"""Each annotation without its prefix: what becomes of it, and what to know or to write instead."""

UNKNOWN: Final = (REFUSED, "not known here")

SIZE: Final = re.compile(r"([0-9]+)([kKmMgG]?)")
SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,3})?s?")
WHOLE: Final = re.compile(r"[0-9]{1,9}")
REDIRECTS: Final = frozenset({"300", "301", "302", "303", "305", "307", "308"})
UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}

CORS_HEADERS: Final = (
    "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization"
)

PROTOCOLS: Final = {"HTTP": "", "AUTO_HTTP": "", "GRPC": "h2c"}


@dataclass(slots=True)
class Options:
    """What the annotations of one Ingress ask for."""

    ssl_redirect: bool = True
    force_ssl_redirect: bool = False
    app_root: str = ""
    redirect: str = ""
    redirect_status: int = 301
    vhost: str = ""
    allow: Networks = ()
    deny: Networks = ()
    max_body: int = -1
    """Bytes; -1: as set for all."""
    read_timeout: float | None = None
    connect_timeout: float | None = None
    protocol: str = ""
    """What pods speak; empty: as the Service says."""
    regex: bool = False
    rewrite: str = ""
    affinity: str = ""
    """The cookie's name; empty: none."""
    cookie_attributes: str = ""
    canary: bool = False
    canary_weight: int = 0
    canary_total: int = 100
    canary_header: str = ""
    canary_value: str = ""
    canary_pattern: str = ""
    canary_cookie: str = ""
    cors: Cors | None = None
    refused: list[str] = field(default_factory=list)
    """Why the Ingress is not served."""


def read(annotations: Mapping[str, object]) -> Options:
    """What they ask for; what cannot be done is in `refused`, in words."""
    options = Options()
    given = {name.removeprefix(PREFIX): str(value).strip() for name, value in annotations.items() if _ours(name)}
    for name in given:
        kind, words = ANNOTATIONS.get(name, UNKNOWN)
        if kind == REFUSED and not _is_off(name, given[name]):
            options.refused.append(f"{name}: {words}")
    for name, value in given.items():
        try:
            _take(options, name, value)
        except ValueError as error:
            options.refused.append(f"{name}: {error}")
    if "session-cookie-name" not in given and options.affinity:
        options.affinity = "INGRESSCOOKIE"
    if given.get("enable-cors", "").lower() == "true":
        options.cors = _cors(given)
    if options.affinity:
        try:
            options.cookie_attributes = _cookie_attributes(given)
        except ValueError as error:
            options.refused.append(f"session-cookie-path: {error}")
    return options


def _ours(name: str) -> bool:
    return name.startswith(PREFIX)


def _is_off(name: str, value: str) -> bool:
    """Whether an annotation of these says that nothing is wanted."""
    return name.startswith(("enable-", "from-to-", "ssl-pass")) and value.lower() == "false"


def _take(options: Options, name: str, value: str) -> None:
    match name:
        case "ssl-redirect":
            options.ssl_redirect = _flag(value)
        case "force-ssl-redirect":
            options.force_ssl_redirect = _flag(value)
        case "app-root":
            options.app_root = _printable(value)
        case "permanent-redirect" | "temporal-redirect":
            options.redirect = _printable(value)
            if name == "temporal-redirect":
                options.redirect_status = 302
        case "permanent-redirect-code" | "temporal-redirect-code":
            options.redirect_status = _redirect_status(value)
        case "upstream-vhost":
            options.vhost = _printable(value)
        case "whitelist-source-range" | "allowlist-source-range":
            options.allow = _networks(value)
        case "denylist-source-range":
            options.deny = _networks(value)
        case "proxy-body-size":
            options.max_body = _size(value)
        case "proxy-read-timeout":
            options.read_timeout = _seconds(value)
        case "proxy-connect-timeout":
            options.connect_timeout = _seconds(value)
        case "backend-protocol":
            if value.upper() not in PROTOCOLS:
                raise ValueError(f"{value!r} is not spoken to pods here: write one of {', '.join(PROTOCOLS)}")
            options.protocol = PROTOCOLS[value.upper()]
        case "use-regex":
            options.regex = _flag(value)
        case "rewrite-target":
            if "?" in value:
                raise ValueError(f"{value!r} writes a query, which stays as it is here: write the path alone")
            options.rewrite = _printable(value)
        case "affinity":
            if value != "cookie":
                raise ValueError(f"{value!r} is not known: write cookie")
            options.affinity = options.affinity or "INGRESSCOOKIE"
        case "session-cookie-name":
            if not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", value):
                raise ValueError(f"{value!r} is no name of a cookie: write letters, digits, - and _")
            options.affinity = value
        case "canary":
            options.canary = _flag(value)
        case "canary-weight":
            options.canary_weight = _whole(value, "weight")
        case "canary-weight-total":
            options.canary_total = max(1, _whole(value, "weight"))
        case "canary-by-header":
            options.canary_header = value.lower()
        case "canary-by-header-value":
            options.canary_value = value
        case "canary-by-header-pattern":
            options.canary_pattern = value
        case "canary-by-cookie":
            options.canary_cookie = value
        case _:
            pass


def _flag(value: str) -> bool:
    if value.lower() not in {"true", "false"}:
        raise ValueError(f"{value!r} is neither true nor false: write one of them, in quotes")
    return value.lower() == "true"


def _printable(value: str) -> str:
    if not value.isprintable() or not value.isascii() or " " in value:
        raise ValueError(f"{value!r} cannot stand in a header field: write it in ASCII, without blanks")
    return value


def _networks(value: str) -> Networks:
    try:
        return tuple(ip_network(each.strip(), strict=False) for each in value.split(",") if each.strip())
    except ValueError:
        raise ValueError(f"{value!r} are no networks: write such as 10.0.0.0/8, with commas between") from None


def _size(value: str) -> int:
    """Nginx's sizes; 0 is no limit."""
    found = SIZE.fullmatch(value)
    if found is None:
        raise ValueError(f"{value!r} is no size: write such as 8m or 512k, or 0 for no limit")
    size = int(found[1]) * UNITS[found[2].lower()]
    return size or 1 << 62


def _seconds(value: str) -> float:
    if not SECONDS.fullmatch(value):
        raise ValueError(f"{value!r} is no number of seconds: write such as 60")
    return float(value.removesuffix("s"))


def _whole(value: str, what: str) -> int:
    if not WHOLE.fullmatch(value):
        raise ValueError(f"{value!r} is no {what}: write a whole number such as 10")
    return int(value)


def _redirect_status(value: str) -> int:
    if value not in REDIRECTS:
        raise ValueError(f"{value!r} is no status of a redirect: write one of {', '.join(sorted(REDIRECTS))}")
    return int(value)


def _cors(given: Mapping[str, str]) -> Cors:
    """With ingress-nginx's defaults."""

    def listed(name: str, default: str = "") -> list[bytes]:
        return [each.strip().encode() for each in given.get(f"cors-{name}", default).split(",") if each.strip()]

    age = given.get("cors-max-age", "")
    return Cors(
        origins=listed("allow-origin", "*"),
        methods=listed("allow-methods", "GET, PUT, POST, DELETE, PATCH, OPTIONS"),
        headers=listed("allow-headers", CORS_HEADERS),
        exposed=listed("expose-headers"),
        credentials=given.get("cors-allow-credentials", "true").lower() == "true",
        max_age=int(age) if WHOLE.fullmatch(age) else 1_728_000,
    )


def _cookie_attributes(given: Mapping[str, str]) -> str:
    parts = [f"; Path={_printable(given.get('session-cookie-path') or '/')}"]
    age = given.get("session-cookie-max-age") or given.get("session-cookie-expires")
    if age and WHOLE.fullmatch(age):
        parts.append(f"; Max-Age={age}")
    if given.get("session-cookie-samesite") in {"Lax", "Strict", "None"}:
        parts.append(f"; SameSite={given['session-cookie-samesite']}")
    if given.get("session-cookie-secure") == "true":
        parts.append("; Secure")
    return "".join([*parts, "; HttpOnly"])
