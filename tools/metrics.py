"""Writes docs/metrics.md from the table of metrics that the balancer itself is made from."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from balancer.admin.metrics import METRICS, Metric
from balancer.counters import SECONDS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"

HEAD = """\
# Metrics

<!-- Made by tools/metrics.py from services/balancer/balancer/admin/metrics.py: `make generate` writes it again. -->

`GET /metrics` at the admin port answers in Prometheus' text format, or in OpenMetrics where `Accept` asks for it. Every
figure is a plain integer until it is asked for, so counting costs the data plane nothing; with many endpoints the text
is made in short pieces between which requests go on.

- What belongs to one endpoint has the label `endpoint` (its address) and goes when the endpoint does. The pod's name,
  zone and node are labels of `lb_endpoint_info` alone: join with
  `* on (instance, endpoint) group_left (pod, zone) lb_endpoint_info`.
- Histograms are kept for the whole. Their buckets end at {buckets}
  seconds and infinity.
- No label comes from a request: a client cannot make the number of series grow. A fleet of N endpoints makes about
  {whole} + {each} N of them.
- The figures are one replica's: sum over replicas.
- `process_…` (CPU seconds, resident memory, file descriptors, start time) are prometheus-client's own.

Useful questions:

| question | query |
|---|---|
| share that failed | `sum(rate(lb_responses_total{{class="5xx"}}[5m])) / sum(rate(lb_responses_total[5m]))` |
| p99 of the whole request | `histogram_quantile(0.99, sum by (le) (rate(lb_request_duration_seconds_bucket[5m])))` |
| why we answered an error ourselves | `sum by (reason) (rate(lb_errors_total[5m]))` |
| traffic by endpoint | `sum by (endpoint) (rate(lb_endpoint_responses_total[5m]))` |
| which endpoint is slow, for what it is asked? | `topk(3, lb_endpoint_pace)` |
| where does work pile up? | `topk(3, lb_endpoint_work_seconds)` |
| is one core enough? | `rate(process_cpu_seconds_total[5m])` near 1, or `lb_event_loop_lag_seconds` rising |
"""


def page() -> str:
    """The whole page."""
    each = sum("endpoint" in metric.labels for metric in METRICS)
    buckets = ", ".join(f"{bound:g}" for bound in SECONDS)
    whole = sum(
        (len(SECONDS) + 3) if metric.kind == "histogram" else 2 for metric in METRICS if "endpoint" not in metric.labels
    )
    parts = [HEAD.format(buckets=buckets, whole=round(whole, -1), each=each)]
    for title, metrics in sections():
        parts.append(
            f"\n## {title}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n" + "".join(map(row, metrics))
        )
    return "".join(parts)


def sections() -> Iterable[tuple[str, list[Metric]]]:
    """The table's metrics by what they are about."""
    rest = [metric for metric in METRICS if metric.kind != "histogram"]
    yield "Durations", [metric for metric in METRICS if metric.kind == "histogram"]
    yield "By endpoint", [metric for metric in rest if "endpoint" in metric.labels]
    yield "The whole", [metric for metric in rest if "endpoint" not in metric.labels]


def row(metric: Metric) -> str:
    """One line of a table."""
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    meaning = metric.meaning + (f" `{metric.labels[-1]}`: {metric.values}." if metric.values else "")
    return f"| `{metric.name}` | {metric.kind} | {labels} | {meaning} |\n"


def main() -> int:
    """Write the page; with `--check` say whether it is in step."""
    text = page()
    if "--check" in sys.argv[1:]:
        stale = not PAGE.exists() or PAGE.read_text() != text
        if stale:
            print(f"{PAGE.name} is out of step with admin/metrics.py", file=sys.stderr)
        return int(stale)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
