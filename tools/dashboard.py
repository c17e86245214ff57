"""Writes the chart's Grafana dashboard, files/dashboard.json, from the list of its panels here.

With `--check` it writes nothing and exits with 1 when the file is out of step.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "charts" / "lb" / "files" / "dashboard.json"

Json = dict[str, Any]

OURS = 'namespace=~"$namespace",job=~"$job",instance=~"$instance"'
"""In each selector, where `ours` stands below."""
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
CLASS_5XX = ',class="5xx"'
WIDTH, HEIGHT = 8, 8
"""Of a panel, in Grafana's grid of 24 columns."""


@dataclass(frozen=True)
class Panel:
    """One plot."""

    title: str
    meaning: str
    unit: str
    """A unit's id in Grafana."""
    queries: dict[str, str]
    """The legend of each query, with labels in double braces."""
    stacked: bool = False


def rate(metric: str, by: str = "", labels: str = "") -> str:
    """How fast a counter grows, summed over all but the labels of `by`."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{{ours{labels}}}[$__rate_interval]))"


def quantiles(metric: str) -> dict[str, str]:
    """Three quantiles of a histogram."""
    buckets = rate(f"{metric}_bucket", "le")
    return {f"p{share}": f"histogram_quantile(0.{share}, {buckets})" for share in (50, 90, 99)}


ROWS = {
    "Traffic": [
        Panel("Requests", "A second, by replica.", "reqps", {"{{instance}}": rate("lb_requests_total", "instance")}),
        Panel(
            "Responses",
            "A second, by class of status.",
            "reqps",
            {"{{class}}": rate("lb_responses_total", "class")},
            stacked=True,
        ),
        Panel(
            "Share of errors",
            "Responses of class 5xx, the endpoints' and our own.",
            "percentunit",
            {"5xx": f"{rate('lb_responses_total', labels=CLASS_5XX)} / {rate('lb_responses_total')}"},
        ),
        Panel(
            "Duration",
            "From a request's head to its response's last byte.",
            "s",
            quantiles("lb_request_duration_seconds"),
        ),
        Panel(
            "First byte",
            "How long endpoints take to begin a response.",
            "s",
            quantiles("lb_first_byte_duration_seconds"),
        ),
        Panel(
            "In flight and waiting",
            "Requests not yet answered, and those that wait for an endpoint below its limit.",
            "short",
            {"in flight": "sum(lb_requests_in_flight{ours})", "waiting": "sum(lb_queue_length{ours})"},
        ),
        Panel(
            "Bytes",
            "A second, from and to clients.",
            "Bps",
            {"from clients": rate("lb_received_bytes_total"), "to clients": rate("lb_sent_bytes_total")},
        ),
        Panel(
            "Client connections",
            "Open, by replica; and accepted a second.",
            "short",
            {
                "open {{instance}}": "sum by (instance) (lb_downstream_connections_open{ours})",
                "accepted a second": rate("lb_downstream_connections_opened_total"),
            },
        ),
        Panel(
            "Clients' faults and limits",
            "Requests and connections refused, a second.",
            "short",
            {
                "{{kind}}": rate("lb_client_faults_total", "kind"),
                "limit: {{reason}}": rate("lb_downstream_connections_refused_total", "reason"),
            },
        ),
    ],
    "Failures": [
        Panel(
            "Our own errors",
            "A second, by reason.",
            "reqps",
            {"{{reason}}": rate("lb_errors_total", "reason")},
            stacked=True,
        ),
        Panel(
            "Retries",
            "A second, by the reason of the failure before; denied: for want of budget.",
            "reqps",
            {"{{reason}}": rate("lb_retries_total", "reason"), "denied": rate("lb_retries_denied_total")},
        ),
        Panel(
            "Failures by endpoint",
            "Requests a second that ended without a whole response.",
            "reqps",
            {"{{endpoint}} {{reason}}": rate("lb_endpoint_failures_total", "endpoint, reason")},
        ),
    ],
    "Endpoints": [
        Panel(
            "States",
            "How many endpoints are in which, as the replica with the most sees it.",
            "short",
            {"{{state}}": "max by (state) (lb_endpoints{ours})"},
            stacked=True,
        ),
        Panel(
            "Responses by endpoint",
            "A second.",
            "reqps",
            {"{{endpoint}}": rate("lb_endpoint_responses_total", "endpoint")},
        ),
        Panel(
            "In flight by endpoint",
            "Over all replicas.",
            "short",
            {"{{endpoint}}": "sum by (endpoint) (lb_endpoint_in_flight{ours})"},
        ),
        Panel(
            "Latency as the balancer reckons it",
            "Peak EWMA, the largest over the replicas.",
            "s",
            {"{{endpoint}}": "max by (endpoint) (lb_endpoint_latency_seconds{ours})"},
        ),
        Panel(
            "What happened",
            "Transitions of endpoints and of the pool, in the interval; and panic.",
            "short",
            {
                "{{event}}": "sum by (event) (increase(lb_transitions_total{ours}[$__rate_interval]))",
                "in panic": "max(lb_panic{ours})",
            },
        ),
        Panel(
            "Connections to endpoints",
            "Open; and opened or reused a second.",
            "short",
            {
                "open": "sum(lb_endpoint_connections_open{ours})",
                "opened a second": rate("lb_endpoint_connections_opened_total"),
                "reused a second": rate("lb_endpoint_connections_reused_total"),
            },
        ),
    ],
    "The balancer": [
        Panel("Choices", "A second, by strategy.", "reqps", {"{{strategy}}": rate("lb_choices_total", "strategy")}),
        Panel(
            "Age of the discovery",
            "Since the membership was last known to be current.",
            "s",
            {"{{instance}}": "max by (instance) (lb_discovery_age_seconds{ours})"},
        ),
        Panel(
            "CPU",
            "Seconds a second; one thread can use 1.",
            "short",
            {"{{instance}}": rate("process_cpu_seconds_total", "instance")},
        ),
        Panel(
            "Memory",
            "Resident.",
            "bytes",
            {"{{instance}}": "sum by (instance) (process_resident_memory_bytes{ours})"},
        ),
        Panel(
            "Event loop's lag",
            "How late one in a hundred timers ran.",
            "s",
            {
                "{{instance}}": "histogram_quantile(0.99, "
                + rate("lb_event_loop_lag_seconds_bucket", "instance, le")
                + ")"
            },
        ),
        Panel(
            "Retry budget",
            "Retries that it would pay for now.",
            "short",
            {"{{instance}}": "sum by (instance) (lb_retry_budget{ours})"},
        ),
    ],
}


def panels() -> list[Json]:
    """All rows and panels, placed from the top left."""
    placed: list[Json] = []
    top = 0
    for title, row in ROWS.items():
        placed.append({"type": "row", "title": title, "gridPos": {"x": 0, "y": top, "w": 24, "h": 1}, "panels": []})
        top += 1
        for number, panel in enumerate(row):
            x, y = number % 3 * WIDTH, top + number // 3 * HEIGHT
            placed.append(plot(panel) | {"gridPos": {"x": x, "y": y, "w": WIDTH, "h": HEIGHT}})
        top += (len(row) + 2) // 3 * HEIGHT
    return [{"id": number, **panel} for number, panel in enumerate(placed, 1)]


def plot(panel: Panel) -> Json:
    """A panel as Grafana has it."""
    style = {"fillOpacity": 20 if panel.stacked else 5, "stacking": {"mode": "normal" if panel.stacked else "none"}}
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.meaning,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": style}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": SOURCE,
                "expr": query.replace("{ours", "{" + OURS),
                "legendFormat": legend,
            }
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def variable(name: str, selector: str) -> Json:
    """A choice above the plots, of the values that a label has."""
    query = f"label_values(lb_build_info{{{selector}}}, {name})"
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
        "sort": 1,
    }


def dashboard() -> Json:
    """The whole."""
    return {
        "uid": "lb",
        "title": "lb",
        "description": "The load balancer lb: traffic, failures, endpoints, and the balancer itself.",
        "tags": ["lb"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "annotations": {"list": []},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "current": {}},
                variable("namespace", ""),
                variable("job", 'namespace=~"$namespace"'),
                variable("instance", 'namespace=~"$namespace",job=~"$job"'),
            ]
        },
        "panels": panels(),
    }


def main() -> int:
    """Write the file, or with `--check` say whether it is out of step."""
    text = json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"
    if TARGET.exists() and TARGET.read_text() == text:
        return 0
    if "--check" in sys.argv[1:]:
        print(f"dashboard: {TARGET.relative_to(ROOT)} is out of step", file=sys.stderr)
        return 1
    TARGET.write_text(text)
    print(f"dashboard: {TARGET.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
