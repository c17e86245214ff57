"""Who is to blame: how a lease ended, and what that says of the endpoint. The one rule, as a table.

An endpoint is charged only when it was what was being waited for, had been given what it needs, and the fault cannot
be ours, the client's or the request's own. The data plane reports what happened, as a `Kind`, and decides nothing.
"""

from __future__ import annotations

import enum
import errno
from typing import Final

NOTHING: Final = 0
"""It says nothing of the endpoint, for good or ill."""
SUCCESS: Final = 1
FAILURE: Final = 2
"""Counts towards ejection, and as a penalty in the latency average."""
SATURATION: Final = 3
"""The endpoint wants us to back off: no failure."""


class Kind(enum.Enum):
    """How one attempt at one endpoint ended. The value is the reason that metrics, logs and Proxy-Status carry."""

    ANSWERED = "answered"
    REFUSED = "connection refused"
    CONNECT_TIMEOUT = "connection timed out"
    CERTIFICATE = "certificate not trusted"
    """Its certificate does not verify, or it does not accept ours."""
    HANDSHAKE = "TLS handshake failed"
    """It accepted a connection, and speaks no TLS, or none that we share."""
    RESET = "connection closed"
    """Closed or reset before the response was whole, with the request sent whole or the connection still wanted."""
    TIMED_OUT = "response timed out"
    """The endpoint had the whole request, and its response did not begin in time."""
    BAD_RESPONSE = "bad response"
    """The endpoint sent something that is no response we may pass on."""
    STALLED = "response stalled"
    """A response that had begun well went quiet: a stream of events may."""
    CLIENT_SLOW = "client too slow"
    """LB_TOTAL_TIMEOUT ended it while we waited for the client: its upload, or its reading."""
    CLIENT_LEFT = "client left"
    LOCAL = "out of local resources"
    """We had no descriptor, port or buffer to connect with: see LOCAL_ERRORS."""
    NOT_TAKEN = "request not taken"
    """The endpoint says that it has not begun with it: REFUSED_STREAM, or a protocol to which it does not switch."""
    UNUSED = "unused"
    """Given back with nothing learned: a reused connection that turned out closed, a stream the endpoint never saw."""


VERDICTS: Final = {
    # how it ended             waited for the endpoint   it had what it needs   whose fault it can be
    Kind.REFUSED: FAILURE,  # yes                        yes                    the endpoint's
    Kind.CONNECT_TIMEOUT: FAILURE,  # yes                yes                    the endpoint's
    Kind.CERTIFICATE: FAILURE,  # yes                    yes                    the endpoint's
    Kind.HANDSHAKE: FAILURE,  # yes                      yes                    the endpoint's
    Kind.RESET: FAILURE,  # yes                          yes                    the endpoint's
    Kind.TIMED_OUT: FAILURE,  # yes                      yes                    the endpoint's
    Kind.BAD_RESPONSE: FAILURE,  # yes                   yes                    the endpoint's
    Kind.STALLED: NOTHING,  # yes                        yes                    nobody's: it may have nothing to say
    Kind.CLIENT_SLOW: NOTHING,  # no                     no                     the client's
    Kind.CLIENT_LEFT: NOTHING,  # yes                    perhaps                the client's
    Kind.LOCAL: NOTHING,  # no                           no                     ours
    Kind.NOT_TAKEN: NOTHING,  # no                       no                     nobody's: it said so before it began
    Kind.UNUSED: NOTHING,  # no                          no                     nobody's
}
"""What each kind says of the endpoint. Of ANSWERED, the status says it: see `of_status`."""

FAILURES: Final = frozenset(kind for kind, verdict in VERDICTS.items() if verdict == FAILURE)
"""What counts against an endpoint, beside an answer with a status of 500 or more."""

LOCAL_ERRORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
"""Errors (errno) of connecting that say something of this machine and nothing of the endpoint."""

MALFORMED_IN_ROW: Final = 3
"""Responses in a row that are none, or have no status of HTTP, until they count as failures of their endpoint: one
alone may be the request's doing."""

OF_THE_REQUEST: Final = frozenset({501, 505, 508, 510})
"""Statuses of 500 and more that speak of the request: another endpoint would answer the same."""

_RATE_LIMITED: Final = 429
"""Meant for one client: says nothing of the endpoint."""
_UNAVAILABLE: Final = 503
_NO_STATUS: Final = 600
"""From here on they are passed on and mean what two servers have agreed on."""


def of_status(status: int, retry_after: float | None) -> int:
    """The verdict on an answer; `retry_after` is what its Retry-After asks for (s), None without one."""
    if status >= _NO_STATUS:
        return FAILURE  # a few in a row: see Outcome.is_malformed
    if status == _RATE_LIMITED or status in OF_THE_REQUEST:
        return NOTHING
    if status == _UNAVAILABLE and retry_after is not None and retry_after > 0.0:
        return SATURATION
    return FAILURE if status >= 500 else SUCCESS


def of_connect_error(number: int | None) -> Kind:
    """How an attempt ended whose connecting failed with the errno `number`, if it had one."""
    return Kind.LOCAL if number in LOCAL_ERRORS else Kind.REFUSED


class Outcome:
    """The end of one lease: its kind, for an answer the status, and for how long it wants us to back off (s)."""

    __slots__ = ("kind", "retry_after", "status", "verdict")

    def __init__(self, kind: Kind, status: int = 0, retry_after: float | None = None) -> None:
        self.kind = kind
        self.status = status
        self.retry_after = retry_after
        self.verdict = of_status(status, retry_after) if kind is Kind.ANSWERED else VERDICTS[kind]
        """What it says of the endpoint: NOTHING, SUCCESS, FAILURE or SATURATION."""

    @staticmethod
    def answered(status: int, retry_after: float | None = None) -> Outcome:
        """The endpoint answered with `status`; `retry_after` is its Retry-After in seconds, if it had one."""
        if retry_after is None and 100 <= status < 600:
            return _ANSWERED[status]
        return Outcome(Kind.ANSWERED, status, retry_after)

    @staticmethod
    def failed(kind: Kind) -> Outcome:
        """The attempt failed, as `kind` says; any kind but ANSWERED."""
        return _ENDED[kind]

    @property
    def is_saturation(self) -> bool:
        """The endpoint wants us to back off: no failure."""
        return self.verdict == SATURATION

    @property
    def is_malformed(self) -> bool:
        """It charges the endpoint only as one of a few in a row."""
        return self.kind is Kind.BAD_RESPONSE or self.status >= _NO_STATUS

    @property
    def is_failure(self) -> bool:
        """Counts towards ejection and as a penalty in the latency average."""
        return self.verdict == FAILURE


_ANSWERED = [Outcome(Kind.ANSWERED, status) for status in range(600)]
_ENDED = {kind: Outcome(kind) for kind in VERDICTS}
REFUSED = _ENDED[Kind.REFUSED]
CONNECT_TIMEOUT = _ENDED[Kind.CONNECT_TIMEOUT]
CERTIFICATE = _ENDED[Kind.CERTIFICATE]
RESET = _ENDED[Kind.RESET]
TIMED_OUT = _ENDED[Kind.TIMED_OUT]
BAD_RESPONSE = _ENDED[Kind.BAD_RESPONSE]
STALLED = _ENDED[Kind.STALLED]
CLIENT_SLOW = _ENDED[Kind.CLIENT_SLOW]
CLIENT_LEFT = _ENDED[Kind.CLIENT_LEFT]
LOCAL = _ENDED[Kind.LOCAL]
UNUSED = _ENDED[Kind.UNUSED]
