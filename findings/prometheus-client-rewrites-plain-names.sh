#!/usr/bin/env bash
# prometheus-client 0.26.0 (PyPI): a scrape that asks for names escaped as "dots", or as "values" in OpenMetrics, gets
# every metric of a Python program by another name. The schemes are for names that are not plain; the Go client
# (client_golang 1.25.0) leaves plain ones as they are, and puts `_bucket`, `_sum`, `_count` and `_total` behind an escaped
# name. The Python client escapes names of samples whole, plain or not, and otherwise than in the `# TYPE` above them: a
# histogram is announced that has no samples, and samples follow that belong to nothing.
#
# It takes one line in Prometheus' settings (metric_name_escaping_scheme): Go programs' metrics stay what they were, and
# rules and dashboards over those of Python programs find nothing. The same scheme says different things by format.
#
# Seen with Python 3.11 on 2026-11-30, for the histogram lb_seconds (`# TYPE`, and the first sample):
#   text/plain, underscores: lb_seconds, lb_seconds_bucket
#   text/plain, dots: lb__seconds, lb__seconds__bucket
#   text/plain, values: lb_seconds, lb_seconds_bucket
#   application/openmetrics-text, underscores: lb_seconds, lb_seconds_bucket
#   application/openmetrics-text, dots: lb__seconds, lb__seconds__bucket
#   application/openmetrics-text, values: lb_seconds, U__lb__seconds__bucket
# Its own parser finds no sample in a histogram whose bucket has two underscores, or the prefix.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check prometheus-client==0.26.0
"$folder/venv/bin/python" - <<'PYTHON'
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families as read

registry = CollectorRegistry()
Histogram("lb_seconds", "What a request takes.", registry=registry).observe(0.3)


def names(form: str, escaping: str) -> str:
    """The names in `# TYPE` and in the first sample of what a scrape gets."""
    encode, _ = choose_encoder(f"{form};version=1.0.0;escaping={escaping}")
    lines = encode(registry).decode().splitlines()
    announced = next(line.split()[2] for line in lines if line.startswith("# TYPE"))
    sample = next(line.partition("{")[0] for line in lines if not line.startswith("#"))
    [histogram] = (family for family in read("\n".join(lines)) if family.type == "histogram")
    assert bool(histogram.samples) == (sample == f"{announced}_bucket"), "the parser's behaviour has changed"
    return f"{announced}, {sample}"


seen = {
    f"{form}, {escaping}": names(form, escaping)
    for form in ("text/plain", "application/openmetrics-text")
    for escaping in ("underscores", "dots", "values")
}
for case, told in seen.items():
    print(f"{case}: {told}")
plain, doubled = "lb_seconds, lb_seconds_bucket", "lb__seconds, lb__seconds__bucket"
assert list(seen.values()) == [plain, doubled, plain, plain, doubled, "lb_seconds, U__lb__seconds__bucket"], (
    "the behaviour has changed"
)
PYTHON
echo "as described"
