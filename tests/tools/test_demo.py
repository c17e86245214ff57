"""`make demo`: the stage is set as the guide says, the load runs, and Ctrl-C clears everything away."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tools.demo import stage
from tools.run import free_ports

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT = 60.0


def test_one_backend_is_slow_and_one_fails_at_times() -> None:
    plan = stage({})
    wrong = [dict(backend.environ) for backend in plan.backends]
    assert wrong == [{}, {}, {"PI_DELAY_MS": "200"}, {"PI_FAIL_RATE": "0.3"}]
    assert {f"127.0.0.1:{backend.port}" for backend in plan.backends} == set(plan.environ["LB_BACKENDS"].split(","))
    assert (plan.settings.strategy, plan.settings.admin_token) == ("round-robin", "demo")


def test_it_says_what_to_try_sends_requests_and_leaves_nothing_behind(tmp_path: Path) -> None:
    port, admin_port = free_ports(2)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LB_", "PI_", "DISPLAY"))}
    environ = {**clean, "LB_PORT": str(port), "LB_ADMIN_PORT": str(admin_port)}
    log = tmp_path / "demo.log"
    with log.open("wb") as output:
        demo = subprocess.Popen(
            [sys.executable, "-m", "tools.demo"], cwd=ROOT, env=environ, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        until(lambda: "Ctrl-C stops everything" in log.read_text())
        until(lambda: requests(admin_port) > 20)
    finally:
        demo.send_signal(signal.SIGINT)
        status = demo.wait(LIMIT)
    text = log.read_text()
    assert status == 0, text
    assert f"http://localhost:{admin_port}   (admin token: demo)" in text
    assert len(re.findall(r"127\.0\.0\.1:\d+  (?:is well|answers)", text)) == 4
    assert "Traceback" not in text


def until(true: Callable[[], bool]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def requests(admin_port: int) -> float:
    """Those that the balancer has begun."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/metrics", timeout=10) as response:
        found = re.search(r"^lb_requests_total (\S+)$", response.read().decode(), re.MULTILINE)
    assert found is not None
    return float(found[1])
