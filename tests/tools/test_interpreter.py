"""How a Python was built, and which one is compiled for."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest

from tools import interpreter


@pytest.mark.parametrize(
    ("options", "built"),
    [
        ("'--prefix=/usr/local' '--enable-optimizations' '--with-lto'", "with PGO and LTO"),
        ("'--enable-optimizations' '--with-lto=no'", "with PGO"),
        ("'--with-lto=full'", "with LTO"),
        ("'--enable-shared'", interpreter.PLAIN),
        (None, interpreter.PLAIN),
    ],
)
def test_how_it_was_built_is_read_from_its_options(
    monkeypatch: pytest.MonkeyPatch, options: str | None, built: str
) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", {"CONFIG_ARGS": options}.get)
    monkeypatch.setattr(interpreter, "real", lambda: Path("/opt/python/bin/python3"))
    assert interpreter.built() == built


def test_debians_is_optimised_though_it_does_not_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", {"CONFIG_ARGS": "'--enable-shared'"}.get)
    monkeypatch.setattr(interpreter, "real", lambda: Path("/usr/bin/python3.11"))
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/etc/debian_version")
    assert interpreter.built() == "with PGO and LTO"


def test_where_none_was_built_for_speed_the_one_at_hand_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "NAMES", ("no-such-python", "/bin/false"))
    monkeypatch.setattr(interpreter, "built", lambda: interpreter.PLAIN)
    found = interpreter.ask(sys.executable)
    assert found is not None
    expected = found["path"] if "PGO" in str(found["built"]) and found["suits"] else sys.executable
    assert interpreter.best() == expected
