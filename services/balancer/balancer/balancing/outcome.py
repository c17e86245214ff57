"""How a lease ended, and what that says of the endpoint: a table, so that no caller decides for itself."""

from __future__ import annotations

import enum
from typing import Final


class Kind(enum.Enum):
    """How one attempt at one endpoint ended. The value is the reason that metrics, logs and Proxy-Status carry."""

    ANSWERED = "answered"
    REFUSED = "connection refused"
    CONNECT_TIMEOUT = "connection timed out"
    RESET = "connection closed"
    """Closed or reset before the response was whole."""
    TIMED_OUT = "response timed out"
    BAD_RESPONSE = "bad response"
    """What came back was no response we may pass on."""
    CLIENT_LEFT = "client left"
    UNUSED = "unused"
    """Given back with nothing learned: a reused connection that turned out closed, a client's own fault."""


FAILURES = frozenset({Kind.REFUSED, Kind.CONNECT_TIMEOUT, Kind.RESET, Kind.TIMED_OUT, Kind.BAD_RESPONSE})
"""What counts against an endpoint, beside an answer with a status of 500 or more."""

SATURATED = frozenset({429, 503})
"""Statuses that, with Retry-After, ask to be left alone and are no failure."""


NOTHING: Final = 0
SUCCESS: Final = 1
FAILURE: Final = 2
SATURATION: Final = 3


class Outcome:
    """The end of one lease: its kind, for an answer the status, and for how long it asked to be left alone (s)."""

    __slots__ = ("kind", "retry_after", "status", "verdict")

    def __init__(self, kind: Kind, status: int = 0, retry_after: float | None = None) -> None:
        self.kind = kind
        self.status = status
        self.retry_after = retry_after
        self.verdict = _verdict(kind, status, retry_after)
        """What it says of the endpoint: NOTHING, SUCCESS, FAILURE or SATURATION."""

    @staticmethod
    def answered(status: int, retry_after: float | None = None) -> Outcome:
        """A response came, with `status`; `retry_after` is its Retry-After in seconds, if it had one."""
        if retry_after is None and 100 <= status < 600:
            return _ANSWERED[status]
        return Outcome(Kind.ANSWERED, status, retry_after)

    @staticmethod
    def failed(kind: Kind) -> Outcome:
        """The attempt came to nothing, as one of FAILURES says."""
        return _FAILED[kind]

    @property
    def is_saturation(self) -> bool:
        """The endpoint asked to be left alone: no failure (DESIGN, rule 8)."""
        return self.verdict == SATURATION

    @property
    def is_failure(self) -> bool:
        """Counts towards ejection and as a penalty in the latency average."""
        return self.verdict == FAILURE


def _verdict(kind: Kind, status: int, retry_after: float | None) -> int:
    if kind in FAILURES:
        return FAILURE
    if kind is not Kind.ANSWERED:
        return NOTHING
    if status in SATURATED and retry_after is not None:
        return SATURATION
    return FAILURE if status >= 500 else SUCCESS


_ANSWERED = [Outcome(Kind.ANSWERED, status) for status in range(600)]
_FAILED = {kind: Outcome(kind) for kind in FAILURES}
REFUSED = Outcome.failed(Kind.REFUSED)
CONNECT_TIMEOUT = Outcome.failed(Kind.CONNECT_TIMEOUT)
RESET = Outcome.failed(Kind.RESET)
TIMED_OUT = Outcome.failed(Kind.TIMED_OUT)
BAD_RESPONSE = Outcome.failed(Kind.BAD_RESPONSE)
CLIENT_LEFT = Outcome(Kind.CLIENT_LEFT)
UNUSED = Outcome(Kind.UNUSED)
