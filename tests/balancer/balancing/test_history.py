"""What is remembered of the last moments comes back as it was, and does not hold the memory of what has gone."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from balancer.balancing.history import History

AMID_A_CROWD = """
import gc, os, sys
from collections import deque
from balancer.balancing.history import History
kept = {kept}
sys._debugmallocstats()
crowd = []
for number in range(300_000):
    crowd.append((number, str(number)))
    if number % 1000 == 0:
        kept.append({{"at": number + 0.5, "errors": [number, {{"a reason": number}}]}})
crowd.clear()
gc.collect()
sys._debugmallocstats()
"""


def arenas_left(kept: str) -> int:
    """Arenas of the interpreter that stay when a crowd has gone in which `kept` was filled."""
    program = [sys.executable, "-c", AMID_A_CROWD.format(kept=kept)]
    told = subprocess.run(program, check=True, capture_output=True, text=True, timeout=60).stderr
    before, after = map(int, re.findall(r"arenas allocated current += +(\d+)", told))
    return after - before


def test_it_holds_nothing_of_a_crowd_that_has_gone() -> None:
    assert arenas_left("History(1000)") < arenas_left("deque(maxlen=1000)") / 4


def test_the_last_values_come_back_as_they_were() -> None:
    history = History(3)
    values = [{"at": 1.5, "errors": {"a": 1}, "of": [1, None, "é\udcff"]}, ("x" * 2000, (1, 2.5)), [], 7]
    for value in values:
        history.append(value)
    assert list(history) == values[1:]
    assert list(reversed(history)) == values[:0:-1]
    assert len(history) == 3


def test_what_is_no_plain_value_is_refused() -> None:
    with pytest.raises(ValueError, match="unmarshallable"):
        History(1).append(object())
