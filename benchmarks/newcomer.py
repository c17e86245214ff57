"""What it is worth, in the lab, that a replica which starts is given what the others have learned.

    python -m benchmarks.newcomer [--fleet one-slow heavy] [--first 100] [--seeds 12] [--requests 6000]

Replicas that report to each other every 10 ms choose by least-work. The last one starts when half of the requests have
come; its first ones alone are measured, with nothing known, with what was handed over, and where it has been there from
the start. All three are asked the same. Ratios are paired by seed, to one that knows nothing, with intervals of 95 %.
"""

from __future__ import annotations

import argparse

from balancer.cli.lab import Beliefs
from balancer.lab.experiment import ALL, HANDED_OVER, NOTHING, Newcomer, Setting, run
from balancer.lab.fleet import Script, named
from balancer.lab.news import News
from balancer.lab.record import Summary, middle
from balancer.lab.study import paired
from balancer.lab.traffic import Traffic

EVERY = 0.01
FLEETS = {
    "equal": (tuple(named("equal", 16, 1)), Traffic("heavy", mean=0.03)),
    "slower": ((*named("equal", 15, 1), Script(1, slower=4.0)), Traffic("heavy", mean=0.03)),
    "one-slow": ((*named("equal", 15, 1), Script(1, slower=10.0)), Traffic(mean=0.02)),
    "one-slow-of-4": (tuple(named("one-slow", 4, 4)), Traffic()),
    "kinds": (tuple(named("equal", 16, 1)), Traffic("kinds")),
}
"""Endpoints of one worker but for one-slow-of-4, and what they are asked."""


def measure(name: str, knows: str, asked: argparse.Namespace) -> list[Summary]:
    """A run for each seed."""
    fleet, traffic = FLEETS[name]
    found = []
    for seed in range(1, asked.seeds + 1):
        news = News(EVERY, 0.0, Beliefs(EVERY).hear)
        newcomer = Newcomer(knows, asked.first)
        setting = Setting(fleet, traffic, asked.load, asked.requests, asked.replicas, news, newcomer=newcomer)
        found.append(run(setting, "least-work", seed))
    return found


def ratio(ones: list[Summary], others: list[Summary], figure: str) -> str:
    """Of one figure, with its interval."""
    found = paired([getattr(each, figure) for each in ones], [getattr(each, figure) for each in others])
    return f"{found.middle:.2f} ({found.low:.2f} to {found.high:.2f})"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fleet", nargs="+", choices=FLEETS, default=list(FLEETS))
    parser.add_argument("--load", type=float, default=0.7)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--first", type=int, default=100, help="requests of the newcomer that are measured")
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument("--seeds", type=int, default=12)
    asked = parser.parse_args()
    print("| fleet | newcomer | mean, ms | of nothing known | p99, ms | of nothing known | share of the last |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in asked.fleet:
        blank = measure(name, NOTHING, asked)
        for knows in (NOTHING, HANDED_OVER, ALL):
            runs = blank if knows == NOTHING else measure(name, knows, asked)
            one = middle(runs)
            figures = f"{1000 * one.mean:,.1f} | {ratio(runs, blank, 'mean')} | {1000 * one.p99:,.0f}"
            share = f"{one.shares[-1]:.1%}"
            print(f"| {name} | {knows} | {figures} | {ratio(runs, blank, 'p99')} | {share} |", flush=True)


if __name__ == "__main__":
    main()
