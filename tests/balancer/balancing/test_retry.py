"""A retry is safe or it is not made, and an outage is not multiplied."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as draw

from balancer.balancing.outcome import Kind
from balancer.balancing.retry import FADES, IDEMPOTENT, Retry, RetryBudget, may_retry

NO, FRESH, ELSEWHERE = Retry.NO, Retry.FRESH, Retry.ELSEWHERE

TABLE = [
    # how it ended, idempotent: new connection, reused; not idempotent: new connection, reused
    (Kind.REFUSED, 0, ELSEWHERE, ELSEWHERE, ELSEWHERE, ELSEWHERE),
    (Kind.CONNECT_TIMEOUT, 0, ELSEWHERE, ELSEWHERE, ELSEWHERE, ELSEWHERE),
    (Kind.CERTIFICATE, 0, ELSEWHERE, ELSEWHERE, ELSEWHERE, ELSEWHERE),
    (Kind.HANDSHAKE, 0, ELSEWHERE, ELSEWHERE, ELSEWHERE, ELSEWHERE),
    (Kind.LOCAL, 0, ELSEWHERE, ELSEWHERE, ELSEWHERE, ELSEWHERE),
    (Kind.STALLED, 0, NO, NO, NO, NO),
    (Kind.CLIENT_SLOW, 0, NO, NO, NO, NO),
    (Kind.RESET, 0, ELSEWHERE, FRESH, NO, NO),
    (Kind.UNUSED, 0, NO, FRESH, NO, NO),
    (Kind.TIMED_OUT, 0, ELSEWHERE, ELSEWHERE, NO, NO),
    (Kind.ANSWERED, 503, ELSEWHERE, ELSEWHERE, NO, NO),
    (Kind.ANSWERED, 502, NO, NO, NO, NO),
    (Kind.ANSWERED, 200, NO, NO, NO, NO),
    (Kind.BAD_RESPONSE, 0, NO, NO, NO, NO),
    (Kind.NOT_TAKEN, 0, NO, NO, NO, NO),
    (Kind.CLIENT_LEFT, 0, NO, NO, NO, NO),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0].value} {row[1] or ''}")
def test_the_table_of_retries(row: tuple[Kind, int, Retry, Retry, Retry, Retry]) -> None:
    kind, status, *expected = row
    got = [may_retry(kind, status, safe, reused, {503}) for safe in (True, False) for reused in (False, True)]
    assert got == expected


def test_the_table_is_complete() -> None:
    assert {row[0] for row in TABLE} == set(Kind)


def test_post_and_patch_are_not_idempotent() -> None:
    assert IDEMPOTENT.isdisjoint({"POST", "PATCH", "CONNECT"})
    assert {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"} == IDEMPOTENT


def test_ten_a_second_are_free() -> None:
    budget = RetryBudget(0.2)
    assert [budget.take(100.0) for _ in range(11)] == [True] * 10 + [False]
    assert not budget.take(100.05)
    assert [budget.take(100.5) for _ in range(6)] == [True] * 5 + [False]
    assert budget.left(1000.0) == pytest.approx(10.0)


def test_a_share_of_the_traffic_is_added() -> None:
    budget = RetryBudget(0.2, per_second=0.0)
    assert not budget.take(0.0)
    for _ in range(100):
        budget.earn(0.0)
    assert budget.left(0.0) == pytest.approx(20.0)
    assert sum(budget.take(0.0) for _ in range(50)) == 20


def test_what_requests_earned_fades() -> None:
    budget = RetryBudget(1.0, per_second=0.0)
    for _ in range(1000):
        budget.earn(0.0)
    assert budget.left(FADES) == pytest.approx(1000 / 2.718281828)
    assert budget.left(60.0) < 1


@given(draw.floats(0.0, 1.0), draw.integers(1, 500), draw.integers(1, 10))
def test_an_outage_is_not_multiplied(share: float, rate: int, seconds: int) -> None:
    """Every request fails, and every one that may is retried."""
    budget = RetryBudget(share)
    retries = 0
    for number in range(rate * seconds):
        now = number / rate
        budget.earn(now)
        retries += budget.take(now)
    assert retries <= share * rate * seconds + 10 * seconds + 10 + 1
