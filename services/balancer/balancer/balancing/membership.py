"""The endpoints of the pool: those that the last snapshot names, and for a while those that it names no more."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from balancer.balancing.endpoint import Endpoint, EndpointSpec, Snapshot

_Key = tuple[str, int, str]
"""Host, port and pod UID."""

REMEMBERED: Final = 60.0
"""An endpoint that leaves and returns within this time (s) finds its state again."""


_LAST: Final = 1 << 30
"""The place of an endpoint that has not been put in order yet."""


_PIECE: Final = 200
"""Endpoints looked at in one go."""


class Changes:
    """What a snapshot says that the one before did not."""

    __slots__ = ("joining", "leaving", "respecified", "total")

    def __init__(self) -> None:
        self.joining: list[tuple[_Key, EndpointSpec]] = []
        self.leaving: list[tuple[_Key, Endpoint]] = []
        self.respecified: list[tuple[Endpoint, EndpointSpec]] = []
        """Endpoints whose spec differs, with the new one; `endpoint.spec` is the old one still."""
        self.total = 0
        """Endpoints that the snapshot names."""


class Membership:
    """The endpoints of the last snapshot, found again by what identifies them."""

    __slots__ = ("_by_address", "_gone", "_members")

    def __init__(self) -> None:
        self._members: dict[_Key, Endpoint] = {}
        self._by_address: dict[str, Endpoint] | None = None
        """Made when first needed."""
        self._gone: dict[_Key, tuple[Endpoint, float]] = {}
        """Endpoints that left lately, with the time until which they are remembered."""

    @property
    def endpoints(self) -> Collection[Endpoint]:
        """All of them, in the snapshot's order once it is applied."""
        return self._members.values()

    def compare(self, snapshot: Snapshot, changes: Changes) -> Iterator[None]:
        """Collect in `changes` how `snapshot` differs from the membership, in pieces.

        Of two specs of one endpoint the first counts.
        """
        before = dict(self._members)
        seen: set[_Key] = set()
        for number, spec in enumerate(snapshot):
            if number % _PIECE == _PIECE - 1:
                yield
            key = (spec.host, spec.port, spec.uid)  # `spec.key`, without making a string of it.
            if key in seen:
                continue
            seen.add(key)
            endpoint = before.pop(key, None)
            if endpoint is None:
                changes.joining.append((key, spec))
            elif spec is not endpoint.spec and _differ(spec, endpoint.spec):
                changes.respecified.append((endpoint, spec))
        changes.leaving.extend(before.items())
        changes.total = len(seen)

    def join(self, key: _Key, spec: EndpointSpec, now: float) -> Endpoint:
        """Take in a new one, or one that left lately."""
        endpoint = self._recall(key, spec, now)
        endpoint.discovered = True
        endpoint.order = _LAST
        self._change(key, endpoint)
        return endpoint

    def leave(self, key: _Key, endpoint: Endpoint, now: float) -> None:
        """Let one go, and remember it for a while."""
        endpoint.discovered = False
        self._change(key, None)
        self._gone[key] = (endpoint, now + REMEMBERED)

    def _change(self, key: _Key, endpoint: Endpoint | None) -> None:
        self._by_address = None
        if endpoint is None:
            del self._members[key]
        else:
            self._members[key] = endpoint

    def arrange(self, snapshot: Snapshot) -> Iterator[None]:
        """Put the members into the order of `snapshot`, which names exactly these, in pieces."""
        members: dict[_Key, Endpoint] = {}
        for number, spec in enumerate(snapshot):
            if number % _PIECE == _PIECE - 1:
                yield
            key = (spec.host, spec.port, spec.uid)
            members[key] = self._members[key]
        self._members = members

    def _recall(self, key: _Key, spec: EndpointSpec, now: float) -> Endpoint:
        remembered = self._gone.pop(key, None)
        if remembered is None or remembered[1] < now:
            return Endpoint(spec)
        endpoint = remembered[0]
        endpoint.spec = spec
        endpoint.weight = spec.weight
        endpoint.slow_start_from = None
        return endpoint

    def reorder(self) -> list[Endpoint]:
        """Number the endpoints as `n-to-one` prefers them: by the pod's name, without names as configured.

        Returns those whose number is another than before.
        """
        moved: list[Endpoint] = []
        for place, endpoint in enumerate(sorted(self._members.values(), key=_name)):
            if endpoint.order != place:
                endpoint.order = place
                moved.append(endpoint)
        return moved

    def forget(self, now: float) -> None:
        """Drop those that left too long ago, `_PIECE` at most in one go.

        It is called at every tick, and tens of thousands may be remembered: so it looks at the oldest alone.
        """
        if not self._gone:
            return
        over: list[_Key] = []
        for key, gone in self._gone.items():  # In the order in which they left.
            if gone[1] >= now or len(over) == _PIECE:
                break
            over.append(key)
        for key in over:
            del self._gone[key]

    def find(self, address: str) -> Endpoint | None:
        """The endpoint at `host:port`, or None."""
        found = self._by_address
        if found is None:
            found = {endpoint.address: endpoint for endpoint in self._members.values()}
            self._by_address = found
        return found.get(address)


def _differ(one: EndpointSpec, other: EndpointSpec) -> bool:
    """Whether two specs of the same endpoint say different things of it."""
    return (
        one.draining != other.draining
        or one.weight != other.weight
        or one.zone != other.zone
        or one.name != other.name
        or one.node != other.node
        or one.near != other.near
        or one.protocol != other.protocol
    )


def _name(endpoint: Endpoint) -> str:
    return endpoint.spec.name
