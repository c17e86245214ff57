#!/usr/bin/env bash
# throttled-py 3.5.0 (PyPI; a rate limiter): its token bucket, which is the default algorithm, and its leaking bucket let
# through as little as half of the quota, and refuse clients that keep to it. They count time in whole seconds, give whole
# tokens, and start to count again with every request that they let through, so the part of a token that is left is lost
# each time: of 1.5 tokens a second one remains, of 0.98, one in two seconds. Its GCRA, which has the same parameters, is
# exact.
#
# A quota just below a whole number a second is the worst: a client that sends 50 requests a minute under a quota of 59
# is served for a minute, as long as the full bucket lasts, and from then on 2 of 5 are refused. No test of a burst sees it.
#
# Seen with Python 3.11 on 2026-11-30, requests let through in each minute, of a client that sends so many, evenly:
#   token_bucket, 80 under a quota of 90: 80 80 80 80 69 60 60 60
#   token_bucket, 50 under a quota of 59: 50 39 30 30 30 30 30 30
#   token_bucket, 100 under a quota of 119: 100 100 98 60 60 60 60 60
# leaking_bucket the same; gcra all.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check throttled-py==3.5.0
"$folder/venv/bin/python" - <<'PYTHON'
import time

now = 1000.25  # s
time.time = time.monotonic = lambda: now  # before the library takes them

from throttled import Throttled, rate_limiter  # noqa: E402
from throttled.store import MemoryStore  # noqa: E402

MINUTES = 8


def let_through(algorithm: str, sent: int, quota: int) -> list[int]:
    """How many requests a limiter lets through in each minute, of those sent at even distances."""
    global now
    limiter = Throttled(key="client", using=algorithm, quota=rate_limiter.per_min(quota), store=MemoryStore())
    began, counts = now, [0] * MINUTES
    for number in range(sent * MINUTES):
        now = began + number * 60 / sent
        counts[number // sent] += not limiter.limit().limited
    now = began
    return counts


LOADS = (80, 90), (50, 59), (100, 119)  # requests sent a minute, and the quota
seen = {
    (algorithm, sent, quota): let_through(algorithm, sent, quota)
    for algorithm in ("token_bucket", "leaking_bucket", "gcra")
    for sent, quota in LOADS
}
for (algorithm, sent, quota), counts in seen.items():
    print(f"{algorithm}, {sent} under a quota of {quota}: {' '.join(map(str, counts))}")
lost = [
    [80, 80, 80, 80, 69, 60, 60, 60],
    [50, 39, 30, 30, 30, 30, 30, 30],
    [100, 100, 98, 60, 60, 60, 60, 60],
]
everything = [[sent] * MINUTES for sent, _ in LOADS]
assert list(seen.values()) == lost + lost + everything, "the behaviour has changed"
PYTHON
echo "as described"
