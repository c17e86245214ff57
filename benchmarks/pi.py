"""`make bench-pi`: how long the Pi service computes, beside python-flint on the same machine, text included.

Each figure is the least CPU time of several rounds, ours and flint's in turn, each in this one process: what others on
the machine do then hardly decides. Both compute afresh each time: flint keeps its constants too, and is made to forget.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import flint

# A script's own folder comes first on the path: this file would be taken for the package of its name.
sys.path = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).parent]

from pi.digits import pi_text  # noqa: E402

SIZES = (1_000, 10_000, 100_000, 1_000_000)
BAR = 1.6
"""At the largest size, at most so many times flint's time."""

_LEAST_S = 1.0
_FEWEST_ROUNDS = 5


def flint_text(decimals: int) -> str:
    """Pi with that many decimals by FLINT's ball arithmetic, computed afresh."""
    flint.ctx.cleanup()
    with flint.ctx.workdps(decimals + 10):
        # Ten digits more are printed than are asked for, since FLINT rounds the last one.
        text: str = flint.arb.pi().str(decimals + 10, radius=False)
    return text[: 2 + decimals]


def least(ours: Callable[[int], str], theirs: Callable[[int], str], decimals: int) -> tuple[float, float]:
    """CPU seconds of the quickest round of each, in turn, for at least five rounds and a second."""
    best = [float("inf"), float("inf")]
    rounds, spent = 0, 0.0
    while rounds < _FEWEST_ROUNDS or spent < _LEAST_S:
        for index, compute in enumerate((ours, theirs)):
            started = time.process_time()
            compute(decimals)
            took = time.process_time() - started
            best[index] = min(best[index], took)
            spent += took
        rounds += 1
    return best[0], best[1]


def main() -> int:
    """Print the table. The exit status is 1 when a digit differs, or with --check when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help=f"fail when the largest size takes more than {BAR} times flint's"
    )
    arguments = parser.parse_args()
    print(f"{'decimals':>10} {'ours, ms':>10} {'flint, ms':>10} {'ratio':>6}")
    ratio = 0.0
    for decimals in SIZES:
        if pi_text(decimals) != flint_text(decimals):
            print(f"the digits differ at {decimals}", file=sys.stderr)
            return 1
        ours, theirs = least(pi_text, flint_text, decimals)
        ratio = ours / theirs
        print(f"{decimals:>10,} {1000 * ours:>10.3f} {1000 * theirs:>10.3f} {ratio:>6.2f}", flush=True)
    return int(arguments.check and ratio > BAR)


if __name__ == "__main__":
    sys.exit(main())
