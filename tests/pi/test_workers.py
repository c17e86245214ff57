"""The queue and the worker processes. A worker that stands still (SIGSTOP) computes for ever, at no cost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.pi.conftest import Client, Pi, eventually


def _busy(pi: Pi, clients: int) -> list[Client]:
    """So many clients that ask while the workers stand still."""
    pi.wait_until_ready()
    pi.pause_workers()
    return [pi.connect().send("/10") for _ in range(clients)]


def _refused(clients: list[Client]) -> list[Client]:
    return [client for client in clients if client.answered_within(0.5)]


def test_beyond_the_queue_503_at_once_with_when_to_retry(start: Callable[..., Pi]) -> None:
    pi = start(workers=1, queue=2)
    clients = _busy(pi, 4)  # one is computed, two wait
    (refused,) = _refused(clients)
    reply = refused.reply()
    assert reply.status == 503
    assert 1 <= int(reply.headers["retry-after"]) <= 30
    pi.resume_workers()
    assert [client.reply().status for client in clients if client is not refused] == [200, 200, 200]


def test_with_no_queue_a_busy_worker_means_503(start: Callable[..., Pi]) -> None:
    pi = start(workers=1, queue=0)
    clients = _busy(pi, 2)
    assert len(_refused(clients)) == 1


def test_health_is_answered_while_the_queue_is_full(start: Callable[..., Pi]) -> None:
    pi = start(workers=1, queue=0)
    _busy(pi, 2)
    assert (pi.get("/healthz").status, pi.get("/readyz").status) == (200, 200)


def test_requests_are_served_in_the_order_they_came(start: Callable[..., Pi]) -> None:
    pi = start(workers=1, queue=10)
    (first,) = _busy(pi, 1)
    second = pi.connect().send("/2000000000")  # refused at once: what was sent before has been seen
    assert second.reply().status == 400
    third = pi.connect().send("/300000")
    assert pi.get("/healthz").status == 200
    fourth = pi.connect().send("/20")
    assert pi.get("/healthz").status == 200
    pi.resume_workers()
    assert fourth.reply().status == 200
    assert third.answered_within(0)
    assert (first.reply().status, third.reply().status) == (200, 200)


def test_a_client_that_leaves_frees_its_place(start: Callable[..., Pi]) -> None:
    pi = start(workers=1, queue=1)
    clients = _busy(pi, 3)
    (refused,) = _refused(clients)
    waiting = [client for client in clients if client is not refused][-1]
    waiting.close()

    def accepted() -> bool:
        client = pi.connect().send("/20")
        if client.answered_within(0.2):
            client.close()
            return False
        later.append(client)
        return True

    later: list[Client] = []
    eventually(accepted)
    pi.resume_workers()
    assert later[0].reply().text == "3.14159265358979323846\n"


def test_the_computation_of_a_client_that_left_does_not_hold_its_worker(start: Callable[..., Pi]) -> None:
    pi = start(workers=1, queue=1)
    (client,) = _busy(pi, 1)
    assert pi.get("/healthz").status == 200
    client.close()
    assert pi.get("/10").status == 200  # by a worker that took the place of the one that stands still


def test_a_killed_worker_costs_its_own_request_alone_and_is_replaced(start: Callable[..., Pi]) -> None:
    pi = start(workers=2, queue=1, max_digits=100_000_000)
    pi.wait_until_ready()
    before = {worker: _cpu_ticks(worker) for worker in pi.workers()}
    computing = [pi.connect().send("/50000000") for _ in before]  # a minute or more
    eventually(lambda: all(_cpu_ticks(worker) > ticks + 2 for worker, ticks in before.items()))
    waiting = pi.connect().send("/10")
    assert pi.get("/healthz").status == 200
    victim, other = before
    os.kill(victim, signal.SIGKILL)
    assert "was ended by signal 9" in pi.wait_for_log(f"worker {victim}")
    assert waiting.reply().text == "3.1415926535\n"  # by the one that took its place
    failed = [client for client in computing if client.answered_within(0.2)]
    assert [client.reply().status for client in failed] == [500]
    assert len(pi.workers()) == 2
    assert other in pi.workers()


def test_a_worker_killed_before_it_has_begun_costs_no_request(start: Callable[..., Pi]) -> None:
    pi = start(workers=1, queue=2)
    clients = _busy(pi, 3)
    assert pi.get("/healthz").status == 200
    os.kill(pi.workers().pop(), signal.SIGKILL)
    assert [client.reply().status for client in clients] == [200, 200, 200]


def test_a_worker_killed_while_idle_costs_no_request(start: Callable[..., Pi]) -> None:
    pi = start(workers=1)
    pi.wait_until_ready()
    for _ in range(2):
        os.kill(pi.workers().pop(), signal.SIGKILL)
        assert pi.get("/10").status == 200


def test_it_is_not_ready_without_a_worker(start: Callable[..., Pi]) -> None:
    pi = start(workers=1)
    pi.wait_until_ready()
    (worker,) = pi.workers()
    os.kill(worker, signal.SIGKILL)
    pi.wait_for_log("starting another")
    eventually(lambda: pi.get("/readyz").status == 200)
    assert worker not in pi.workers()


def test_the_workers_die_with_the_server_even_in_mid_computation(start: Callable[..., Pi]) -> None:
    pi = start(workers=1, max_digits=100_000_000)
    pi.wait_until_ready()
    (worker,) = pi.workers()
    pi.connect().send("/10000000")  # some ten seconds
    assert pi.get("/healthz").status == 200
    pi.signal(signal.SIGKILL)
    pi.exit_status()
    killed = time.monotonic()
    eventually(lambda: not _lives(worker))
    assert time.monotonic() - killed < 3


def _cpu_ticks(pid: int) -> int:
    """CPU time that the process has used, in hundredths of a second."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_health_is_answered_soon_while_every_worker_computes_a_million_digits(start: Callable[..., Pi]) -> None:
    pi = start(workers=2)
    pi.wait_until_ready()
    stop = threading.Event()

    def ask() -> None:
        client = pi.connect()
        while not stop.is_set():
            assert len(client.send("/1000000").reply().body) == 1_000_003

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    try:
        # The machine may be busy with other things for a moment: one calm round of three is enough.
        calm = any(_p99_of_health(pi) < 0.050 for _ in range(3))
    finally:
        stop.set()
        for thread in asking:
            thread.join()
    assert calm


def _p99_of_health(pi: Pi) -> float:
    client, took = pi.connect(), []
    for _ in range(200):
        started = time.monotonic()
        client.send("/healthz").reply()
        took.append(time.monotonic() - started)
        time.sleep(0.005)
    return sorted(took)[197]
