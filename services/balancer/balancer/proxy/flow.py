"""Backpressure: reading from one side stops while the other side cannot take more."""

from __future__ import annotations

from typing import Final

from balancer.proxy.transport import Transport

PEER_FULL: Final = 1
"""The side that we write to has more unsent than its high-water mark."""
PIPELINED: Final = 2
"""The client has sent the next request before this one was answered."""
NOT_CONNECTED: Final = 4
"""There is no endpoint yet to send this body to, and the part kept for a retry is full."""
NOT_SWITCHED: Final = 8
"""The endpoint has not agreed to switch protocols: what the client sends before that must not reach it."""


class Intake:
    """Reading from one transport, paused while any reason for it stands."""

    __slots__ = ("_reasons", "_transport")

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._reasons = 0

    @property
    def paused(self) -> bool:
        """Whether nothing is being read."""
        return self._reasons != 0

    def pause(self, reason: int) -> None:
        """Pause reading for `reason`, one of the constants above."""
        if self._reasons == 0 and not self._transport.is_closing():
            self._transport.pause_reading()
        self._reasons |= reason

    def resume(self, reason: int) -> None:
        """`reason` is gone: read on if no other stands."""
        if self._reasons & reason:
            self._reasons &= ~reason
            if self._reasons == 0 and not self._transport.is_closing():
                self._transport.resume_reading()
