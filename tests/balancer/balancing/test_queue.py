"""The queue is fair, forgets nobody, and is left without a trace."""

from __future__ import annotations

from functools import partial

import pytest
from tests.balancer.balancing.world import REQUEST, Fleet

from balancer.balancing.errors import AllAtLimit, NoEndpoint, QueueFull
from balancer.balancing.outcome import UNUSED, Outcome
from balancer.balancing.pool import Lease
from balancer.balancing.queue import Ticket

OK = Outcome.answered(200)


class Waiters:
    """Clients that wait, each by a letter; `woken` says whose turn came, in order."""

    def __init__(self, fleet: Fleet, names: str) -> None:
        self.fleet = fleet
        self.woken: list[str] = []
        self.tickets = {name: self.join(name) for name in names}

    def join(self, name: str) -> Ticket:
        return self.fleet.pool.wait(lambda: self.woken.append(name), self.fleet.now)

    def come(self, name: str) -> Lease:
        return self.fleet.pool.lease(REQUEST, self.fleet.now, ticket=self.tickets[name])


@pytest.fixture
def full() -> Fleet:
    """One endpoint with one place, taken."""
    return Fleet(names="a", endpoint_max_requests=1, queue_size=3)


def test_first_come_first_served(full: Fleet) -> None:
    lease = full.lease()
    waiters = Waiters(full, "xyz")
    for turn, name in enumerate("xyz"):
        assert waiters.woken == list("xyz"[:turn])
        lease.close(OK, full.now)
        assert waiters.woken == list("xyz"[: turn + 1])
        lease = waiters.come(name)
    assert full.pool.queued == 0


def test_newcomers_do_not_overtake(full: Fleet) -> None:
    lease = full.lease()
    waiters = Waiters(full, "xy")
    lease.close(OK, full.now)
    with pytest.raises(AllAtLimit):  # there is a free place, and it is x's, who is on the way
        full.lease()
    waiters.come("x").close(OK, full.now)
    with pytest.raises(AllAtLimit):  # and this one is y's
        full.lease()
    waiters.come("y").close(OK, full.now)
    full.lease()


def test_newcomers_do_not_overtake_while_the_turns_are_being_called(full: Fleet) -> None:
    full.add("b")
    full.lease()
    full.lease()
    refused: list[bool] = []

    def called() -> None:
        try:
            full.lease()
        except AllAtLimit:
            refused.append(True)

    full.pool.wait(called, full.now)
    full.pool.wait(called, full.now)
    full.add("c", "d")
    assert refused == [True, True]


def test_beyond_the_queues_size_there_is_no_waiting(full: Fleet) -> None:
    full.lease()
    waiters = Waiters(full, "xyz")
    with pytest.raises(QueueFull):
        waiters.join("w")


def test_one_that_leaves_frees_its_place_and_is_never_woken(full: Fleet) -> None:
    lease = full.lease()
    waiters = Waiters(full, "xyz")
    waiters.tickets["x"].leave()
    waiters.tickets["x"].leave()
    assert full.pool.queued == 2
    waiters.join("w")
    lease.close(OK, full.now)
    assert waiters.woken == ["y"]


def test_a_wake_up_that_is_not_used_goes_to_the_next(full: Fleet) -> None:
    lease = full.lease()
    waiters = Waiters(full, "xy")
    lease.close(OK, full.now)
    waiters.tickets["x"].leave()
    assert waiters.woken == ["x", "y"]
    waiters.come("y")


def test_a_wake_up_that_comes_to_nothing_goes_to_the_next(full: Fleet) -> None:
    full.add("b")
    leases = [full.lease(), full.lease()]
    waiters = Waiters(full, "xyz")
    leases[0].close(OK, full.now)
    assert waiters.woken == ["x"]
    with pytest.raises(AllAtLimit):  # x has tried a, the one that is free
        full.pool.lease(REQUEST, full.now, [full["a"]], ticket=waiters.tickets["x"])
    assert waiters.woken == ["x", "y"]


def test_a_ticket_serves_once(full: Fleet) -> None:
    lease = full.lease()
    waiters = Waiters(full, "xy")
    lease.close(OK, full.now)
    waiters.come("x").close(OK, full.now)
    with pytest.raises(AllAtLimit):  # that place is y's
        waiters.come("x")
    waiters.come("y")


@pytest.mark.parametrize("relief", ["join", "tick", "release"])
def test_whatever_makes_room_wakes(full: Fleet, relief: str) -> None:
    full.add("b")
    full.pool.hold(full["b"], relief == "release", full.now)
    if relief == "tick":
        full.end("b", Outcome.answered(503, 2.0))
    full.lease("b")
    if relief == "join":
        full.lease("a")
    waiters = Waiters(full, "x")
    assert waiters.woken == []
    if relief == "join":
        full.add("c")
    elif relief == "tick":
        full.wait(2.0)
    else:
        full.pool.hold(full["b"], False, full.now)
    assert waiters.woken == ["x"]


def test_those_who_wait_learn_at_once_that_nobody_is_left(full: Fleet) -> None:
    full.lease()
    waiters = Waiters(full, "xyz")
    full.remove("a")
    assert waiters.woken == ["x", "y", "z"]
    for name in "xyz":
        with pytest.raises(NoEndpoint):
            waiters.come(name)
    assert full.pool.queued == 0


def test_one_that_is_woken_may_lease_close_and_wait_again_at_once(full: Fleet) -> None:
    """As the proxy does: everything in the wake-up itself, for hundreds in a row, without recursion."""
    full = Fleet(names="a", endpoint_max_requests=1, queue_size=2000)
    lease = full.lease()
    served: list[int] = []
    tickets: list[Ticket] = []

    def come(number: int) -> None:
        full.pool.lease(REQUEST, full.now, ticket=tickets[number]).close(UNUSED, full.now)
        served.append(number)

    tickets += [full.pool.wait(partial(come, number), full.now) for number in range(2000)]
    lease.close(OK, full.now)
    assert served == list(range(2000))
    assert full["a"].in_flight == 0
