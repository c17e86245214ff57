"""The decimals of Pi, as text: pure, and the whole cost of a request."""

from __future__ import annotations

import math
from collections.abc import Callable

import gmpy2  # type: ignore[import-untyped]
from mpmath.libmp import libelefun  # type: ignore[import-untyped]

_BITS_PER_DIGIT = math.log2(10)
_SPARE_BITS = 16


def _without_memory(constant: Callable[[int], int]) -> Callable[[int], int]:
    """The function inside mpmath's `constant_memo`, which keeps the longest value it has computed.

    Called directly it computes afresh, and at the precision that was asked for (the memo adds 5 % to reuse later).
    """
    for cell in constant.__closure__ or ():
        if callable(cell.cell_contents):
            computed: Callable[[int], int] = cell.cell_contents
            return computed
    raise ImportError("mpmath keeps its constants in another way than version 1.4: see pi/digits.py")


_pi_fixed = _without_memory(libelefun.pi_fixed)
"""floor(pi * 2**bits), wrong by a few units in the last place at most (Chudnovsky's series, binary splitting)."""


def pi_text(decimals: int) -> str:
    """Pi with that many decimals, truncated: `3` for 0, `3.1415926535` for 10.

    The fixed-point integer is scaled by a power of ten and converted once. gmpy2 converts it, so that Python's limit
    on the length of integers as text (`sys.set_int_max_str_digits`) does not apply. Ten guard digits are computed
    beyond the last one; were all of them 0 or all 9, the error of some units could reach over them, and the work is
    done again with twice as many.
    """
    guard = 10
    while True:
        text = _scaled(decimals + guard)
        if text[-guard:].strip("0") and text[-guard:].strip("9"):
            whole = text[: 1 + decimals]
            return f"{whole[0]}.{whole[1:]}" if decimals else whole
        guard *= 2


def _scaled(decimals: int) -> str:
    """floor(pi * 10**decimals) as text, wrong by one unit in its last place at most."""
    bits = int(decimals * _BITS_PER_DIGIT) + _SPARE_BITS
    # pi * 10**d is pi * 2**bits * 5**d / 2**(bits - d): multiplying by 5**d spares the zeros of 10**d.
    scaled = _pi_fixed(bits) * gmpy2.mpz(5) ** decimals >> bits - decimals
    return str(gmpy2.mpz(scaled).digits())
