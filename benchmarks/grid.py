"""How least-work stands on heavy-tailed traffic, in the lab: beside our other strategies and nginx's least_conn.

    python -m benchmarks.grid [--endpoints 16] [--workers 1] [--load 0.7] [--requests 6000] [--seeds 2]

A request costs 4 ms to 4 s, scaled to a mean of 30 ms, and its path shows how much. For each number of endpoints, of
workers each, and load it prints p99 and p99 slowdown (time over the request's own cost) of each strategy, and those of
least-work over the best of the others; at the end the geometric mean of each. nginx's least_conn is a strategy of one's
own here: the fewest in flight, equals in turn.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.request import RequestInfo
from balancer.balancing.rng import Random
from balancer.balancing.strategies import ByScore
from balancer.lab.experiment import Setting, run
from balancer.lab.fleet import named
from balancer.lab.record import Summary, geometric_mean, middle
from balancer.lab.traffic import Traffic

NGINX = "benchmarks.grid:LeastConn"
STRATEGIES = ("least-work", "least-connections", "least-response-time", NGINX)
MEAN = 0.03
FIGURES: dict[str, Callable[[Summary], float]] = {
    "p99": lambda summary: summary.p99,
    "slowdown": lambda summary: summary.slowdown,
}


class LeastConn(ByScore):
    """nginx's least_conn with equal weights: the fewest in flight; among equals, the next after the last chosen."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._turns: list[Endpoint] = []
        self._last = 0

    def added(self, endpoint: Endpoint) -> None:
        """It may be chosen."""
        self._turns.append(endpoint)

    def removed(self, endpoint: Endpoint) -> None:
        """It may not."""
        self._turns.remove(endpoint)

    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        """The next of the least loaded."""
        turns = self._turns[self._last :] + self._turns[: self._last]
        allowed = [endpoint for endpoint in turns if endpoint not in excluded]
        if not allowed:
            return None
        best = min(allowed, key=lambda endpoint: endpoint.in_flight)
        self._last = self._turns.index(best) + 1
        return best

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        """Requests in flight."""
        return float(endpoint.in_flight)


def main() -> None:
    """Run the grid, or a part of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 64])
    parser.add_argument("--load", type=float, nargs="+", default=[0.5, 0.7, 0.9])
    parser.add_argument("--costs", default="heavy")
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument("--seeds", type=int, default=2)
    asked = parser.parse_args()
    names = [name.partition(":")[2] or name for name in STRATEGIES]
    print(f"| endpoints | workers | load | figure | {' | '.join(names)} | least-work to best |")
    print("| --- " * (5 + len(names)) + "|")
    ratios: dict[str, list[float]] = {figure: [] for figure in FIGURES}
    for endpoints in asked.endpoints:
        for workers in asked.workers:
            for load in asked.load:
                fleet = tuple(named("equal", endpoints, workers))
                setting = Setting(fleet, Traffic(asked.costs, MEAN), load, asked.requests)
                found = {
                    name: middle([run(setting, name, seed) for seed in range(1, asked.seeds + 1)])
                    for name in STRATEGIES
                }
                for figure, of in FIGURES.items():
                    values = [of(found[name]) for name in STRATEGIES]
                    ratio = values[0] / min(values[1:])
                    ratios[figure].append(ratio)
                    scale = 1000 if figure == "p99" else 1
                    told = " | ".join(f"{value * scale:,.1f}" for value in values)
                    print(f"| {endpoints} | {workers} | {load:g} | {figure} | {told} | {ratio:.2f} |", flush=True)
    for figure, each in ratios.items():
        print(f"{figure}: geometric mean {geometric_mean(each):.2f}, {min(each):.2f} to {max(each):.2f}")


if __name__ == "__main__":
    main()
