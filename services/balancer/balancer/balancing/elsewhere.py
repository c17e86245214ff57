"""What other replicas have at an endpoint, as far as this one knows."""

from __future__ import annotations

from mypy_extensions import mypyc_attr


@mypyc_attr(acyclic=True)
class Elsewhere:
    """Other replicas' requests at one endpoint; all 0 where nothing is known of other replicas.

    `Endpoint.others_have` writes it.
    """

    __slots__ = ("bias", "requests", "seconds", "unknown_cost")

    def __init__(self) -> None:
        self.requests = 0.0
        """How many: all strategies count them as in flight."""
        self.unknown_cost = 0.0
        """How many of those are of unknown cost: of replicas that do not say how much work they are."""
        self.seconds = 0.0
        """Expected seconds of work, at a typical endpoint, of the others."""
        self.bias = 0.0
        """Requests that the endpoint counts for in addition, since another replica prefers it: this decides ties."""

    def load(self, own: int) -> float:
        """Requests that the endpoint counts for beside this replica's `own`.

        Whole ones where there are `own`: the order in which those were sent then decides ties, since it says best which
        ends first. A preference, or old news that counts for little, would decide every one.
        """
        return float(int(self.requests)) if own else self.requests + self.bias
