"""What a choice costs: nanoseconds for a lease and its close, by strategy and number of endpoints.

Run it with the interpreter whose balancer is to be measured: `.venv/bin/python benchmarks/choice.py` for the source,
`.venv-compiled/bin/python benchmarks/choice.py` for what the images run. The last column is the bar: what a request
among 10,000 endpoints costs, relative to one among 10.

`IN_FLIGHT` requests are open at a time, at any size; each endpoint's latency was measured before.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections import deque
from random import Random
from time import perf_counter

from balancer.balancing import pool as pool_module
from balancer.balancing.endpoint import EndpointSpec
from balancer.balancing.outcome import Outcome
from balancer.balancing.pool import Lease, Policy, Pool
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies import STRATEGIES, load

SIZES = (2, 10, 100, 1000, 10_000)
IN_FLIGHT = 64
ROUNDS = 40
OK = Outcome.answered(200)
UNMEASURED = 1e12
"""Times below this are not recorded as decisions: that is a cost of its own, bounded by its rate."""


def build(strategy: str, size: int) -> tuple[Pool, deque[Lease], list[RequestInfo], float]:
    """A pool of `size` endpoints in steady state, with requests open."""
    random = Random(1)
    pool = Pool(load(strategy, random), strategy, Policy(), random)
    pool.replace([EndpointSpec(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", 80) for i in range(size)], 0.0)
    pool.decisions.add(pool.explain(RequestInfo(), 0.0), UNMEASURED)
    requests = [RequestInfo(client=f"192.0.2.{i}-{i}", method="GET", path=f"/{i}") for i in range(1024)]
    leases: deque[Lease] = deque()
    for endpoint in pool.endpoints:
        endpoint.latency.sample(0.010 + 0.005 * random.random(), 1.0)
        pool.changed(endpoint)
    leases.extend(pool.lease(request, 1.0) for request in requests[:IN_FLIGHT])
    return pool, leases, requests, run(pool, leases, requests, 1.0, 3 * size)


def run(pool: Pool, leases: deque[Lease], requests: list[RequestInfo], now: float, count: int) -> float:
    """Open and close `count` requests; the time afterwards."""
    for i in range(count):
        now += 1e-5
        leases.append(pool.lease(requests[i & 1023], now))
        leases.popleft().close(OK, now)
    return now


def measure(strategy: str, sizes: tuple[int, ...], count: int) -> dict[int, float]:
    """Nanoseconds for each size: the least of many short rounds that take turns, which a noisy machine spoils least."""
    worlds = {size: build(strategy, size) for size in sizes}
    clocks = {size: world[3] for size, world in worlds.items()}
    taken: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(ROUNDS):
        for size, (pool, leases, requests, _) in worlds.items():
            clocks[size] = run(pool, leases, requests, clocks[size], count // 2)  # The others' turns emptied the cache.
            began = perf_counter()
            clocks[size] = run(pool, leases, requests, clocks[size], count)
            taken[size].append((perf_counter() - began) / count * 1e9)
    return {size: min(times) for size, times in taken.items()}


def main() -> None:
    """Measure all strategies and print a table, or JSON."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--count", type=int, default=4_000, help="requests in each round (%(default)s)")
    arguments.add_argument("--strategy", choices=list(STRATEGIES), action="append", help="only this one")
    arguments.add_argument("--json", action="store_true", help="print JSON")
    chosen = arguments.parse_args()
    gc.disable()
    compiled = not str(pool_module.__file__).endswith(".py")
    results = {name: measure(name, SIZES, chosen.count) for name in chosen.strategy or STRATEGIES}
    if chosen.json:
        print(json.dumps({"compiled": compiled, "nanoseconds": results}))
        return
    print(f"{'compiled' if compiled else 'not compiled'}; nanoseconds for a lease and its close")
    print(f"{'':20}" + "".join(f"{size:>9,}" for size in SIZES) + f"{'10,000/10':>12}")
    for name, times in results.items():
        row = "".join(f"{times[size]:9.0f}" for size in SIZES)
        print(f"{name:20}{row}{times[10_000] / times[10]:12.2f}")


if __name__ == "__main__":
    main()
