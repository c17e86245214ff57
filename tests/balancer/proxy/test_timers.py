"""The wheel that keeps the deadlines: on time, and with nothing left of those that were dropped."""

from __future__ import annotations

import gc

import pytest

from balancer.proxy.timers import TICK, Timed, TimerWheel


class Waiting(Timed):
    """Notes when it expired."""

    def __init__(self) -> None:
        super().__init__()
        self.expired_at: list[float] = []

    def expired(self, now: float) -> None:
        self.expired_at.append(now)


def pass_time(wheel: TimerWheel, begin: float, end: float) -> None:
    """Tell the time in steps of a tenth of a tick."""
    for step in range(int((end - begin) / TICK * 10) + 1):
        wheel.advance(begin + step * TICK / 10)


@pytest.mark.parametrize("deadline", [0.05, 0.1, 1.0, 1.234, 7.99])
def test_a_deadline_is_met_never_early_and_hardly_late(deadline: float) -> None:
    wheel, waiting = TimerWheel(0.0), Waiting()
    wheel.arm(waiting, deadline)
    pass_time(wheel, 0.0, 10.0)
    [at] = waiting.expired_at
    assert deadline <= at <= deadline + TICK + 0.011


@pytest.mark.parametrize(("first", "then"), [(1.0, 3.0), (3.0, 1.0), (1.0, 1.05)])
def test_a_deadline_may_be_moved(first: float, then: float) -> None:
    wheel, waiting = TimerWheel(0.0), Waiting()
    wheel.arm(waiting, first)
    wheel.arm(waiting, then)
    pass_time(wheel, 0.0, 5.0)
    [at] = waiting.expired_at
    assert then <= at <= then + TICK + 0.011


def test_a_dropped_deadline_is_met_no_more() -> None:
    wheel, dropped, other = TimerWheel(0.0), Waiting(), Waiting()
    wheel.arm(dropped, 1.0)
    wheel.arm(other, 1.0)
    wheel.forget(dropped)
    pass_time(wheel, 0.0, 2.0)
    assert (len(dropped.expired_at), len(other.expired_at)) == (0, 1)


@pytest.mark.parametrize("moved", [False, True])
def test_nothing_is_kept_of_deadlines_that_were_dropped_or_moved(moved: bool) -> None:
    """A tunnel waits for an hour: what a wheel kept of each that was closed before would add up for an hour."""
    wheel, stays = TimerWheel(0.0), Waiting()

    def slots() -> int:
        return sum(type(each) is set for each in gc.get_objects())

    before = slots()
    for number in range(1000):
        waiting = stays if moved else Waiting()
        wheel.arm(waiting, 3600.0 - number)
        if not moved:
            wheel.forget(waiting)
    assert slots() - before < 10
