"""Who waits for an endpoint below its limit, and who is next."""

from __future__ import annotations


class Ticket:
    """One request's place in the queue."""

    def leave(self) -> None:
        """Give up the place: a client that left, or LB_QUEUE_TIMEOUT. Doing so twice does nothing."""
        raise NotImplementedError
