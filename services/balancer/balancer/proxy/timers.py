"""Deadlines for ten thousand connections at the price of an attribute each.

A timer handle per request would be the dearest thing on the hot path. Here a deadline is a number on the object that
waits; the wheel files the object under the tick at which it will look at it. Most deadlines only move later (each
request of a keep-alive connection pushes it on), and a later deadline costs no filing: the wheel finds it when it
looks, and files the object again.

Source: hashed timing wheels, Varghese and Lauck (1987), scheme 6, with lazy re-filing.
"""

from __future__ import annotations

from typing import Final

import structlog
from mypy_extensions import mypyc_attr

from balancer.counters import Counters

TICK: Final = 0.1
"""Seconds between two looks: a deadline is met never early, and at most a tick late."""

log = structlog.get_logger()


@mypyc_attr(allow_interpreted_subclasses=True)
class Timed:
    """Something that may wait until a deadline; the wheel then calls `expired`."""

    __slots__ = ("deadline", "filed_at")

    def __init__(self) -> None:
        self.deadline = 0.0
        """Time (s) at which `expired` is due; 0: never. Written by the wheel's methods, or set to 0 by the owner."""
        self.filed_at = -1
        """The tick under which the wheel has filed this; -1: nowhere."""

    def expired(self, now: float) -> None:
        """The deadline has passed, and is cleared."""
        raise NotImplementedError

    def crashed(self) -> None:
        """A callback of ours has raised: give back what it holds, and end."""


class TimerWheel:
    """Calls `expired` on each `Timed` whose deadline has passed, when `advance` is called with the time."""

    __slots__ = ("_looked", "_slots", "counters")

    def __init__(self, now: float, counters: Counters | None = None) -> None:
        self.counters = Counters() if counters is None else counters
        """Where faults of our own are counted."""
        self._slots: dict[int, set[Timed]] = {}
        self._looked = int(now / TICK)

    def arm(self, timed: Timed, deadline: float) -> None:
        """Let `timed` expire at `deadline` (s) instead of whatever was set before."""
        timed.deadline = deadline
        filed_at = timed.filed_at
        tick = int(deadline / TICK) + 1
        if filed_at < 0 or tick < filed_at:
            self._file(timed, tick)

    def forget(self, timed: Timed) -> None:
        """Drop `timed` for good: called when a connection ends, so that nothing holds on to it."""
        timed.deadline = 0.0
        if timed.filed_at >= 0:
            self._take_out(timed)
            timed.filed_at = -1

    def advance(self, now: float) -> None:
        """Look at every tick that has passed until `now` (s)."""
        tick = int(now / TICK)
        while self._looked < tick:
            self._looked += 1
            slot = self._slots.pop(self._looked, None)
            if slot is not None:
                self._look_at(slot, now)

    def _look_at(self, slot: set[Timed], now: float) -> None:
        for timed in slot:
            timed.filed_at = -1
        for timed in slot:
            deadline = timed.deadline
            if deadline == 0.0 or timed.filed_at >= 0:
                continue
            if deadline <= now:
                timed.deadline = 0.0
                try:
                    timed.expired(now)
                except Exception:  # noqa: BLE001 (`fault` logs and counts it)
                    self.fault("a deadline's callback failed", timed)
            else:
                self._file(timed, int(deadline / TICK) + 1)

    def fault(self, what: str, timed: Timed) -> None:
        """Log and count an exception in a callback of `timed`, and end it; to be called while it is handled."""
        self.counters.faults += 1
        log.exception(what)  # noqa: LOG004 (the caller handles one)
        try:
            timed.crashed()
        except Exception:
            log.exception("what had failed could not be ended")

    def _file(self, timed: Timed, tick: int) -> None:
        tick = max(tick, self._looked + 1)
        if timed.filed_at >= 0:
            self._take_out(timed)
        slot = self._slots.get(tick)
        if slot is None:
            slot = self._slots[tick] = set()
        slot.add(timed)
        timed.filed_at = tick

    def _take_out(self, timed: Timed) -> None:
        slot = self._slots.get(timed.filed_at)
        if slot is not None:
            slot.discard(timed)
            if not slot:
                # An empty slot would stay until its tick: for each that a tunnel was filed under, an hour.
                del self._slots[timed.filed_at]
