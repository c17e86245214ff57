"""What to do about a thing, in the words of the way in which this balancer runs: helm helps nobody under `make run`."""

from __future__ import annotations

import os
import sys

KUBERNETES = "kubernetes"
CONTAINER = "container"
PROCESS = "process"


def place() -> str:
    """How this balancer runs: KUBERNETES, CONTAINER or PROCESS."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return KUBERNETES
    # The image's own interpreter. That this is some container says little: people develop in one too.
    return CONTAINER if sys.prefix == "/venv" else PROCESS


def read_only(where: str) -> dict[str, str]:
    """Why nothing can be changed without a token, and the command that gives one."""
    remedy, command = {
        KUBERNETES: (
            "Give the release a token:",
            "helm upgrade lb charts/lb --reset-then-reuse-values --set balancer.settings.adminToken=TOKEN",
        ),
        CONTAINER: ("Start the container with a token:", "docker run -e LB_ADMIN_TOKEN=TOKEN …"),
        PROCESS: ("Start it again with a token:", "LB_ADMIN_TOKEN=TOKEN make run"),
    }[where]
    return {"reason": "Read only: LB_ADMIN_TOKEN is not set.", "remedy": remedy, "command": command}


def for_good(where: str, fleet: bool) -> str:
    """How far a switch of the strategy reaches, and what switches it for good."""
    lasting = {
        KUBERNETES: "`helm upgrade --set balancer.settings.strategy=…` switches for good.",
        CONTAINER: "LB_STRATEGY sets it for good.",
        PROCESS: "LB_STRATEGY sets it for good.",
    }[where]
    if fleet:
        return f"A switch of the fleet lasts while one replica runs, through rollouts too; else {lasting}"
    return f"A switch is this replica's alone, until it restarts; {lasting}"
