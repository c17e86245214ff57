"""The source of randomness as balancing sees it: handed in, so that a test can seed or script it."""

from __future__ import annotations

from typing import Protocol


class Random(Protocol):
    """What balancing asks of a random source; `random.Random` has it."""

    def random(self) -> float:
        """A number in [0, 1), uniformly."""

    def randrange(self, stop: int, /) -> int:
        """A whole number in [0, stop), uniformly."""
