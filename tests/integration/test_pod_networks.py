"""`::`, as docs/kubernetes.md has it, works in pods that have IPv4 only, IPv6 only, and both, whichever comes first."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def unshare() -> str:
    """The program that makes a network namespace, where we may make one; in CI we must."""
    path = shutil.which("unshare")
    allowed = path and subprocess.run([path, "--net", "true"], capture_output=True, check=False).returncode == 0
    if path is None or not allowed or not shutil.which("ip"):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no network namespace can be made here")
    return path


@pytest.mark.timeout(200)
@pytest.mark.parametrize("families", [["ipv4"], ["ipv6"], ["ipv4", "ipv6"], ["ipv6", "ipv4"]], ids="+".join)
def test_both_services_answer_at_every_address_of_the_pod(unshare: str, families: list[str]) -> None:
    if "ipv6" in families and not Path("/proc/sys/net/ipv6").exists():
        pytest.skip("this kernel has no IPv6")
    command = [unshare, "--net", sys.executable, str(Path(__file__).parent / "pod.py"), *families]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert list(told) == families
    for family, answers in told.items():
        assert answers["pi"].strip() == "3.1415926535", (family, done.stderr)
        assert answers["balanced"].strip() == "3.1415926535", (family, done.stderr)
        assert '"ready"' in answers["ready"], (family, answers["ready"])
