"""How least-work stands on the fleets of docs/performance.md, in the lab: its p99 over each other strategy's.

    python -m benchmarks.standing [--fleet equal] [--load 0.7] [--requests 10000] [--seeds 12]

The fleets are those of benchmarks/fleets.py, four endpoints of four workers; time-outs and ejection as there. Every
strategy gets the same requests by the same seed, so each seed gives a ratio; printed are their geometric mean and its
interval of 95 %. nginx's least_conn is a strategy of one's own (benchmarks/grid.py); Envoy's is random-of-two.
"""

from __future__ import annotations

import argparse

from benchmarks.grid import NGINX
from benchmarks.peers.peer import FAILURES, RETRY_STATUSES
from benchmarks.unequal import CLIENT_TIMEOUT, RESPONSE_TIMEOUT

from balancer.balancing.policy import Policy
from balancer.lab.experiment import Setting, run
from balancer.lab.fleet import FLEETS, named
from balancer.lab.replica import Rules
from balancer.lab.study import paired

OTHERS = ("least-connections", "least-response-time", NGINX, "random-of-two")


def rules(fleet: str) -> Rules:
    """What every balancer is set to before it."""
    policy = Policy(eject_after=FAILURES, eject_time=1.0 if fleet == "one-joining" else 10.0)
    return Rules(
        policy, retry_statuses=RETRY_STATUSES, response_timeout=RESPONSE_TIMEOUT, client_timeout=CLIENT_TIMEOUT
    )


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fleet", nargs="+", choices=FLEETS, default=list(FLEETS))
    parser.add_argument("--load", type=float, nargs="+", default=[0.7])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--others", nargs="+", default=list(OTHERS))
    asked = parser.parse_args()
    print(f"| fleet | load | {' | '.join(name.partition(':')[2] or name for name in asked.others)} |")
    print("| --- " * (2 + len(asked.others)) + "|")
    for fleet in asked.fleet:
        for load in asked.load:
            setting = Setting(tuple(named(fleet, 4, 4)), load=load, requests=asked.requests, rules=rules(fleet))
            found = {
                name: [run(setting, name, seed).p99 for seed in range(1, asked.seeds + 1)]
                for name in ("least-work", *asked.others)
            }
            ratios = [paired(found["least-work"], found[name]) for name in asked.others]
            told = " | ".join(f"{ratio.middle:.3f} ({ratio.low:.3f} to {ratio.high:.3f})" for ratio in ratios)
            print(f"| {fleet} | {load:g} | {told} |", flush=True)


if __name__ == "__main__":
    main()
