"""How a choice looked from inside, told so that a person can follow it."""

from __future__ import annotations

from collections.abc import Collection

from balancer.balancing.chance import Random
from balancer.balancing.decision import Decision
from balancer.balancing.endpoint import Endpoint
from balancer.balancing.request import RequestInfo
from balancer.balancing.strategies.strategy import Strategy


class View:
    def __init__(self) -> None:
        self.best: Endpoint | None = None
        self.pause = 0.01


class Explainer:
    def __init__(self, random: Random, hash_key: str) -> None: ...

    def use(self, strategy: Strategy, name: str) -> None: ...

    def look(self, pool: object, request: RequestInfo, now: float, excluded: Collection[Endpoint]) -> View:
        return View()

    def decide(self, view: View, chosen: Endpoint | None, why_none: str | None) -> Decision:
        return Decision(0, "", "", "", "", None, "", (), {})
