"""A user's own strategy, which may raise or choose an endpoint that is not eligible: then the default chooses."""

from __future__ import annotations

from collections.abc import Collection

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies.strategy import Strategy, hears_changes, hears_load


class Guarded(Strategy):
    """Passes everything on to `own`, and to `default`, which stands by with an index of its own.

    `failure` keeps the first fault since the last report, from which others may follow, and `failures` counts them; the
    pool reports both at its next tick.
    """

    def __init__(self, own: Strategy, default: Strategy) -> None:
        self.own = own
        self.default = default
        self.failure = ""
        """The first thing that went wrong since the last report, in words."""
        self.failures = 0
        self.watches_load = hears_load(own)
        self._hears_changes = hears_changes(own)
        self._default_hears_changes = hears_changes(default)

    def added(self, endpoint: Endpoint) -> None:
        """`endpoint` has become eligible."""
        self.default.added(endpoint)
        try:
            self.own.added(endpoint)
        except Exception as error:  # noqa: BLE001 — a user's code
            self._failed("added", error)

    def removed(self, endpoint: Endpoint) -> None:
        """`endpoint` is no longer eligible."""
        self.default.removed(endpoint)
        try:
            self.own.removed(endpoint)
        except Exception as error:  # noqa: BLE001 — a user's code
            self._failed("removed", error)

    def changed(self, endpoint: Endpoint) -> None:
        """The load, latency, weight or order of an eligible endpoint has changed."""
        if self._default_hears_changes:
            self.default.changed(endpoint)
        if not self._hears_changes:
            return
        try:
            self.own.changed(endpoint)
        except Exception as error:  # noqa: BLE001 — a user's code
            self._failed("changed", error)

    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        """What `own` chooses, if that is an endpoint that may be chosen; else what `default` does."""
        try:
            chosen = self.own.choose(request, excluded, now)
            if isinstance(chosen, Endpoint) and chosen.eligible and chosen not in excluded:
                return chosen
        except Exception as error:  # noqa: BLE001 — a user's code
            self._failed("choose", error)
            return self.default.choose(request, excluded, now)
        instead = self.default.choose(request, excluded, now)
        if instead is not None:
            self._failed("choose", ValueError(f"it chose {chosen!r}, which may not be chosen"))
        return instead

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        """The plain definition: lower wins."""
        try:
            return float(self.own.score(endpoint, request, now))
        except Exception as error:  # noqa: BLE001 — a user's code
            self._failed("score", error)
            return self.default.score(endpoint, request, now)

    def _failed(self, hook: str, error: Exception) -> None:
        self.failures += 1
        if self.failure:
            return
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        code = None if trace is None else trace.tb_frame.f_code
        place = "" if code is None or trace is None else f" ({code.co_filename}:{trace.tb_lineno})"
        self.failure = f"{type(self.own).__name__}.{hook}: {type(error).__name__}: {error}{place}"
