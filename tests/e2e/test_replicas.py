"""`peers.enabled` on a real cluster: replicas know of each other, and one that dies or is cut off costs no request.

That packets are lost between two pods is nothing a pod can bring about: LB_E2E_PARTITION and LB_E2E_HEAL name commands
that take two addresses.
"""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from tests.e2e.conftest import ROOT, until
from tests.e2e.test_changes import DIES_WITH_ITS_CLIENTS, odd_pod

pytestmark = pytest.mark.timeout(420)

FORGOTTEN = 3.0
"""Seconds of silence after which a replica is forgotten (docs/kubernetes.md)."""
UNCOUNTED = 1.0
"""Seconds after which nothing of a replica that died or was cut off counts as in flight."""
ASKING = 10.0
"""Seconds that asking every replica by way of the API server may take, on a busy machine."""
SLOW = 4
"""Requests in flight at an endpoint that keeps each for seconds; the others have one or two for milliseconds."""


def fleets(cluster: Any) -> dict[str, dict[str, Any]]:
    """What each ready replica says of the fleet, by its name."""
    names = cluster.names("balancer")
    with ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(lambda pod: cluster.admin(pod, "/api/fleet"), names), strict=True))


def heard(fleet: dict[str, Any]) -> set[str]:
    """Every replica that it hears, itself included: those that were, or should be, are listed too."""
    return {replica["name"] for replica in fleet["replicas"] if replica["state"] == "live"}


def all_hear(cluster: Any, replicas: int) -> bool:
    found = fleets(cluster)
    return len(found) == replicas and all(heard(fleet) == set(found) for fleet in found.values())


def agree(cluster: Any) -> bool:
    """Whether every replica has of every other the count that this one has of itself at the slow pod, but for a request
    that came or went between two looks.
    """
    found = fleets(cluster)
    own = {name: at_the_slow_pod(fleet, name) for name, fleet in found.items()}
    return sum(own.values()) >= SLOW and all(
        abs(at_the_slow_pod(fleet, other) - own[other]) <= 1 for fleet in found.values() for other in found
    )


def counted(fleet: dict[str, Any], replicas: set[str]) -> dict[str, int]:
    """Requests in flight of each of `replicas` that has any, as this fleet's replica counts them."""
    counts = {name: sum(each["in_flight"].get(name, 0) for each in fleet["endpoints"]) for name in replicas}
    return {name: count for name, count in counts.items() if count}


def at_the_slow_pod(fleet: dict[str, Any], replica: str) -> int:
    """Requests of `replica` in flight where most are."""
    slow = max(fleet["endpoints"], key=lambda each: sum(each["in_flight"].values()))
    return int(slow["in_flight"].get(replica, 0))


@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_see_what_the_others_send(cluster: Any, load: Any, replicas: int) -> None:
    # By turns, so that the slow pod gets its share whatever is known of it.
    cluster.helm("peers.enabled=true", f"balancer.replicas={replicas}", "balancer.settings.strategy=round-robin")
    with load.case(f"{replicas} replicas that know of each other"), odd_pod(cluster, PI_DELAY_MS="8000"):
        until(lambda: all_hear(cluster, replicas), "all replicas hear each other")
        until(lambda: agree(cluster), "the replicas' counts agree")
        ages = [
            each["age"] for fleet in fleets(cluster).values() for each in fleet["replicas"] if each["state"] == "live"
        ]
    assert max(ages) < FORGOTTEN


def test_a_replica_killed_is_forgotten_at_once(cluster: Any, load: Any) -> None:
    with load.case("one of four replicas killed", may_fail=DIES_WITH_ITS_CLIENTS):
        dead = cluster.names("balancer")[0]
        cluster.kubectl("delete", "pod", dead, "--grace-period=0", "--force")
        began = time.monotonic()
        # To ask takes longer than the second may: what is asked after it must be right the first time.
        time.sleep(UNCOUNTED)
        left = {name: fleet for name, fleet in fleets(cluster).items() if name != dead}
        assert not [found for fleet in left.values() if (found := counted(fleet, {dead}))]
        until(
            lambda: not any(dead in heard(fleet) for name, fleet in fleets(cluster).items() if name != dead),
            "nobody counts on the dead one",
        )
        assert time.monotonic() - began < FORGOTTEN + ASKING
        cluster.settled()
        until(lambda: all_hear(cluster, 4), "all four hear each other")
    assert load.rows[-1].failed <= 24, load.rows[-1].failures


@pytest.mark.skipif(
    not (os.environ.get("LB_E2E_PARTITION") and os.environ.get("LB_E2E_HEAL")),
    reason="LB_E2E_PARTITION and LB_E2E_HEAL name no commands that drop packets between two pods, and let them pass",
)
def test_replicas_cut_off_from_each_other_forget_and_find_each_other_again(cluster: Any, load: Any) -> None:
    # Requests of seconds at the slow pod: each replica has some in flight whenever it is looked at.
    with load.case("four replicas, two cut off from two"), odd_pod(cluster, PI_DELAY_MS="8000"):
        until(lambda: agree(cluster), "the replicas' counts agree")
        found = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in cluster.pods("balancer")}
        names = sorted(found)
        sides = set(names[:2]), set(names[2:])
        with partitioned([(found[one], found[other]) for one, other in itertools.product(*sides)]):
            began = time.monotonic()
            time.sleep(UNCOUNTED)
            # Where all of the cluster shares a few cores it may take another second; on loopback it must not.
            until(
                lambda: not any(counted(fleet, sides[name in sides[0]]) for name, fleet in fleets(cluster).items()),
                "nothing of the other side counts",
                UNCOUNTED,
            )
            until(
                lambda: all(heard(fleet) in sides for fleet in fleets(cluster).values()), "each hears its own side only"
            )
            assert time.monotonic() - began < FORGOTTEN + ASKING
        until(lambda: all_hear(cluster, 4), "all four hear each other")
        until(lambda: agree(cluster), "the counts are right again", UNCOUNTED + ASKING)
    cluster.helm()


@contextmanager
def partitioned(pairs: list[tuple[str, str]]) -> Iterator[None]:
    """While this lasts, no packet passes between the addresses of a pair."""
    try:
        for pair in pairs:
            between("LB_E2E_PARTITION", *pair)
        yield
    finally:
        for pair in pairs:
            between("LB_E2E_HEAL", *pair)


def between(variable: str, one: str, other: str) -> None:
    subprocess.run([*shlex.split(os.environ[variable]), one, other], check=True, timeout=30, cwd=ROOT)
