"""What a replica has learned (balancing/hand_over.py), as JSON; what is read is checked number by number."""

from __future__ import annotations

from typing import Final

from balancer.balancing.concurrency import MOST_WORKERS
from balancer.balancing.costs import CostsLearned
from balancer.balancing.hand_over import (
    LONGEST_NAME,
    PIECE,
    EndpointLearned,
    KindLearned,
    Learned,
)

MOST: Final = 1e9
"""Largest number that is taken: seconds, requests."""
LEAST: Final = 1e-9
"""Smallest cost (s) that is taken: the square of one far below would be 0."""
FARTHEST: Final = 50.0
"""Largest logarithm, of a pace or of seconds, and smallest below 0."""
LONGEST_KEY: Final = 4096
"""Characters of LB_COST_KEY."""


def as_json(learned: Learned) -> dict[str, object]:
    """As it is sent: lists in the place of objects where there are many."""
    message: dict[str, object] = {"key": learned.key, "typical": learned.typical}
    costs = learned.costs
    if costs is not None:
        message["costs"] = [
            costs.workers,
            costs.usual,
            costs.by_kind,
            costs.by_mean,
            costs.compared,
            costs.distinct,
        ]
    if learned.endpoints:
        message["endpoints"] = [
            [each.address, each.pace, each.samples, each.workers, each.age] for each in learned.endpoints
        ]
    if learned.kinds:
        message["kinds"] = [_of_kind(each) for each in learned.kinds]
    if learned.all is not None:
        message["all"] = _of_kind(learned.all)
    if learned.last:
        message["last"] = True
    return message


def _of_kind(kind: KindLearned) -> list[object]:
    return [kind.name, kind.wider, kind.mean, kind.square, kind.count, kind.lengthy]


def read(value: object) -> Learned | None:
    """What `as_json` gave; None for anything else."""
    try:
        return _read(value) if isinstance(value, dict) else None
    except (KeyError, TypeError, ValueError):
        return None


def _read(value: dict[str, object]) -> Learned:
    """Raises KeyError, TypeError or ValueError for what is not as it must be."""
    costs, whole = value.get("costs"), value.get("all")
    endpoints, kinds = _list(value.get("endpoints", [])), _list(value.get("kinds", []))
    return Learned(
        _text(value["key"], LONGEST_KEY),
        _logarithm(value["typical"]),
        None if costs is None else _costs(*_list(costs)),
        tuple([_endpoint(*_list(each)) for each in endpoints]),
        tuple([_kind(*_list(each)) for each in kinds]),
        None if whole is None else _kind(*_list(whole)),
        value.get("last") is True,
    )


def _costs(
    workers: object, usual: object, by_kind: object, by_mean: object, compared: object, distinct: object
) -> CostsLearned:
    return CostsLearned(
        _workers(workers),
        _logarithm(usual),
        _number(by_kind),
        _number(by_mean),
        _count(compared),
        _is_true(distinct),
    )


def _endpoint(address: object, pace: object, samples: object, workers: object, age: object) -> EndpointLearned:
    return EndpointLearned(
        _text(address, LONGEST_NAME + 100), _logarithm(pace), _count(samples), _workers(workers), _number(age)
    )


def _kind(name: object, wider: object, mean: object, square: object, count: object, lengthy: object) -> KindLearned:
    seconds, squares = _number(mean), _number(square)
    if seconds < LEAST or squares < LEAST * LEAST:
        raise ValueError("no request costs so little")
    return KindLearned(
        _text(name, LONGEST_NAME), _text(wider, LONGEST_NAME), seconds, squares, _count(count), _is_true(lengthy)
    )


def _list(value: object) -> list[object]:
    if not isinstance(value, list) or len(value) > 2 * PIECE:
        raise ValueError("no list, or too long a one")
    return value


def _text(value: object, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise ValueError("no text, or too long a one")
    return value


def _number(value: object) -> float:
    if (type(value) is float or type(value) is int) and 0.0 <= value <= MOST:
        return float(value)
    raise ValueError("no number, or out of bounds")


def _logarithm(value: object) -> float:
    if (type(value) is float or type(value) is int) and -FARTHEST <= value <= FARTHEST:
        return float(value)
    raise ValueError("no logarithm, or out of bounds")


def _workers(value: object) -> float:
    workers = _number(value)
    if workers > MOST_WORKERS or 0.0 < workers < 1.0:
        raise ValueError("no number of workers")
    return workers


def _count(value: object) -> int:
    if type(value) is int and 0 <= value < 1 << 53:
        return value
    raise ValueError("no count")


def _is_true(value: object) -> bool:
    if value is True or value is False:
        return value is True
    raise ValueError("neither true nor false")
