"""What an exchange is in, at any time, and what may follow which: a table that one can check by eye."""

from __future__ import annotations

from typing import Final

# In the order in which a request passes through them: `<` compares them.
SEARCHING: Final = 0
"""No endpoint yet, or none any more: before the first lease, and while the pool's queue is waited in."""
CONNECTING: Final = 1
"""An endpoint is leased, a stream to it is being opened."""
SENT: Final = 2
"""The request, or what has come of it, is on its way: the response's head is awaited."""
INFORMED: Final = 3
"""An interim response has been passed on: the head is awaited still, and nothing may be repeated."""
RESPONDING: Final = 4
"""The response has begun to go to the client: from here on only a broken stream can say that something failed."""
TUNNEL: Final = 5
"""Upgraded: both sides send what they like."""
ENDED: Final = 6
"""Everything has been given back, exactly once."""

STATES: Final = 7
FOLLOWS: Final = (
    # to: SEARCHING, CONNECTING, SENT, INFORMED, RESPONDING, TUNNEL, ENDED
    b"\0\1\1\0\1\0\1"  # from SEARCHING (to RESPONDING: an error of our own)
    b"\1\1\1\0\1\0\1"  # from CONNECTING
    b"\1\1\1\1\1\1\1"  # from SENT (to SENT: another attempt, on an idle connection)
    b"\0\0\0\1\1\1\1"  # from INFORMED
    b"\0\0\0\0\0\0\1"  # from RESPONDING
    b"\0\0\0\0\0\0\1"  # from TUNNEL
    b"\0\0\0\0\0\0\0"  # from ENDED
)
"""Which state may follow which, a byte each: lists of booleans took 6 % of our own code's time."""
