"""Messages in a pod name the chart's value beside each variable."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import structlog

from balancer.log import configure
from balancer.log.chart_values import ELSEWHERE, beside, value_for
from balancer.settings import table

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
CHART = Path(__file__).resolve().parents[2] / "charts/lb"


def test_a_remedy_names_the_charts_value_beside_the_variable() -> None:
    assert beside("raise LB_EJECT_AFTER", POD) == "raise LB_EJECT_AFTER (the chart's balancer.settings.ejectAfter)"
    assert beside("LB_PORT=x: allowed: a port", POD).startswith("LB_PORT=x (the chart's balancer.settings.port): ")
    assert "the chart's balancer.adminTls.secretName" in beside("set LB_ADMIN_TLS_CERT there", POD)
    assert "the chart's backend.port" in beside("set LB_KUBERNETES_PORT to http", POD)


def test_outside_a_pod_and_where_the_chart_is_named_already_nothing_changes() -> None:
    assert beside("raise LB_EJECT_AFTER", {}) == "raise LB_EJECT_AFTER"
    named = "set LB_KUBERNETES_PORT (the chart's backend.port) to http"
    assert beside(named, POD) == named


def test_the_chart_has_each_value_that_is_named() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    for row in table():
        node = schema
        for part in value_for(row.variable).split("."):
            assert part in node, row.variable
            node = node[part].get("properties", {})
    assert set(ELSEWHERE) <= {row.variable for row in table()}


def test_the_log_does_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    file = tmp_path / "log"
    fd = os.open(file, os.O_CREAT | os.O_WRONLY)
    output = configure(fmt="json", fd=fd)
    structlog.get_logger().warning("accepting paused", remedy="raise LB_MAX_CONNECTIONS")
    output.close()
    os.close(fd)
    line = file.read_text()
    assert json.loads(line)["remedy"].endswith("(the chart's balancer.settings.maxConnections)")
