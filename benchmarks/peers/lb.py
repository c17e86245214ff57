"""The balancer of this repository, compiled and interpreted."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from benchmarks import gateway
from benchmarks.certificate import certificate
from benchmarks.peers.peer import FAILURES, MODES, RETRY_STATUSES, Peer, Setup, first_line
from benchmarks.ports import free_port, status_of

ROOT = Path(__file__).resolve().parents[2]


class Lb(Peer):
    """The balancer of this repository as its image runs it: compiled, every protection at its default."""

    name = "lb"
    program = str(ROOT / ".venv-compiled/bin/python")
    source = "make compiled"
    modes = MODES
    policies: ClassVar[Mapping[str, str]] = {
        name: name
        for name in (
            "round-robin",
            "least-connections",
            "least-response-time",
            "least-work",
            "random-of-two",
            "consistent-hash",
        )
    }

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.admin_port = free_port()
        self.extra: dict[str, str] = {}
        """More settings."""
        self._api: gateway.Api | None = None

    @classmethod
    def version(cls) -> str:
        commit = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        )
        version = first_line([cls.program, "-c", "import importlib.metadata as m; print(m.version('lb-balancer'))"])
        return f"lb {version}, commit {commit.stdout.strip()}, on {cls.interpreter()}"

    @classmethod
    def interpreter(cls) -> str:
        """The Python that it runs on, and how that was built."""
        return first_line([cls.program, str(ROOT / "tools/interpreter.py")])

    def command(self) -> list[str]:
        if self.setup.routes:
            self._api = gateway.Api(self.folder, gateway.routed(self.port, self.setup.endpoints))
            self.extra |= {**self._api.settings(), "LB_PORT": str(free_port()), "LB_BACKENDS": "127.0.0.1:9"}
        return [self.program, "-m", "balancer"]

    def stop(self) -> None:
        if self._api is not None:
            self._api.stop()
        super().stop()

    def environ(self) -> dict[str, str]:
        setup = self.setup
        return {
            "LB_MODE": "http" if setup.http else "tcp",
            "LB_HOST": "127.0.0.1",
            "LB_PORT": str(self.port),
            "LB_ADMIN_PORT": str(self.admin_port),
            "LB_BACKENDS": ",".join(setup.endpoints),
            "LB_STRATEGY": self.policies[setup.policy],
            "LB_ACCESS_LOG": "on" if setup.access_log else "off",
            "LB_RESPONSE_TIMEOUT": f"{setup.response_timeout:g}",
            "LB_EJECT_AFTER": str(FAILURES),
            "LB_EJECT_TIME": f"{setup.eject_time:g}",
            **({"LB_RETRY_STATUSES": ",".join(map(str, sorted(RETRY_STATUSES)))} if setup.watched else {}),
            **({"LB_UPSTREAM_PROTOCOL": "h2c"} if setup.http2_endpoints else {}),
            **(self._certificate() if setup.tls else {}),
            **self.extra,
        }

    def _certificate(self) -> dict[str, str]:
        files = certificate(self.setup.folder)
        return {"LB_TLS_CERT": str(files.chain), "LB_TLS_KEY": str(files.key)}

    def ready(self) -> bool:
        return status_of(self.admin_port, "/readyz") == 200


class LbSource(Lb):
    """The same source, interpreted."""

    name = "lb-interpreted"
    program = str(ROOT / ".venv/bin/python")
    source = "make setup"


class LbBeside(Lb):
    """Another compiled build, whose Python the command line names: to see what a change costs or gains."""

    name = "lb-beside"
    source = "name its Python by --beside"
