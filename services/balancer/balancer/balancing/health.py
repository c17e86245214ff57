"""The health of one endpoint: what may keep it out of service, and what puts it there and takes it back, as a table.

Probes, ejection, back-off and the operator each decide a `Change`. The pool applies it, and nobody else.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from mypy_extensions import mypyc_attr


class Status(enum.Flag):
    """What keeps an endpoint out of service: several reasons may hold at once, and each ends on its own."""

    HEALTHY = 0
    BACKING_OFF = 1
    """It answered 503 with Retry-After, which is no failure."""
    EJECTED = 2
    """It failed too often."""
    FAILING_PROBES = 4
    """Its active health checks fail."""
    DRAINED = 8
    """An operator drained it, through the API. It may be healthy all the same."""


class Change(enum.Enum):
    """One step of an endpoint's health."""

    PROBES_FAIL = 1
    PROBES_PASS = 2
    EJECT = 3
    READMIT = 4
    BACK_OFF = 5
    RESUME = 6
    """The back-off is over."""
    DRAIN = 7
    UNDRAIN = 8


@dataclass(frozen=True, slots=True)
class Rule:
    """What a change does."""

    sets: Status
    clears: Status
    event: str
    """Its name for subscribers; empty: they do not hear of it."""
    starts_slowly: bool = False
    """Whether slow start begins, where it is on."""


_NONE: Final = Status.HEALTHY

TRANSITIONS: Final = {
    # change                 sets                    clears                  event        slow start
    Change.PROBES_FAIL: Rule(Status.FAILING_PROBES, _NONE, "unhealthy"),
    Change.PROBES_PASS: Rule(_NONE, Status.FAILING_PROBES, "healthy", True),
    Change.EJECT: Rule(Status.EJECTED, _NONE, "ejected"),
    Change.READMIT: Rule(_NONE, Status.EJECTED, "returned", True),
    Change.BACK_OFF: Rule(Status.BACKING_OFF, _NONE, "backoff"),
    Change.RESUME: Rule(_NONE, Status.BACKING_OFF, ""),
    Change.DRAIN: Rule(Status.DRAINED, _NONE, "drained"),
    Change.UNDRAIN: Rule(_NONE, Status.DRAINED, "undrained", True),
}
"""Every change is allowed in every status, and all but the flags it names stay as they are."""


@mypyc_attr(acyclic=True)
class Health:
    """The status of one endpoint, its times, and the results by which outlier detection decides."""

    __slots__ = (
        "backoff_since",
        "backoff_until",
        "ejected_until",
        "ejection_level",
        "ejections",
        "failures_in_row",
        "healthy",
        "probe_fault",
        "recent",
        "recent_failures",
        "returned_at",
        "status",
    )

    def __init__(self) -> None:
        # What every response touches comes first: compiled, it shares a cache line.
        self.healthy = True
        """No status but DRAINED: its probes pass, it is neither ejected nor backing off."""
        self.failures_in_row = 0
        self.recent = 0
        """Successes and failures in the current interval of the success-rate rule."""
        self.recent_failures = 0

        self.status = Status.HEALTHY
        self.probe_fault = ""
        """Why its active probes fail, in a few words; empty: they pass."""
        self.ejected_until = 0.0
        """Time (s) until which it is ejected; 0 when it is not."""
        self.ejections = 0
        """How often it was ejected, ever."""
        self.ejection_level = 0
        """Multiplies the length of its next ejection: rises by repetition, falls with time."""
        self.returned_at = 0.0
        """When its last ejection ended (s)."""
        self.backoff_until = 0.0
        """Time (s) until which it wants us to back off (503 with Retry-After); 0 when it does not."""
        self.backoff_since = 0.0
        """When it last sent that (s): a success of a later request ends the back-off."""

    def apply(self, change: Change, until: float = 0.0) -> Rule:
        """Take one step of the table; `until` is when (s) an ejection or a back-off that begins is to end.

        The rule taken says what else it means.
        """
        rule = TRANSITIONS[change]
        if Status.EJECTED in rule.sets | rule.clears:
            self.ejected_until = until
        if Status.BACKING_OFF in rule.sets | rule.clears:
            self.backoff_until = until
        self.status = (self.status | rule.sets) & ~rule.clears
        self.healthy = not self.status & ~Status.DRAINED
        return rule

    @property
    def drained(self) -> bool:
        """Drained by an operator, through the API."""
        return Status.DRAINED in self.status

    @property
    def passing_probes(self) -> bool:
        """No active health check fails."""
        return Status.FAILING_PROBES not in self.status

    @property
    def ejected(self) -> bool:
        """Ejected by outlier detection."""
        return Status.EJECTED in self.status
