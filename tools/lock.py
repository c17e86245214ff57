"""Writes the lock files: what each service and the tools need, in exact versions with hashes, for Python 3.11 to 3.15.

The services' locks are held to the versions of the development lock, so that what is tested is what is shipped.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BALANCER, PI = "services/balancer", "services/pi"
TESTED = ["--constraint", "requirements-dev.lock"]

LOCKS = {
    "requirements-dev.lock": ["--group", "dev", "--all-extras", f"{BALANCER}/pyproject.toml", f"{PI}/pyproject.toml"],
    f"{BALANCER}/requirements.lock": [*TESTED, "--all-extras", f"{BALANCER}/pyproject.toml"],
    f"{BALANCER}/requirements-build.lock": [*TESTED, "--group", "compile"],
    f"{BALANCER}/requirements-reload.lock": [*TESTED, "--group", "reload"],
    f"{PI}/requirements.lock": [*TESTED, "--all-extras", f"{PI}/pyproject.toml"],
    f"{PI}/requirements-build.lock": [*TESTED, "--group", "build"],
    f"{PI}/requirements-reload.lock": [*TESTED, "--group", "reload"],
}
"""Each lock file and what is resolved for it, in the order in which they build on each other."""

COMPILE = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
# The one who installs has a registry configured; its address is not locked.
ANONYMOUS = ["--no-emit-index-url", "--custom-compile-command", "make lock"]


def main() -> int:
    """Write them all; arguments (`--upgrade`) go to uv."""
    uv = str(Path(sys.executable).parent / COMPILE[0])
    for path, sources in LOCKS.items():
        command = [uv, *COMPILE[1:], *ANONYMOUS, *sys.argv[1:], "--output-file", path, *sources]
        if status := subprocess.run(command, cwd=ROOT, check=False).returncode:
            return status
        print(f"lock: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
