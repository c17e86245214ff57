"""Who may be chosen: ejection, saturation, health, panic, draining and zones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as draw
from tests.balancer.balancing.world import REQUEST, Fleet

from balancer.balancing import ejection, outcome
from balancer.balancing.endpoint import Endpoint, EndpointSpec
from balancer.balancing.errors import AllEjected
from balancer.balancing.health import Health
from balancer.balancing.outcome import Kind, Outcome

OK = Outcome.answered(200)
BAD = Outcome.answered(500)


def saturated(seconds: float) -> Outcome:
    return Outcome.answered(503, seconds)


class TestConsecutiveFailures:
    @pytest.mark.parametrize(
        "failure",
        [BAD, Outcome.answered(503), *(Outcome(kind) for kind in outcome.FAILURES)],
        ids=lambda end: end.kind.value if end.kind is not Kind.ANSWERED else str(end.status),
    )
    def test_eject(self, failure: Outcome) -> None:
        fleet = Fleet(names="a b c")
        spared = outcome.MALFORMED_IN_ROW - 1 if failure.is_malformed else 0
        fleet.end("a", failure, times=4 + spared)
        assert fleet.ineligible_reason("a") is None
        fleet.end("a", failure)
        assert fleet.ineligible_reason("a") == "ejected for 10 s more"
        assert fleet.share() == {"b": 0.5, "c": 0.5}
        assert fleet.events[-1] == ("a", "ejected")

    @pytest.mark.parametrize(
        "harmless",
        [OK, Outcome.answered(400), Outcome.answered(404), saturated(1), outcome.CLIENT_LEFT, outcome.UNUSED],
        ids=lambda end: f"{end.kind.value} {end.status}",
    )
    def test_are_not_what_clients_or_load_have_caused(self, harmless: Outcome) -> None:
        fleet = Fleet(names="a b c")
        fleet.end("a", harmless, times=1)
        fleet.wait(2)
        fleet.end("a", harmless, times=20) if harmless.retry_after is None else None
        assert fleet.ineligible_reason("a") is None
        assert fleet["a"].health.ejections == 0

    def test_are_forgotten_at_the_first_success(self) -> None:
        fleet = Fleet(names="a b")
        for _ in range(10):
            fleet.end("a", BAD, times=4)
            fleet.end("a", OK)
        assert fleet["a"].health.ejections == 0

    def test_are_not_forgotten_for_a_client_that_left(self) -> None:
        fleet = Fleet(names="a b")
        fleet.end("a", BAD, times=4)
        fleet.end("a", outcome.CLIENT_LEFT)
        fleet.end("a", BAD)
        assert fleet["a"].health.ejections == 1

    def test_of_requests_that_were_open_already_do_not_prolong_an_ejection(self) -> None:
        fleet = Fleet(names="a b")
        leases = [fleet.lease("b") for _ in range(20)]
        for lease in leases:
            lease.close(BAD, fleet.now)
        assert fleet["a"].health.ejections == 1
        assert fleet.ineligible_reason("a") == "ejected for 10 s more"

    def test_never_eject_an_endpoint_alone(self) -> None:
        fleet = Fleet(names="a", eject_max_share=1.0)
        fleet.end("a", BAD, times=50)
        assert fleet["a"].health.ejections == 0
        assert fleet.ineligible_reason("a") is None

    def test_can_be_switched_off(self) -> None:
        fleet = Fleet(names="a b", eject_after=0)
        fleet.end("a", BAD, times=500)
        fleet.wait(30)
        assert fleet["a"].health.ejections == 0

    def test_switched_off_are_no_matter_of_other_replicas_either(self) -> None:
        fleet = Fleet(names="a b", eject_after=0)
        fleet.pool.outvoted(fleet["a"], fleet.now)
        assert not fleet["a"].health.ejected

    @given(draw.integers(2, 12), draw.floats(0.0, 1.0))
    def test_eject_no_larger_a_share_than_allowed(self, size: int, share: float) -> None:
        fleet = Fleet(names=" ".join(f"e{i}" for i in range(size)), eject_max_share=share, panic_share=0.0)
        for name in fleet.specs:
            for _ in range(5):
                others = [endpoint for endpoint in fleet.pool.endpoints if endpoint is not fleet[name]]
                fleet.pool.lease(REQUEST, fleet.now, others).close(BAD, fleet.now)
        ejected = sum(endpoint.health.ejected for endpoint in fleet.pool.endpoints)
        assert ejected == int(share * size)


class TestAnEjection:
    def test_ends_and_leaves_the_endpoint_on_probation(self) -> None:
        fleet = Fleet(names="a b")
        fleet.end("a", BAD, times=5)
        fleet.wait(9.9)
        assert fleet.ineligible_reason("a") is not None
        fleet.wait(0.1)
        assert fleet.ineligible_reason("a") is None
        assert fleet.events[-1] == ("a", "returned")
        fleet.end("a", BAD)
        assert fleet.ineligible_reason("a") == "ejected for 20 s more"

    def test_is_probation_no_more_after_a_success(self) -> None:
        fleet = Fleet(names="a b")
        fleet.end("a", BAD, times=5)
        fleet.wait(10)
        fleet.end("a", OK)
        fleet.end("a", BAD, times=4)
        assert fleet.ineligible_reason("a") is None

    def test_grows_with_repetition_and_decays_with_time(self) -> None:
        health = Health()
        now = 0.0
        seconds = []
        for _ in range(4):
            seconds.append(ejection.begin(health, 10.0, now))
            now += seconds[-1]
            ejection.end(health, 5, now)
        assert seconds == [10, 20, 30, 40]
        assert ejection.begin(health, 10.0, now + 25) == 30  # four, less two for 25 s of good behaviour, and one more
        ejection.end(health, 5, now + 55)
        assert ejection.begin(health, 10.0, now + 1000) == 10
        assert health.ejections == 6

    def test_lasts_five_minutes_at_most(self) -> None:
        health = Health()
        for _ in range(100):
            longest = ejection.begin(health, 10.0, 0.0)
        assert longest == 300


class TestSuccessRate:
    def rates(self, *rates: float, requests: int = 200) -> list[str]:
        endpoints = []
        for number, rate in enumerate(rates):
            endpoint = Endpoint(EndpointSpec(f"e{number}", 80))
            endpoint.health.recent = requests
            endpoint.health.recent_failures = round(requests * (1 - rate))
            endpoints.append(endpoint)
        return [endpoint.spec.host for endpoint in ejection.low_success(endpoints)]

    def test_ejects_one_that_fails_now_and_then_but_never_in_a_row(self) -> None:
        fleet = Fleet(names="a b c d e")
        fleet.wait(0.1)
        for _ in range(120):
            for name in "abcde":
                fleet.end(name, OK)
            fleet.end("a", BAD)
        assert fleet["a"].health.ejections == 0
        fleet.wait(10)
        assert fleet.ineligible_reason("a") == "ejected for 10 s more"
        assert [fleet[name].health.ejections for name in "bcde"] == [0, 0, 0, 0]

    def test_compares_with_the_fleet(self) -> None:
        assert self.rates(0.5, 1, 1, 1, 1) == ["e0"]
        assert self.rates(0.5, 0.5, 0.5, 0.5, 0.5) == []

    def test_spares_a_fleet_that_is_nearly_without_fault(self) -> None:
        assert self.rates(0.98, 1, 1, 1, 1, 1, 1, 1, 1, 1) == []

    def test_judges_nobody_by_few_requests_nor_few_endpoints(self) -> None:
        assert self.rates(0.0, 1, 1, 1, 1, requests=99) == []
        assert self.rates(0.0, 1, 1, 1) == []


class TestTheShareOfEjection:
    def test_counts_neither_the_draining_nor_those_drained_by_hand(self) -> None:
        fleet = Fleet(names="a b c d e f")
        for name in "ab":
            fleet.end(name, BAD, times=5)
        fleet.add("a", "b", draining=True)
        fleet.end("c", BAD, times=5)
        fleet.end("d", BAD, times=5)
        assert fleet.events.count(("c", "ejected")) + fleet.events.count(("d", "ejected")) == 2
        fleet.end("e", BAD, times=5)
        assert ("e", "ejected") not in fleet.events, "half of the four that are ready are out"


class TestSaturation:
    def test_leaves_an_endpoint_alone_for_as_long_as_it_asked(self) -> None:
        fleet = Fleet(names="a b")
        fleet.end("a", saturated(3))
        assert fleet.ineligible_reason("a") == "asked us to back off for 3 s more"
        assert fleet.share() == {"b": 1.0}
        assert fleet["a"].health.failures_in_row == 0
        fleet.wait(3)
        assert fleet.share() == {"a": 0.5, "b": 0.5}

    def test_is_not_429_which_is_meant_for_one_client(self) -> None:
        fleet = Fleet(names="a b")
        fleet.end("a", Outcome.answered(429, 3))
        assert fleet.share() == {"a": 0.5, "b": 0.5}
        assert fleet["a"].health.failures_in_row == 0

    def test_with_retry_after_0_is_a_failure(self) -> None:
        fleet = Fleet(names="a b")
        fleet.end("a", saturated(0), times=5)
        assert fleet.ineligible_reason("a") == "ejected for 10 s more"

    def test_leaves_no_more_alone_than_the_largest_share(self) -> None:
        fleet = Fleet(names="a b c d")
        for name in "abcd":
            fleet.end(name, saturated(3))
        assert fleet.events.count(("a", "backoff")) == 1
        assert fleet.share() == {"c": 0.5, "d": 0.5}

    def test_and_ejection_share_one_bound(self) -> None:
        fleet = Fleet(names="a b c d")
        fleet.end("a", BAD, times=5)
        fleet.end("b", saturated(3))
        fleet.end("c", saturated(3))
        assert fleet.share() == {"c": 0.5, "d": 0.5}

    def test_ends_when_a_later_request_is_answered_well(self) -> None:
        fleet = Fleet(names="a b")
        early = fleet.lease("b")
        fleet.wait(0.1)
        fleet.end("a", saturated(30))
        fleet.wait(0.1)
        early.close(Outcome.answered(200), fleet.now)
        assert fleet.ineligible_reason("a") is not None, "that request was there before it was full"
        fleet.pool.drain(fleet["b"], True, fleet.now)
        fleet.end("a", Outcome.answered(200))
        fleet.pool.drain(fleet["b"], False, fleet.now)
        assert fleet.share() == {"a": 0.5, "b": 0.5}

    @pytest.mark.parametrize("status", [429, 501, 505, 508, 510])
    def test_an_answer_that_speaks_of_the_request_is_neither_failure_nor_success(self, status: int) -> None:
        fleet = Fleet(names="a b")
        fleet.measure(a=0.2)
        fleet.end("a", BAD, times=4)
        average = fleet["a"].latency.average(fleet.now)
        lease = fleet.lease("b")
        lease.sent(fleet.now)
        lease.first_byte(fleet.now)
        lease.close(Outcome.answered(status), fleet.now)
        assert fleet["a"].health.failures_in_row == 4
        assert fleet["a"].latency.average(fleet.now) == average

    @pytest.mark.parametrize("kind", [Kind.LOCAL, Kind.CLIENT_SLOW, Kind.CLIENT_LEFT, Kind.STALLED, Kind.UNUSED])
    def test_what_is_not_the_endpoints_fault_is_not_charged(self, kind: Kind) -> None:
        fleet = Fleet(names="a b")
        fleet.end("a", Outcome.failed(kind), times=20)
        assert fleet.share() == {"a": 0.5, "b": 0.5}

    def test_lasts_thirty_seconds_at_most(self) -> None:
        fleet = Fleet(names="a b")
        fleet.end("a", saturated(3600))
        fleet.wait(30)
        assert fleet.ineligible_reason("a") is None

    def test_leaves_the_average_untouched(self) -> None:
        fleet = Fleet("least-response-time", names="a b")
        fleet.measure(a=0.2, b=0.2)
        lease = fleet.lease("b")
        lease.sent(fleet.now)
        fleet.now += 0.001
        expected = fleet["a"].latency.average(fleet.now)
        lease.first_byte(fleet.now)
        lease.close(saturated(1), fleet.now)
        assert fleet["a"].latency.average(fleet.now) == pytest.approx(expected)

    def test_of_one_never_measured_leaves_it_so(self) -> None:
        fleet = Fleet("least-response-time", names="a b")
        lease = fleet.lease("b")
        lease.sent(fleet.now)
        lease.first_byte(fleet.now)
        lease.close(saturated(1), fleet.now)
        assert fleet["a"].latency.average(fleet.now) is None

    def test_of_all_means_that_all_are_used(self) -> None:
        for panic_share in (0.3, 0.0):
            fleet = Fleet(names="a b", panic_share=panic_share, eject_max_share=1.0)
            fleet.end("a", saturated(5))
            fleet.end("b", saturated(5))
            assert fleet.chosen(4, saturated(5)) == ["a", "b"] * 2


class TestPanic:
    def test_uses_all_when_few_are_good_and_says_so(self) -> None:
        fleet = Fleet(names="a b c d e")
        for name in "abc":
            fleet.pool.set_health(fleet[name], False, fleet.now)
        assert fleet.share() == {"d": 0.5, "e": 0.5}
        fleet.pool.set_health(fleet["d"], False, fleet.now)
        assert fleet.pool.in_panic
        assert fleet.pool.panics == 1
        assert fleet.share() == dict.fromkeys("abcde", 0.2)
        fleet.pool.set_health(fleet["a"], True, fleet.now)
        assert fleet.share() == {"a": 0.5, "e": 0.5}
        assert [event for name, event in fleet.events if name == "pool"] == ["panic", "calm"]

    def test_of_nobody_good_uses_all(self) -> None:
        fleet = Fleet(names="a b")
        for name in "ab":
            fleet.pool.set_health(fleet[name], False, fleet.now)
        assert fleet.share() == {"a": 0.5, "b": 0.5}

    def test_is_off_with_a_share_of_zero(self) -> None:
        fleet = Fleet(names="a b", panic_share=0.0)
        for name in "ab":
            fleet.pool.set_health(fleet[name], False, fleet.now)
        with pytest.raises(AllEjected):
            fleet.lease()

    def test_never_uses_one_that_is_drained_by_hand(self) -> None:
        fleet = Fleet(names="a b c")
        fleet.pool.drain(fleet["a"], True, fleet.now)
        for name in "bc":
            fleet.pool.set_health(fleet[name], False, fleet.now)
        assert fleet.share() == {"b": 0.5, "c": 0.5}


class TestDraining:
    def test_is_used_only_when_nobody_better_is_left(self) -> None:
        fleet = Fleet(names="a b")
        fleet.add("b", draining=True)
        assert fleet.ineligible_reason("b") == "draining"
        assert fleet.share() == {"a": 1.0}
        fleet.add("a", draining=True)
        assert fleet.share() == {"a": 0.5, "b": 0.5}
        fleet.add("c")
        assert fleet.share() == {"c": 1.0}

    def test_serves_beside_those_of_whom_none_is_good(self) -> None:
        fleet = Fleet(names="a b")
        fleet.add("b", draining=True)
        fleet.pool.set_health(fleet["a"], False, fleet.now)
        assert fleet.share() == {"a": 0.5, "b": 0.5}

    def test_is_used_even_if_it_fails_when_nothing_else_is_there(self) -> None:
        fleet = Fleet()
        fleet.add("a", draining=True)
        fleet.pool.set_health(fleet["a"], False, fleet.now)
        assert fleet.share() == {"a": 1.0}


class TestZone:
    @pytest.fixture
    def fleet(self) -> Fleet:
        fleet = Fleet(prefer_zone="here", endpoint_max_requests=10)
        fleet.add("a", "b", "c", "d", zone="here")
        fleet.add("x", "y", zone="there")
        return fleet

    def test_is_kept_to_while_enough_of_it_is_good(self, fleet: Fleet) -> None:
        assert fleet.share() == dict.fromkeys("abcd", 0.25)
        assert fleet.ineligible_reason("x") == "not in zone here"
        fleet.pool.set_health(fleet["a"], False, fleet.now)
        assert fleet.share(99) == pytest.approx(dict.fromkeys("bcd", 1 / 3))

    def test_is_left_when_too_few_are_good_and_used_again_after(self, fleet: Fleet) -> None:
        for name in "ab":
            fleet.pool.set_health(fleet[name], False, fleet.now)
        assert fleet.share() == dict.fromkeys("cdxy", 0.25)
        fleet.pool.set_health(fleet["a"], True, fleet.now)
        assert fleet.share(99) == pytest.approx(dict.fromkeys("acd", 1 / 3))
        assert [e for name, e in fleet.events if name == "pool"] == ["zone_back", "zone_left", "zone_back"]

    def test_endpoints_that_hints_mean_for_us_are_treated_alike(self) -> None:
        fleet = Fleet()
        fleet.add("a", "b", near=True)
        fleet.add("x", "y")
        assert fleet.share() == {"a": 0.5, "b": 0.5}
        assert fleet.ineligible_reason("x") == "its hints say that it is for others"
        fleet.add("y", near=True)
        fleet.add("a")
        assert fleet.share() == {"b": 0.5, "y": 0.5}
        for name in "by":
            fleet.pool.set_health(fleet[name], False, fleet.now)
        assert fleet.share() == {"a": 0.5, "x": 0.5}

    def test_spills_over_when_all_of_it_is_at_its_limit(self, fleet: Fleet) -> None:
        leases = [fleet.lease() for _ in range(40)]
        assert {lease.endpoint.spec.host for lease in leases} == set("abcd")
        assert fleet.lease().endpoint.spec.host in "xy"
        for lease in leases:
            lease.close(OK, fleet.now)
        fleet.wait(1.0)
        assert fleet.share() == dict.fromkeys("abcd", 0.25)

    def test_is_left_by_a_request_that_has_tried_all_of_it(self, fleet: Fleet) -> None:
        assert fleet.lease("a", "b", "c", "d").endpoint.spec.host in "xy"

    def test_of_nobody_is_ignored(self) -> None:
        fleet = Fleet(names="a b", prefer_zone="elsewhere")
        assert fleet.share() == {"a": 0.5, "b": 0.5}
