"""What happens each second: rates and percentiles from the counters, for the dashboard's plots."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import nsmallest

from balancer.admin.slices import in_pieces
from balancer.admin.status import Running
from balancer.admin.views import View, endpoint_view, rounded
from balancer.balancing.endpoint import Endpoint
from balancer.balancing.history import History
from balancer.counters import Histogram

HISTORY = 300
"""Seconds that are kept."""
WINDOW = 5
"""Seconds that a percentile and an endpoint's share of the traffic look back over."""
SHOWN = 256
"""Endpoints sent each second: those in trouble first, then the busiest. /api/endpoints has all."""
PERCENTILES = (0.5, 0.9, 0.99)


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """The value (s) below which `share` of the observations lie, linear within its bucket; None without observations.

    As Prometheus' histogram_quantile: what lies beyond the last bound is reported as that bound.
    """
    total = sum(counts)
    if not total:
        return None
    rank, below = share * total, 0
    for index, count in enumerate(counts[:-1]):
        if count and below + count >= rank:
            lower = bounds[index - 1] if index else 0.0
            return lower + (bounds[index] - lower) * max(0.0, rank - below) / count
        below += count
    return bounds[-1]


class Meter:
    """Keeps the last five minutes, a second each. `second` is called once a second."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.history = History(HISTORY)
        """What `second` has returned."""
        self.last: View | None = None
        """The last of that."""
        self.recent: list[int] = []
        """Requests of the last WINDOW seconds, by the histogram's bucket."""
        self._totals: deque[tuple[float, _Totals]] = deque([(running.clock(), _Totals(running))], maxlen=WINDOW + 1)
        self._by_endpoint: deque[tuple[float, dict[Endpoint, tuple[int, int]]]] = deque(maxlen=WINDOW + 1)

    def second(self, wall: float) -> View:
        """What happened since the last call; `wall` is the Unix time (s)."""
        running, now = self._running, self._running.clock()
        totals = _Totals(running)
        last_at, last = self._totals[-1]
        span = max(now - last_at, 0.001)
        oldest = self._totals[0][1]
        self._totals.append((now, totals))
        counters = running.counters
        bounds = bounds_of(running)
        recent = self.recent = [new - old for new, old in zip(totals.latency, oldest.latency, strict=True)]
        view: View = {
            "at": round(wall, 3),
            "requests": round((totals.requests - last.requests) / span, 2),
            "responses": [
                round((new - old) / span, 2) for new, old in zip(totals.responses, last.responses, strict=True)
            ],
            "errors": _rates(totals.errors, last.errors, span),
            "client_faults": _rates(totals.client_faults, last.client_faults, span),
            "retries": round((totals.retries - last.retries) / span, 2),
            "latency": [rounded(quantile(bounds, recent, share)) for share in PERCENTILES],
            "in_flight": counters.requests_in_flight,
            "connections": counters.connections_open,
            "queue": sum(pool.queued for pool in running.pools),
            "bytes": [round((totals.received - last.received) / span), round((totals.sent - last.sent) / span)],
            "strategy": running.pool.strategy_name,
        }
        self.last = view
        self.history.append(view)
        return view

    def forget_endpoints(self) -> None:
        """No browser is connected: the next `endpoints` starts afresh."""
        self._by_endpoint.clear()

    async def endpoints(self) -> View:
        """At most SHOWN endpoints with their rates and shares of the traffic, and how many there are in each state."""
        running, now = self._running, self._running.clock()
        everyone = running.endpoints
        handled: dict[Endpoint, tuple[int, int]] = {}
        async for piece in in_pieces(everyone):
            for endpoint in piece:
                failed = sum(endpoint.stats.failed.values())
                handled[endpoint] = sum(endpoint.stats.answered) + failed, endpoint.stats.answered[5] + failed
        since, before = self._by_endpoint[0] if self._by_endpoint else (now - 1.0, handled)
        self._by_endpoint.append((now, handled))
        span = max(now - since, 0.001)
        done = {e: (n - before.get(e, (n, 0))[0], f - before.get(e, (n, f))[1]) for e, (n, f) in handled.items()}
        traffic = sum(count for count, _ in done.values())
        views = []
        for endpoint in _foremost(everyone, done):
            count, failures = done[endpoint]
            view = endpoint_view(endpoint, running, now)
            view["rate"] = round(count / span, 2)
            view["failure_rate"] = round(failures / span, 2)
            view["share"] = round(count / traffic, 4) if traffic else None
            views.append(view)
        return {"total": len(everyone), "shown": views}


def _foremost(everyone: list[Endpoint], done: dict[Endpoint, tuple[int, int]]) -> list[Endpoint]:
    if len(everyone) <= SHOWN:
        return everyone
    foremost = set(nsmallest(SHOWN, everyone, key=lambda endpoint: (endpoint.eligible, -done[endpoint][0])))
    return [endpoint for endpoint in everyone if endpoint in foremost]


class _Totals:
    """The counters at one moment."""

    __slots__ = ("client_faults", "errors", "latency", "received", "requests", "responses", "retries", "sent")

    def __init__(self, running: Running) -> None:
        counters = running.counters
        self.requests = counters.requests
        self.responses = counters.responses[1:]
        self.errors = dict(counters.errors)
        self.client_faults = dict(counters.client_faults)
        self.retries = sum(counters.retries.values())
        self.latency = list(_latency(running).counts)
        self.received = counters.bytes_received
        self.sent = counters.bytes_sent


def _latency(running: Running) -> Histogram:
    # A TCP connection lasts as long as its two ends like: what describes the endpoints is the time to connect.
    counters = running.counters
    return counters.connect_seconds if running.settings.mode == "tcp" else counters.total_seconds


def bounds_of(running: Running) -> Sequence[float]:
    """Upper bounds (s) of the buckets that `recent` counts in; the last bucket has none."""
    return _latency(running).bounds


def _rates(new: dict[str, int], old: dict[str, int], span: float) -> dict[str, float]:
    return {
        name: round((count - old.get(name, 0)) / span, 2) for name, count in new.items() if count > old.get(name, 0)
    }
