"""Ports for benchmarks and tests: nobody else is given one while its process lives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TAKES = """
import random, sys
from benchmarks.ports import free_port
random.seed(1)
print(*[free_port() for _ in range(50)], flush=True)
sys.stdin.read()
"""


def test_two_processes_at_once_are_given_different_ports() -> None:
    def begin() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", TAKES]
        return subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    with begin() as one, begin() as other:
        assert one.stdout
        assert other.stdout
        first, second = set(one.stdout.readline().split()), set(other.stdout.readline().split())
        one.communicate()
        other.communicate()
    assert len(first) == len(second) == 50
    assert not first & second
