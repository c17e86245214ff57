"""The queue is fair, forgets nobody, and is left without a trace."""

from __future__ import annotations

import pytest
from tests.balancer.balancing.world import REQUEST, Fleet

from balancer.balancing.errors import AllAtLimit, AllEjected, NoEndpoint, QueueFull
from balancer.balancing.outcome import RESET, UNUSED, Outcome
from balancer.balancing.pool import Lease
from balancer.balancing.queue import Ticket

OK = Outcome.answered(200)


class Waiters:
    """Clients that wait, each by a letter; `served` and `refused` say whose turn came, in order."""

    def __init__(self, fleet: Fleet, names: str, *tried: str) -> None:
        self.fleet = fleet
        self.served: list[str] = []
        self.refused: list[tuple[str, type[NoEndpoint]]] = []
        self.leases: dict[str, Lease] = {}
        self.tickets = {name: self.join(name, *tried) for name in names}

    def join(self, name: str, *tried: str) -> Ticket:
        def granted(lease: Lease, _now: float) -> None:
            self.served.append(name)
            self.leases[name] = lease

        def refused(error: NoEndpoint, _now: float) -> None:
            self.refused.append((name, type(error)))

        return self.fleet.pool.wait(REQUEST, [self.fleet[other] for other in tried], False, granted, refused)


@pytest.fixture
def full() -> Fleet:
    """One endpoint with one place, taken."""
    return Fleet(names="a", endpoint_max_requests=1, queue_size=3)


def test_first_come_first_served(full: Fleet) -> None:
    lease = full.lease()
    waiters = Waiters(full, "xyz")
    for turn, name in enumerate("xyz"):
        assert waiters.served == list("xyz"[:turn])
        lease.close(OK, full.now)
        assert waiters.served == list("xyz"[: turn + 1])
        lease = waiters.leases[name]
    assert full.pool.queued == 0


def test_newcomers_do_not_overtake(full: Fleet) -> None:
    lease = full.lease()
    waiters = Waiters(full, "x")
    lease.close(OK, full.now)
    with pytest.raises(AllAtLimit):  # x has it
        full.lease()
    waiters.leases["x"].close(OK, full.now)
    full.lease()


def test_newcomers_do_not_overtake_while_others_are_being_served(full: Fleet) -> None:
    full.add("b")
    full.lease()
    full.lease()
    refused: list[bool] = []

    def granted(_lease: Lease, _now: float) -> None:
        try:
            full.lease()
        except AllAtLimit:
            refused.append(True)

    def never(_error: NoEndpoint, _now: float) -> None:
        raise AssertionError

    full.pool.wait(REQUEST, (), False, granted, never)
    full.pool.wait(REQUEST, (), False, granted, never)
    full.pool.wait(REQUEST, (), False, granted, never)
    full.add("c", "d")
    assert refused == [True, True]


def test_beyond_the_queues_size_there_is_no_waiting(full: Fleet) -> None:
    full.lease()
    waiters = Waiters(full, "xyz")
    with pytest.raises(QueueFull):
        waiters.join("w")


def test_one_that_leaves_frees_its_place_and_is_never_served(full: Fleet) -> None:
    lease = full.lease()
    waiters = Waiters(full, "xyz")
    waiters.tickets["x"].leave()
    waiters.tickets["x"].leave()
    assert full.pool.queued == 2
    waiters.join("w")
    lease.close(OK, full.now)
    assert waiters.served == ["y"]


def test_leaving_after_ones_turn_does_nothing(full: Fleet) -> None:
    lease = full.lease()
    waiters = Waiters(full, "xy")
    lease.close(OK, full.now)
    waiters.tickets["x"].leave()
    assert (waiters.served, full.pool.queued) == (["x"], 1)


def test_one_that_has_tried_what_is_free_keeps_its_place_and_lets_others_pass(full: Fleet) -> None:
    full.add("b")
    leases = {lease.endpoint.spec.host: lease for lease in (full.lease(), full.lease())}
    waiters = Waiters(full, "x", "a")
    waiters.join("y")
    waiters.join("z")
    leases["a"].close(OK, full.now)
    assert waiters.served == ["y"]
    leases["b"].close(OK, full.now)
    assert waiters.served == ["y", "x"]


def test_a_newcomer_may_have_what_those_who_wait_have_tried(full: Fleet) -> None:
    full.add("b")
    leases = {lease.endpoint.spec.host: lease for lease in (full.lease(), full.lease())}
    Waiters(full, "x", "a")
    leases["a"].close(OK, full.now)
    assert full.lease().endpoint is full["a"]


def test_one_that_has_tried_all_there_is_gets_the_same_again(full: Fleet) -> None:
    lease = full.lease()
    waiters = Waiters(full, "x", "a")
    lease.close(OK, full.now)
    assert waiters.leases["x"].endpoint is full["a"]


@pytest.mark.parametrize("relief", ["join", "tick", "release"])
def test_whatever_makes_room_serves(full: Fleet, relief: str) -> None:
    full.add("b")
    full.pool.drain(full["b"], relief == "release", full.now)
    if relief == "tick":
        full.end("b", Outcome.answered(503, 2.0))
    full.lease("b")
    if relief == "join":
        full.lease("a")
    waiters = Waiters(full, "x")
    assert waiters.served == []
    if relief == "join":
        full.add("c")
    elif relief == "tick":
        full.wait(2.0)
    else:
        full.pool.drain(full["b"], False, full.now)
    assert waiters.served == ["x"]


def test_those_who_wait_learn_at_once_that_nobody_is_left(full: Fleet) -> None:
    full.lease()
    waiters = Waiters(full, "xyz")
    full.remove("a")
    assert waiters.refused == [("x", NoEndpoint), ("y", NoEndpoint), ("z", NoEndpoint)]
    assert full.pool.queued == 0


def test_they_learn_why(full: Fleet) -> None:
    full.lease()
    waiters = Waiters(full, "x")
    full.pool.drain(full["a"], True, full.now)
    assert waiters.refused == [("x", AllEjected)]


def test_one_that_is_served_may_close_and_wait_again_at_once(full: Fleet) -> None:
    """As the proxy does: everything while it is being served, for hundreds in a row, without recursion."""
    full = Fleet(names="a", endpoint_max_requests=1, queue_size=2000)
    lease = full.lease()
    served: list[int] = []

    def wait(number: int) -> None:
        def granted(lease: Lease, now: float) -> None:
            served.append(number)
            lease.close(UNUSED, now)

        def refused(_error: NoEndpoint, _now: float) -> None:
            raise AssertionError

        full.pool.wait(REQUEST, (), False, granted, refused)

    for number in range(2000):
        wait(number)
    lease.close(OK, full.now)
    assert served == list(range(2000))
    assert full["a"].in_flight == 0


def test_one_that_fails_while_all_others_are_full_waits_and_hangs_nothing(full: Fleet) -> None:
    """A request fails at a, is to go elsewhere, and b is full: the very thing that once took the process down."""
    full.add("b")
    leases = {lease.endpoint.spec.host: lease for lease in (full.lease(), full.lease())}
    waiters = Waiters(full, "")
    failures: list[str] = []

    def fails(lease: Lease, now: float) -> None:
        failures.append(lease.endpoint.spec.host)
        lease.close(RESET, now)
        waiters.tickets["x"] = waiters.join("x", "a")

    full.pool.wait(REQUEST, (), False, fails, lambda _error, _now: None)
    leases["a"].close(OK, full.now)
    assert (failures, waiters.served, full.pool.queued) == (["a"], [], 1)
    leases["b"].close(OK, full.now)
    assert waiters.served == ["x"]
