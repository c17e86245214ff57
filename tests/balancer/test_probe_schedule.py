"""Active health checks as pure logic: what a row of results means, and when whom to check."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from balancer.balancing.endpoint import Endpoint, EndpointSpec
from balancer.probes import Schedule, Streak


def endpoints(number: int) -> list[Endpoint]:
    return [Endpoint(EndpointSpec("10.0.0.1", port + 1)) for port in range(number)]


# A row of results.


def verdicts(rise: int, fall: int, results: str) -> str:
    """The health after each result: `+` and `-`."""
    streak = Streak(rise, fall)
    said = ""
    for result in results:
        streak.heard(result == "+")
        said += "+" if streak.healthy else "-"
    return said


def test_the_first_check_decides_alone() -> None:
    assert verdicts(2, 3, "-") == "-"
    assert verdicts(2, 3, "+") == "+"


def test_a_healthy_endpoint_falls_after_as_many_failures_in_a_row_as_fall_says() -> None:
    assert verdicts(2, 3, "+--+---") == "++++++-"


def test_an_unhealthy_endpoint_rises_after_as_many_successes_in_a_row_as_rise_says() -> None:
    assert verdicts(2, 3, "-+-++") == "----+"


@given(st.integers(1, 5), st.integers(1, 5), st.text("+-", min_size=1, max_size=60))
def test_health_changes_only_on_a_whole_row_of_results(rise: int, fall: int, results: str) -> None:
    said = verdicts(rise, fall, results)
    for index in range(1, len(results)):
        needed = rise if said[index] == "+" else fall
        whole_row = results[max(0, index - needed + 1) : index + 1] == said[index] * needed
        assert (said[index] != said[index - 1]) <= whole_row


# The schedule.


def test_checks_of_thousands_of_endpoints_are_spread_over_the_interval() -> None:
    schedule = Schedule(interval=5.0, random=Random(1))
    for each in endpoints(5000):
        schedule.add(each, 0.0)
    for _ in range(5):
        per_slice: Counter[int] = Counter()
        base = schedule.soonest() or 0.0
        now = base
        while now < base + 5.0:
            while (endpoint := schedule.due(now)) is not None:
                per_slice[int((now - base) / 0.1)] += 1
                schedule.again(endpoint, now, now)
            now += 0.01
        assert max(per_slice.values()) < 5 * 5000 / 50


def test_an_endpoint_that_joins_a_small_fleet_is_checked_at_once() -> None:
    schedule = Schedule(interval=60.0, random=Random(1))
    for endpoint in endpoints(10):
        schedule.add(endpoint, 100.0)
    checked = 0
    while schedule.due(100.2) is not None:
        checked += 1
    assert checked == 10


def test_the_next_check_follows_one_jittered_interval_after_the_last_began() -> None:
    pauses = []
    [endpoint] = endpoints(1)
    schedule = Schedule(interval=10.0, random=Random(1))
    schedule.add(endpoint, 0.0)
    for _ in range(200):
        begun = schedule.soonest() or 0.0
        assert schedule.due(begun) is endpoint
        schedule.again(endpoint, begun, begun + 1.0)
        pauses.append((schedule.soonest() or 0.0) - begun)
    assert 9.0 <= min(pauses) < 9.2
    assert 10.8 < max(pauses) <= 11.0


def test_an_endpoint_is_never_checked_twice_at_a_time() -> None:
    [endpoint] = endpoints(1)
    schedule = Schedule(interval=1.0, random=Random(1))
    schedule.add(endpoint, 0.0)
    schedule.add(endpoint, 0.0)
    assert schedule.due(1.0) is endpoint
    assert schedule.due(100.0) is None
    schedule.again(endpoint, started=0.0, now=100.0)
    assert schedule.soonest() == 100.0


def test_an_endpoint_that_left_is_checked_no_more() -> None:
    stays, leaves = endpoints(2)
    schedule = Schedule(interval=1.0, random=Random(1))
    schedule.add(stays, 0.0)
    schedule.add(leaves, 0.0)
    schedule.remove(leaves)
    assert schedule.due(10.0) is stays
    assert schedule.due(10.0) is None
    schedule.again(leaves, 0.0, 10.0)
    assert schedule.soonest() is None


def test_an_endpoint_that_leaves_and_returns_is_checked_no_more_often_than_before() -> None:
    [endpoint] = endpoints(1)
    schedule = Schedule(interval=10.0, random=Random(1))
    schedule.add(endpoint, 0.0)
    assert schedule.due(5.0) is endpoint
    for flap in range(4):  # while that check is under way, and after
        schedule.remove(endpoint)
        schedule.add(endpoint, 5.0 + flap)
    schedule.again(endpoint, 5.0, 9.0)
    checks, now = 0, 9.0
    while now < 109.0:
        while (due := schedule.due(now)) is not None:
            checks += 1
            schedule.again(due, now, now)
        now += 0.1
    assert checks <= 11
