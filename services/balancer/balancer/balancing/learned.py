"""What least-work and least-response-time have learned, in words and figures for people: no strategy reads it.

**A kind's title** is its name with magnitudes written out: `GET /pi/#11` is `GET /pi/{1024..2047}`, an identifier is
`{id}`, and the length of a body comes last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import sqrt
from typing import Final

from balancer.balancing.cost import CONNECTION
from balancer.balancing.costs import Costs
from balancer.balancing.elsewhere import Elsewhere
from balancer.balancing.endpoint import Endpoint
from balancer.balancing.request import RequestInfo
from balancer.balancing.work import NOTHING_KNOWN, Work

_MAGNITUDE: Final = re.compile(r"#([0-9]{1,3})")
"""Binary digits of a number: at most those of 39 decimal ones. A client may have written any other, as in a method."""
_UNKNOWN: Final = "?"
"""The method of requests that nobody followed when they began."""


@dataclass(frozen=True, slots=True)
class EndpointWork:
    """What is believed of one endpoint."""

    workers: int | None
    """How many requests it works on at once; None until its answers have shown that."""
    pace: float
    """Its time for a request, as a multiple of a typical endpoint's: 2 is half as fast."""
    expected: float
    """Seconds that what is in flight there was expected to take, at its pace."""
    wait: float
    """Seconds until it is expected to begin with one request more."""


@dataclass(frozen=True, slots=True)
class KindCost:
    """What is known of one kind of request."""

    title: str
    samples: int
    """Answers that it was learned from."""
    recent: int
    """Requests of late: old ones count half, a quarter and so on, once there are too many kinds to keep."""
    expected: float
    """Seconds of work at a typical endpoint."""
    deviation: float
    """Standard deviation of that (s)."""
    waits: bool
    """It waits for something, as a long poll does, and takes no worker: it counts as no work."""


def endpoint_work(endpoint: Endpoint, now: float) -> EndpointWork | None:
    """What is believed of `endpoint`; None where it belongs to no pool yet."""
    work = endpoint.work
    if work is NOTHING_KNOWN:
        return None
    at_once = work.concurrency.at_once if work.concurrency.is_bounded else None
    return EndpointWork(at_once, work.pace.factor, expected_work(work), wait(work, endpoint.elsewhere, now))


def expected_work(work: Work) -> float:
    """Seconds that what is in flight at the endpoint was expected to take, at its pace."""
    return max(work.pace.factor * work.cost, 0.0)


def wait(work: Work, elsewhere: Elsewhere, now: float) -> float:
    """Seconds until the endpoint is expected to begin with one request more, as least-work reckons it."""
    costs = work.costs
    if costs.distinct and work.concurrency.is_bounded:
        return work.pace.factor * work.wait(elsewhere, now, work.pace.factor)
    return work.pace.factor * costs.mean * work.excess(elsewhere.requests, work.concurrency.at_once)


def expected_cost(endpoint: Endpoint, request: RequestInfo) -> float | None:
    """Seconds of work that `request` is expected to be at a typical endpoint; None while nothing is known."""
    expected = endpoint.work.costs.kinds.of(request).expected
    return expected if expected > 0.0 else None


def kinds(costs: Costs) -> list[KindCost]:
    """Every kind that has had an answer, those with the most requests first."""
    requests = costs.kinds
    named = requests.by_traffic()
    wider = {id(kind.wider) for _, kind in named}
    return [
        KindCost(
            title(name) if requests.by_shape else name or "(none)",
            kind.count,
            kind.recent,
            kind.expected,
            sqrt(max(kind.square - kind.mean * kind.mean, 0.0)),
            costs.waits(kind),
        )
        for name, kind in named
        if kind.count and id(kind) not in wider
    ]


def title(name: str) -> str:
    """The name of a kind that goes by method, path and length, for people."""
    if name == CONNECTION:
        return "connection"
    if name.startswith(_UNKNOWN):
        return "(begun before costs were learned)"
    body = ""
    words = name.split(" ")
    rest = words[:1]  # The method, which a client may have invented.
    for word in words[1:]:
        if word == "-":
            body = ", body of unknown length"
        elif _MAGNITUDE.fullmatch(word):  # A path begins with a slash.
            body = f", body of {_range(word[1:])} bytes"
        else:
            rest.append("/".join([_part(part) for part in word.split("/")]))
    return " ".join(rest) + body


def _part(part: str) -> str:
    if part == "#":
        return "{number}"
    if part == "*":
        return "{id}"
    magnitude = _MAGNITUDE.fullmatch(part)
    if magnitude is None:
        return part
    numbers = _range(magnitude[1])
    return f"{{{numbers}}}" if ".." in numbers else numbers


def _range(bits: str) -> str:
    """The numbers of so many binary digits."""
    number = int(bits)
    return str(number) if number < 2 else f"{1 << (number - 1)}..{(1 << number) - 1}"
