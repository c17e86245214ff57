"""Helm 3 and Helm 4 install the same, and refuse the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.chart.conftest import CHART, Refused

from tools import helm4

EVERYTHING: dict[str, Any] = {
    "balancer": {
        "autoscaling": {"enabled": True},
        "settings": {"host": ["::"], "adminHost": ["::"], "retryStatuses": [500, 503], "strategy": "least-connections"},
    },
    "pi": {"settings": {"host": ["::", "127.0.0.1"]}},
    "ingress": {"enabled": True, "className": "nginx"},
    "networkPolicy": {"enabled": True},
    "peers": {"enabled": True},
    "gateway": {"enabled": True},
}


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["the defaults", "all that can be switched on"])
def test_both_render_the_same(
    helm: Callable[..., str], either_helm: Callable[..., str], tmp_path: Path, values: dict[str, Any]
) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(values))
    command = ("template", "lb", str(CHART), "--values", str(file))
    rendered = either_helm(*command)
    assert "kind: Deployment" in rendered
    if not any(kind in rendered for kind in ("kind: Secret",)):  # a generated token differs each time
        assert rendered == helm(*command)


def test_both_lint_it(either_helm: Callable[..., str]) -> None:
    assert "0 chart(s) failed" in either_helm("lint", str(CHART))


def test_both_refuse_a_value_that_does_not_exist(either_helm: Callable[..., str]) -> None:
    with pytest.raises(Refused, match="ejectAftr"):
        either_helm("template", "lb", str(CHART), "--set", "balancer.settings.ejectAftr=3")


def test_the_tool_keeps_no_half_of_a_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert helm4.fetched() is None
    helm4.keep(b"#!/bin/sh\necho v4\n")
    assert [path.name for path in (tmp_path / "lb").glob("*/*")] == ["helm4"]
    assert helm4.fetched() == str(next((tmp_path / "lb").glob("*/helm4")))


def test_the_tool_records_no_registry() -> None:
    assert "://" not in Path(helm4.__file__).read_text()
