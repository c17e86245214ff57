"""The fleet, as one replica sees it: every replica, what all of them do together, and what they have agreed on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import cast

from balancer import __version__
from balancer.admin.meter import PERCENTILES, Meter, bounds_of, quantile
from balancer.admin.status import Member, Running
from balancer.admin.views import View, rounded

Figures = Mapping[str, object]
RATES = ("errors", "client_faults")
LISTS = ("responses", "bytes")
NUMBERS = ("requests", "retries", "in_flight", "connections", "queue")


def own_status(running: Running, meter: Meter) -> View:
    """What this replica says of itself, to the others and to people."""
    eligible = [endpoint.eligible for endpoint in running.endpoints]
    return {
        "version": __version__,
        "started": round(time.time() - running.clock() + running.proxy.started_at, 3),
        "strategy": running.pool.strategy_name,
        "endpoints": len(eligible),
        "eligible": sum(eligible),
        "second": meter.last,
        "latency_counts": {str(index): count for index, count in enumerate(meter.recent) if count},
    }


def replicas_view(running: Running, meter: Meter) -> View:
    """Every replica, this one first, with what it said last; the sum over those that are live; what they agreed on."""
    peers = running.peers
    own = own_status(running, meter)
    members = peers.members if peers is not None else ()
    heard = {replica.name: replica for replica in peers.heard} if peers is not None else {}
    name = running.proxy.replica
    in_flight = sum(endpoint.in_flight for endpoint in running.pool.endpoints)
    ejected = sorted(running.pool.ejected)
    replicas = [_replica(name, True, "", "live", "", 0.0, in_flight, ejected, own)]
    for member in members:
        reported = heard.get(member.name)
        replicas.append(
            _replica(
                member.name,
                False,
                member.address,
                member.state,
                member.problem,
                None if member.age is None else round(member.age, 3),
                sum(reported.believed.values()) if reported is not None else None,
                sorted(reported.ejected) if reported is not None else [],
                member.status,
            )
        )
    agreed = peers.intent if peers is not None else None
    return {
        "peers": peers is not None,
        "replicas": replicas,
        "total": total(running, [own, *live(members)]),
        "agreed": {
            "strategy": agreed.strategy or None if agreed is not None else None,
            "drained": _drained(running, agreed.addresses) if agreed is not None else [],
            "at": round(agreed.at, 3) if agreed is not None and agreed.at else None,
        },
    }


def _drained(running: Running, addresses: Iterable[str]) -> list[str]:
    """Without those that another pod has by now, which serves."""
    found = {address: running.pool.find(address) for address in addresses}
    return sorted(address for address, endpoint in found.items() if endpoint is None or endpoint.health.drained)


def fleet_total(running: Running, meter: Meter) -> View | None:
    """The last second of all that are live; None before the first."""
    members = running.peers.members if running.peers is not None else ()
    return total(running, [own_status(running, meter), *live(members)])


def fleet_view(running: Running, meter: Meter) -> View:
    """The answer to GET /api/fleet: the replicas, and requests in flight by endpoint and replica."""
    heard = running.peers.heard if running.peers is not None else ()
    endpoints = [
        {
            "address": endpoint.address,
            "in_flight": {
                running.proxy.replica: endpoint.in_flight,
                **{replica.name: replica.believed.get(endpoint.address, 0) for replica in heard},
            },
        }
        for endpoint in running.pool.endpoints
    ]
    return {**replicas_view(running, meter), "endpoints": endpoints}


def live(members: Iterable[Member]) -> list[Figures]:
    """What those that are heard now have said."""
    return [member.status for member in members if member.state == "live" and member.status is not None]


def total(running: Running, said: Iterable[Figures]) -> View | None:
    """The last seconds of several replicas as one; None before the first.

    Percentiles are those of all their requests, not a mean of theirs; replicas of other versions, which may count in
    other buckets, are left out of them.
    """
    seconds: list[Figures] = []
    counts = [0] * (len(bounds_of(running)) + 1)
    for status in said:
        second = status.get("second")
        if not isinstance(second, Mapping):
            continue
        seconds.append(second)
        if status["version"] == __version__:
            for index, count in cast("Mapping[str, int]", status["latency_counts"]).items():
                if int(index) < len(counts):
                    counts[int(index)] += count
    if not seconds:
        return None
    names = {str(second.get("strategy")) for second in seconds}
    return {
        "at": seconds[0].get("at"),
        **{name: round(sum(_number(second.get(name)) for second in seconds), 2) for name in NUMBERS},
        **{name: _sum_lists(second.get(name) for second in seconds) for name in LISTS},
        **{name: _sum_rates(second.get(name) for second in seconds) for name in RATES},
        "latency": [rounded(quantile(bounds_of(running), counts, share)) for share in PERCENTILES],
        "strategy": ", ".join(sorted(names)),
    }


def _replica(
    name: str,
    is_self: bool,
    address: str,
    state: str,
    problem: str,
    age: float | None,
    in_flight: int | None,
    ejected: list[str],
    status: Figures | None,
) -> View:
    said = status or {}
    return {
        "name": name,
        "self": is_self,
        "address": address,
        "state": state,
        "problem": problem,
        "age": age,
        "in_flight": in_flight,
        "ejected": ejected,
        **{field: said.get(field) for field in ("version", "started", "strategy", "endpoints", "eligible", "second")},
    }


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else 0


def _sum_lists(lists: Iterable[object]) -> list[float]:
    summed: list[float] = []
    for each in lists:
        for index, value in enumerate(each if isinstance(each, list) else ()):
            if index == len(summed):
                summed.append(0)
            summed[index] = round(summed[index] + _number(value), 2)
    return summed


def _sum_rates(rates: Iterable[object]) -> dict[str, float]:
    summed: dict[str, float] = {}
    for each in rates:
        for name, value in each.items() if isinstance(each, dict) else ():
            summed[name] = round(summed.get(name, 0) + _number(value), 2)
    return summed
