"""Replicas that know of each other, as processes of their own: what one sends, the other sees."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from benchmarks.ports import free_port
from tests.balancer.proxy.wire.process import Balancer

from balancer import __version__

TOKEN = "for-replicas-alone"
SEEN = 10.0
"""Seconds within which what is bound to happen has happened, on a busy machine too."""


class Replicas:
    """Two balancers of the same endpoints; each knows where both are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.admin_ports = [free_port(), free_port()]
        self.backends = ",".join(f"127.0.0.1:{free_port()}" for _ in range(4))
        self.running: dict[int, Balancer] = {}
        self.by_tls: set[int] = set()
        """Those whose admin port speaks TLS."""
        self.trust = ssl._create_unverified_context()

    def start(self, number: int, **settings: str) -> Balancer:
        (self.by_tls.add if "LB_ADMIN_TLS_CERT" in settings else self.by_tls.discard)(number)
        peers = ",".join(f"127.0.0.1:{port}" for port in self.admin_ports)
        self.running[number] = Balancer(
            self._folder / f"{number}-{time.monotonic()}.log",
            settings={
                "LB_ADMIN_PORT": str(self.admin_ports[number]),
                "LB_ADMIN_TOKEN": "secret",
                "LB_BACKENDS": self.backends,
                "LB_PEERS": peers,
                "LB_PEERS_TOKEN": TOKEN,
                "HOSTNAME": f"lb-{number}",
                **settings,
            },
        )
        return self.running[number]

    def ask(self, number: int, path: str, method: str = "GET", body: object = None) -> Any:
        request = urllib.request.Request(
            f"{'https' if number in self.by_tls else 'http'}://127.0.0.1:{self.admin_ports[number]}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": "Bearer secret", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=5, context=self.trust) as response:
            return json.load(response)

    def names(self, number: int) -> set[str]:
        return {replica["name"] for replica in self.ask(number, "/api/fleet")["replicas"]}

    def live(self, number: int) -> set[str]:
        return {each["name"] for each in self.ask(number, "/api/fleet")["replicas"] if each["state"] == "live"}

    def in_flight(self, number: int, of: str) -> int:
        """Requests that a replica is known to have in flight, as replica `number` sees it."""
        return sum(each["in_flight"].get(of, 0) for each in self.ask(number, "/api/fleet")["endpoints"])


def seen(condition: Callable[[], bool]) -> bool:
    """Whether it holds within `SEEN` seconds."""
    deadline = time.monotonic() + SEEN
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[Replicas]:
    made = Replicas(tmp_path)
    yield made
    for balancer in made.running.values():
        balancer.stop()


def test_replicas_find_each_other_and_forget_one_that_left(replicas: Replicas) -> None:
    replicas.start(0)
    replicas.start(1)
    assert seen(lambda: replicas.live(0) == replicas.live(1) == {"lb-0", "lb-1"})
    replicas.running.pop(1).stop()
    assert seen(lambda: replicas.live(0) == {"lb-0"})


def test_a_replica_killed_with_a_request_in_flight_is_forgotten_within_a_second(replicas: Replicas) -> None:
    with socket.create_server(("127.0.0.1", 0)) as endpoint:  # It accepts, and answers nothing.
        replicas.backends = f"127.0.0.1:{endpoint.getsockname()[1]}"
        replicas.start(0)
        replicas.start(1)
        assert seen(lambda: replicas.live(0) == {"lb-0", "lb-1"})
        with socket.create_connection(("127.0.0.1", replicas.running[1].port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert seen(lambda: replicas.in_flight(0, "lb-1") == 1)
            replicas.running.pop(1).process.kill()
            killed_at = time.monotonic()
            assert seen(lambda: replicas.live(0) == {"lb-0"} and not replicas.in_flight(0, "lb-1"))
            assert time.monotonic() - killed_at < 1.0


def test_what_a_silent_replica_has_in_flight_counts_no_more_within_a_second_and_again_once_it_is_heard(
    replicas: Replicas,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as endpoint:
        replicas.backends = f"127.0.0.1:{endpoint.getsockname()[1]}"
        replicas.start(0)
        replicas.start(1)
        assert seen(lambda: replicas.live(0) == {"lb-0", "lb-1"})
        with socket.create_connection(("127.0.0.1", replicas.running[1].port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert seen(lambda: replicas.in_flight(0, "lb-1") == 1)
            until = time.monotonic() + 2.5
            while time.monotonic() < until:
                assert replicas.in_flight(0, "lb-1") == 1, "it has nothing new to say, and is there"
            process = replicas.running[1].process
            process.send_signal(signal.SIGSTOP)  # No packet comes, and no end of a connection.
            try:
                stopped_at = time.monotonic()
                assert seen(lambda: not replicas.in_flight(0, "lb-1"))
                assert time.monotonic() - stopped_at < 1.0
                assert "lb-1" in replicas.live(0), "it may be back soon"
            finally:
                process.send_signal(signal.SIGCONT)
            heard_at = time.monotonic()
            assert seen(lambda: replicas.in_flight(0, "lb-1") == 1)
            assert time.monotonic() - heard_at < 1.0


def test_each_tells_of_itself_and_all_are_summed(replicas: Replicas) -> None:
    replicas.start(0)
    replicas.start(1)

    def told() -> bool:
        fleet = replicas.ask(0, "/api/fleet")
        return [(each["state"], each["version"]) for each in fleet["replicas"]] == [("live", __version__)] * 2 and (
            all(each["second"] for each in fleet["replicas"])
        )

    assert seen(told)
    fleet = replicas.ask(0, "/api/fleet")
    own, other = fleet["replicas"]
    assert (own["self"], other["self"], other["name"], other["endpoints"]) == (True, False, "lb-1", 4)
    assert fleet["total"]["connections"] == own["second"]["connections"] + other["second"]["connections"]


def test_one_of_another_format_is_shown_refused(replicas: Replicas) -> None:
    replicas.start(0)

    async def report() -> None:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session:
            async with session.ws_connect(f"http://127.0.0.1:{replicas.admin_ports[0]}/peers") as socket:
                await socket.send_str('{"v": 2, "replica": "lb-new"}')
                await socket.receive()

    assert seen(lambda: replicas.names(0) == {"lb-0", ""})  # The other that LB_PEERS names does not run.
    asyncio.run(report())
    fleet = {each["name"]: each for each in replicas.ask(0, "/api/fleet")["replicas"]}
    assert (fleet["lb-new"]["state"], fleet[""]["state"]) == ("refused", "unreachable")
    assert "version 2" in fleet["lb-new"]["problem"]


def test_a_strategy_switched_at_one_replica_is_switched_at_all_and_outlives_a_restart(replicas: Replicas) -> None:
    replicas.start(0)
    replicas.start(1)
    replicas.ask(0, "/api/strategy?scope=fleet", "PUT", {"strategy": "least-connections"})
    assert seen(lambda: replicas.ask(1, "/api/strategy")["strategy"] == "least-connections")
    replicas.running.pop(0).stop()
    replicas.start(0)
    assert seen(lambda: replicas.ask(0, "/api/strategy")["strategy"] == "least-connections")


def test_what_another_replica_wishes_for_imports_no_code(replicas: Replicas) -> None:
    replicas.start(0)

    async def report() -> None:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session:
            async with session.ws_connect(f"http://127.0.0.1:{replicas.admin_ports[0]}/peers") as socket:
                intent = {"at": time.time(), "strategy": "this:Strategy", "drained": []}
                await socket.send_json({"v": 1, "replica": "lb-9", "whole": True, "intent": intent, "answer": True})
                await socket.receive()

    asyncio.run(report())
    assert seen(lambda: "the fleet's strategy is not known here" in replicas.running[0].log())
    assert "no Strategy" not in replicas.running[0].log(), "the module has been looked into"


def test_a_switch_of_one_replica_alone_stays_there(replicas: Replicas) -> None:
    replicas.start(0)
    replicas.start(1)
    assert seen(lambda: replicas.live(1) == {"lb-0", "lb-1"})
    replicas.ask(0, "/api/strategy", "PUT", {"strategy": "least-connections"})
    replicas.ask(0, "/api/strategy?scope=fleet", "PUT", {"strategy": "random-of-two"})
    assert seen(lambda: replicas.ask(1, "/api/strategy")["strategy"] == "random-of-two")
    assert "least-connections" not in replicas.running[1].log()


def test_an_endpoint_drained_at_one_replica_is_drained_at_all_and_taken_back(replicas: Replicas) -> None:
    replicas.start(0)
    replicas.start(1)
    address = replicas.backends.split(",")[0]

    def eligible(number: int) -> bool:
        return bool(replicas.ask(number, f"/api/endpoints/{address}")["eligible"])

    replicas.ask(0, f"/api/endpoints/{address}/drain?scope=fleet", "POST")
    assert seen(lambda: not eligible(0) and not eligible(1))
    replicas.ask(1, f"/api/endpoints/{address}/undrain?scope=fleet", "POST")
    assert seen(lambda: eligible(0) and eligible(1))


def test_endpoints_drained_at_two_replicas_at_once_are_both_drained_at_both(replicas: Replicas) -> None:
    replicas.start(0)
    replicas.start(1)
    assert seen(lambda: replicas.live(0) == replicas.live(1) == {"lb-0", "lb-1"})
    addresses = sorted(replicas.backends.split(","))
    for pair in (addresses[:2], addresses[2:]):
        with ThreadPoolExecutor(2) as two:
            paths = [f"/api/endpoints/{address}/drain?scope=fleet" for address in pair]
            list(two.map(replicas.ask, (0, 1), paths, ("POST", "POST")))
    for number in (0, 1):
        assert seen(lambda number=number: replicas.ask(number, "/api/fleet")["agreed"]["drained"] == addresses)  # type: ignore[misc]


class Backend(ThreadingHTTPServer):
    """Answers each request after so many seconds."""

    daemon_threads = True

    def __init__(self, seconds: float) -> None:
        backend = self
        self.got = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                backend.got += 1
                time.sleep(seconds)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def backends() -> Iterator[list[Backend]]:
    """Three that answer at once, and one that takes 0.3 s."""
    made = [Backend(seconds) for seconds in (0.0, 0.0, 0.0, 0.3)]
    yield made
    for backend in made:
        backend.shutdown()
        backend.server_close()


@pytest.mark.parametrize("knows_of_the_other", [True, False])
def test_a_replica_that_starts_chooses_by_what_the_others_have_learned(
    replicas: Replicas, backends: list[Backend], knows_of_the_other: bool
) -> None:
    replicas.backends = ",".join(f"127.0.0.1:{backend.server_port}" for backend in backends)

    def ask(balancer: Balancer, times: int) -> int:
        """How many of the requests went to the slow backend."""
        before = backends[-1].got
        for _ in range(times):
            with urllib.request.urlopen(f"http://127.0.0.1:{balancer.port}/", timeout=10) as response:
                assert response.status == 200
        return backends[-1].got - before

    old = replicas.start(0, LB_STRATEGY="least-work")
    ask(old, 80)
    assert ask(old, 12) == 0
    if not knows_of_the_other:
        assert ask(replicas.start(1, LB_STRATEGY="least-work", LB_PEERS="none", LB_PEERS_TOKEN="none"), 4) == 1
        return
    new = replicas.start(1, LB_STRATEGY="least-work")
    assert seen(lambda: new.metric("lb_peer_events_total", event="taken_over") == 1)
    assert ask(new, 12) == 0
    assert "learned from a peer" in new.log()
    assert seen(lambda: old.metric("lb_peer_events_total", event="handed_over") == 1)


def test_a_stranger_is_refused_and_the_log_says_what_to_do(replicas: Replicas) -> None:
    replicas.start(0)
    replicas.start(1, LB_PEERS_TOKEN="another")
    assert seen(lambda: "LB_PEERS_TOKEN" in replicas.running[0].log())
    assert replicas.live(0) == {"lb-0"}

    def why(number: int) -> list[tuple[str, str]]:
        return [(each["state"], each["problem"]) for each in replicas.ask(number, "/api/fleet")["replicas"][1:]]

    assert seen(lambda: why(0) == [("unreachable", "refused with status 401: LB_PEERS_TOKEN is another there")])
    assert seen(lambda: replicas.running[0].metric("lb_peer_events_total", event="unauthorized") > 2)
    assert replicas.running[0].log().count("peer refused") == 1, "what lasts is logged when it begins"


def test_the_fleet_cannot_be_asked_where_there_is_none(replicas: Replicas) -> None:
    replicas.start(0, LB_PEERS="none", LB_PEERS_TOKEN="none")
    with pytest.raises(urllib.error.HTTPError) as refused:
        replicas.ask(0, "/api/strategy?scope=fleet", "PUT", {"strategy": "random-of-two"})
    with refused.value:
        assert refused.value.code == 409
        assert "LB_PEERS" in refused.value.read().decode()
