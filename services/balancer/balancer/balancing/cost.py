"""What a request is expected to cost, learned: kinds of request, and the mean cost of each.

A kind is the method and the shape of the path: a number counts by its magnitude (its bits), an identifier not at all;
where there is a body, by the magnitude of its length too. A gRPC method is a path, and so a kind. `LB_COST_KEY` names
a header field, or a pattern of the path, instead.

Costs are seconds of work at a typical endpoint. The number of kinds is bounded: whatever clients invent, the most
frequent stay.
"""

from __future__ import annotations

import re
from typing import Final

from mypy_extensions import mypyc_attr

from balancer.balancing.holding import Holding
from balancer.balancing.request import RequestInfo

MAX_KINDS: Final = 512
"""Kinds kept."""
MAX_PATHS: Final = 4096
"""Paths whose kind is remembered, so that it is worked out once."""
LONGEST: Final = 256
"""Characters of a path that is remembered (the kind of a longer one is worked out each time), and of a kind's name."""
EXPONENTIAL: Final = 1.28
"""Standard deviation of the logarithm of an exponential cost."""
NOISE_PRIOR: Final = 8
"""As many samples count the noise that a kind is given at first, that of exponential costs."""
MIN_WEIGHT: Final = 0.02
"""Least weight of a sample in a kind's mean: about the last hundred count."""
TRUSTED: Final = 4
"""Samples after which a kind's own mean counts alone; before, in part that of the wider kind."""
OUTLIER: Final = 50.0
"""A sample above so many times the mean counts as that, once the mean is known."""
CONNECTION: Final = " "
"""Name of the kind of all connections in TCP mode."""
_LONG: Final = 40
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


@mypyc_attr(acyclic=True)
class RequestKind:
    """Requests that are expected to cost the same."""

    __slots__ = ("_noise", "count", "holding", "lengthy", "mean", "parked", "recent", "square", "wider")

    def __init__(self, wider: RequestKind | None) -> None:
        self.wider = wider
        """The kind that counts while little is known of this one."""
        self.count = 0
        self.mean = 0.0
        """Seconds."""
        self.square = 0.0
        """The mean of their squares."""
        self.parked = False
        """Whether what the time of such requests says is of no use: they are connections."""
        self.lengthy = False
        """Whether they take so many times the usual that they may wait for something, and take no worker."""
        self.holding = Holding()
        """Whether those that are lengthy hold others up."""
        self.recent = 0
        """Requests of this kind lately."""
        self._noise = EXPONENTIAL * EXPONENTIAL
        """Mean square by which an endpoint's pace misses a sample of it (a logarithm)."""

    def missed(self, step: float) -> None:
        """A pace has missed a sample of this kind by `step` (a logarithm)."""
        self._noise += max(1.0 / (self.count + NOISE_PRIOR), MIN_WEIGHT) * (step * step - self._noise)

    @property
    def certainty(self) -> float:
        """What a sample says of a pace, as a part of what one of exponential costs says: the inverse of its variance.

        Cheap requests that wait for expensive ones of other replicas, of which nothing is known, say next to nothing.
        """
        exponential = EXPONENTIAL * EXPONENTIAL
        return 1.0 if self._noise <= exponential else exponential / self._noise

    def sample(self, seconds: float) -> None:
        """One request of this kind took so much work."""
        self.sample_alone(seconds)
        if self.wider is not None:
            self.wider.sample(seconds)

    def sample_alone(self, seconds: float) -> None:
        """One took so long, which says nothing of what others cost: it was no work."""
        self.count += 1
        if self.count > 20:
            seconds = min(seconds, OUTLIER * self.mean)
        weight = max(1.0 / self.count, MIN_WEIGHT)
        self.mean += weight * (seconds - self.mean)
        self.square += weight * (seconds * seconds - self.square)

    def take_over(self, mean: float, square: float, count: int) -> bool:
        """Count `count` requests that another replica has seen, where that is more than were seen here."""
        own = self.count
        if own >= count:
            return False
        self.count = own + count
        share = count / self.count
        self.mean += share * (mean - self.mean)
        self.square += share * (square - self.square)
        return True

    @property
    def expected(self) -> float:
        """Seconds that one is expected to cost; 0 while nothing is known."""
        wider = self.wider
        if wider is None or self.count >= TRUSTED:
            return self.mean
        return (self.count * self.mean + (TRUSTED - self.count) * wider.expected) / TRUSTED

    @property
    def growth(self) -> float:
        """What is left of one, for each second that it has run, beside its mean: -1 where all cost the same.

        With a squared coefficient of variation v it is (v - 1)/(v + 1): exact for a fixed cost (-1), an exponential
        one (0, it has no memory) and a heavy tail of the Lomax family (the longer it has run, the longer it will).
        """
        kind = self
        while kind.count < 8 and kind.wider is not None:
            kind = kind.wider
        if kind.count < 8 or kind.mean <= 0.0:
            return 0.0
        v = max(kind.square / (kind.mean * kind.mean) - 1.0, 0.0)
        return (v - 1.0) / (v + 1.0)


class RequestKinds:
    """The kinds seen so far, at most `MAX_KINDS`."""

    __slots__ = ("_asked", "_by_method", "_field", "_found", "_kinds", "_paths", "_pattern", "all", "key")

    def __init__(self, key: str = "") -> None:
        """`key`: empty, `header:NAME` or `path:PATTERN`, a regular expression. Raises ValueError for another."""
        self.key = key
        self.all = RequestKind(None)
        """The kind of all requests."""
        self._kinds: dict[str, RequestKind] = {}
        self._by_method: dict[str, dict[str, RequestKind]] = {}
        """Kinds by the method, with the magnitude of the body's length where there is one, and the path."""
        self._paths = 0
        """How many are in there."""
        self._asked: RequestInfo | None = None
        """The request that was expected last: a choice and its beginning ask one after the other."""
        self._found = self.all
        """And its kind."""
        self._field, self._pattern = _parse(key)

    def __len__(self) -> int:
        return len(self._kinds)

    def of(self, request: RequestInfo) -> RequestKind:
        """The kind of `request`."""
        method = request.method
        if not method:
            kind = self._named(CONNECTION, "")
            kind.parked = True  # A connection in TCP mode: how long that took says nothing of the work that follows.
            return kind
        if self._field:
            return self._named(request.header(self._field) or "", "")
        path = request.path
        if method in _WITH_BODY:
            method = f"{method} {_magnitude(request.header('content-length') or '')}"
        by_path = self._by_method.get(method)
        known = None if by_path is None else by_path.get(path)
        return self._find(method, path) if known is None else known

    def expect(self, request: RequestInfo) -> RequestKind:
        """The kind of a request that is probably taken next: remembered until then."""
        self._found = self.of(request)
        self._asked = request
        return self._found

    def take(self, request: RequestInfo) -> RequestKind:
        """The kind of a request that is sent now, and counts."""
        kind = self._found if request is self._asked else self.of(request)
        self._asked = None  # It may hold headers that nobody else does any more.
        kind.recent += 1
        return kind

    def adopt(self, name: str, wider_name: str) -> RequestKind | None:
        """The kind of that name, made where there is room for one more and for its wider kind; else None."""
        if name not in self._kinds and len(self._kinds) + 2 > MAX_KINDS:
            return None
        return self._named(name, wider_name)

    def _find(self, method: str, path: str) -> RequestKind:
        if self._pattern is None:
            kind = self._named(f"{method} {shape(path, True)}", f"{method} {shape(path, False)}")
        else:
            # Many a pattern takes time by the square of what it looks at: seconds, of 16 KiB.
            match = self._pattern.search(path[:LONGEST])
            groups = "" if match is None else "/".join(each or "" for each in match.groups()) or match[0]
            kind = self._named(groups, "")
        if len(method) + len(path) <= LONGEST:
            if self._paths >= MAX_PATHS:
                self._forget_paths()
            self._by_method.setdefault(method, {})[path] = kind
            self._paths += 1
        return kind

    def _forget_paths(self) -> None:
        self._by_method.clear()
        self._paths = 0

    def _named(self, name: str, wider_name: str) -> RequestKind:
        if len(name) > LONGEST:
            name, wider_name = name[:LONGEST], wider_name[:LONGEST]
        kind = self._kinds.get(name)
        if kind is None:
            if len(self._kinds) + 1 >= MAX_KINDS:  # Room for its wider kind too, which is then not forgotten before it.
                self._forget()
            wider = self.all if wider_name in ("", name) else self._named(wider_name, "")
            kind = self._kinds[name] = RequestKind(wider)
        return kind

    def _forget(self) -> None:
        """Drop the half that had the fewest requests lately; a wider kind had those of all that it counts for."""
        recent: dict[RequestKind, int] = {}
        for kind in self._kinds.values():
            recent[kind] = recent.get(kind, 0) + kind.recent
            if kind.wider is not None:
                recent[kind.wider] = recent.get(kind.wider, 0) + kind.recent
        # A wider kind is older than the first that it counts for, and so before it where they have as many.
        kept = sorted(self._kinds.items(), key=lambda item: recent[item[1]], reverse=True)[: MAX_KINDS // 2]
        for _, kind in kept:
            kind.recent //= 2
        self._kinds = dict(kept)
        self._forget_paths()

    def by_traffic(self) -> list[tuple[str, RequestKind]]:
        """Name and kind of all, the wider ones too, those with the most requests first."""
        return sorted(self._kinds.items(), key=_traffic, reverse=True)

    @property
    def by_shape(self) -> bool:
        """Whether a name is method, path's shape and length, and not what `LB_COST_KEY` says."""
        return not self._field and self._pattern is None


def _traffic(item: tuple[str, RequestKind]) -> tuple[int, int]:
    return item[1].recent, item[1].count


def shape(path: str, magnitudes: bool) -> str:
    """A path, as far as `LONGEST` characters, with what differs from request to request taken out.

    What follows would not fit into a name, and with 16 KiB of it a request would take as long as a hundred others.
    """
    return "/".join([_part(part, magnitudes) for part in path[:LONGEST].split("/")])


def _part(part: str, magnitudes: bool) -> str:
    if part.isdecimal() and part.isascii() and len(part) < _LONG:
        return _magnitude(part) if magnitudes else "#"
    if len(part) > _LONG:
        return "*"
    digits = sum(map(str.isdigit, part))
    return "*" if digits >= 4 or (digits and len(part) >= 16) else part


def _magnitude(number: str) -> str:
    known = number.isdecimal() and number.isascii() and len(number) < _LONG
    return f"#{int(number).bit_length()}" if known else "-"


def _parse(key: str) -> tuple[str, re.Pattern[str] | None]:
    source, _, rest = key.partition(":")
    if not key:
        return "", None
    if source == "header" and rest:
        return rest, None
    if source == "path" and rest:
        try:
            return "", re.compile(rest)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
    raise ValueError("allowed are header:NAME and path:PATTERN")
