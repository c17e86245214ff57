"""Every setting, once: its variable is `LB_` and the field's name in capitals.

Seconds are floats, sizes bytes, `none` is None. Where a value comes from (environment, `.env`) is environment.py's
matter; a Settings made by hand reads nothing but its arguments. It is a plain pydantic model, not one of
pydantic-settings: a misspelt `LB_…` variable must be an error, Kubernetes' service links must not, and every error
must name its variable, in one run; that library's sources can do none of the three.

Above 300 lines because it is the table of settings.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from balancer.balancing.endpoint import EndpointSpec
from balancer.balancing.strategies import ALIASES, STRATEGIES
from balancer.settings import checks, kinds
from balancer.settings.backends import ALLOWED, parse_backends, show_backend
from balancer.settings.kinds import FIELD_NAME, Kind
from balancer.settings.table import Row, rows_of

STRATEGY_NAMES = (*STRATEGIES, *ALIASES)
MODULE_CLASS = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
HOSTS = r"[0-9A-Za-z.:%_-]+( ?, ?[0-9A-Za-z.:%_-]+)*"
NAME_PART = r"[0-9A-Za-z_]([0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?"
HOST_NAME = rf"{NAME_PART}(\.{NAME_PART})*\.?"
HOST_PORT = rf"({HOST_NAME}|\[[0-9A-Fa-f:.%]+\]):[0-9]{{1,5}}"
DNS_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


def _strategy() -> Kind:
    allowed = f"{', '.join(STRATEGY_NAMES)} or module:Class"
    kind = kinds.pattern(f"{'|'.join(STRATEGY_NAMES)}|{MODULE_CLASS}", allowed)

    def parse(value: object) -> object:
        try:
            name = kind.parse(value)
        except ValueError:
            raise ValueError(kinds.did_you_mean(str(value), STRATEGY_NAMES)) from None
        return ALIASES.get(str(name), name)

    return Kind(parse, allowed, kind.schema)


def _backends() -> Kind:
    def parse(value: object) -> tuple[EndpointSpec, ...]:
        return value if isinstance(value, tuple) else parse_backends(kinds.items(value))

    def show(specs: tuple[EndpointSpec, ...]) -> str:
        return kinds.show_items(show_backend(spec) for spec in specs)

    return Kind(parse, f"{ALLOWED}, comma separated, or none", {"type": "string"}, show)


Port = Annotated[int, kinds.whole(0, 65535, " (0: any free one)")]
PortOrNone = Annotated[int | None, kinds.or_none(kinds.whole(1, 65535))]
Count = Annotated[int, kinds.whole(1)]
CountOrNone = Annotated[int | None, kinds.or_none(kinds.whole(1))]
Seconds = Annotated[float, kinds.seconds()]
SecondsOrNone = Annotated[float | None, kinds.or_none(kinds.seconds(zero="every request"))]
Share = Annotated[float, kinds.share()]
Size = Annotated[int, kinds.size()]
Switch = Annotated[bool, kinds.switch()]
PathOrNone = Annotated[Path | None, kinds.or_none(kinds.path())]
HostName = Annotated[
    str | None, kinds.or_none(kinds.pattern(HOST_NAME, "a DNS name of parts of 1 to 63 letters, digits and hyphens"))
]
Place = Annotated[str | None, kinds.or_none(kinds.pattern(r"[0-9A-Za-z_.-]*", "the name of a node or zone"))]
Label = Annotated[
    str | None, kinds.or_none(kinds.pattern(DNS_LABEL, "a name of lower-case letters, digits and hyphens"))
]


PEERS_FORM = rf"{DNS_LABEL}|{HOST_PORT}( ?, ?{HOST_PORT})*"


def _peers() -> Kind:
    form = kinds.pattern(PEERS_FORM, "a Service's name, or host:port of admin ports, comma separated")

    def parse(value: object) -> object:
        text = form.parse(value)
        if isinstance(text, str) and ":" in text:
            parse_backends(text.split(","))
        return text

    return Kind(parse, form.allowed, form.schema)


class Group:
    """A group of settings, in the order in which help and docs list them; calling it declares one of them."""

    def __init__(self, title: str) -> None:
        self.title = title

    def __call__(self, default: object, meaning: str, *, secret: bool = False) -> Any:  # noqa: ANN401 (as Field does)
        """A setting: its default, and one sentence that says what it means and in which unit."""
        return Field(
            default, description=meaning, repr=not secret, json_schema_extra={"group": self.title, "secret": secret}
        )


LISTENING = Group("Where clients connect")
TLS = Group("TLS")
ADMIN = Group("Admin port")
CHOOSING = Group("Strategy")
DISCOVERY = Group("Discovery")
GATEWAY = Group("Gateway API")
PEERS = Group("Other replicas")
TIMEOUTS = Group("Timeouts")
CLIENT_LIMITS = Group("Limits on clients")
ENDPOINT_LIMITS = Group("Limits on endpoints")
RETRIES = Group("Retries")
HEALTH = Group("Active health checks")
LOAD = Group("Load reports of endpoints")
EJECTION = Group("Ejection and slow start")
DRAINING = Group("Draining")
LOGS = Group("Logs")


class Settings(BaseModel):
    """All settings: frozen, valid, and free of contradictions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Annotated[Literal["http", "tcp"], kinds.one_of(["http", "tcp"])] = LISTENING(
        "http", "What is balanced: HTTP requests, or TCP connections of any protocol."
    )
    host: Annotated[tuple[str, ...], kinds.hosts()] = LISTENING(
        ("0.0.0.0",),  # noqa: S104
        "Addresses to listen at; `::` is every address, IPv6 and IPv4.",
    )
    port: Port = LISTENING(8080, "TCP port where clients connect.")
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], kinds.networks()] = LISTENING(
        (), "Networks whose X-Forwarded-* and X-LB-Explain headers are believed; those of others are replaced."
    )
    proxy_protocol: Switch = LISTENING(
        False, "Whether connections from LB_TRUSTED_PROXIES begin with a PROXY protocol header (v1 or v2)."
    )
    upstream_proxy_protocol: Annotated[Literal["off", "v1", "v2"], kinds.one_of(["off", "v1", "v2"])] = LISTENING(
        "off", "Version of the PROXY protocol header that connections to endpoints begin with, in tcp mode."
    )

    http2: Switch = LISTENING(
        True, "Whether clients may speak HTTP/2: by TLS (ALPN), and in plain text by prior knowledge; in http mode."
    )
    upstream_protocol: Annotated[
        Literal["http1", "h2c", "h2", "auto"], kinds.one_of(["http1", "h2c", "h2", "auto"])
    ] = LISTENING(
        "auto",
        "What endpoints are spoken to by, in http mode: http1, h2c (HTTP/2 in plain text), h2 (by TLS), or auto: as "
        "the Service's appProtocol says, else http1.",
    )

    tls_cert: PathOrNone = TLS(None, "File with the certificate chain (PEM) for clients; read again when it changes.")
    tls_key: PathOrNone = TLS(None, "File with the private key (PEM) of LB_TLS_CERT.")
    upstream_tls: Switch = TLS(False, "Whether connections to endpoints use TLS, with the certificate verified.")
    upstream_tls_ca: PathOrNone = TLS(
        None, "File with the certificate authorities (PEM) trusted for endpoints; none: those of the system."
    )
    upstream_tls_name: HostName = TLS(
        None, "Name in the endpoints' certificates; none: that by which they were found, of a static one its host."
    )
    upstream_tls_cert: PathOrNone = TLS(
        None, "File with the certificate chain (PEM) shown to endpoints; read again when it changes."
    )
    upstream_tls_key: PathOrNone = TLS(None, "File with the private key (PEM) of LB_UPSTREAM_TLS_CERT.")
    tls_alpn: Annotated[tuple[str, ...], kinds.protocols()] = TLS(
        (), "Protocols agreed on by ALPN in tcp mode, with clients and with endpoints."
    )

    admin_host: Annotated[str, kinds.pattern(HOSTS, "one or more addresses, comma separated")] = ADMIN(
        "127.0.0.1", "Addresses of the admin port: health, metrics, API and dashboard; `::` is every one."
    )
    admin_port: Port = ADMIN(8081, "TCP port of the admin port.")
    admin_token: Annotated[str | None, kinds.or_none(kinds.pattern(r"[!-~]+", "printable ASCII without spaces"))] = (
        ADMIN(None, "Bearer token for API calls that change something; without one they are refused.", secret=True)
    )

    admin_tls_cert: PathOrNone = ADMIN(
        None,
        "File with the certificate chain (PEM) of the admin port, which then speaks TLS; read again when it changes.",
    )
    admin_tls_key: PathOrNone = ADMIN(None, "File with the private key (PEM) of LB_ADMIN_TLS_CERT.")

    strategy: Annotated[str, _strategy()] = CHOOSING("least-work", "How an endpoint is chosen for a request.")
    hash_key: Annotated[
        str,
        kinds.pattern(f"client-ip|path|(header|cookie):{FIELD_NAME}", "client-ip, path, header:NAME or cookie:NAME"),
    ] = CHOOSING("client-ip", "What consistent-hash takes as the key of a request.")
    cost_key: Annotated[
        str | None,
        kinds.or_none(kinds.pattern(f"header:{FIELD_NAME}|path:.+", "header:NAME or path:REGULAR-EXPRESSION")),
    ] = CHOOSING(
        None,
        "What shows how expensive a request is, for least-work and least-response-time; of a pattern its groups; "
        "none: method, the path's shape and the body's length.",
    )

    discovery: Annotated[Literal["static", "dns", "kubernetes"], kinds.one_of(["static", "dns", "kubernetes"])] = (
        DISCOVERY("static", "Where the endpoints come from.")
    )
    backends: Annotated[tuple[EndpointSpec, ...], _backends()] = DISCOVERY(
        (), "The endpoints, for `static`; a host name is one endpoint, resolved when connecting."
    )
    backends_file: PathOrNone = DISCOVERY(
        None, "File with the endpoints, one a line, for `static`; read again when it changes."
    )
    dns_name: HostName = DISCOVERY(
        None, "Name whose every address is an endpoint, for `dns`; resolved again as its TTL says."
    )
    dns_port: PortOrNone = DISCOVERY(None, "TCP port of those endpoints, for `dns`.")
    kubernetes_service: Label = DISCOVERY(None, "Service whose EndpointSlices are watched, for `kubernetes`.")
    kubernetes_namespace: Label = DISCOVERY(None, "Namespace of that Service; none: the pod's own.")
    kubernetes_port: Annotated[int | str | None, kinds.or_none(kinds.port_name())] = DISCOVERY(
        None, "Port of the EndpointSlices to use; none: their only one."
    )
    prefer_zone: Annotated[str | None, kinds.or_none(kinds.pattern(r"[0-9A-Za-z_.-]+", "a zone's name"))] = DISCOVERY(
        None,
        "Zone whose endpoints are used while enough of them are healthy; `auto`: those that the Service's hints and "
        "internalTrafficPolicy mean for our node, for `kubernetes`.",
    )
    node_name: Place = DISCOVERY(None, "Our node, for `auto` as the preferred zone: the pod's spec.nodeName.")
    zone: Place = DISCOVERY(None, "Our node's zone, for `auto` as the preferred zone; none: as EndpointSlices show it.")
    own_service: Label = DISCOVERY(
        None,
        "Our own Service: its EndpointSlices show our zone where those of the balanced one do not, and each Gateway "
        "gets a Service that is made like it.",
    )

    gateway_class: Label = GATEWAY(
        None, "GatewayClass whose Gateways are served, beside the endpoints of LB_DISCOVERY; none: off."
    )
    ingress_class: Label = GATEWAY(
        None, "Class of the Ingresses that are served, beside Gateways and the endpoints of LB_DISCOVERY; none: off."
    )

    peers: Annotated[str | None, kinds.or_none(_peers())] = PEERS(
        None, "Headless Service of the replicas, which then report their load to each other; none: they do not."
    )
    peers_token: Annotated[str | None, kinds.or_none(kinds.pattern(r"[!-~]+", "printable ASCII without spaces"))] = (
        PEERS(None, "Bearer token by which the replicas know each other.", secret=True)
    )
    peers_tls_ca: PathOrNone = PEERS(
        None,
        "File with the certificate authorities (PEM) trusted for replicas, whose admin ports speak TLS; none: our own "
        "certificate, which all show.",
    )
    peers_tls_name: HostName = PEERS(None, "Name in the replicas' certificates; none: any.")

    connect_timeout: Seconds = TIMEOUTS(2.0, "Seconds to connect to an endpoint.")
    response_timeout: Seconds = TIMEOUTS(
        60.0, "Seconds from the end of a request's sending to its response's first byte."
    )
    idle_timeout: Seconds = TIMEOUTS(60.0, "Seconds of silence in mid-message, and on a TCP connection.")
    request_timeout: Seconds = TIMEOUTS(15.0, "Seconds for a client to send a request's header.")
    total_timeout: Annotated[float, kinds.seconds(zero="no limit")] = TIMEOUTS(
        0.0, "Seconds for one request with its retries."
    )
    keepalive_timeout: Seconds = TIMEOUTS(75.0, "Seconds an unused client connection is kept.")
    upstream_keepalive_timeout: Seconds = TIMEOUTS(30.0, "Seconds an unused connection to an endpoint is kept.")
    tunnel_idle_timeout: Seconds = TIMEOUTS(3600.0, "Seconds a silent upgraded connection (WebSocket) is kept.")

    max_connections: Count = CLIENT_LIMITS(
        10_000, "Client connections open at once; the default is lowered to half the limit of open files."
    )
    max_connections_per_client: CountOrNone = CLIENT_LIMITS(None, "Client connections open at once from one address.")
    max_header_bytes: Size = CLIENT_LIMITS(64 << 10, "Bytes of a message's header; beyond it a request gets 431.")
    max_headers: Count = CLIENT_LIMITS(128, "Header fields of a message; beyond it a request gets 431.")
    max_uri_bytes: Size = CLIENT_LIMITS(16 << 10, "Bytes of a request's target; beyond it 414.")
    max_body_bytes: Annotated[int | None, kinds.or_none(kinds.size())] = CLIENT_LIMITS(
        None, "Bytes of a request's body; beyond it 413."
    )

    max_buffer_memory: Annotated[int | None, kinds.or_none(kinds.size())] = CLIENT_LIMITS(
        None, "Bytes that may wait to be sent, in all; none: a quarter of the memory that the container may use."
    )

    endpoint_max_requests: CountOrNone = ENDPOINT_LIMITS(
        None, "Requests in flight at one endpoint; more wait in the queue."
    )
    queue_size: Annotated[int, kinds.whole(0, note=" (0: no queue)")] = ENDPOINT_LIMITS(
        1024, "Requests that may wait when every endpoint is at its limit; beyond it 503."
    )
    queue_timeout: Seconds = ENDPOINT_LIMITS(5.0, "Seconds a request may wait in the queue before it gets 503.")

    endpoint_load: Annotated[bool, kinds.switch("orca")] = LOAD(
        False,
        "Load reports that requests ask endpoints for, which make weights and are not passed on: off, or orca "
        "(endpoint-load-metrics).",
    )
    endpoint_load_blackout: Annotated[float, kinds.seconds(zero="at once")] = LOAD(
        10.0, "Seconds for which an endpoint's reports must have come before they count."
    )
    endpoint_load_expiry: Seconds = LOAD(180.0, "Seconds without a report after which the last ones count no more.")

    retries: Annotated[int, kinds.whole(0, 100, " (0: none)")] = RETRIES(2, "Attempts of a request beyond the first.")
    retry_budget: Share = RETRIES(0.2, "Share of the traffic that may be retries, ten a second on top.")
    retry_buffer: Size = RETRIES(64 << 10, "Bytes of a request's body kept to send it again; a longer one is not.")
    retry_statuses: Annotated[frozenset[int], kinds.statuses()] = RETRIES(
        frozenset({503}), "Response statuses on which an idempotent request is sent again."
    )

    health_path: Annotated[
        str | None,
        kinds.or_none(
            kinds.pattern(
                r"tcp|grpc(:[A-Za-z0-9_.\-/]{0,200})?|/[!-~]*",
                "a path that begins with /, grpc or grpc:SERVICE (gRPC's health check), or tcp (connecting suffices)",
            )
        ),
    ] = HEALTH(None, "What each endpoint is asked for to learn whether it is healthy; none: active checks are off.")
    health_status: Annotated[tuple[tuple[int, int], ...], kinds.status_ranges()] = HEALTH(
        ((200, 399),), "Statuses that a healthy endpoint answers with."
    )
    health_interval: Seconds = HEALTH(5.0, "Seconds between two checks of one endpoint.")
    health_timeout: Seconds = HEALTH(2.0, "Seconds that one check may take.")
    health_rise: Count = HEALTH(2, "Successful checks in a row after which an endpoint is healthy again.")
    health_fall: Count = HEALTH(3, "Failed checks in a row after which an endpoint is unhealthy.")
    health_closes_tunnels: Switch = HEALTH(
        False, "Whether tunnels (TCP mode, WebSocket) to an endpoint are reset when it turns unhealthy or is ejected."
    )

    eject_after: Annotated[int, kinds.whole(0, note=" (0: off)")] = EJECTION(
        5, "Consecutive failures after which an endpoint is ejected."
    )
    eject_time: Seconds = EJECTION(10.0, "Seconds of an endpoint's first ejection; repeated ones last longer.")
    eject_max_share: Share = EJECTION(0.5, "Largest share of the endpoints that may be ejected at once.")
    panic_share: Share = EJECTION(0.3, "Share of healthy endpoints below which all are used, healthy or not.")
    slow_start: Annotated[float, kinds.seconds(zero="off")] = EJECTION(
        0.0, "Seconds in which a new or returning endpoint's weight grows from a tenth to the whole."
    )

    drain_delay: Annotated[float, kinds.seconds(zero="none")] = DRAINING(
        0.0,
        "Seconds to serve on after SIGTERM, while /readyz already fails, before the port closes; longer while clients "
        "still connect, out of LB_DRAIN_TIMEOUT.",
    )
    drain_timeout: Annotated[float, kinds.seconds(zero="none")] = DRAINING(
        30.0, "Seconds that requests in flight then have to end, before they are cut."
    )

    access_log: Switch = LOGS(True, "Whether requests are logged, one JSON object a line.")
    access_log_sample: Share = LOGS(1.0, "Share of the requests that the access log records.")
    slow_request: SecondsOrNone = LOGS(None, "Seconds above which a request is always logged, whatever the sample.")
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], kinds.one_of(["debug", "info", "warning", "error"])
    ] = LOGS("info", "Least severity of the messages that are logged.")
    log_format: Annotated[Literal["json", "console"] | None, kinds.or_none(kinds.one_of(["json", "console"]))] = LOGS(
        None, "Form of the log messages; none: console on a terminal, json elsewhere."
    )

    @model_validator(mode="after")
    def _without_contradiction(self) -> Self:
        faults = [fault.text for fault in checks.contradictions(self)]
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def effective(self) -> dict[str, str]:
        """Every variable with the value in force, as one would write it; a secret that is set is masked."""
        return {row.variable: row.shown(getattr(self, row.field)) for row in table()}


def table() -> list[Row]:
    """One row for each setting, group by group: what --help, docs/settings.md and the chart's schema are made from."""
    return rows_of(Settings.model_fields)
