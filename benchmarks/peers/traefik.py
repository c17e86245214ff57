"""Traefik."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar

from benchmarks.peers.peer import Peer, first_line
from benchmarks.ports import status_of


class Traefik(Peer):
    """Traefik, one Go processor."""

    name = "traefik"
    program = "traefik"
    source = "its own releases; Go's `install` refuses its module for the replace directives in it"
    modes = frozenset({"http"})
    policies: ClassVar[Mapping[str, str]] = {"round-robin": "wrr", "random-of-two": "p2c"}

    @classmethod
    def version(cls) -> str:
        return "traefik " + first_line([cls.program, "version"]).split()[-1]

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
