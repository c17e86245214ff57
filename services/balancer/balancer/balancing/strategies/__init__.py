"""The strategies, one a file, and the registry that gives each its name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from balancer.balancing.rng import Random
from balancer.balancing.strategies.by_load import ByLoad
from balancer.balancing.strategies.by_score import ByScore
from balancer.balancing.strategies.consistent_hash import ConsistentHash
from balancer.balancing.strategies.guarded import Guarded, in_words
from balancer.balancing.strategies.least_connections import LeastConnections
from balancer.balancing.strategies.least_response_time import LeastResponseTime
from balancer.balancing.strategies.least_work import LeastWork
from balancer.balancing.strategies.n_to_one import NToOne
from balancer.balancing.strategies.random_of_two import RandomOfTwo
from balancer.balancing.strategies.round_robin import RoundRobin
from balancer.balancing.strategies.strategy import Strategy

__all__ = ["ALIASES", "STRATEGIES", "ByLoad", "ByScore", "Strategy", "load"]

STRATEGIES: Final[dict[str, Callable[[Random], Strategy]]] = {
    "n-to-one": NToOne,
    "round-robin": RoundRobin,
    "least-connections": LeastConnections,
    "least-response-time": LeastResponseTime,
    "least-work": LeastWork,
    "random-of-two": RandomOfTwo,
    "consistent-hash": ConsistentHash,
}
"""Name, as LB_STRATEGY says it, to class."""

FALLBACK: Final = "round-robin"
"""Chooses where a user's own strategy fails to."""

ALIASES: Final = {"primary-backup": "n-to-one"}
"""Other names that the field has for some of them."""

_HOOKS: Final = ("added", "removed", "changed", "choose", "score")

_TO_WRITE: Final = (Strategy.choose, Strategy.score, ByScore.score, ByLoad.score)
"""What a base leaves to its subclasses."""

_REMEDY: Final = "derive it from ByScore, ByLoad or Strategy of balancer.balancing.strategies"


def load(name: str, random: Random, hash_key: str = "client-ip") -> Strategy:
    """A new strategy: one of ours by name, or a user's own as `module:Class`, constructed as `Class(random)`, guarded.

    Raises ValueError, with what is allowed, for an unknown name, a module or class that cannot be had, or a class that
    is no strategy.
    """
    name = ALIASES.get(name, name)
    if name == "consistent-hash":
        return ConsistentHash(random, hash_key)
    known = STRATEGIES.get(name)
    if known is not None:
        return known(random)
    module, colon, class_name = name.partition(":")
    if not (module and colon and class_name):
        raise ValueError(f"unknown strategy {name!r}: allowed are {', '.join(STRATEGIES)} and module:Class")
    return Guarded(_load_own(name, module, class_name, random), STRATEGIES[FALLBACK](random))


def _load_own(name: str, module: str, class_name: str, random: Random) -> Any:  # noqa: ANN401  (a user's)
    try:
        imported = import_module(module)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise ValueError(f"strategy {name!r}: no module {module}: put its folder on PYTHONPATH") from error
        raise ValueError(f"strategy {name!r}: importing {module} failed: {in_words(error)}") from error
    found = getattr(imported, class_name, None)
    if found is None:
        raise ValueError(f"strategy {name!r}: {module} has no {class_name}")
    if not isinstance(found, type):
        raise ValueError(f"strategy {name!r} is no strategy: {class_name} is no class")  # noqa: TRY004
    missing = [hook for hook in _HOOKS if not callable(getattr(found, hook, None))]
    if missing:
        raise ValueError(f"strategy {name!r} is no strategy: it has no {', '.join(missing)}: {_REMEDY}")
    missing = [hook for hook in _HOOKS if getattr(found, hook) in _TO_WRITE]
    if missing:
        raise ValueError(f"strategy {name!r}: {class_name} has to write {' and '.join(missing)}")
    try:
        return found(random)
    except Exception as error:
        raise ValueError(f"strategy {name!r}: {class_name}(random) failed: {in_words(error)}") from error
