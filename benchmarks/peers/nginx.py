"""nginx: HTTP by its `http` module, TCP by its `stream` module, which Debian packages apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from benchmarks import processes
from benchmarks.certificate import certificate
from benchmarks.peers.peer import FAILURES, FETCH, MODES, ROUTES, UNSTABLE, Peer

_LOG = (
    'log_format json escape=json \'{"time":"$time_iso8601","request_id":"$request_id","client":"$remote_addr",'
    '"method":"$request_method","path":"$uri","status":$status,"bytes_received":$request_length,'
    '"bytes_sent":$body_bytes_sent,"connect":"$upstream_connect_time","first_byte":"$upstream_header_time",'
    '"total":$request_time,"endpoint":"$upstream_addr"}\';'
)
"""What our own line has; it is buffered, as ours is."""


def own_folders(folder: Path) -> str:
    """Directives that keep its temporary files in `folder`: the packages' own may not be writable."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)


class Nginx(Peer):
    """nginx, with connections to endpoints kept and nothing spilled to disk."""

    name = "nginx"
    program = "nginx"
    source = "apt install nginx libnginx-mod-stream"
    modes = MODES
    modules: ClassVar[str] = "include /etc/nginx/modules-enabled/*.conf;"
    """Where its module for TCP is."""
    policies: ClassVar[Mapping[str, str]] = {
        "round-robin": "",
        "least-connections": "least_conn;",
        "random-of-two": "random two least_conn;",
    }

    def command(self) -> list[str]:
        file = self.folder / "nginx.conf"
        file.write_text(self._head() + (self._http() if self.setup.http else self._stream()))
        return [self.program, "-c", str(file), "-e", str(self.folder / "error.log")]

    def _head(self) -> str:
        return (
            f"{self.modules if self.setup.mode == 'tcp' else ''} daemon off; worker_processes 1;\n"
            f"pid {self.folder}/pid; error_log {self.folder}/error.log;\n"
            f"events {{ worker_connections {processes.open_files() - 100}; }}\n"
        )

    def _servers(self) -> str:
        # As many failures in a row as in our settings and the others'.
        failing = f"max_fails={FAILURES} fail_timeout={self.setup.eject_time:g}s"
        return " ".join(f"server {address} {failing};" for address in self.setup.endpoints)

    def _listen(self) -> str:
        """How clients come, and speak."""
        files = certificate(self.setup.folder) if self.setup.tls else None
        options = (" ssl" if files else "") + (" http2" if self.setup.http2 else "")
        # Its own default leaves out TLS 1.3, up to 1.23.4.
        shown = (
            f"ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {files.chain}; ssl_certificate_key {files.key};"
            if files
            else ""
        )
        return f"listen 127.0.0.1:{self.port} backlog=4096{options}; {shown}"

    def _http(self) -> str:
        setup = self.setup
        # It speaks HTTP/2 to endpoints in its module for gRPC only, which takes other requests as well.
        passed, scheme = ("grpc", "grpc") if setup.http2_endpoints else ("proxy", "http")
        log = f"{self.folder}/access.log json buffer=64k flush=1s" if setup.access_log else "off"
        return (
            f"http {{ {_LOG} access_log {log}; {own_folders(self.folder)} keepalive_requests 1000000000;\n"
            "client_max_body_size 0; client_header_timeout 15s;\n"
            f"upstream endpoints {{ {self.policies[setup.policy]} {self._servers()} keepalive 256;"
            " keepalive_requests 1000000000; }\n"
            "map $http_upgrade $connection_option { default upgrade; '' ''; }\n"
            + "".join(self._server(host, passed, scheme) for host in (ROUTES if setup.routes else ("",)))
            + "}\n"
        )

    def _server(self, host: str, passed: str, scheme: str) -> str:
        """What is served for one host, or where that is empty, for all."""
        setup = self.setup
        # What the port is like may be said only once.
        listen = self._listen() if host in ("", ROUTES[0]) else f"listen 127.0.0.1:{self.port};"
        name = f"server_name {host}; " if host else ""
        return (
            f"server {{ {listen} {name}location / {{ {passed}_pass {scheme}://endpoints;\n"
            " proxy_http_version 1.1; proxy_request_buffering off; proxy_max_temp_file_size 0;\n"
            f" {passed}_read_timeout {setup.response_timeout:g}s; {passed}_connect_timeout 2s;\n"
            f" {passed}_next_upstream_tries 3; {passed}_next_upstream error timeout http_500 http_502 http_503;\n"
            " proxy_set_header Connection $connection_option; proxy_set_header Upgrade $http_upgrade;\n"
            f" {passed}_set_header Host $host; {passed}_set_header X-Forwarded-For $remote_addr;\n"
            f" {passed}_set_header X-Forwarded-Proto $scheme; {passed}_set_header X-Request-Id $request_id; }} }}\n"
        )

    def _stream(self) -> str:
        return (
            f"stream {{ upstream endpoints {{ {self._servers()} }}\n"
            f"server {{ listen 127.0.0.1:{self.port} backlog=4096; proxy_pass endpoints; }} }}\n"
        )


class NginxNew(Nginx):
    """nginx of Debian's unstable packages: years newer than this machine's."""

    name = "nginx-new"
    program = str(UNSTABLE / "usr/sbin/nginx")
    source = FETCH
    modules = f"load_module {UNSTABLE}/usr/lib/nginx/modules/ngx_stream_module.so;"
