#!/usr/bin/env bash
# @datadog/sketches-js 2.1.1 (npm; DDSketch): a sketch of limited size gives wrong quantiles where the values came in rising
# order, and right ones for the same values in falling order. Where a higher value needs room, the lowest bins go into one
# (CollapsingLowestDenseStore), and that sum takes in one bin too many, which stays (sumOfRange ends behind its end). So
# each collapse counts some values twice, the sketch holds more than it was given, and every quantile comes out too low, the
# highest included, which a collapse of the lowest bins must not touch. ddsketch 3.0.1 (PyPI), of the same company, gives
# the same for both orders.
#
# It takes an accuracy of 0.1 % and the default limit of 2048 bins (a factor of 60 between lowest and highest), and
# latencies that grow, as they do where an endpoint slows down: the sketch says that it slows down less. Readers of
# the serialised sketch get another count, too.
#
# Seen with Node.js 20 and Python 3.11 on 2026-11-30, for 1 to 10000 and that backwards, and for values of 1 to 100, ten
# times as high in the end: quantiles 0.5, 0.99 and 1, the count, and the count that is read from the serialised sketch:
#   values, rising: 5000 9900 10000
#   npm, rising: 4832 9730 9828, 10000, 10164
#   npm, falling: 4999 9907 10007, 10000, 10000
#   PyPI, rising: 4999 9907 10007, 10000, 10000
#   PyPI, falling: 4999 9907 10007, 10000, 10000
#   values, growing: 212 900 1000
#   npm, growing: 196 792 830, 10000, 10251
#   PyPI, growing: 212 901 999, 10000, 10000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ddsketch==3.0.1 protobuf==6.33.2
cd "$folder"
npm install --silent --no-audit --no-fund @datadog/sketches-js@2.1.1 protobufjs@7.6.6
cat >sketch.js <<'JAVASCRIPT'
const { LogCollapsingLowestDenseDDSketch: Sketch, DDSketch } = require("@datadog/sketches-js");

const values = JSON.parse(require("fs").readFileSync(0, "utf8"));
const sketch = new Sketch({ relativeAccuracy: 0.001 });
for (const value of values) sketch.accept(value);
const quantiles = [0.5, 0.99, 1].map((q) => Math.round(sketch.getValueAtQuantile(q)));
console.log(`${quantiles.join(" ")}, ${sketch.count}, ${DDSketch.fromProto(sketch.toProto()).count}`);
JAVASCRIPT
venv/bin/python - <<'PYTHON'
import json
import subprocess

from ddsketch import LogCollapsingLowestDenseDDSketch
from ddsketch.pb.proto import DDSketchProto

QUANTILES = 0.5, 0.99, 1


def npm(values: list[int]) -> str:
    """The figures of npm's sketch of the values, in their order."""
    said = subprocess.run(["node", "sketch.js"], input=json.dumps(values), capture_output=True, text=True, check=True)
    return said.stdout.strip()


def pypi(values: list[int]) -> str:
    """The figures of PyPI's sketch."""
    sketch = LogCollapsingLowestDenseDDSketch(relative_accuracy=0.001, bin_limit=2048)
    for value in values:
        sketch.add(value)
    quantiles = " ".join(str(round(sketch.get_quantile_value(q))) for q in QUANTILES)
    read = DDSketchProto.from_proto(DDSketchProto.to_proto(sketch))
    return f"{quantiles}, {sketch.count:.0f}, {read.count:.0f}"


def exact(values: list[int]) -> str:
    """The quantiles themselves, by the definition of both libraries."""
    ranked = sorted(values)
    return " ".join(str(ranked[int(q * (len(ranked) - 1))]) for q in QUANTILES)


rising = list(range(1, 10001))
growing = [(number % 100 + 1) * (number // 1000 + 1) for number in range(10000)]
seen = {
    "values, rising": exact(rising),
    "npm, rising": npm(rising),
    "npm, falling": npm(rising[::-1]),
    "PyPI, rising": pypi(rising),
    "PyPI, falling": pypi(rising[::-1]),
    "values, growing": exact(growing),
    "npm, growing": npm(growing),
    "PyPI, growing": pypi(growing),
}
for case, told in seen.items():
    print(f"{case}: {told}")
right = "4999 9907 10007, 10000, 10000"
assert seen == {
    "values, rising": "5000 9900 10000",
    "npm, rising": "4832 9730 9828, 10000, 10164",
    "npm, falling": right,
    "PyPI, rising": right,
    "PyPI, falling": right,
    "values, growing": "212 900 1000",
    "npm, growing": "196 792 830, 10000, 10251",
    "PyPI, growing": "212 901 999, 10000, 10000",
}, "the behaviour has changed"
PYTHON
echo "as described"
