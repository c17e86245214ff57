"""A user's own strategy, which may raise or choose an endpoint that is not eligible: then another chooses."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies.strategy import Strategy, hears_changes, hears_load


class Guarded(Strategy):
    """Passes everything on to `own`, and to `fallback`, which stands by with an index of its own.

    `failure` keeps the first fault since the last report, from which others may follow, and `failures` counts them; the
    pool reports both at its next tick.
    """

    def __init__(self, own: Any, fallback: Strategy) -> None:  # noqa: ANN401  (a user's: it may just have the hooks)
        self.own = own
        self.fallback = fallback
        self.failure = ""
        """The first thing that went wrong since the last report, in words."""
        self.failures = 0
        self.first_failure = ""
        """The first of all."""
        self.instead = ""
        """Why `fallback` made the last choice; empty when `own` did."""
        self.watches_load = hears_load(own)
        self._hears_changes = hears_changes(own)
        self._fallback_hears_changes = hears_changes(fallback)

    def added(self, endpoint: Endpoint) -> None:
        """`endpoint` has become eligible."""
        self.fallback.added(endpoint)
        try:
            self.own.added(endpoint)
        except Exception as error:  # noqa: BLE001 — a user's code
            self._failed("added", error)

    def removed(self, endpoint: Endpoint) -> None:
        """`endpoint` is no longer eligible."""
        self.fallback.removed(endpoint)
        try:
            self.own.removed(endpoint)
        except Exception as error:  # noqa: BLE001 — a user's code
            self._failed("removed", error)

    def changed(self, endpoint: Endpoint) -> None:
        """The load, latency, weight or order of an eligible endpoint has changed."""
        if self._fallback_hears_changes:
            self.fallback.changed(endpoint)
        if not self._hears_changes:
            return
        try:
            self.own.changed(endpoint)
        except Exception as error:  # noqa: BLE001 — a user's code
            self._failed("changed", error)

    def choose(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> Endpoint | None:
        """What `own` chooses, if that is an endpoint that may be chosen; else what `fallback` does."""
        self.instead = ""
        try:
            chosen = self.own.choose(request, excluded, now)
            if isinstance(chosen, Endpoint) and chosen.eligible and chosen not in excluded:
                return chosen
        except Exception as error:  # noqa: BLE001 — a user's code
            self.instead = self._failed("choose", error)
            return self.fallback.choose(request, excluded, now)
        instead = self.fallback.choose(request, excluded, now)
        if instead is not None:
            self.instead = self._failed("choose", _wrong_choice(chosen, excluded))
        return instead

    def score(self, endpoint: Endpoint, request: RequestInfo, now: float) -> float:
        """The plain definition: lower wins."""
        try:
            score = float(self.own.score(endpoint, request, now))
        except Exception as error:  # noqa: BLE001 — a user's code
            self._failed("score", error)
            return self.fallback.score(endpoint, request, now)
        if score == score:
            return score
        self._failed("score", ValueError(f"that of {endpoint.address} is not a number"))
        return self.fallback.score(endpoint, request, now)

    def _failed(self, hook: str, error: Exception) -> str:
        """Note a fault; in words."""
        self.failures += 1
        failure = f"{type(self.own).__name__}.{hook}: {in_words(error)}"
        self.first_failure = self.first_failure or failure
        self.failure = self.failure or failure
        return failure


def _wrong_choice(chosen: object, excluded: Collection[Endpoint]) -> Exception:
    if chosen is None:
        return ValueError("it chose none, though some may be chosen")
    if not isinstance(chosen, Endpoint):
        return ValueError(f"it chose {chosen!r}, which is no endpoint")
    if chosen in excluded:
        return ValueError(f"it chose {chosen!r}, which this request has tried")
    return ValueError(f"it chose {chosen!r}, which may not be chosen: was it `removed`?")


def in_words(error: BaseException) -> str:
    """What was raised, and the line of a user's code that did."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} ({error.filename}:{error.lineno})"
    place = ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<") and "balancer/balancing/strategies/" not in file:
            place = f" ({file}:{trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {error}{place}"
