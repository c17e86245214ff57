"""What it is worth, in the lab, that replicas know of each other; and that late news does no harm.

    python -m benchmarks.herd [--strategy least-connections] [--costs exponential] [--workers 1] [--requests 6000]
                              [--seeds 3]

Four replicas in front of endpoints of so many workers, requests of 20 ms on average: p99 of blind ones, the ratio of
those that report every 4 ms, and the ratio of those whose reports come every 100 ms. With `--costs rare` three of a
hundred requests cost a hundred times as much as the others. benchmarks/replicas.py measures the same on the wire.
"""

from __future__ import annotations

import argparse
import dataclasses

from benchmarks.peers.peer import RETRY_STATUSES

from balancer.cli.lab import Beliefs
from balancer.lab.experiment import Setting, run
from balancer.lab.fleet import named
from balancer.lab.news import News
from balancer.lab.record import geometric_mean
from balancer.lab.replica import Rules
from balancer.lab.traffic import Kind, Traffic

REPLICAS = 4
SOON, LATE = 0.004, 0.1
MEAN = 0.02
"""Seconds of work of a request, on average."""
TRAFFIC = {
    "exponential": Traffic(mean=MEAN),
    "fixed": Traffic("fixed", mean=MEAN),
    "rare": Traffic("kinds", kinds=(Kind("/page", 0.97, MEAN / 3.97), Kind("/report", 0.03, 100 * MEAN / 3.97))),
}
RULES = Rules(retry_statuses=RETRY_STATUSES)


def p99(setting: Setting, strategy: str, seeds: int, every: float) -> float:
    """Seconds, with reports so often (s; 0: never)."""
    found = []
    for seed in range(1, seeds + 1):
        news = News(every, 0.0, Beliefs(every).hear) if every else News()
        found.append(run(dataclasses.replace(setting, news=news), strategy, seed).p99)
    return geometric_mean(found)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategy", default="least-connections")
    parser.add_argument("--costs", choices=TRAFFIC, default="exponential")
    parser.add_argument("--fleet", nargs="+", default=["equal", "one-slow", "noisy"])
    parser.add_argument("--endpoints", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--load", type=float, nargs="+", default=[0.5, 0.7, 0.9])
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    print("| fleet | endpoints | load | blind p99, ms | every 4 ms | every 100 ms |")
    print("| --- | --- | --- | --- | --- | --- |")
    for fleet in asked.fleet:
        for endpoints in asked.endpoints:
            for load in asked.load:
                scripts = tuple(named(fleet, endpoints, asked.workers))
                setting = Setting(scripts, TRAFFIC[asked.costs], load, asked.requests, REPLICAS, rules=RULES)
                blind, soon, late = (p99(setting, asked.strategy, asked.seeds, every) for every in (0.0, SOON, LATE))
                ratios = f"{soon / blind:.2f} | {late / blind:.2f}"
                print(f"| {fleet} | {endpoints} | {load:g} | {1000 * blind:,.0f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
