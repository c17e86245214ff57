"""Writes the definition of LoadBalancingPolicy for the chart, from the balancer's settings."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from balancer.discovery.gateway.policies import crd

FILE = Path(__file__).resolve().parent.parent / "charts" / "lb" / "files" / "loadbalancingpolicies.yaml"


def main() -> int:
    """Write the file; with `--check` say whether it is in step."""
    text = "# Made by tools/policies.py: `make generate` writes it again.\n" + yaml.safe_dump(
        crd(), sort_keys=False, width=110
    )
    if "--check" in sys.argv[1:]:
        stale = not FILE.exists() or FILE.read_text(encoding="utf-8") != text
        if stale:
            print(f"{FILE.name} is not what the settings say: `make generate` writes it", file=sys.stderr)
        return int(stale)
    FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
