"""HAProxy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from benchmarks import processes
from benchmarks.peers.peer import FAILURES, Peer

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
        http = setup.mode == "http"
        lines = ["global", " nbthread 1", f" maxconn {(processes.open_files() - 200) // 2}"]
        if setup.access_log:
            lines += [" log stdout format raw local0"]
        lines += ["defaults", f" mode {setup.mode}", " timeout connect 2s", " timeout client 60s", " timeout tunnel 1h"]
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
        lines += ["frontend clients", f" bind 127.0.0.1:{self.port} backlog 4096", " default_backend endpoints"]
        if http:
            lines += [" option forwardfor", " unique-id-format %[uuid()]", " unique-id-header X-Request-Id"]
        lines += ["backend endpoints", f" balance {self.policies[setup.policy]}"]
        # Marked down, it is up again at its next check.
        check = f" check inter {setup.eject_time:g}s rise 1"
        observed = f"{check} observe layer7 error-limit {FAILURES} on-error mark-down" if setup.watched else ""
        lines += [f" server e{number} {address}{observed}" for number, address in enumerate(setup.endpoints)]
        return "\n".join(lines) + "\n"
