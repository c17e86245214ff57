"""What goes over the wire between replicas, on real sockets of one event loop: nothing while nothing changes."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from benchmarks.ports import free_port
from structlog.testing import capture_logs
from tests.balancer.balancing.world import REQUEST, Fleet

from balancer.balancing.endpoint import EndpointSpec, Snapshot
from balancer.balancing.outcome import Outcome
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies import load
from balancer.peers import Peers
from balancer.peers import peers as peers_module
from balancer.peers.pace import LATEST
from balancer.peers.report import BUSY, Report

SEEN = 10.0
"""Seconds within which what is bound to happen has happened, on a busy machine too."""


class Listed:
    """A discovery that knows all from the start."""

    def __init__(self, ports: list[int]) -> None:
        self._ports = ports

    async def snapshots(self) -> AsyncGenerator[Snapshot, None]:
        yield [EndpointSpec("127.0.0.1", port) for port in self._ports]


class Replica:
    """A pool, its peers and the port at which they speak."""

    def __init__(self, number: int, ports: list[int], strategy: str) -> None:
        self.fleet = Fleet(strategy, "a b c d")
        self.switched: list[str] = []
        self._beats = 0
        self.port = 0
        self.peers = Peers(
            self.fleet.pool, Listed(ports), f"lb-{number}", "secret", self.switched.append, time.monotonic
        )

    def teach(self, requests: int = 40) -> None:
        """Let as many requests take 10 ms each at a."""
        pool, endpoint = self.fleet.pool, self.fleet["a"]
        now = time.monotonic()
        for number in range(requests):
            lease = pool.lease_at(endpoint, REQUEST, now + number)
            assert lease is not None
            lease.sent(now + number)
            lease.first_byte(now + number + 0.01)
            lease.close(Outcome.answered(200), now + number + 0.01)

    def beat(self) -> None:
        """Say that it is there."""
        self._beats += 1
        self.peers._reporter.beat(time.monotonic() + 10 * self._beats)

    @property
    def learned(self) -> int:
        """Requests that it knows of, from others too."""
        return self.fleet.pool._costs.kinds.all.count

    def told(self) -> list[int]:
        """Requests that `lb-0` has said it has in flight at a, b, c and d."""
        said = next(replica for replica in self.peers.heard if replica.name == "lb-0")
        return [said.in_flight.get(f"{name}:80", 0) for name in "abcd"]


async def serve(replica: Replica, port: int = 0) -> web.AppRunner:
    """Let others speak to it."""
    app = web.Application()
    app.add_routes(replica.peers.routes())
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    replica.port = runner.addresses[0][1]
    return runner


@asynccontextmanager
async def replicas(number: int, strategy: str = "least-connections") -> AsyncIterator[list[Replica]]:
    """So many that hear each other."""
    ports: list[int] = []
    made = [Replica(i, ports, strategy) for i in range(number)]
    runners = [await serve(replica) for replica in made]
    ports += [replica.port for replica in made]
    tasks = [asyncio.create_task(replica.peers.run()) for replica in made]
    try:
        assert await seen(lambda: all(len(replica.peers.heard) == number - 1 for replica in made))
        # The connection of each to itself has been closed and forgotten.
        assert await seen(lambda: all(any(task.done() for _, task in each.peers._links.values()) for each in made))
        yield made
    finally:
        await stop(tasks, runners)


async def stop(tasks: list[asyncio.Task[None]], runners: list[web.AppRunner]) -> None:
    """End replicas, and what serves them."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for runner in runners:
        await runner.cleanup()


async def seen(condition: Callable[[], bool]) -> bool:
    """Whether it holds within `SEEN` seconds."""
    deadline = time.monotonic() + SEEN
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.005)
    return True


@pytest.fixture
def wakeups(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the event loop has waited, and woken."""
    woken: list[float] = []
    wait = selectors.EpollSelector.select

    def select(self: selectors.EpollSelector, timeout: float | None = None) -> Any:
        ready = wait(self, timeout)
        woken.append(time.monotonic())
        return ready

    monkeypatch.setattr(selectors.EpollSelector, "select", select)
    return woken


async def test_at_rest_nothing_is_sent_and_nobody_wakes(wakeups: list[float]) -> None:
    async with replicas(2) as made:
        sent = [replica.peers.events["sent"] for replica in made]
        wakeups.clear()
        await asyncio.sleep(1.0)
        assert len(wakeups) <= 10  # A hundred, when each looked at its pool again and again.
        assert [replica.peers.events["sent"] for replica in made] == sent


async def ticked(replica: Replica, seconds: float, began: float) -> int:
    """Let so much time pass, as the replica sees it; how many reports it has sent then."""
    before = replica.peers.events["sent"]
    for tick in range(int(10 * seconds)):
        replica.peers.tick(began + tick / 10)
        await asyncio.sleep(0)
    return replica.peers.events["sent"] - before


async def test_one_with_nothing_to_say_says_every_three_seconds_that_it_is_there() -> None:
    async with replicas(2) as (one, two):
        now = time.monotonic()
        await ticked(one, 5, now)
        assert await ticked(one, 30, now + 5) == 10
        assert await seen(lambda: two.peers.heard[0].next_within == 3.0)


async def test_one_with_a_request_in_flight_says_so_so_often_that_it_is_missed_within_a_second() -> None:
    async with replicas(2) as (one, two):
        now = time.monotonic()
        await ticked(one, 5, now)
        lease = one.fleet.pool.lease(REQUEST, 0.0)
        assert await seen(lambda: sum(two.told()) == 1)
        assert 30 <= await ticked(one, 10, now + 5) <= 35
        assert await seen(lambda: two.peers.heard[0].next_within == BUSY)
        lease.close(Outcome.answered(200), 0.1)


async def test_one_rests_only_where_all_others_know_that_replicas_may() -> None:
    async with replicas(2) as (one, _), aiohttp.ClientSession(headers={"Authorization": "Bearer secret"}) as session:
        async with session.ws_connect(f"http://127.0.0.1:{one.port}/peers") as socket:
            await socket.send_str('{"v":1,"replica":"lb-old","whole":true,"answer":true}')
            assert "lb-0" in (await socket.receive(SEEN)).data
            now = time.monotonic()
            one.peers.tick(now)
            one.peers.belief.take(Report("lb-old"), now + 5)
            assert 4 <= await ticked(one, 5, now + 1) <= 6


async def test_what_changes_is_told_at_once_and_together() -> None:
    async with replicas(3) as (one, two, three):
        sent = one.peers.events["sent"]
        leases = [one.fleet.pool.lease(REQUEST, 0.0) for _ in range(8)]
        assert await seen(lambda: two.told() == [2, 2, 2, 2])
        assert await seen(lambda: three.told() == [2, 2, 2, 2])
        assert one.peers.events["sent"] == sent + 2
        for lease in leases:
            lease.close(Outcome.answered(200), 0.1)
        assert await seen(lambda: two.told() == [0, 0, 0, 0])
        assert one.peers.events["sent"] == sent + 4


async def test_one_that_comes_later_hears_all_of_it() -> None:
    async with replicas(2) as (one, two):
        leases = [one.fleet.pool.lease(REQUEST, 0.0) for _ in range(4)]
        assert await seen(lambda: two.told() == [1, 1, 1, 1])
        for connection in two.peers._hearing.connections.values():
            connection.abort()
        assert await seen(lambda: not two.peers.heard)
        assert await seen(lambda: bool(two.peers.heard))
        assert await seen(lambda: two.told() == [1, 1, 1, 1])
        leases[0].close(Outcome.answered(200), 0.1)
        assert await seen(lambda: sum(two.told()) == 3)


async def test_an_ejection_and_an_intent_are_told_without_a_request() -> None:
    async with replicas(2) as (one, two):
        one.fleet.end("a", Outcome.answered(500), 5)
        assert await seen(lambda: two.peers.heard[0].ejected == {"a:80"})
        one.peers.strategy_switched("round-robin")
        assert await seen(lambda: two.switched == ["round-robin"])
        one.peers.drained("b:80", True)
        assert await seen(lambda: two.fleet["b"].health.drained)


async def test_a_pod_that_gets_the_address_of_a_drained_one_is_not_drained() -> None:
    """It was, on arrival, by every replica, for as long as one of them ran."""
    async with replicas(2) as (one, two):
        for replica in (one, two):
            replica.fleet.add("p", uid="old")
        one.peers.drained("p:80", True)
        assert await seen(lambda: two.fleet["p"].health.drained)
        for replica in (one, two):
            replica.fleet.remove("p")
            replica.fleet.add("p", uid="new")
            replica.peers.tick(time.monotonic() + 10)
            assert not replica.fleet["p"].health.drained
        one.peers.drained("p:80", True)
        assert await seen(lambda: two.fleet["p"].health.drained)
        two.peers.drained("p:80", False)
        assert await seen(lambda: not one.fleet["p"].health.drained)
        assert not two.peers.intent.addresses


@pytest.mark.parametrize("asked_of", [0, 1])
async def test_a_pod_that_was_taken_back_while_it_was_gone_comes_back_undrained(asked_of: int) -> None:
    """It is remembered as drained, and stayed so where discovery did not show it when it was taken back."""
    async with replicas(2) as both:
        one, two = both
        for replica in both:
            replica.fleet.add("p", uid="same")
        one.peers.drained("p:80", True)
        assert await seen(lambda: two.fleet["p"].health.drained)
        two.fleet.remove("p")
        both[asked_of].peers.drained("p:80", False)
        assert await seen(lambda: not one.peers.intent.addresses and not two.peers.intent.addresses)
        two.fleet.add("p", uid="same")
        two.peers.tick(time.monotonic() + 10)
        assert not two.fleet["p"].health.drained
        two.fleet.pool.drain(two.fleet["p"], True, two.fleet.now)
        two.peers.tick(time.monotonic() + 20)
        assert two.fleet["p"].health.drained, "by hand, at this replica alone: that is nobody else's"


async def test_a_wish_counts_after_one_of_a_replica_whose_clock_is_centuries_ahead() -> None:
    async with replicas(2) as (one, two):
        one.peers.fleet._wall = lambda: 1e11
        one.peers.drained("a:80", True)
        assert await seen(lambda: two.fleet["a"].health.drained)
        two.peers.drained("a:80", False)
        assert await seen(lambda: not one.peers.intent.addresses)
        assert not two.peers.intent.addresses


async def test_pods_that_are_gone_are_not_told_of_for_ever() -> None:
    async with replicas(2) as (one, two):
        for number in range(5):
            one.fleet.add("p", uid=f"pod-{number}")
            one.peers.drained("p:80", True)
            one.fleet.remove("p")
        one.fleet.add("p", uid="another")
        one.peers.drained("a:80", True)
        assert await seen(lambda: two.peers.intent.addresses == {"a:80"})


@pytest.mark.parametrize("strategy", ["least-work", "least-connections", "round-robin"])
async def test_a_request_whose_response_lasts_is_told_as_one_that_does_not_wait(strategy: str) -> None:
    """Whatever the strategy there: in a rollout others may have `least-work` already."""
    async with replicas(2, "least-work") as (one, two):
        one.fleet.pool.use(load(strategy, one.fleet.random), strategy, one.fleet.now)
        lease = one.fleet.lease()
        address = lease.endpoint.address
        lease.sent(0.0)
        assert await seen(lambda: two.fleet[address[0]].elsewhere.requests >= 1.0)
        lease.first_byte(0.1)
        assert await seen(lambda: two.fleet[address[0]].elsewhere.requests < 1.0)
        assert two.peers.heard[0].in_flight == {address: 1}
        lease.close(Outcome.answered(200), 0.2)
        assert await seen(lambda: not two.peers.heard[0].in_flight and not two.peers.heard[0].lasting)


async def test_the_expected_work_of_what_waits_is_told_once_requests_are_known_to_differ() -> None:
    async with replicas(2, "least-work") as (one, two):
        cheap, dear = RequestInfo(method="GET", path="/cheap"), RequestInfo(method="GET", path="/dear")
        for _ in range(60):
            leases = [one.fleet.lease(*"bcd", request=request) for request in (cheap, dear)]
            for lease in leases:
                lease.sent(one.fleet.now)
            for lease, seconds in zip(leases, (0.01, 1.0), strict=True):
                one.fleet.now += seconds
                lease.first_byte(one.fleet.now)
                lease.close(Outcome.answered(200), one.fleet.now)
        assert one.fleet.pool.costs.distinct
        assert one.fleet.pool.costs.bounded
        lease = one.fleet.lease(*"bcd", request=dear)
        lease.sent(one.fleet.now)
        endpoint = two.fleet[lease.endpoint.spec.host]
        assert await seen(lambda: endpoint.elsewhere.seconds > 0.5)
        assert endpoint.elsewhere.unknown_cost == 0.0
        one.fleet.pool.use(load("round-robin", one.fleet.random), "round-robin", one.fleet.now)
        assert await seen(lambda: endpoint.elsewhere.seconds == 0.0 and endpoint.elsewhere.unknown_cost > 0.5)


async def test_a_drain_of_a_pod_that_is_not_discovered_here_yet_is_kept() -> None:
    async with replicas(2) as (one, two):
        one.fleet.add("p", uid="new")
        one.peers.drained("p:80", True)
        assert await seen(lambda: bool(two.peers.intent.addresses))
        two.peers.drained("a:80", True)
        assert await seen(lambda: one.fleet["a"].health.drained)
        assert one.fleet["p"].health.drained


async def test_many_changes_are_told_no_more_often_than_the_pace_allows() -> None:
    async with replicas(2) as (one, two):
        sent = one.peers.events["sent"]
        began = time.monotonic()
        while time.monotonic() < began + 0.3:
            one.fleet.pool.lease(REQUEST, 0.0).close(Outcome.answered(200), 0.0)
            lease = one.fleet.pool.lease(REQUEST, 0.0)
            await asyncio.sleep(0)
            lease.close(Outcome.answered(200), 0.0)
        assert one.peers.events["sent"] - sent <= 0.3 / 0.001
        assert await seen(lambda: not two.peers.heard[0].in_flight)


async def test_one_that_falls_silent_is_let_go_and_heard_again() -> None:
    async with replicas(2) as (one, two):
        one.peers._reporter.stop()
        now = time.monotonic() + 4.0
        with capture_logs() as logs:
            two.peers.tick(now)
            assert not two.peers.heard
            assert await seen(lambda: [replica.reports for replica in two.peers.heard] == [1])
        told = [(entry["event"], entry["log_level"]) for entry in logs if entry.get("peer") == "lb-0"]
        assert told == [("peer silent", "warning"), ("peer joined", "info")], "it has not left"


async def test_one_that_starts_at_an_address_given_up_for_long_is_told_at_once_what_the_fleet_wants() -> None:
    port = free_port()
    ports = [port]
    one, two = Replica(0, ports, "least-connections"), Replica(1, ports, "least-connections")
    one.peers.strategy_switched("round-robin")
    runners = [await serve(one)]
    one.peers._link([EndpointSpec("127.0.0.1", port)])
    one.peers._links[f"127.0.0.1:{port}"][0]._backoff = 1000.0
    tasks = [asyncio.create_task(one.peers.run())]
    assert await seen(lambda: one.peers.events["unreachable"] == 1)
    ports.append(one.port)
    runners.append(await serve(two, port))
    tasks.append(asyncio.create_task(two.peers.run()))
    try:
        assert await seen(lambda: two.switched == ["round-robin"])
    finally:
        await stop(tasks, runners)


async def test_one_that_never_says_who_it_is_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "SILENCE", 0.1)
    async with replicas(2) as (one, _), aiohttp.ClientSession(headers={"Authorization": "Bearer secret"}) as session:
        async with session.ws_connect(f"http://127.0.0.1:{one.port}/peers") as socket:
            assert (await socket.receive(SEEN)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


async def test_the_rarer_the_reports_the_older_they_count() -> None:
    async with replicas(2) as (one, two):
        one.peers._reporter.pace.sending.average = 1.0  # A second of CPU time each: they are as rare as they can be.
        one.peers.tick(time.monotonic())
        one.peers.tick(time.monotonic() + 1.0)
        assert await seen(lambda: two.peers.heard[0].delay >= LATEST)


async def test_what_was_learned_is_handed_over_once_and_to_a_new_process_of_the_same_name_again() -> None:
    async with replicas(3, "least-work") as (one, two, three):
        assert "handed_over" not in one.peers.events  # It knows nothing.
        one.teach()
        two.beat()
        three.beat()
        assert await seen(lambda: one.peers.events.get("handed_over") == 2)
        assert await seen(lambda: (two.learned, three.learned) == (40, 40))
        two.beat()
        for transport in one.peers._hearing.connections.values():
            assert transport is not None
            transport.abort()
        assert await seen(lambda: one.peers.events["handed_over"] == 4)
        assert [each.peers.events["taken_over"] for each in (two, three)] == [1, 1]
        assert "taken_over" not in one.peers.events


async def test_a_switch_of_the_fleets_strategy_hands_over_again() -> None:
    async with replicas(2, "least-work") as (one, two):
        one.teach()
        two.beat()
        assert await seen(lambda: one.peers.events.get("handed_over") == 1)
        one.peers.strategy_switched("least-work")
        two.beat()
        assert await seen(lambda: one.peers.events["handed_over"] == 2)


async def test_nothing_is_handed_over_where_the_strategy_learns_nothing() -> None:
    async with replicas(2) as (one, two):
        one.teach()
        for each in (one, two):
            heard = each.peers.events["received"]
            one.beat()
            two.beat()
            assert await seen(lambda each=each, heard=heard: each.peers.events["received"] > heard)  # type: ignore[misc]
        assert "handed_over" not in one.peers.events


async def test_one_at_rest_still_drains_what_the_fleet_wants_drained_and_sees_who_is_silent() -> None:
    async with replicas(2) as (one, two):
        now = time.monotonic()
        for replica in (one, two):
            await ticked(replica, 5, now)
        one.peers.drained("e:80", True)
        assert await seen(lambda: "e:80" in two.peers.intent.addresses)
        two.fleet.add("e")
        two.peers.tick(now + 5.1)
        assert two.fleet["e"].health.drained
        two.peers.tick(now + 15)
        assert not two.peers.heard
