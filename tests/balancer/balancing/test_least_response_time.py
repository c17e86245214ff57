"""Least-response-time keeps away from what is slow, hung or failing, and comes back when it recovers."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from math import log
from random import Random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as draw
from tests.balancer.balancing.world import REQUEST, Fleet, Simulation

from balancer.balancing.latency import PENALTY, TIME_CONSTANT, PeakEwma
from balancer.balancing.outcome import CLIENT_LEFT, REFUSED, Kind, Outcome
from balancer.balancing.pool import Lease
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies.least_response_time import LeastResponseTime

OK = Outcome.answered(200)


def connected(seconds: dict[str, Callable[[Random], float]]) -> Counter[str]:
    """Who gets 2,000 connections of TCP mode, 200 a second, that last a second each.

    Connecting takes what `seconds` draws.
    """
    fleet, random = Fleet("least-response-time", names=" ".join(seconds)), Random(7)
    got: Counter[str] = Counter()
    due: list[tuple[float, int, Lease]] = []
    for number in range(2000):
        fleet.now += random.expovariate(200.0)
        while due and due[0][0] <= fleet.now:
            at, order, lease = heapq.heappop(due)
            if order % 2:
                lease.close(Outcome(Kind.ANSWERED), at)
            else:
                lease.first_byte(at)
                heapq.heappush(due, (at + 1.0, order + 1, lease))
        lease = fleet.lease(request=RequestInfo("192.0.2.1"))
        name = lease.endpoint.spec.host
        got[name] += 1
        lease.sent(fleet.now)
        heapq.heappush(due, (fleet.now + seconds[name](random), 2 * number, lease))
    return got


def near(random: Random) -> float:
    """Seconds to connect to an endpoint near by: a tenth of a millisecond or so, seldom some."""
    return random.lognormvariate(log(0.0001), 1.0)


class TestTcpMode:
    def test_endpoints_that_are_connected_to_at_once_get_equal_shares(self) -> None:
        got = connected(dict.fromkeys("abcd", near))
        assert max(got.values()) - min(got.values()) < 0.03 * 2000

    def test_one_that_is_slow_to_accept_gets_fewer(self) -> None:
        got = connected({**dict.fromkeys("abc", near), "slow": lambda random: 0.1 + near(random)})
        assert 0 < got["slow"] < 0.05 * 2000

    def test_the_score_is_lowest_where_it_chooses(self) -> None:
        fleet, connection = Fleet("least-response-time", names="a b c"), RequestInfo("192.0.2.1")
        strategy = LeastResponseTime(Random(1))
        for name, took in (("a", 0.0001), ("b", 0.002), ("c", 0.05)):
            fleet.now += 0.1
            fleet.measure(**{name: took})
        for _ in range(20):
            scores = {e.spec.host: strategy.score(e, connection, fleet.now) for e in fleet.pool.endpoints}
            assert fleet.lease(request=connection).endpoint.spec.host == min(scores, key=lambda name: scores[name])


class TestPeakEwma:
    def test_rises_at_once_and_falls_with_its_time_constant(self) -> None:
        latency = PeakEwma()
        assert latency.average(0.0) is None
        latency.sample(0.1, 0.0)
        latency.sample(2.0, 1.0)
        assert latency.average(1.0) == 2.0
        assert latency.average(1.0 + TIME_CONSTANT) == pytest.approx(2.0 / 2.718281828)

    def test_of_equal_samples_is_the_sample(self) -> None:
        latency = PeakEwma()
        for i in range(100):
            latency.sample(0.25, i * 0.1)
        assert latency.average(9.9) == pytest.approx(0.25)

    @given(draw.lists(draw.tuples(draw.floats(0, 60), draw.floats(0, 5)), min_size=1, max_size=30))
    def test_is_never_above_the_highest_sample_and_never_below_what_decay_leaves(
        self, samples: list[tuple[float, float]]
    ) -> None:
        latency, now = PeakEwma(), 0.0
        for seconds, later in samples:
            now += later
            before = latency.average(now)
            latency.sample(seconds, now)
            after = latency.average(now)
            assert after is not None
            assert after <= max(1e-6, *(taken for taken, _ in samples)) * (1 + 1e-9)
            assert after >= min(seconds, 60.0) * (0.0 if before else 1.0)
            assert before is None or after >= before * (1 - 1e-9)

    @given(
        draw.lists(draw.tuples(draw.floats(1e-5, 60), draw.floats(0, 20)), min_size=2, max_size=2), draw.floats(0, 50)
    )
    def test_levels_order_averages_at_any_later_time(self, samples: list[tuple[float, float]], later: float) -> None:
        one, other = PeakEwma(), PeakEwma()
        one.sample(*samples[0])
        other.sample(*samples[1])
        now = 20.0 + later
        if one.level < other.level - 1e-9:
            assert (one.average(now) or 0) < (other.average(now) or 0)

    def test_a_failure_counts_as_five_seconds_or_the_average_if_that_is_more(self) -> None:
        latency = PeakEwma()
        latency.penalise(0.0)
        assert latency.average(0.0) == PENALTY
        latency.sample(8.0, 0.0)
        latency.penalise(0.0)
        assert latency.average(0.0) == pytest.approx(8.0)


class TestChoice:
    def test_prefers_the_lower_product_of_time_and_load(self) -> None:
        fleet = Fleet("least-response-time", names="fast slow")
        fleet.measure(fast=0.1, slow=0.35)
        names = [fleet.lease().endpoint.spec.host for _ in range(8)]
        assert names == ["fast", "fast", "fast", "slow", "fast", "fast", "fast", "slow"]

    def test_a_heavier_endpoint_takes_more(self) -> None:
        fleet = Fleet("least-response-time", names="a")
        fleet.add("b", weight=3)
        fleet.measure(a=0.1, b=0.1)
        names = [fleet.lease().endpoint.spec.host for _ in range(8)]
        assert names.count("b") == 6

    def test_leaves_a_hung_endpoint_by_the_age_of_what_waits_there(self) -> None:
        fleet = Fleet("least-response-time", names="hung well")
        fleet.measure(hung=0.01, well=0.05)
        lease = fleet.lease()
        assert lease.endpoint.spec.host == "hung"
        lease.sent(fleet.now)
        fleet.now += 0.2
        for _ in range(8):
            assert fleet.lease().endpoint.spec.host == "well"

    def test_a_slow_upload_or_a_long_download_does_not_count_as_slowness(self) -> None:
        fleet = Fleet("least-response-time", names="a b")
        fleet.measure(a=0.01, b=0.01)
        upload = fleet.lease("b")  # never sent whole
        download = fleet.lease("a")
        download.sent(fleet.now)
        download.first_byte(fleet.now + 0.01)
        fleet.now += 60
        fleet.measure(a=0.01, b=0.01)
        upload.sent(fleet.now)
        upload.first_byte(fleet.now + 0.01)
        download.close(OK, fleet.now)
        upload.close(OK, fleet.now)
        assert fleet["a"].latency.average(fleet.now + 0.01) == pytest.approx(0.01, rel=0.01)
        assert fleet["b"].latency.average(fleet.now) == pytest.approx(0.01, rel=0.01)

    def test_the_time_an_impatient_client_waited_is_a_sample_and_no_failure(self) -> None:
        fleet = Fleet("least-response-time", names="hung well")
        fleet.measure(hung=0.01, well=0.05)
        lease = fleet.lease()
        lease.sent(fleet.now)
        fleet.now += 3
        lease.close(CLIENT_LEFT, fleet.now)
        assert fleet["hung"].latency.average(fleet.now) == pytest.approx(3.0)
        assert fleet["hung"].health.failures_in_row == 0
        assert fleet.lease().endpoint.spec.host == "well"

    def test_one_never_measured_is_tried_first_but_not_by_more_than_the_others_hold(self) -> None:
        fleet = Fleet("least-response-time", names="a b c")
        fleet.measure(a=0.1, b=0.1, c=0.1)
        for _ in range(12):
            fleet.lease()
        fleet.add("new")
        names = [fleet.lease().endpoint.spec.host for _ in range(10)]
        assert names[:5] == ["new"] * 4 + ["a"]  # four is what the measured ones hold in the mean
        assert names.count("new") == 5  # and five, when they hold that

    def test_in_slow_start_one_probe_comes_first(self) -> None:
        fleet = Fleet("least-response-time", names="a b c", slow_start=10.0)
        fleet.measure(a=0.1, b=0.1, c=0.1)
        for _ in range(12):
            fleet.lease()
        fleet.add("new")
        names = [fleet.lease().endpoint.spec.host for _ in range(10)]
        assert names[0] == "new"
        assert "new" not in names[1:]

    def test_never_measured_ones_are_spread_over(self) -> None:
        fleet = Fleet("least-response-time", names="a b c d")
        names = [fleet.lease().endpoint.spec.host for _ in range(12)]
        assert sorted(names) == sorted("abcd" * 3)

    def test_in_a_brownout_the_best_of_some_is_good_enough(self) -> None:
        fleet = Fleet("least-response-time", names=" ".join(f"e{i}" for i in range(200)))
        fleet.measure(**{f"e{i}": 0.001 for i in range(200)})
        for _ in range(200):  # everywhere one waits, the longest 2 s
            fleet.lease().sent(fleet.now)
            fleet.now += 0.01
        strategy = LeastResponseTime(fleet.random)
        scores = {e: strategy.score(e, REQUEST, fleet.now) for e in fleet.pool.endpoints}
        better = sum(score < scores[fleet.lease().endpoint] for score in scores.values())
        assert better < 200 * 0.9  # not one of the very worst, though it looked at 32 of 200


class TestSimulated:
    """Promises that show over time, on simulated servers. Ejection is off: the strategy alone must do."""

    @pytest.mark.parametrize("size", [2, 10])
    def test_an_endpoint_that_fails_fast_attracts_less_than_two_percent(self, size: int) -> None:
        world = Simulation("least-response-time", rate=8.0 * (size - 1), eject_after=0)
        world.add("broken", seconds=0.001, status=500)
        world.add(*(f"well{i}" for i in range(size - 1)), seconds=0.1, workers=4)
        assert world.run(120).share_of("broken") < 0.02

    def test_an_endpoint_that_refuses_attracts_less_than_two_percent(self) -> None:
        fleet = Fleet("least-response-time", names="gone well", eject_after=0)
        got = 0
        for _ in range(1000):
            lease = fleet.lease()
            gone = lease.endpoint.spec.host == "gone"
            got += gone
            lease.sent(fleet.now)
            fleet.wait(0.05)
            if not gone:
                lease.first_byte(fleet.now)
            lease.close(REFUSED if gone else OK, fleet.now)
        assert 0 < got < 20

    def test_a_new_pod_beside_one_is_not_stampeded(self) -> None:
        world = Simulation("least-response-time", rate=120.0, eject_after=0)
        world.add("old", seconds=lambda random: random.uniform(0.08, 0.12), workers=16)
        world.run(20)
        before = world.servers["old"].peak
        world.add("new", seconds=lambda random: random.uniform(0.08, 0.12), workers=16)
        first_second = world.run(1.0)
        assert world.servers["new"].peak < before
        then = world.run(20)
        assert 0.3 < first_second.share_of("new") < 0.8
        assert 0.35 < then.share_of("new") < 0.65

    def test_a_new_pod_beside_a_thousand_is_not_stampeded(self) -> None:
        world = Simulation("least-response-time", rate=5000.0, eject_after=0)
        world.add(*(f"old{i}" for i in range(1000)), seconds=0.05, workers=4)
        world.run(2)
        world.add("new", seconds=0.05, workers=4)
        result = world.run(1.0)
        assert 1 <= result.share_of("new") * 5000 < 15  # its fair share is 5

    @pytest.mark.parametrize("impatience", [None, 2.0])
    def test_a_hung_endpoint_is_left_at_once(self, impatience: float | None) -> None:
        world = Simulation("least-response-time", rate=40.0, timeout=30.0, eject_after=0)
        world.add("a", "b", "c", seconds=0.05, workers=8)
        world.run(30)
        world.impatience = impatience
        world.servers["a"].hangs = True
        result = world.run(60)
        assert result.share_of("a") < (0.005 if impatience is None else 0.02)

    def test_an_endpoint_that_recovers_is_tried_again_and_takes_its_share(self) -> None:
        world = Simulation("least-response-time", rate=40.0, timeout=5.0, eject_after=0)
        world.add("a", "b", "c", seconds=0.05, workers=8)
        world.run(10)
        world.servers["a"].status = 500
        world.run(20)
        world.servers["a"].status = 200
        world.run(40)
        assert 0.2 < world.run(30).share_of("a") < 0.45

    def test_a_slow_endpoint_gets_what_it_can_bear(self) -> None:
        world = Simulation("least-response-time", rate=60.0, eject_after=0)
        world.add("a", "b", "c", seconds=0.05, workers=2)
        world.add("slow", seconds=0.5, workers=2)
        world.run(20)
        ours = world.run(120)
        turns = Simulation("round-robin", rate=60.0, eject_after=0)
        turns.add("a", "b", "c", seconds=0.05, workers=2)
        turns.add("slow", seconds=0.5, workers=2)
        turns.run(20)
        assert fmean(ours.latencies) < fmean(turns.run(120).latencies) / 4

    def test_a_pod_in_slow_start_takes_its_share_in_the_end_without_a_surge(self) -> None:
        world = Simulation("least-response-time", rate=100.0, eject_after=0, slow_start=20.0)
        world.add("a", "b", "c", seconds=0.1, workers=16)
        world.run(30)
        world.add("new", seconds=0.1, workers=16)
        shares = [world.run(5.0).share_of("new") for _ in range(7)]
        assert shares[0] < 0.15
        assert max(shares) < 0.32
        assert 0.18 < fmean(shares[5:]) < 0.32
