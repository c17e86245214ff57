"""Which other replicas there are, for people: those that are heard, those that are not, and why not.

`belief` forgets a replica that is silent, as its news is worth nothing; somebody who looks at the fleet must not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from balancer.peers.report import GAP, Status

OVERDUE: Final = 1.5
"""Seconds by which a report may be overdue until its replica counts as silent."""
REMEMBERED: Final = 60.0
"""Seconds for which one that is gone for good is still listed."""
LIVE: Final = "live"
SILENT: Final = "silent"
REFUSED: Final = "refused"
UNREACHABLE: Final = "unreachable"
LEFT: Final = "left"


@dataclass(frozen=True, slots=True)
class Member:
    """One other replica, as it is known here."""

    name: str
    """Empty: it has never said."""
    address: str
    """`host:port` at which it is looked for; empty: it is looked for no more."""
    state: str
    """LIVE; SILENT: was heard, and is no more; REFUSED: its reports cannot be read; UNREACHABLE: was never heard;
    LEFT: gone, as the discovery says too."""
    problem: str
    """What is wrong, in words; empty where nothing is."""
    age: float | None
    """Seconds since its last report; None: there was none."""
    status: Status | None
    """The last that it said; None: it has said nothing, or is of an older version."""


class LinkStatus(Protocol):
    """How the connection to a replica fares."""

    address: str
    peer: str
    """Its name, once it has said it."""
    problem: str


class _Seen:
    __slots__ = ("heard_at", "left_at", "name", "next_within", "refused", "status")

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.heard_at = now
        self.next_within = GAP
        self.left_at: float | None = None
        self.refused = ""
        self.status: Status | None = None


class Roster:
    """Remembers who was heard."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def heard(self, name: str, status: Status | None, now: float, next_within: float = GAP) -> None:
        """A report has come, and the next one will within so many seconds."""
        seen = self._seen.get(name)
        if seen is None:
            seen = self._seen[name] = _Seen(name, now)
        seen.heard_at, seen.left_at, seen.refused = now, None, ""
        seen.next_within = next_within
        seen.status = status or seen.status

    def left(self, name: str, now: float) -> None:
        """The connection on which it spoke has closed."""
        if name in self._seen:
            self._seen[name].left_at = now

    def refused(self, name: str, problem: str, now: float) -> None:
        """It has said what cannot be read."""
        seen = self._seen.setdefault(name, _Seen(name, now))
        seen.refused, seen.left_at, seen.status = problem, now, None

    def members(self, links: Iterable[LinkStatus], now: float) -> list[Member]:
        """All of them, by name, and those without a name by address."""
        reached = list(links)
        by_name = {link.peer: link for link in reached if link.peer}
        for seen in list(self._seen.values()):
            if seen.left_at is not None and seen.name not in by_name and now - seen.left_at > REMEMBERED:
                del self._seen[seen.name]
        known = [_member(seen, by_name.get(seen.name), now) for seen in self._seen.values()]
        return sorted(
            [*known, *self._unheard(reached)], key=lambda member: (not member.name, member.name or member.address)
        )

    def _unheard(self, links: Iterable[LinkStatus]) -> Iterator[Member]:
        for link in links:
            problem = link.problem or ("it is reached, but has not reported here" if link.peer else "")
            if problem and link.peer not in self._seen:
                yield Member(link.peer, link.address, UNREACHABLE, problem, None, None)


def _member(seen: _Seen, link: LinkStatus | None, now: float) -> Member:
    age = now - seen.heard_at
    address, problem = (link.address, link.problem) if link is not None else ("", "")
    if seen.refused:
        state, problem = REFUSED, seen.refused
    elif seen.left_at is None and age <= seen.next_within + OVERDUE:
        state = LIVE
    elif seen.left_at is not None and link is None:
        state = LEFT
    else:
        state, problem = SILENT, problem or "it does not report any more"
    return Member(seen.name, address, state, problem, age, seen.status)
