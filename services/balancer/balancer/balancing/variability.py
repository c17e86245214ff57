"""How much response times differ: whether a request that has run long is about to end, or will run longer still."""

from __future__ import annotations

from typing import Final

from mypy_extensions import mypyc_attr

FEW: Final = 100
"""Samples before anything is said."""
MEMORY: Final = 500
"""About so many samples count."""
EVEN: Final = 1.5
"""Mean square over squared mean: 1 where all are equal, 2 where they are exponential, more with a heavy tail."""
UNEVEN: Final = 1.8
"""From here on they are no longer even: the gap keeps the verdict from changing with every sample."""


@mypyc_attr(acyclic=True)
class Variability:
    """Of the response times of a pool's endpoints, together.

    Where they are even, the request that has run longest ends first (its hazard rate rises); where they are not, it is
    the one that will run longest still.
    """

    __slots__ = ("_count", "_mean", "_square", "even")

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._square = 0.0
        self.even = False
        """Whether they differ less than exponential ones, as far as is known."""

    def sample(self, seconds: float) -> None:
        """A response has begun after so many seconds, or has not begun until now."""
        if self._count < MEMORY:
            self._count += 1
        weight = 1.0 / self._count
        self._mean += weight * (seconds - self._mean)
        self._square += weight * (seconds * seconds - self._square)
        if self._count >= FEW:
            self.even = self._square < (UNEVEN if self.even else EVEN) * self._mean * self._mean
