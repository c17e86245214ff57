"""Explains a choice: what each endpoint scored, why others were out, and by what the winner won."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from balancer.balancing.decision import Candidate, Decision
from balancer.balancing.endpoint import Endpoint
from balancer.balancing.learned import expected_cost, wait
from balancer.balancing.request import RequestInfo
from balancer.balancing.rng import Random
from balancer.balancing.strategies import STRATEGIES, load
from balancer.balancing.strategies.strategy import Strategy, follows_work, turn

SHOWN: Final = 16
"""Candidates listed, at most."""

_OUT_SHOWN: Final = 4
"""Of these, places kept for endpoints that were out, where there are any."""

SCORED: Final = 100
"""Endpoints scored for a decision that only the log wants: of a larger fleet, other ones each second."""

SCORED_FOR_CLIENT: Final = 1000
"""Endpoints scored for a decision that a person wants: `X-LB-Explain`, or the API."""

_PAUSE: Final = 2e-4
_PAUSE_EACH: Final = 4e-6
"""Seconds between two decisions recorded, for each endpoint scored and for each there is: explaining takes about a
hundredth of the time."""

DRAWN: Final = "drawn at random"
NOT_KNOWN: Final = "not known: its turns depend on the weights and are counted only while it is in use"


class View:
    """The endpoints as they stood before one choice."""

    __slots__ = ("at", "eligible", "excluded", "others", "out", "pause", "request", "scored")

    def __init__(self, request: RequestInfo, excluded: Collection[Endpoint], now: float) -> None:
        self.at = now
        self.request = request
        self.excluded = excluded
        self.scored: list[tuple[float, int, int, Endpoint]] = []
        """The eligible endpoints: score, number of the last choice, order, endpoint; the best first."""
        self.eligible = 0
        """How many are eligible, scored or not."""
        self.out: list[Endpoint] = []
        """Some of those that are not."""
        self.others: dict[str, str] = {}
        self.pause = 0.0
        """How long no other decision should be recorded (s)."""

    @property
    def best(self) -> Endpoint | None:
        """The one with the lowest score."""
        return self.scored[0][3] if self.scored else None


class Explainer:
    """Scores the endpoints by the strategy in use and by every other one, and puts the outcome into words.

    The other strategies do not hear which endpoints there are: their scores see one endpoint, the request and the time.
    Where that is not enough to say what one would choose, the decision says so.
    """

    __slots__ = ("_follows_work", "_ineligible_reason", "_name", "_others", "_strategy", "cluster")

    def __init__(
        self, random: Random, hash_key: str, ineligible_reason: Callable[[Endpoint, float], str | None]
    ) -> None:
        self._ineligible_reason = ineligible_reason
        self._others: dict[str, Strategy] = {name: load(name, random, hash_key) for name in STRATEGIES}
        self._strategy: Strategy = self._others["round-robin"]
        self._name = ""
        self._follows_work = False
        self.cluster = ""

    def use(self, strategy: Strategy, name: str) -> None:
        """`strategy` is the one that chooses from now on."""
        self._strategy = strategy
        self._name = name
        self._follows_work = follows_work(strategy)

    def survey(self, endpoints: Collection[Endpoint], view: View, in_full: bool) -> View:
        """Score the endpoints as they stand now, for a view that is still empty; `in_full`: a person waits for it."""
        request = view.request
        excluded = view.excluded
        now = view.at
        eligible: list[Endpoint] = []
        for endpoint in endpoints:
            if endpoint.eligible and endpoint not in excluded:
                eligible.append(endpoint)
            elif len(view.out) < SHOWN:
                view.out.append(endpoint)
        view.eligible = len(eligible)
        eligible = self._sample(eligible, SCORED_FOR_CLIENT if in_full else SCORED, now)
        for endpoint in eligible:
            score = self._strategy.score(endpoint, request, now)
            view.scored.append((score, turn(endpoint), endpoint.order, endpoint))
        view.scored.sort(key=_without_endpoint)
        view.others = {
            name: _choice(name, strategy, eligible, request, now)
            for name, strategy in self._others.items()
            if name != self._name and eligible
        }
        view.pause = _PAUSE * len(eligible) + _PAUSE_EACH * len(endpoints)
        return view

    def decide(self, view: View, chosen: Endpoint | None, why: str | None) -> Decision:
        """The decision that took `chosen`; `why`, where it was not by its score, or nobody was. Call it before the
        choice counts.
        """
        request = view.request
        return Decision(
            at=view.at,
            strategy=self._name,
            client=request.client,
            method=request.method,
            path=request.path,
            chosen=None if chosen is None else chosen.address,
            by=why or self._by(view, chosen),
            candidates=self._candidates(view, chosen),
            others=view.others,
            cluster=self.cluster,
            cost=expected_cost(view.scored[0][3], request) if self._follows_work and view.scored else None,
        )

    def _sample(self, eligible: list[Endpoint], size: int, now: float) -> list[Endpoint]:
        if len(eligible) <= size:
            return eligible
        start = int(now) * size % len(eligible)  # The same for a second: what a score remembers is used again.
        part = eligible[start : start + size]
        return part + eligible[: size - len(part)]

    def _by(self, view: View, chosen: Endpoint | None) -> str:
        scored = view.scored
        if chosen is None or not scored:
            return "outside the rules"
        if view.eligible == 1:
            return "the only candidate"
        mine: float | None = None
        for score, _, _, endpoint in scored:
            if endpoint is chosen:
                mine = score
        if mine is None:
            mine = self._strategy.score(chosen, view.request, view.at)
        part = "" if len(scored) == view.eligible else f" ({len(scored)} of {view.eligible} candidates looked at again)"
        lowest = scored[0][0]
        if mine > lowest:
            how = "less loaded of two drawn at random, " if self._name == "random-of-two" else ""
            return f"{how}score {mine:.4g}{part}"
        if mine == lowest and len(scored) > 1 and scored[1][0] == lowest:
            rotates = self._name == "round-robin" or chosen.oldest is None or chosen.variability.even
            why = "chosen longest ago" if rotates else "its oldest request is the youngest"
            return f"tie, {why}{part}"
        return f"lowest score {mine:.4g}{part}"

    def _candidates(self, view: View, chosen: Endpoint | None) -> tuple[Candidate, ...]:
        shown: list[Candidate] = []
        room = SHOWN - min(len(view.out), _OUT_SHOWN)
        if chosen is not None:
            shown.append(self._candidate(chosen, self._strategy.score(chosen, view.request, view.at), None, view.at))
        for score, _, _, endpoint in view.scored:
            if endpoint is chosen:
                shown[0] = self._candidate(endpoint, score, None, view.at)
            elif len(shown) < room:
                shown.append(self._candidate(endpoint, score, None, view.at))
        for endpoint in view.out:
            if len(shown) == SHOWN:
                break
            if endpoint is not chosen:
                ineligible_reason = self._ineligible_reason(endpoint, view.at) or "this request has tried it"
                shown.append(self._candidate(endpoint, None, ineligible_reason, view.at))
        return tuple(shown)

    def _candidate(
        self, endpoint: Endpoint, score: float | None, ineligible_reason: str | None, now: float
    ) -> Candidate:
        latency = endpoint.latency.average(now)
        work = endpoint.work
        return Candidate(
            endpoint.address,
            score,
            ineligible_reason,
            endpoint.in_flight,
            latency,
            endpoint.weight,
            wait(work, endpoint.elsewhere, now) if self._follows_work else None,
            work.pace.factor if self._follows_work else None,
        )


def _choice(name: str, strategy: Strategy, eligible: list[Endpoint], request: RequestInfo, now: float) -> str:
    """What `strategy` would choose, or why that cannot be said from the endpoints alone."""
    if name == "random-of-two":
        return DRAWN
    if name == "round-robin" and any(endpoint.weight != eligible[0].weight for endpoint in eligible):
        return NOT_KNOWN
    best = eligible[0]
    lowest = strategy.score(best, request, now)
    for endpoint in eligible:
        score = strategy.score(endpoint, request, now)
        if score < lowest or (score == lowest and turn(endpoint) < turn(best)):
            best = endpoint
            lowest = score
    return best.address


def _without_endpoint(scored: tuple[float, int, int, Endpoint]) -> tuple[float, int, int]:
    return scored[0], scored[1], scored[2]
