"""Dashboard and alerts: they ask for metrics that the balancer has, in queries that Prometheus understands."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from balancer.admin.metrics import METRICS

CHART = Path(__file__).resolve().parents[2] / "charts" / "lb"
ALERTS = CHART / "files" / "alerts.yaml"
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text())
PLOTS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [target for plot in PLOTS for target in plot["targets"]]
QUERIES = [rule["expr"] for rule in RULES] + [target["expr"] for target in TARGETS]

OF_PROMETHEUS = {"namespace", "job", "instance", "le"}
"""Labels that scraping adds, and the bucket's."""
OF_THE_CLIENT = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
"""Metrics that prometheus-client adds."""


def series() -> dict[str, set[str]]:
    """Every series that the balancer has, and its labels."""
    found = {name: set[str]() for name in OF_THE_CLIENT}
    for metric in METRICS:
        labels = {*metric.labels}
        if metric.kind == "histogram":
            found |= {f"{metric.name}_{part}": labels for part in ("bucket", "sum", "count")}
        else:
            found[metric.name] = labels
    return found


def labels_in(text: str) -> set[str]:
    """Labels that a query or a legend names."""
    grouped = re.findall(r"\b(?:by|without|on) *\(([^)]*)\)", text)
    selected = re.findall(r"[{,](\w+)(?==)", text)
    shown = re.findall(r"{{(\w+)}}|\$labels\.(\w+)", text)
    return {*", ".join(grouped).split(", "), *selected, *(one or other for one, other in shown)} - {""}


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_asks_for_a_metric_and_labels_that_there_are(query: str) -> None:
    names = set(re.findall(r"\b(?:lb|process)_\w+", query))
    assert names, "some metric"
    assert names <= series().keys()
    assert labels_in(query) <= OF_PROMETHEUS.union(*(series()[name] for name in names))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target["expr"][:60])
def test_a_legend_names_labels_that_the_query_keeps(target: Any) -> None:
    (kept, *_) = re.findall(r"\bby \(([^)]*)\)", target["expr"]) or [""]
    assert labels_in(target["legendFormat"]) <= set(kept.split(", "))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_look_at(rule: Any) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description"}


def test_plots_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        taken = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        cells |= taken
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_prometheus_understands_every_query(promtool: Any, tmp_path: Path) -> None:
    """The dashboard's as recording rules, with the variables filled in as Grafana does."""
    filled = [re.sub(r"\$(namespace|job|instance)", ".*", query.replace("$__rate_interval", "1m")) for query in QUERIES]
    rules = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(filled)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    promtool("check", "rules", str(file))
    promtool("check", "rules", str(ALERTS))


OURS = '{namespace="shop", job="lb-admin", instance="a:8081"}'


def with_labels(metric: str, labels: str = "") -> str:
    return metric + OURS.replace("}", f", {labels}}}" if labels else "}")


IN_ORDER = {
    with_labels("lb_build_info"): "1x180",
    with_labels("lb_discovery_age_seconds"): "1x180",
    with_labels("lb_discovery_stale"): "0x180",
    with_labels("lb_endpoints", 'state="ready"'): "3x180",
    with_labels("lb_endpoints", 'state="ejected"'): "0x180",
    with_labels("lb_responses_total", 'class="2xx"'): "0+1000x180",
    with_labels("lb_responses_total", 'class="5xx"'): "0+10x180",
    with_labels("lb_panic"): "0x180",
    with_labels("lb_endpoint_ejections_total", 'endpoint="10.0.0.1:80"'): "0+1x5 5x175",
    with_labels("lb_endpoint_pace", 'endpoint="10.0.0.1:80"'): "1.2x180",
    with_labels("lb_retries_denied_total"): "0+1x180",
    with_labels("lb_queue_length"): "0x180",
    with_labels("lb_downstream_connections_refused_total", 'reason="max"'): "7x180",
    with_labels("process_cpu_seconds_total"): "0+30x180",
    with_labels("lb_event_loop_lag_seconds_bucket", 'le="0.05"'): "0+600x180",
    with_labels("lb_event_loop_lag_seconds_bucket", 'le="0.5"'): "0+600x180",
    with_labels("lb_event_loop_lag_seconds_bucket", 'le="+Inf"'): "0+600x180",
}
"""Three hours in which nothing is wrong: one value a minute, in promtool's notation."""

WRONG: dict[str, dict[str, str]] = {
    "LbAbsent": {with_labels("lb_build_info"): "_x180"},
    "LbNoEndpoints": {with_labels("lb_endpoints", 'state="ready"'): "0x180"},
    "LbNoMembership": {with_labels("lb_discovery_age_seconds"): "_x180"},
    "LbDiscoveryStale": {with_labels("lb_discovery_stale"): "1x180"},
    "LbErrors": {with_labels("lb_responses_total", 'class="5xx"'): "0+100x180"},
    "LbPanic": {with_labels("lb_panic"): "1x180"},
    "LbEndpointSlow": {with_labels("lb_endpoint_pace", 'endpoint="10.0.0.1:80"'): "4x180"},
    "LbEndpointFlaps": {with_labels("lb_endpoint_ejections_total", 'endpoint="10.0.0.1:80"'): "0+1x180"},
    "LbRetriesDenied": {with_labels("lb_retries_denied_total"): "0+10x180"},
    "LbQueue": {with_labels("lb_queue_length"): "3x180"},
    "LbConnectionsRefused": {with_labels("lb_downstream_connections_refused_total", 'reason="max"'): "0+1x180"},
    "LbSaturated": {with_labels("process_cpu_seconds_total"): "0+59x180"},
    "LbEventLoopLags": {with_labels("lb_event_loop_lag_seconds_bucket", 'le="0.05"'): "0+500x180"},
}
"""For each alert, what must be different for it to fire."""


@pytest.fixture
def promtool() -> Any:
    """Run promtool; AssertionError with what it says when it fails. Where there is none, in CI too, tests skip."""
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("there is no promtool on the PATH: it comes with Prometheus")

    def run(*arguments: str) -> None:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def fires(input_series: dict[str, str], alert: str, firing: bool) -> dict[str, Any]:
    """One of promtool's unit tests: whether an alert fires after two hours, whatever it says."""
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in input_series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)',
                "eval_time": "2h",
                "exp_samples": [{"labels": "{}", "value": int(firing)}],
            }
        ],
    }


@pytest.mark.parametrize("alert", [rule["alert"] for rule in RULES])
def test_an_alert_fires_when_it_should_and_only_then(promtool: Any, tmp_path: Path, alert: str) -> None:
    tests = [fires(IN_ORDER, alert, False), fires(IN_ORDER | WRONG[alert], alert, True)]
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    promtool("test", "rules", str(file))


def test_the_chart_carries_alerts_dashboard_and_monitor(render: Any) -> None:
    metrics = {
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "grafanaDashboard": {"enabled": True},
        "serviceMonitor": {"enabled": True, "interval": "10s", "labels": {"release": "prometheus"}},
    }
    rendered = render(values={"metrics": metrics})
    rule = rendered.one("PrometheusRule")
    assert rule["spec"] == yaml.safe_load(ALERTS.read_text())
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    dashboard = rendered.one("ConfigMap", "lb-dashboard")
    assert json.loads(dashboard["data"]["lb.json"]) == DASHBOARD
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    monitor = rendered.one("ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["interval"] == "10s"
    selected = [
        (service["metadata"]["name"], port["name"])
        for service in rendered.all("Service").values()
        if monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        for port in service["spec"]["ports"]
        if port["name"] == endpoint["port"]
    ]
    assert selected == [("lb-admin", "admin")], "each replica is scraped once"
