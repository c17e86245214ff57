from __future__ import annotations

import subprocess
import sys
import time

from hypothesis import given
from hypothesis import strategies as st

from pi.digits import pi_text

MOST = 3000


def _reference(decimals: int) -> str:
    """Machin's formula, pi/4 = 4 arctan(1/5) - arctan(1/239), in Python's integers with 20 guard digits."""
    one = 10 ** (decimals + 20)

    def arctan_of_inverse(x: int) -> int:
        total, power, divisor = 0, one // x, 1
        while power:
            total += power // divisor if divisor % 4 == 1 else -(power // divisor)
            power //= x * x
            divisor += 2
        return total

    text = str(4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239)))
    return f"{text[0]}.{text[1 : 1 + decimals]}"


REFERENCE = _reference(MOST)


@given(st.integers(1, MOST))
def test_digits_are_those_of_another_formula_truncated(decimals: int) -> None:
    assert pi_text(decimals) == REFERENCE[: 2 + decimals]


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_fewer_decimals_are_the_beginning_of_more(some: int, others: int) -> None:
    fewer, more = sorted((some, others))
    assert pi_text(more).startswith(pi_text(fewer))
    assert len(pi_text(more)) == 2 + more


def test_no_decimals_are_three_alone() -> None:
    assert pi_text(0) == "3"


def test_nothing_is_rounded_where_six_nines_follow() -> None:
    assert pi_text(761).endswith("134")
    assert pi_text(762).endswith("1349")
    assert pi_text(767).endswith("134999999")
    assert pi_text(768).endswith("1349999998")


def test_the_millionth_decimals_are_known() -> None:
    assert pi_text(1_000_000).endswith("5779458151")


def test_pythons_limit_on_integers_as_text_does_not_apply() -> None:
    program = "from pi.digits import pi_text; print(len(pi_text(10_000)))"
    command = [sys.executable, "-X", "int_max_str_digits=640", "-c", program]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "10002\n"


def test_each_computation_costs_as_much_as_the_first() -> None:
    def cost() -> float:
        before = time.process_time()
        pi_text(200_000)
        return time.process_time() - before

    first = cost()
    assert max(cost() for _ in range(3)) > first / 2
