"""What every test of the wire shares: running balancers, and the proof at its end that nothing was left behind."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.balancer.proxy.wire.authority import Authority
from tests.balancer.proxy.wire.ends import close_all
from tests.balancer.proxy.wire.process import SETTLE, Balancer, Start

# A line of the log that no input may cause.
FAULTS = ("Traceback", "was never retrieved", "was never awaited", "was destroyed but it is pending", "ResourceWarning")


def unrest(balancer: Balancer) -> list[str]:
    """Every count that is not what it is when nobody asks for anything."""
    try:
        samples = balancer.metrics()
    except OSError as error:  # it may be about to end
        return [f"the admin port does not answer: {error}"]
    found = []
    idle = sum(value for name, value in samples.items() if name.startswith("lb_endpoint_connections_idle"))
    opened = sum(value for name, value in samples.items() if name.startswith("lb_endpoint_connections_open{"))
    if opened != idle:
        found.append(f"{opened:.0f} connections to endpoints open, {idle:.0f} of them idle")
    for name, value in samples.items():
        family = name.partition("{")[0]
        if value and family in {
            "lb_requests_in_flight",
            "lb_downstream_connections_open",
            "lb_tunnels_open",
            "lb_queue_length",
            "lb_endpoint_in_flight",
        }:
            found.append(f"{name} is {value:.0f}")
    if not found and balancer.held_at_start is not None:
        held = balancer.inside()
        found += [
            f"{number} {kind}, {balancer.held_at_start[kind]} at the start"
            for kind, number in held.items()
            if number > balancer.held_at_start[kind]
        ]
    return found


def assert_at_rest(balancer: Balancer) -> None:
    """Within a few seconds nothing is in flight and nothing open; and nothing was logged that is our own fault.

    A balancer that has ended without being told to is no balancer at rest.
    """
    assert balancer.alive or balancer.ended_by_test, f"ended by itself:\n{balancer.log()[-6000:]}"
    deadline = time.monotonic() + SETTLE
    while balancer.alive and (left := unrest(balancer)):
        assert time.monotonic() < deadline, f"not at rest: {left}\n{balancer.log()[-3000:]}"
        time.sleep(0.02)
    assert balancer.alive or balancer.ended_by_test, f"ended by itself:\n{balancer.log()[-6000:]}"
    fresh = balancer.new_log()
    if balancer.faulty:
        return
    for fault in FAULTS:
        assert fault not in fresh, fresh[-6000:]
    assert '"level": "error"' not in fresh, fresh[-6000:]
    assert '"level":"error"' not in fresh, fresh[-6000:]


@pytest.fixture(scope="module")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[object, ...], Balancer]]:
    running: dict[tuple[object, ...], Balancer] = {}
    yield running
    garbage = [kinds for balancer in running.values() if balancer.alive and (kinds := balancer.garbage())]
    for balancer in running.values():
        balancer.stop()
    # Cycles would be freed too, but only after so many that memory would rise for minutes.
    assert garbage == []


@pytest.fixture(autouse=True)
async def _tidy() -> AsyncIterator[None]:
    yield
    await close_all()


@pytest.fixture
def start(_running: dict[tuple[object, ...], Balancer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts a balancer, or hands out the one that this module has running with the same settings.

    `fresh=True`: one of its own for this test, which may kill it. Settings by name without `LB_`, in lower case.
    """
    used: list[Balancer] = []
    own: list[Balancer] = []

    def begin(
        endpoints: int = 1,
        *,
        fresh: bool = False,
        forked: bool = True,
        open_files: int = 0,
        ready: int = 200,
        **settings: object,
    ) -> Balancer:
        environment = {f"LB_{name.upper()}": str(value) for name, value in settings.items()}
        key = (endpoints, *sorted(environment.items()))
        if fresh or open_files or key not in _running or not _running[key].alive:
            log = tmp_path_factory.mktemp("balancer") / "log"
            balancer = Balancer(log, endpoints, environment, open_files=open_files, ready=ready, forked=forked)
            if fresh or open_files:
                own.append(balancer)
            else:
                _running[key] = balancer
        else:
            balancer = _running[key]
        balancer.new_log()
        used.append(balancer)
        return balancer

    yield begin
    try:
        for balancer in used:
            assert_at_rest(balancer)
    finally:
        for balancer in own:
            balancer.stop()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority, with a certificate for lb.test in files."""
    return Authority(tmp_path_factory.mktemp("authority"))
