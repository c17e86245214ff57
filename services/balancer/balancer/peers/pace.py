"""How often a replica reports: as soon as something changes, as far as its CPU time allows, and all links together.

All links report in the same turn of the event loop: to wake an idle process costs more than what it then does.
"""

from __future__ import annotations

import asyncio
from typing import Final

SOONEST: Final = 0.002
"""Seconds between two reports at the least: what changes within them is reported together."""
LATEST: Final = 0.1
"""Seconds between two looks at a pool at rest."""
SHARE: Final = 0.02
"""Largest share of the CPU time that reporting may take; hearing the others takes about as much."""


class Pace:
    """Wakes every link at the same moments."""

    def __init__(self) -> None:
        self._turn: asyncio.Future[None] | None = None
        self._spent = 0.0
        self._changed = False
        self.pause = SOONEST
        """Seconds between this turn and the next."""

    def spend(self, seconds: float, changed: bool) -> None:
        """A link took so much CPU time in this turn; `changed`: it had something to report."""
        self._spent += seconds
        self._changed = self._changed or changed

    async def turn(self) -> None:
        """Wait for the next moment to report."""
        turn = self._turn
        if turn is None:
            loop = asyncio.get_running_loop()
            turn = self._turn = loop.create_future()
            # Called once the other links have had this turn too, so that what all of them spent is known.
            loop.call_soon(self._schedule, turn)
        await asyncio.shield(turn)

    def _schedule(self, turn: asyncio.Future[None]) -> None:
        soonest = max(SOONEST, self._spent / SHARE)
        pause = min(LATEST, soonest if self._changed else max(soonest, 2 * self.pause))
        self._spent, self._changed, self.pause = 0.0, False, pause
        asyncio.get_running_loop().call_later(pause, self._end, turn)

    def _end(self, turn: asyncio.Future[None]) -> None:
        self._turn = None
        if not turn.done():
            turn.set_result(None)
