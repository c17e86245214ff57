"""What each image adds to its base, layer by layer, and whether that is within its target.

    .venv/bin/python tools/image_sizes.py

Every fresh node downloads these bytes before a pod can start there, so their number is bounded. Needs both images, as
`make images` builds them, and the base image that their Dockerfiles name.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.version import version

SERVICES = Path(__file__).resolve().parent.parent / "services"
TARGETS = {"balancer": 75, "pi": 45}
"""MB (10⁶ bytes) that each image may add to its base."""


@dataclass(frozen=True)
class Layer:
    """One layer of an image."""

    size: int
    """Bytes, not compressed."""
    made_by: str


def history(image: str) -> list[Layer]:
    """The layers of an image, the newest first. Raises CalledProcessError where there is no such image."""
    command = ["docker", "history", "--no-trunc", "--human=false", "--format", "{{json .}}", image]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    return [Layer(int(entry["Size"]), entry["CreatedBy"]) for entry in entries]


def base_of(service: str) -> str:
    """The base image that the service's Dockerfile names by default."""
    found = re.search(r"^ARG BASE=(\S+)$", (SERVICES / service / "Dockerfile").read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"services/{service}/Dockerfile has no `ARG BASE=…`")
    return found[1]


def added(service: str) -> list[Layer]:
    """The layers that the service's image has beyond its base's."""
    layers = history(f"lb-{service}:{version()}")
    return layers[: len(layers) - len(history(base_of(service)))]


def main() -> int:
    """Print the layers; the exit status is 1 when an image is over its target."""
    status = 0
    for service, target in TARGETS.items():
        layers = [layer for layer in added(service) if layer.size]
        total = sum(layer.size for layer in layers) / 1e6
        print(f"lb-{service} adds {total:.1f} MB to {base_of(service)} (target: at most {target} MB)")
        for layer in layers:
            print(f"  {layer.size / 1e6:6.1f} MB  {layer.made_by}")
        status |= total > target
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
