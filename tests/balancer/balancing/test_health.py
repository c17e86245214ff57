"""The table of transitions: every change undoes its opposite and touches nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as draw
from tests.balancer.balancing.world import Fleet

from balancer.balancing.health import TRANSITIONS, Change, Health, Status
from balancer.balancing.outcome import Outcome

OPPOSITES = [
    (Change.PROBES_FAIL, Change.PROBES_PASS, Status.FAILING_PROBES),
    (Change.EJECT, Change.READMIT, Status.EJECTED),
    (Change.BACK_OFF, Change.RESUME, Status.BACKING_OFF),
    (Change.DRAIN, Change.UNDRAIN, Status.DRAINED),
]


def test_the_table_has_a_rule_for_every_change() -> None:
    assert set(TRANSITIONS) == set(Change)


@pytest.mark.parametrize(("begins", "ends", "flag"), OPPOSITES)
def test_a_change_sets_its_own_status_and_its_opposite_clears_it(begins: Change, ends: Change, flag: Status) -> None:
    health = Health()
    health.apply(begins, 7.0)
    assert health.status == flag
    assert health.healthy == (flag == Status.DRAINED)
    health.apply(ends)
    assert health.status == Status.HEALTHY
    assert health.healthy
    assert health.ejected_until == health.backoff_until == 0.0


@given(draw.lists(draw.sampled_from(list(Change)), max_size=30))
def test_each_status_is_what_its_own_last_change_made_it(changes: list[Change]) -> None:
    health = Health()
    for change in changes:
        health.apply(change, 7.0 if change in {Change.EJECT, Change.BACK_OFF} else 0.0)
    for begins, ends, flag in OPPOSITES:
        own = [change for change in changes if change in {begins, ends}]
        assert (flag in health.status) == (own[-1:] == [begins])
    assert health.ejected == (health.ejected_until > 0.0)
    assert (Status.BACKING_OFF in health.status) == (health.backoff_until > 0.0)
    assert health.healthy == (health.status in {Status.HEALTHY, Status.DRAINED})


def test_an_endpoint_that_is_ejected_while_none_is_healthy_leaves_the_rotation_at_once() -> None:
    fleet = Fleet(names="a b", panic_share=0.0, eject_max_share=1.0, eject_after=2)
    for name in ("a", "b"):
        fleet.end(name, Outcome.answered(503, 30.0))
    assert fleet.ineligible_reason("a") is None  # none is healthy: those that are saturated are used
    fleet.end("a", Outcome.answered(500), times=2)
    assert fleet.ineligible_reason("a") == "ejected for 10 s more"
