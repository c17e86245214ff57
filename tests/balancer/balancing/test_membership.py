"""What is remembered of endpoints that left costs little, however many they are."""

from __future__ import annotations

from balancer.balancing.endpoint import EndpointSpec
from balancer.balancing.membership import REMEMBERED, Changes, Membership


def filled(endpoints: int) -> Membership:
    """A membership that as many endpoints have left, at 0 s the first half and at 10 s the others."""
    membership, changes = Membership(), Changes()
    snapshot = tuple(EndpointSpec(f"10.0.{number >> 8}.{number & 255}", 80) for number in range(endpoints))
    for _ in membership.compare(snapshot, changes):
        pass
    for number, (key, spec) in enumerate(changes.joining):
        endpoint = membership.join(key, spec, 0.0)
        membership.leave(key, endpoint, 0.0 if number < endpoints // 2 else 10.0)
    return membership


def remembered(membership: Membership) -> int:
    return len(membership._gone)


def test_thousands_that_left_are_forgotten_a_few_at_a_time() -> None:
    membership = filled(4000)
    membership.forget(REMEMBERED - 1)
    assert remembered(membership) == 4000
    for _ in range(100):
        before = remembered(membership)
        membership.forget(REMEMBERED + 1)
        assert before - remembered(membership) <= 200, "that many in one go hold up requests"
    assert remembered(membership) == 2000, "the others left later"
