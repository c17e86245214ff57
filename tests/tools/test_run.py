"""`make run`: what a person sees who starts it, uses it, breaks it and stops it."""

from __future__ import annotations

import os
import signal
import socket
import urllib.request
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pytest
from tools.run import CannotRun, make_plan

if TYPE_CHECKING:
    from tests.tools.conftest import Terminal

UP = "Ctrl-C stops"


def get(url: str) -> tuple[str, str]:
    """Body, and the backend that served it."""
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode(), response.headers["X-Served-By"]


def test_it_balances_over_its_backends_and_leaves_quietly(
    make_run: Callable[..., Terminal], all_gone: Callable[[Mapping[str, int]], bool]
) -> None:
    terminal = make_run(BACKENDS="3")
    terminal.see(UP)
    answers = [get(f"{terminal.url}/10") for _ in range(6)]
    processes = terminal.processes()
    terminal.press_ctrl_c()

    assert terminal.end() == 0
    assert {body for body, _ in answers} == {"3.1415926535\n"}
    assert sorted(served_by for _, served_by in answers) == ["pi-1", "pi-1", "pi-2", "pi-2", "pi-3", "pi-3"]
    assert len(processes) == 4
    assert all_gone(processes)
    assert "Traceback" not in terminal.text
    assert "died" not in terminal.text


def test_the_greeting_says_where_to_look(make_run: Callable[..., Terminal]) -> None:
    terminal = make_run(LB_STRATEGY="least-connections")
    terminal.see(UP)

    assert f"http://localhost:{terminal.port}  http, least-connections, 2 Pi backends" in terminal.text
    assert f"http://127.0.0.1:{terminal.admin_port}" in terminal.text


def test_a_backend_that_dies_is_reported_and_the_rest_go_on(make_run: Callable[..., Terminal]) -> None:
    terminal = make_run()
    terminal.see(UP)
    os.kill(terminal.processes()["pi"], signal.SIGKILL)
    terminal.see(r"pi-\d has died \(killed by SIGKILL\): the other 1 go on")

    assert len({get(f"{terminal.url}/10") for _ in range(4)}) == 1
    terminal.press_ctrl_c()
    assert terminal.end() == 0


def test_nothing_is_left_when_the_runner_is_killed(
    make_run: Callable[..., Terminal], all_gone: Callable[[Mapping[str, int]], bool]
) -> None:
    terminal = make_run()
    terminal.see(UP)
    processes = terminal.processes()
    os.kill(terminal.pid, signal.SIGKILL)

    assert len(processes) == 3
    assert all_gone(processes)


def test_the_rest_is_stopped_when_the_balancer_ends(
    make_run: Callable[..., Terminal], all_gone: Callable[[Mapping[str, int]], bool]
) -> None:
    terminal = make_run()
    terminal.see(UP)
    processes = terminal.processes()
    os.kill(processes["balancer"], signal.SIGKILL)
    terminal.see(r"the balancer has ended \(killed by SIGKILL\)")

    assert terminal.end() == 1
    assert all_gone(processes)


def test_tcp_mode_balances_connections(make_run: Callable[..., Terminal]) -> None:
    terminal = make_run(LB_MODE="tcp")
    terminal.see(UP)

    assert {get(f"{terminal.url}/10")[1] for _ in range(4)} == {"pi-1", "pi-2"}


def test_lines_are_coloured_by_process_on_a_terminal(make_run: Callable[..., Terminal]) -> None:
    terminal = make_run()
    terminal.see("\x1b\\[\\d+mbalancer │\x1b\\[0m ")


def test_no_color_is_respected(make_run: Callable[..., Terminal]) -> None:
    terminal = make_run(NO_COLOR="1")
    terminal.see("(?m)^balancer │ ")
    terminal.see(UP)

    assert "\x1b" not in terminal.text


@pytest.mark.parametrize("variable", ["LB_PORT", "LB_ADMIN_PORT"])
def test_a_busy_port_is_named_with_the_remedy(make_run: Callable[..., Terminal], variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        terminal = make_run(**{variable: str(port)})

        assert terminal.end() == 1
        assert f"port {port} of 127.0.0.1 is in use" in terminal.text
        assert f"{variable}=" in terminal.text
        assert "Traceback" not in terminal.text


def test_a_wrong_setting_stops_the_start_with_its_line(make_run: Callable[..., Terminal]) -> None:
    terminal = make_run(LB_STRATEGY="least-conections")

    assert terminal.end() == 1
    assert "LB_STRATEGY" in terminal.text
    assert "least-connections" in terminal.text


def test_the_environment_wins_over_the_env_file() -> None:
    plan = make_plan({"LB_PORT": "9000"}, {"LB_PORT": "9001", "LB_STRATEGY": "n-to-one"})

    assert plan.settings.port == 9000
    assert plan.settings.strategy == "n-to-one"


def test_backends_of_ones_own_need_no_pi() -> None:
    plan = make_plan({"LB_BACKENDS": "127.0.0.1:9999"}, {})

    assert not plan.backends
    assert [spec.address for spec in plan.settings.backends] == ["127.0.0.1:9999"]


@pytest.mark.parametrize("count", ["0", "-1", "four", "101", "٤"])
def test_a_wrong_number_of_backends_is_refused(count: str) -> None:
    with pytest.raises(CannotRun, match=f"BACKENDS={count}: allowed is a number from 1 to 100"):
        make_plan({"BACKENDS": count}, {})


def test_it_listens_on_this_machine_alone_unless_told_otherwise() -> None:
    assert make_plan({}, {}).settings.host == ("127.0.0.1",)
    assert make_plan({"LB_HOST": "0.0.0.0"}, {}).settings.host == ("0.0.0.0",)
