"""Simulated clients: when requests come, what they ask for, and how much work it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final

from balancer.balancing.request import RequestInfo

CLIENTS: Final = 64
"""Different addresses that requests come from."""
LIGHTEST: Final = 0.004
HEAVIEST: Final = 4.0
"""Bounds (s) of a heavy-tailed cost whose mean is `HEAVY_MEAN`."""
SHAPE: Final = 1.1
"""Exponent of its (bounded) Pareto distribution."""
DIGITS: Final = 200_000.0
"""The cost that a path stands for: so many times its seconds."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Requests of one kind."""

    path: str
    share: float
    mean: float
    """Seconds of work."""
    spread: str = "exponential"
    """`fixed`, `exponential` or `heavy`."""
    method: str = "GET"
    upload: float = 0.0
    """Seconds until it is sent whole."""
    stream: float = 0.0
    """Seconds from its response's first byte to the last."""
    idle: float = 0.0
    """Seconds that it waits at the endpoint without work: a long poll. It takes no worker."""
    header: str = ""
    """The value of its header `x-kind`, if it has one."""


@dataclass(slots=True)  # Not frozen: that makes the constructor three times as slow, and a run makes one for each.
class Ask:
    """One request: when it comes (s), what it is, how much work (s)."""

    at: float
    info: RequestInfo
    cost: float
    upload: float = 0.0
    stream: float = 0.0
    idle: float = 0.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What clients send."""

    costs: str = "exponential"
    """`fixed`, `exponential`, `heavy` (heavy-tailed, shown by the path), `heavy-unknown` (by nothing), `kinds`."""
    mean: float = 0.008
    """Seconds of work of a request; of the other costs, `heavy` is scaled to it."""
    arrivals: str = "poisson"
    """`poisson`, `bursts`, `closed`."""
    burst: int = 20
    """Requests of one burst, on average."""
    users: int = 64
    """Of the closed loop: each sends its next request when the last has ended."""
    kinds: tuple[Kind, ...] = field(default=())

    def asks(self, rate: float, requests: int, random: Random) -> Iterator[Ask]:
        """`requests` requests, `rate` a second on average."""
        now = 0.0
        left = 0
        draw = _Costs(self, random)
        for _ in range(requests):
            if self.arrivals == "bursts":
                if left == 0:
                    left = 1 + int(random.expovariate(1.0 / self.burst))
                    now += random.expovariate(rate / (self.burst + 0.5))
                left -= 1
            else:
                now += random.expovariate(rate)
            yield draw.ask(now)


def resampled(asks: tuple[Ask, ...], random: Random) -> tuple[Ask, ...]:
    """Recorded requests as they might have come as well: stretches of the recording, drawn with repetition.

    (The block bootstrap: within a stretch what belongs together, as a burst, stays so.)
    """
    if len(asks) < 2 * STRETCHES:
        return asks
    length = (asks[-1].at + asks[-1].at / len(asks)) / STRETCHES
    stretches: list[list[Ask]] = [[] for _ in range(STRETCHES)]
    for ask in asks:
        stretches[min(int(ask.at / length), STRETCHES - 1) if length else 0].append(ask)
    drawn = []
    for place in range(STRETCHES):
        which = int(random.random() * STRETCHES)
        moved = (place - which) * length
        drawn += [
            Ask(max(ask.at + moved, 0.0), ask.info, ask.cost, ask.upload, ask.stream, ask.idle)
            for ask in stretches[which]
        ]
    return tuple(drawn) or asks


STRETCHES: Final = 20
"""Parts that a recording is cut into."""

COSTS: Final = ("fixed", "exponential", "heavy", "heavy-unknown", "kinds")
ARRIVALS: Final = ("poisson", "bursts", "closed")

KINDS: Final = (
    Kind("/items", 0.80, 0.004),
    Kind("/search", 0.17, 0.020),
    Kind("/report", 0.03, 0.300, "fixed", "POST"),
)
"""What `kinds` means where nothing else is said."""


class _Costs:
    """Draws requests."""

    def __init__(self, traffic: Traffic, random: Random) -> None:
        self._traffic = traffic
        self._random = random
        self._clients = [f"192.0.2.{number}" for number in range(CLIENTS)]
        self._kinds = traffic.kinds or KINDS
        self._shares = [kind.share for kind in self._kinds]

    def ask(self, at: float) -> Ask:
        """A request that comes then."""
        traffic = self._traffic
        client = self._clients[int(self._random.random() * CLIENTS)]
        if traffic.costs == "kinds":
            (kind,) = self._random.choices(self._kinds, self._shares)
            headers = ((b"x-kind", kind.header.encode()),) if kind.header else ()
            info = RequestInfo(client, kind.method, kind.path, headers)
            cost = self._draw(kind.spread, kind.mean)
            return Ask(at, info, cost, kind.upload, kind.stream, kind.idle)
        cost = self._draw(traffic.costs, traffic.mean)
        path = f"/pi/{int(cost / traffic.mean * HEAVY_MEAN * DIGITS)}" if traffic.costs == "heavy" else "/"
        return Ask(at, RequestInfo(client, "GET", path), cost)

    def _draw(self, spread: str, mean: float) -> float:
        if spread == "fixed":
            return mean
        if spread == "exponential":
            return self._random.expovariate(1.0 / mean)
        return _pareto(self._random.random()) * mean / HEAVY_MEAN


def _pareto(chance: float) -> float:
    """A bounded Pareto cost (s), for a chance in [0, 1)."""
    low = LIGHTEST**-SHAPE
    high = HEAVIEST**-SHAPE
    cost: float = (low - chance * (low - high)) ** (-1.0 / SHAPE)
    return cost


def _pareto_mean() -> float:
    ratio = LIGHTEST / HEAVIEST
    mean: float = SHAPE / (SHAPE - 1.0) * LIGHTEST * (1.0 - ratio ** (SHAPE - 1.0)) / (1.0 - ratio**SHAPE)
    return mean


HEAVY_MEAN: Final = _pareto_mean()


def mean_cost(traffic: Traffic) -> float:
    """Seconds of work of a request, on average."""
    if traffic.costs != "kinds":
        return traffic.mean
    kinds = traffic.kinds or KINDS
    return sum(kind.share * kind.mean for kind in kinds) / sum(kind.share for kind in kinds)
