"""A condition of an object's status, and how it is written: what others wrote there stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from balancer.discovery.gateway.objects import Json

MAX_MESSAGE = 1024
"""Characters; the API takes 32768."""
MOST_ANCESTORS = 16
"""In a policy's status; the API takes no more."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One statement of ours: `type` is so or not, for a `reason` of the API's words, and a message for people."""

    type: str
    holds: bool
    reason: str
    message: str = ""


def merged(present: Sequence[Json], wanted: Sequence[Condition], generation: int, now: str) -> list[dict[str, Any]]:
    """The conditions to write, for an object of `generation` at `now` (RFC 3339).

    A condition whose status stays keeps its time; those of types that we do not write stay as they are.
    """
    ours = {condition.type for condition in wanted}
    known = {each.get("type"): each for each in present}
    written = [dict(each) for each in present if each.get("type") not in ours]
    for condition in wanted:
        status = "True" if condition.holds else "False"
        before = known.get(condition.type) or {}
        since = before.get("lastTransitionTime") if before.get("status") == status else None
        written.append(
            {
                "type": condition.type,
                "status": status,
                "reason": condition.reason,
                "message": condition.message[:MAX_MESSAGE],
                "observedGeneration": generation,
                "lastTransitionTime": since or now,
            }
        )
    return sorted(written, key=lambda each: str(each.get("type")))


def ancestors(
    present: Sequence[Json],
    controller: str,
    wanted: Iterable[tuple[Json, Sequence[Condition]]],
    generation: int,
    now: str,
) -> list[Json]:
    """The ancestors to write in the status of a policy: other controllers' as they are, and what we say of ours."""
    before = [each for each in present if each.get("controllerName") == controller]
    written: list[Json] = []
    for ancestor, conditions in islice(wanted, max(MOST_ANCESTORS - (len(present) - len(before)), 0)):
        known: Json = next((each for each in before if each.get("ancestorRef") == ancestor), {})
        stated = merged(known.get("conditions") or (), conditions, generation, now)
        written.append({"ancestorRef": ancestor, "controllerName": controller, "conditions": stated})
    return in_place(present, controller, "ancestorRef", written)


def in_place(present: Sequence[Json], controller: str, ref: str, wanted: Sequence[Json]) -> list[Json]:
    """A list that several controllers share: others' entries as they are, ours as `wanted`, by what `ref` refers to.

    Each keeps its place. Two controllers that both put theirs last would write in turn, for ever.
    """
    left = list(wanted)
    written: list[Json] = []
    for each in present:
        if each.get("controllerName") != controller:
            written.append(each)
        elif (place := next((at for at, one in enumerate(left) if one[ref] == each.get(ref)), None)) is not None:
            written.append(left.pop(place))
    return written + left
