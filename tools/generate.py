"""One source per fact: runs every program that writes a file from another, or with `--check` says which are stale."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

GENERATORS = [
    "tools/version.py",
    "tools/settings.py",
    "tools/policies.py",
    "tools/metrics.py",
    "tools/dashboard.py",
    "tools/chart.py",
    "tools/manifests.py",
    "tools/architecture.py",
]
"""Each writes its files, or with `--check` writes none and exits with 1 when one is out of step. Order matters."""


def main() -> int:
    """Run them all, even after one has failed; 1 when any did."""
    failed = [
        generator
        for generator in GENERATORS
        if subprocess.run([sys.executable, generator, *sys.argv[1:]], cwd=ROOT, check=False).returncode
    ]
    if failed:
        print(f"generate: out of step or failed: {', '.join(failed)}; `make generate` writes them", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
