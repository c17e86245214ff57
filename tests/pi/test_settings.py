from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pi import settings

DOCS = Path(__file__).parents[2] / "docs" / "pi.md"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("PI_"):
            monkeypatch.delenv(name)


def _faults(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[str]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(settings.SettingsError) as error:
        settings.load()
    return error.value.faults


def test_defaults_are_those_of_the_design(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PI_WORKERS", "3")
    chosen, warnings = settings.load()
    assert (chosen.host, chosen.port, chosen.name) == ("0.0.0.0", 8000, socket.gethostname())
    assert (chosen.max_digits, chosen.workers, chosen.queue, chosen.cache) == (1_000_000, 3, 96, False)
    assert (chosen.delay_ms, chosen.fail_rate, chosen.drain_delay, chosen.drain_timeout) == (0, 0, 0, 30)
    assert not warnings


def test_settings_cannot_be_changed_after_the_start() -> None:
    chosen, _ = settings.load()
    with pytest.raises(ValidationError):
        chosen.port = 1


def test_each_fault_is_one_line_with_the_variable_its_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faults = _faults(
        monkeypatch, PI_PORT="eighty", PI_WORKERS="0", PI_FAIL_RATE="2", PI_CACHE="perhaps", PI_DRAIN_TIMEOUT="nan"
    )
    assert sorted(faults) == [
        "PI_CACHE=perhaps: allowed: on or off",
        "PI_DRAIN_TIMEOUT=nan: allowed: a number from 0 to 3600",
        "PI_FAIL_RATE=2: allowed: a number from 0 to 1",
        "PI_PORT=eighty: allowed: a whole number from 0 to 65535",
        "PI_WORKERS=0: allowed: a whole number from 1 to 1024",
    ]


def test_a_misspelt_variable_stops_the_start_and_tells_what_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _faults(monkeypatch, PI_WORKER="2", PI_FROBNICATE="x") == [
        f"PI_FROBNICATE=x: no such setting; there are {', '.join(settings.variables())}",
        "PI_WORKER=2: no such setting; did you mean PI_WORKERS?",
    ]


def test_an_empty_value_is_as_if_it_were_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PI_PORT", "")
    assert settings.load()[0].port == 8000


@pytest.mark.parametrize("name", ["two\nlines", "naïve", " x", "x" * 256])
def test_a_name_that_no_header_can_carry_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (fault,) = _faults(monkeypatch, PI_NAME=name)
    assert fault.endswith(": allowed: visible ASCII characters, at most 255")
    assert "\n" not in fault


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PI_SERVICE_HOST", "10.96.1.2"),
        ("PI_SERVICE_PORT", "8000"),
        ("PI_SERVICE_PORT_HTTP", "8000"),
        ("PI_PORT", "tcp://10.96.1.2:8000"),
        ("PI_PORT_8000_TCP", "tcp://10.96.1.2:8000"),
        ("PI_PORT_8000_TCP_PROTO", "tcp"),
        ("PI_PORT_8000_TCP_ADDR", "10.96.1.2"),
        ("PI_WEB_SERVICE_HOST", "10.96.1.3"),
        ("PI_WEB_PORT", "tcp://10.96.1.3:80"),
    ],
)
def test_what_kubernetes_injects_is_ignored_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    chosen, warnings = settings.load()
    assert chosen.port == 8000
    assert warnings == [f"{variable}={value} ignored: Kubernetes sets it for a Service"]


def test_a_port_that_only_looks_like_a_link_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _faults(monkeypatch, PI_PORT="http://x") == ["PI_PORT=http://x: allowed: a whole number from 0 to 65535"]


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pi", *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_check_validates_and_exits() -> None:
    good, bad = _run("--check"), _run("--check", PI_QUEUE="-1", PI_NOPE="x")
    assert (good.returncode, good.stdout, good.stderr) == (0, "the settings are valid\n", "")
    assert bad.returncode == 2
    assert [line.partition("=")[0] for line in bad.stderr.splitlines()] == ["PI_NOPE", "PI_QUEUE"]


def test_a_wrong_setting_stops_the_start() -> None:
    failed = _run(PI_PORT="0", PI_WORKERS="many")
    assert (failed.returncode, len(failed.stderr.splitlines())) == (2, 1)


def test_help_tells_every_setting() -> None:
    shown = _run("--help").stdout
    assert all(f"PI_{name.upper()} " in shown for name in settings.Settings.model_fields)


def test_the_table_in_the_documentation_is_the_one_in_the_code() -> None:
    assert settings.table(markdown=True) in DOCS.read_text(), "run python -m pi --settings-table, and paste"


def test_a_busy_port_is_named_in_the_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = _run(PI_HOST="127.0.0.1", PI_PORT=str(port))
    assert failed.returncode == 1
    assert f"PI_PORT={port}" in failed.stderr
    assert "address already in use" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


def test_every_address_is_ipv4_too(start: Callable[..., Any]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert start(host="::, ", port=port).get("/1").text.strip() == "3.1"  # which asks at 127.0.0.1
