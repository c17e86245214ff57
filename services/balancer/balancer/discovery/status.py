"""How a discovery fares: what /readyz says of it, what the metrics count, and the one log line at each transition."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from balancer.counters import count

_log = structlog.get_logger("balancer.discovery")


class Status:
    """Written by the discovery, read by everyone else.

    `error` says in words, with the remedy, what is wrong. Two kinds of wrong differ in what the endpoints are worth:
    while the source cannot be read (`stale`) they are the last known; a source that can be read and does not say what
    was hoped for (no such port, no slice) gives endpoints, or none, that are true as they stand.
    """

    def __init__(
        self, source: str, events: dict[str, int] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.source = source
        """The value of LB_DISCOVERY."""
        self.events = {} if events is None else events
        """Snapshots and faults so far, by kind."""
        self.fresh_at: float | None = None
        """When the endpoints were last known to be all there are (s, by the clock); None before the first snapshot that
        can be served, be it empty."""
        self._clock = clock
        self._fault = ""
        self._fault_words = ""
        self._notice = ""
        self._notice_words = ""
        self._hopeless = False

    @property
    def error(self) -> str | None:
        """What is wrong and what to do about it; None while all is well."""
        return self._fault_words or self._notice_words or None

    @property
    def stale(self) -> bool:
        """Whether the source cannot be read now, so that the endpoints are the last known."""
        return bool(self._fault)

    def age(self, now: float) -> float | None:
        """Seconds since the endpoints were last known to be all there are; None before the first snapshot."""
        return None if self.fresh_at is None else max(0.0, now - self.fresh_at)

    def count(self, kind: str) -> None:
        """Count an event that changes nothing else."""
        count(self.events, kind)

    def touch(self) -> None:
        """The endpoints are all there are at this moment, whether or not the source goes on telling."""
        if self.fresh_at is not None or not self._hopeless:
            self.fresh_at = self._clock()

    def fresh(self) -> None:
        """The source works: it was read, or has just said that nothing changed."""
        self.touch()
        if self._fault:
            _log.info("discovery_recovered", source=self.source, after=self._fault)
            self._fault = self._fault_words = ""

    def fault(self, kind: str, words: str) -> None:
        """The source cannot be read. Logged when `kind` is another than the last one; counted each time."""
        self.count(kind)
        if kind != self._fault:
            _log.warning("discovery_failing", source=self.source, kind=kind, error=words)
        self._fault, self._fault_words = kind, words

    def notice(self, kind: str, words: str, *, hopeless: bool = False) -> None:
        """The source was read and something is wrong with what it says; `kind` "" when nothing is.

        `hopeless` if nothing can be served before somebody mends it: a start waits for that, and is not ready.
        """
        if kind != self._notice:
            if kind:
                self.count(kind)
                _log.warning("discovery_incomplete", source=self.source, kind=kind, error=words)
            else:
                _log.info("discovery_complete", source=self.source, after=self._notice)
        was_hopeless, self._hopeless = self._hopeless, hopeless
        self._notice, self._notice_words = kind, words
        if was_hopeless and not hopeless:
            self.touch()
