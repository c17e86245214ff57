"""Regular expressions that others write, and we run: only those whose time stays in bounds.

Python's engine backtracks, and one request must not hold up all others: nothing that can be read in more than a few
ways is taken. What is left (classes, `.*`, alternatives in small numbers) is what routes are written with.
"""

from __future__ import annotations

import re
from typing import Final

MAX_LENGTH: Final = 256
MAX_REPEATS: Final = 2
"""Parts without a bound: each multiplies the time by the length of what is matched."""
MAX_CHOICES: Final = 8
"""Alternatives and optional parts: each may double the time."""

_PART: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?.?.?|[*+]|\{[^}]*\}|.", re.DOTALL)


def check_pattern(pattern: str) -> str:
    """Why a pattern is not taken; empty when it is."""
    if len(pattern) > MAX_LENGTH:
        return f"it is longer than {MAX_LENGTH} characters"
    try:
        re.compile(pattern.encode())
    except (re.error, RecursionError, OverflowError) as error:
        return str(error)
    repeats = choices = 0
    before = ""
    for part in _PART.findall(pattern):
        if part.startswith("(?") and part[:3] != "(?:":
            return "only plain groups and (?:…) are taken"
        if len(part) == 2 and part[0] == "\\" and part[1].isdigit():
            return "it refers back to a group"
        if part in "*+" or part[0] == "{":
            if before == ")":
                return "a group is repeated"
            repeats += 1
        elif part in "|?":
            choices += 1
        before = part
    if repeats > MAX_REPEATS:
        return f"it has more than {MAX_REPEATS} parts without a bound"
    return f"it has more than {MAX_CHOICES} alternatives" if choices > MAX_CHOICES else ""
