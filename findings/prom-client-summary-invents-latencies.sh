#!/usr/bin/env bash
# prom-client 15.1.3 (npm; Prometheus' client for Node.js), whose Summary keeps a t-digest (npm's tdigest 0.1.3): where
# latencies are measured in whole milliseconds, one request in a hundred that takes 10 s lifts the 0.9 quantile from 14 ms
# to 1 s and the 0.95 quantile to 6 s, though no request took anything between. With a finer clock they come out right.
# Equal values share one centroid, however heavy, and a quantile lies on the straight line between the middles of two
# neighbours. So half the weight of the last heavy centroid lies on the line that leads to the slow requests. More requests
# do not help: 100 and 10000 have the same quantiles. tdigest 0.5.2.2 (PyPI) also extends such a line downwards: the 0.25
# quantile of latencies that are all above zero is minus 5 s. fastdigest 0.12.0 (PyPI) has both right.
#
# It takes `Date.now()` before and after a request, and a timeout here and there: an alert on the 0.95 quantile then fires
# for one slow request in a hundred.
#
# Seen with Node.js 20 and Python 3.11 on 2026-11-30, quantiles in seconds, of 99 % from 10 to 15 ms and 1 % of 10 s:
#   0.5, 0.9, 0.95 as they are: 0.012, 0.014, 0.014
#   prom-client, whole ms, 100 requests: 0.012, 0.965, 5.720
#   prom-client, whole ms, 10000 requests: 0.012, 0.965, 5.720
#   prom-client, whole µs, 10000 requests: 0.013, 0.015, 0.015
# and of 99 % of 10 ms and 1 % of 10 s, 0.25, 0.5 and 0.9:
#   prom-client: 0.010, 0.110, 8.102
#   tdigest: -4.885, 0.110, 8.102
#   fastdigest: 0.010, 0.010, 0.010
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tdigest==0.5.2.2 fastdigest==0.12.0
cd "$folder"
npm install --silent --no-audit --no-fund prom-client@15.1.3 tdigest@0.1.3
cat >summary.js <<'JAVASCRIPT'
const { Summary } = require("prom-client");

const { latencies, percentiles } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const summary = new Summary({ name: "request_seconds", help: "What a request takes.", percentiles });
for (const latency of latencies) summary.observe(latency);
summary.get().then(({ values }) => {
  console.log(JSON.stringify(values.slice(0, percentiles.length).map(({ value }) => value)));
});
JAVASCRIPT
venv/bin/python - <<'PYTHON'
import json
import subprocess

import fastdigest
import tdigest

SLOW = 10.0  # s


def shown(quantiles: list[float]) -> str:
    """Quantiles in seconds, to the millisecond."""
    return ", ".join(f"{quantile:.3f}" for quantile in quantiles)


def prom_client(latencies: list[float], *percentiles: float) -> str:
    """The quantiles that the metrics of a Node.js program would say."""
    given = json.dumps({"latencies": latencies, "percentiles": percentiles})
    said = subprocess.run(["node", "summary.js"], input=given, capture_output=True, text=True, check=True)
    return shown(json.loads(said.stdout))


def of_tdigest(latencies: list[float], *percentiles: float) -> str:
    digest = tdigest.TDigest()
    digest.batch_update(latencies)
    return shown([digest.percentile(100 * part) for part in percentiles])


def of_fastdigest(latencies: list[float], *percentiles: float) -> str:
    digest = fastdigest.TDigest.from_values(latencies)
    return shown([digest.quantile(part) for part in percentiles])


def whole_ms(count: int) -> list[float]:
    return [(10 + number * 7 % 5) / 1e3 if number % 100 else SLOW for number in range(count)]


def whole_us(count: int) -> list[float]:
    return [(10_000 + number * 7919 % 5000) / 1e6 if number % 100 else SLOW for number in range(count)]


two = [0.01 if number % 100 else SLOW for number in range(1000)]
ranked = sorted(whole_ms(10000))
seen = {
    "as they are": shown([ranked[int(part * len(ranked))] for part in (0.5, 0.9, 0.95)]),
    "prom-client, whole ms, 100 requests": prom_client(whole_ms(100), 0.5, 0.9, 0.95),
    "prom-client, whole ms, 10000 requests": prom_client(whole_ms(10000), 0.5, 0.9, 0.95),
    "prom-client, whole µs, 10000 requests": prom_client(whole_us(10000), 0.5, 0.9, 0.95),
    "prom-client, two values": prom_client(two, 0.25, 0.5, 0.9),
    "tdigest, two values": of_tdigest(two, 0.25, 0.5, 0.9),
    "fastdigest, two values": of_fastdigest(two, 0.25, 0.5, 0.9),
}
for case, told in seen.items():
    print(f"{case}: {told}")
assert list(seen.values()) == [
    "0.012, 0.014, 0.014",
    "0.012, 0.965, 5.720",
    "0.012, 0.965, 5.720",
    "0.013, 0.015, 0.015",
    "0.010, 0.110, 8.102",
    "-4.885, 0.110, 8.102",
    "0.010, 0.010, 0.010",
], "the behaviour has changed"
PYTHON
echo "as described"
