"""A property test for a strategy, a user's own or one of ours. It needs hypothesis, which the balancer does not.

from balancer.balancing.kit import check_strategy

def test_my_strategy_keeps_its_promises() -> None:
    check_strategy(MyStrategy)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from balancer.balancing import outcome
from balancer.balancing.endpoint import Endpoint, EndpointSpec
from balancer.balancing.errors import NoEndpoint
from balancer.balancing.outcome import Outcome
from balancer.balancing.pool import Lease, Policy, Pool
from balancer.balancing.request import RequestInfo
from balancer.balancing.rng import Random
from balancer.balancing.strategies.strategy import Strategy, turn

_CLOSE: Final = 1e-9
"""Two scores that differ by no more than this part of them count as equal: the fast way may round otherwise."""

_OUTCOMES: Final = (Outcome.answered(200), Outcome.answered(500), outcome.REFUSED, outcome.CLIENT_LEFT, outcome.UNUSED)

_RULES: Final = (
    Policy(eject_after=0),
    Policy(eject_after=0, slow_start=8.0),
    Policy(eject_after=0, endpoint_max_requests=4),
    Policy(eject_after=0, endpoint_max_requests=2, slow_start=8.0),
)
"""A limit and slow start change who is eligible and what a weight is; ejection would only hide candidates."""

Step = tuple[str, int, float]
"""What happens: its name, a number that says to which endpoint or lease, and an amount."""


@dataclass(frozen=True, slots=True)
class Promises:
    """What a strategy must do, beyond choosing an eligible endpoint whenever there is one."""

    lowest_score: bool = True
    """It chooses the lowest score. Not so for one that draws lots."""
    ties_in_turn: bool = True
    """Among equal scores, it chooses the one whose `turn` it is: idle endpoints rotate, and busy ones by `turn` too."""


def check_strategy(
    make: Callable[[Random], Strategy], promises: Promises | None = None, examples: int = 200, seed: int = 1
) -> None:
    """Play `examples` random histories of a pool with the strategy and hold it to its promises at every choice.

    `make` is its class, or whatever makes one from a random source. Raises AssertionError with the shortest history
    that breaks a promise; what the strategy itself raises passes through.
    """
    # Imported here: only people who test a strategy have it installed.
    from hypothesis import HealthCheck, Phase, errors, find, settings
    from hypothesis import strategies as draw

    names = draw.sampled_from(
        ["join", "join", "leave", "lease", "lease", "lease", "sent", "first byte", "close", "close", "pass", "switch"]
    )
    steps = draw.tuples(names, draw.integers(0, 11), draw.sampled_from([0.5, 1.0, 2.0, 5.0]))
    # Short histories are read easily, long ones reach further.
    lengths = draw.one_of(draw.lists(steps, max_size=20), draw.lists(steps, min_size=40, max_size=80))
    trial = _Trial(make, promises or Promises(), seed)
    quiet = settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    try:
        rules, history = find(draw.tuples(draw.sampled_from(_RULES), lengths), trial.breaks, settings=quiet)
    except errors.NoSuchExample:
        return
    trial.play(rules, trial.shortened(rules, history))


class _Trial:
    """Plays histories with one strategy."""

    def __init__(self, make: Callable[[Random], Strategy], promises: Promises, seed: int) -> None:
        self._make = make
        self._promises = promises
        self._seed = seed

    def play(self, rules: Policy, history: list[Step]) -> None:
        """Play one history. Raises AssertionError, or what the strategy raises."""
        world = _World(self._make, self._promises, rules, _Seeded(self._seed))
        for number, step in enumerate(history):
            try:
                world.take(step)
            except AssertionError as error:
                steps = "\n".join(f"  {name} {who} {amount:g}" for name, who, amount in history[: number + 1])
                raise AssertionError(f"{error}\nafter this history:\n{steps}") from error

    def breaks(self, played: tuple[Policy, list[Step]]) -> bool:
        """Whether a history breaks a promise."""
        try:
            self.play(*played)
        except Exception:  # noqa: BLE001  (whatever it is, the shortest history that raises it raises it again)
            return True
        return False

    def shortened(self, rules: Policy, history: list[Step]) -> list[Step]:
        """The history without each step that it does not need to break a promise.

        Faster here than hypothesis's own shrinking, which knows nothing of steps.
        """
        size = len(history) // 2
        while size > 0:
            length = len(history)
            for i in reversed(range(0, length, size)):
                without = history[:i] + history[i + size :]
                if self.breaks((rules, without)):
                    history = without
            # One step gone may let another go that was needed before.
            if len(history) == length or size > 1:
                size //= 2
        return history


class _Seeded:
    """The same numbers for the same seed, so that a history that broke a promise breaks it again.

    A linear congruential generator with Knuth's constants for MMIX.
    """

    def __init__(self, seed: int) -> None:
        self._state = seed

    def random(self) -> float:
        """A number in [0, 1)."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (self._state >> 11) / (1 << 53)

    def randrange(self, stop: int, /) -> int:
        """A whole number in [0, stop)."""
        return int(self.random() * stop)


class _World:
    """A pool, the requests open in it, and a clock."""

    def __init__(self, make: Callable[[Random], Strategy], promises: Promises, rules: Policy, random: Random) -> None:
        self._make = make
        self._promises = promises
        self._random = random
        self._strategy = make(random)
        self._pool = Pool(self._strategy, "the strategy under test", rules, random)
        self._specs: dict[int, EndpointSpec] = {}
        self._leases: list[Lease] = []
        self._now = 1000.0

    def take(self, step: Step) -> None:
        """Let one thing happen."""
        name, who, amount = step
        if name == "join":
            weight = amount if who % 2 else 1.0
            self._specs[who] = EndpointSpec(f"10.0.0.{who}", 80, weight, name=f"pod-{who}")
            self._pool.replace(list(self._specs.values()), self._now)
        elif name == "leave":
            self._specs.pop(who, None)
            self._pool.replace(list(self._specs.values()), self._now)
        elif name == "lease":
            self._lease(RequestInfo(f"192.0.2.{who}", "GET", f"/{who}"), tried=who % 3)
        elif name == "pass":
            self._now += amount * (0.01 if who % 2 else 1.0)
            self._pool.tick(self._now)
        elif name == "switch":
            self._strategy = self._make(self._random)
            self._pool.use(self._strategy, "the same again", self._now)
        elif self._leases:
            self._proceed(name, who)

    def _proceed(self, name: str, who: int) -> None:
        self._now += 0.001 * (who + 1)
        lease = self._leases[who % len(self._leases)]
        if name == "sent":
            lease.sent(self._now)
        elif name == "first byte":
            lease.first_byte(self._now)
        else:
            self._leases.remove(lease)
            lease.close(_OUTCOMES[who % len(_OUTCOMES)], self._now)

    def _lease(self, request: RequestInfo, tried: int) -> None:
        eligible = [e for e in self._pool.endpoints if self._pool.ineligible_reason(e, self._now) is None]
        excluded = eligible[:tried]
        candidates = eligible[tried:]
        scores = self._scores(candidates, request)
        _hold(scores == self._scores(candidates, request), "score changed something: asked again, it says otherwise")
        turns = {endpoint: turn(endpoint) for endpoint in candidates}
        try:
            lease = self._pool.lease(request, self._now, excluded)
        except NoEndpoint:
            _hold(not candidates, f"chose none, though {len(candidates)} are eligible")
            return
        self._leases.append(lease)
        chosen = lease.endpoint
        _hold(chosen in scores, f"chose {chosen}, which is not eligible")
        if self._promises.lowest_score:
            lowest = min(scores, key=lambda endpoint: scores[endpoint])
            limit = scores[lowest] + _CLOSE * abs(scores[lowest])
            broken = f"chose {chosen} with score {scores[chosen]:g}, though {lowest} has {scores[lowest]:g}"
            _hold(scores[chosen] <= limit, broken)
        if self._promises.ties_in_turn:
            # Between weights turns may go by those.
            equal = [e for e in candidates if scores[e] == scores[chosen] and e.weight == chosen.weight]
            first = min(equal, key=lambda endpoint: turns[endpoint])
            broken = f"chose {chosen}, though {first} has the same score and comes first"
            _hold(turns[chosen] == turns[first], broken)

    def _scores(self, candidates: list[Endpoint], request: RequestInfo) -> dict[Endpoint, float]:
        return {endpoint: self._strategy.score(endpoint, request, self._now) for endpoint in candidates}


def _hold(promise: bool, broken: str) -> None:
    if not promise:
        raise AssertionError(broken)
