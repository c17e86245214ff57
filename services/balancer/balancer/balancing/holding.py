"""Whether lengthy requests hold others up, learned from those that others have come after."""

from __future__ import annotations

from typing import Final

from mypy_extensions import mypyc_attr

TESTED: Final = 2
"""So many must have shown it before it is believed: once it may have been a pause of the endpoint."""
LATELY: Final = 0.1
"""Least weight of one that has: about the last ten count."""


@mypyc_attr(acyclic=True)
class Holding:
    """The part of them that held others up: of all, of one kind, or at one endpoint."""

    __slots__ = ("number", "share")

    def __init__(self) -> None:
        self.number = 0
        """Those that have shown it."""
        self.share = 0.0

    def add(self, held_up: bool) -> None:
        """One more has shown whether it does."""
        self.number += 1
        self.share += max(1.0 / self.number, LATELY) * ((1.0 if held_up else 0.0) - self.share)

    def beyond(self, all_of_them: Holding) -> float:
        """By how much the part is above that of all, as far as is known."""
        return (self.share - all_of_them.share) * self.number / (self.number + TESTED)
