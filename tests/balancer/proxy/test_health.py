"""Which endpoints are used: what failures, saturation, probes and newness do to the traffic, seen from outside."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest
from benchmarks.ports import free_port
from tests.balancer.proxy.wire.ends import Accepted, Client, Endpoint, Script, always, answering
from tests.balancer.proxy.wire.messages import Message
from tests.balancer.proxy.wire.process import Balancer, Start

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n"
FAILS = always("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")


async def ask(balancer: Balancer, times: int) -> list[int]:
    """The statuses of so many requests, one after the other."""
    async with await Client.connect(balancer.port) as client:
        return [(await client.ask(GET)).status for _ in range(times)]


async def until(met: Callable[[], bool], what: str, within: float = 10.0) -> None:
    deadline = asyncio.get_running_loop().time() + within
    while not met():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.05)


async def test_an_endpoint_that_fails_again_and_again_is_left_out(start: Start) -> None:
    balancer = start(endpoints=2, fresh=True, eject_after=3, eject_time=60)
    async with Endpoint(balancer.endpoints[0], FAILS) as bad, Endpoint(balancer.endpoints[1]) as good:
        statuses = await ask(balancer, 40)
    assert len(bad.requests) == 3
    assert len(good.requests) == 37
    assert statuses.count(500) == 3
    assert balancer.metric("lb_transitions_total", event="ejected") == 1
    assert balancer.metric("lb_endpoints", state="ejected") == 1
    assert '"ejected"' in balancer.log()


async def test_an_ejected_endpoint_gets_another_chance(start: Start) -> None:
    balancer = start(endpoints=2, fresh=True, eject_after=3, eject_time=0.5)
    failing = True

    def answer(_request: Message) -> str:
        return (
            "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"
            if failing
            else "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        )

    async with Endpoint(balancer.endpoints[0], answering(answer)) as once_bad, Endpoint(balancer.endpoints[1]):
        await ask(balancer, 20)
        seen = len(once_bad.requests)
        failing = False
        await until(lambda: balancer.metric("lb_transitions_total", event="returned") == 1, "never returned")
        assert set(await ask(balancer, 20)) == {200}
        assert len(once_bad.requests) > seen


async def test_ejection_time_grows_with_repetition_and_decays_with_good_behaviour(start: Start) -> None:
    balancer = start(endpoints=2, fresh=True, eject_after=2, eject_time=0.5)
    failing = True

    def answer(_request: Message) -> str:
        status = "500 Oh" if failing else "200 OK"
        return f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"

    def ejections() -> list[str]:
        return re.findall(r"failures in a row, for ([\d.]+) s", balancer.log())

    async def ask_until(met: Callable[[], bool], what: str) -> None:
        deadline = asyncio.get_running_loop().time() + 15
        while not met():
            assert asyncio.get_running_loop().time() < deadline, f"{what}: {ejections()}"
            await ask(balancer, 4)
            await asyncio.sleep(0.05)

    async with Endpoint(balancer.endpoints[0], answering(answer)), Endpoint(balancer.endpoints[1]):
        await ask_until(lambda: len(ejections()) == 3, "three ejections")
        assert ejections() == ["0.5", "1", "1.5"]
        failing = False
        await ask_until(lambda: balancer.metric("lb_transitions_total", event="returned") == 3, "its third return")
        behaves_until = asyncio.get_running_loop().time() + 2
        await ask_until(lambda: asyncio.get_running_loop().time() > behaves_until, "good behaviour, four times 0.5 s")
        failing = True
        await ask_until(lambda: len(ejections()) == 4, "a fourth ejection")
        assert ejections()[3] == "0.5"


async def test_an_endpoint_that_fails_far_more_often_than_the_others_is_left_out(start: Start) -> None:
    balancer = start(endpoints=6, fresh=True, eject_after=5, eject_time=60)
    seen = 0

    def every_third_fails(_request: Message) -> str:
        nonlocal seen
        seen += 1
        return f"HTTP/1.1 {200 if seen % 3 else 500} So\r\nContent-Length: 0\r\n\r\n"

    endpoints = [Endpoint(balancer.endpoints[0], answering(every_third_fails))]
    endpoints += [Endpoint(port) for port in balancer.endpoints[1:]]
    for endpoint in endpoints:
        await endpoint.start()
    statuses = await ask(balancer, 6 * 120)
    assert statuses.count(500) == 40
    # Rates are compared every ten seconds.
    await until(lambda: balancer.metric("lb_endpoints", state="ejected") == 1, "never ejected", within=15)
    assert "success rate far below the others'" in balancer.log()
    assert set(await ask(balancer, 30)) == {200}
    for endpoint in endpoints:
        await endpoint.stop()


async def test_one_endpoint_alone_is_never_ejected(start: Start) -> None:
    balancer = start(fresh=True, eject_after=3)
    async with Endpoint(balancer.endpoints[0], FAILS) as only:
        assert await ask(balancer, 20) == [500] * 20
    assert len(only.requests) == 20


async def test_at_most_the_share_is_ejected(start: Start) -> None:
    balancer = start(endpoints=4, fresh=True, eject_after=2, eject_time=60, eject_max_share=0.5)
    endpoints = [Endpoint(port, FAILS) for port in balancer.endpoints]
    for endpoint in endpoints:
        await endpoint.start()
    await ask(balancer, 60)
    assert balancer.metric("lb_endpoints", state="ejected") == 2
    for endpoint in endpoints:
        await endpoint.stop()


@pytest.mark.parametrize("status", ["400", "404", "429", "429 No\r\nRetry-After: 30", "501", "505"])
async def test_what_clients_caused_never_counts(status: str, start: Start) -> None:
    balancer = start(endpoints=2, fresh=True, eject_after=2)
    refuses = always(f"HTTP/1.1 {status}{'' if 'No' in status else ' No'}\r\nContent-Length: 0\r\n\r\n")
    async with Endpoint(balancer.endpoints[0], refuses) as endpoint, Endpoint(balancer.endpoints[1]):
        await ask(balancer, 20)
        assert len(endpoint.requests) == 10, "it keeps its share"
    assert balancer.metric("lb_endpoints", state="ejected") == 0


async def test_clients_that_leave_never_count(start: Start) -> None:
    balancer = start(endpoints=2, fresh=True, eject_after=2)

    async def slow(connection: Accepted) -> None:
        await connection.request()
        await connection.to_end()

    async with Endpoint(balancer.endpoints[0], slow), Endpoint(balancer.endpoints[1], slow):
        for _ in range(20):
            client = await Client.connect(balancer.port)
            await client.send(GET)
            await asyncio.sleep(0.005)
            client.reset()
    assert balancer.metric("lb_endpoints", state="ejected") == 0


async def test_an_endpoint_that_asks_for_it_is_left_alone_that_long(start: Start) -> None:
    balancer = start(endpoints=2, fresh=True, eject_after=2)
    busy = always("HTTP/1.1 503 Busy\r\nRetry-After: 20\r\nContent-Length: 0\r\n\r\n")
    async with Endpoint(balancer.endpoints[0], busy) as asked_to_back_off, Endpoint(balancer.endpoints[1]):
        assert set(await ask(balancer, 20)) == {200}
        assert len(asked_to_back_off.requests) == 1
    assert balancer.metric("lb_endpoints", state="ejected") == 0, "saturation is no failure"


async def test_retry_after_of_zero_seconds_is_a_failure(start: Start) -> None:
    balancer = start(endpoints=2, fresh=True, eject_after=2, retries=0)
    busy = always("HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n")
    async with Endpoint(balancer.endpoints[0], busy) as endpoint, Endpoint(balancer.endpoints[1]):
        await ask(balancer, 20)
        assert len(endpoint.requests) == 2
    assert balancer.metric("lb_endpoints", state="ejected") == 1


async def test_a_date_in_retry_after_counts_as_the_seconds_until_then(start: Start) -> None:
    balancer = start(endpoints=2, fresh=True, eject_after=0, retries=0)
    later = formatdate(time.time() + 20, usegmt=True)
    busy = always(f"HTTP/1.1 503 Busy\r\nRetry-After: {later}\r\nContent-Length: 0\r\n\r\n")
    async with Endpoint(balancer.endpoints[0], busy) as full, Endpoint(balancer.endpoints[1]) as free:
        await ask(balancer, 20)
        assert len(full.requests) == 1
        assert len(free.requests) == 19
    assert balancer.metric("lb_transitions_total", event="backoff") == 1


async def test_a_date_in_retry_after_that_is_past_is_a_failure(start: Start) -> None:
    balancer = start(endpoints=2, fresh=True, eject_after=3, eject_time=60, retries=0)
    earlier = formatdate(time.time() - 20, usegmt=True)
    busy = always(f"HTTP/1.1 503 Busy\r\nRetry-After: {earlier}\r\nContent-Length: 0\r\n\r\n")
    async with Endpoint(balancer.endpoints[0], busy) as bad, Endpoint(balancer.endpoints[1]):
        await ask(balancer, 20)
        assert len(bad.requests) == 3
    assert balancer.metric("lb_transitions_total", event="ejected") == 1


async def test_no_more_than_the_largest_share_is_backed_off_from(start: Start) -> None:
    balancer = start(endpoints=4, fresh=True, eject_after=0, eject_max_share=0.5, retries=0, panic_share=0)
    busy = always("HTTP/1.1 503 Busy\r\nRetry-After: 20\r\nContent-Length: 0\r\n\r\n")
    full = [Endpoint(port, busy) for port in balancer.endpoints[:3]]
    async with full[0], full[1], full[2], Endpoint(balancer.endpoints[3]) as free:
        await ask(balancer, 42)
    asked = sorted(len(end.requests) for end in full)
    assert asked[:2] == [1, 1], "two of four are left alone"
    assert asked[2] > 10, "the third is not, and shares the load of those"
    assert len(free.requests) < 30


async def test_when_all_ask_to_be_left_alone_all_are_used(start: Start) -> None:
    balancer = start(endpoints=2, fresh=True, retries=0)
    busy = always("HTTP/1.1 503 Busy\r\nRetry-After: 20\r\nContent-Length: 0\r\n\r\n")
    async with Endpoint(balancer.endpoints[0], busy) as one, Endpoint(balancer.endpoints[1], busy) as two:
        assert await ask(balancer, 10) == [503] * 10
        assert len(one.requests) + len(two.requests) == 10


async def answers_when_well(health: list[bool]) -> Script:
    def answer(request: Message) -> str:
        if request.target == "/health" and not health[0]:
            return "HTTP/1.1 503 Ill\r\nContent-Length: 0\r\n\r\n"
        return "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    return answering(answer)


async def test_probes_take_an_endpoint_out_and_back(start: Start) -> None:
    health, ports = [False], (free_port(), free_port())
    async with Endpoint(ports[0], await answers_when_well(health)) as ill, Endpoint(ports[1]):
        balancer = start(
            backends=",".join(f"127.0.0.1:{port}" for port in ports),
            fresh=True,
            health_path="/health",
            health_interval=0.2,
            health_timeout=2,
            health_fall=2,
            panic_share=0,
        )
        await until(lambda: balancer.metric("lb_endpoints", state="unhealthy") == 1, "never told unhealthy")
        before = sum(request.target == "/" for request in ill.requests)
        assert set(await ask(balancer, 10)) == {200}
        assert sum(request.target == "/" for request in ill.requests) == before
        health[0] = True
        await until(lambda: balancer.metric("lb_endpoints", state="unhealthy") == 0, "never told healthy")
        await ask(balancer, 10)
        assert sum(request.target == "/" for request in ill.requests) > before


async def test_probes_of_thousands_of_endpoints_come_without_a_burst(start: Start) -> None:
    number, interval, port = 2000, 10, free_port()
    async with Endpoint(port, host="0.0.0.0", remembers=False) as everyone:  # they are all of 127.0.0.0/8
        clock = asyncio.get_running_loop().time
        begun = clock()
        balancer = start(
            backends=",".join(f"127.1.{i // 250}.{i % 250 + 1}:{port}" for i in range(number)),
            fresh=True,
            health_path="tcp",
            health_interval=interval,
        )
        most, before = 0, everyone.accepted
        while clock() - begun < 4:
            await asyncio.sleep(0.1)
            most, before = max(most, everyone.accepted - before), everyone.accepted
        even = number / interval
        assert even < everyone.accepted < 1.5 * even * (clock() - begun), "spread over the interval, from the start on"
        assert most < even, "in a tenth of a second less than is due in a whole one"
        assert await ask(balancer, 20) == [200] * 20


async def test_when_too_few_are_healthy_all_are_used_and_it_is_said(start: Start) -> None:
    balancer = start(
        endpoints=4,
        fresh=True,
        health_path="/health",
        health_interval=0.2,
        health_timeout=2,
        health_fall=1,
        panic_share=0.5,
    )
    health = [False]
    endpoints = [Endpoint(port, await answers_when_well(health)) for port in balancer.endpoints]
    for endpoint in endpoints:
        await endpoint.start()
    await until(lambda: balancer.metric("lb_transitions_total", event="panic") == 1, "no panic")
    assert await ask(balancer, 12) == [200] * 12
    assert all(any(request.target == "/" for request in endpoint.requests) for endpoint in endpoints)
    assert "panic" in balancer.log()
    for endpoint in endpoints:
        await endpoint.stop()


async def test_a_returning_endpoint_starts_slowly(start: Start) -> None:
    health, ports = [False], (free_port(), free_port())
    async with Endpoint(ports[0], await answers_when_well(health)) as ill, Endpoint(ports[1]):
        balancer = start(
            backends=",".join(f"127.0.0.1:{port}" for port in ports),
            fresh=True,
            slow_start=30,
            health_path="/health",
            health_interval=0.2,
            health_timeout=2,
            health_fall=1,
            health_rise=1,
            panic_share=0,
        )
        await until(lambda: balancer.metric("lb_endpoints", state="unhealthy") == 1, "never told unhealthy")
        health[0] = True
        await until(lambda: balancer.metric("lb_endpoints", state="unhealthy") == 0, "never told healthy")
        before = sum(request.target == "/" for request in ill.requests)
        await ask(balancer, 60)
        share = (sum(request.target == "/" for request in ill.requests) - before) / 60
    assert share < 0.3, f"a tenth of its weight at first, got {share:.0%} of the traffic"


async def test_slow_start_rises_to_the_full_share_without_a_surge(start: Start, tmp_path: Path) -> None:
    old, new = free_port(), free_port()
    backends = tmp_path / "backends"
    backends.write_text(f"127.0.0.1:{old}\n")
    arrivals: list[float] = []

    def note(_request: Message) -> str:
        arrivals.append(time.monotonic())
        return "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    window = 3.0
    balancer = start(backends="", backends_file=backends, fresh=True, slow_start=window, access_log="off")
    async with Endpoint(old, remembers=False) as settled, Endpoint(new, answering(note), remembers=False):
        await until(lambda: balancer.metric("lb_endpoint_weight", endpoint=f"127.0.0.1:{old}") == 1, "not started")
        backends.write_text(f"127.0.0.1:{old}\n127.0.0.1:{new}\n")
        asked: list[float] = []
        async with await Client.connect(balancer.port) as client:
            while not arrivals or time.monotonic() < arrivals[0] + window + 1:
                assert (await client.ask(GET)).status == 200
                asked.append(time.monotonic())
        assert settled.accepted

    def share(begin: float, end: float) -> float:
        """Of the requests in this part of the window, from the first that it got."""
        begin, end = arrivals[0] + begin * window, arrivals[0] + end * window
        return sum(begin <= at < end for at in arrivals) / sum(begin <= at < end for at in asked)

    # The weight rises from a tenth to the whole: beside one of weight 1, the share from 1/11 to a half.
    assert share(0, 0.2) < 0.25
    assert share(0, 0.2) < share(0.4, 0.6) < share(0.8, 1) < 0.52, "it rises"
    assert share(0.95, 1.05) < 0.55, "without a surge at its end"
    assert 0.45 < share(1.1, 1.3) < 0.55, "to the whole"


async def test_a_new_endpoint_is_tried_with_one_request_first(start: Start, tmp_path: Path) -> None:
    old, new = free_port(), free_port()
    backends = tmp_path / "backends"
    backends.write_text(f"127.0.0.1:{old}\n")
    balancer = start(backends="", backends_file=backends, fresh=True, strategy="least-response-time", slow_start=30)
    async with Endpoint(old), Endpoint(new, None) as hangs:
        await ask(balancer, 20)
        backends.write_text(f"127.0.0.1:{old}\n127.0.0.1:{new}\n")
        there = {"endpoint": f"127.0.0.1:{new}"}
        await until(lambda: balancer.metric("lb_endpoint_eligible", **there) == 1, "the file's change was not seen")
        first = await Client.connect(balancer.port)
        await first.send(GET)
        connection = await hangs.accept()
        assert await ask(balancer, 50) == [200] * 50, "the others wait for what comes of it"
        assert hangs.accepted == 1
        await first.close()
        await connection.close()
