"""What one replica says to another: a JSON object in one WebSocket message.

A report is whole (the first on a connection) or names only what has changed since the one before. Unknown fields are
passed over, so that a newer replica may say more; a report that cannot be read is refused whole, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from balancer.balancing.concurrency import MOST_WORKERS
from balancer.balancing.costs import Bound
from balancer.balancing.hand_over import Learned
from balancer.peers import handed_over
from balancer.peers import intent as intents
from balancer.peers.intent import Intent, is_number

VERSION: Final = 1
"""Version of the format: a report of another one is refused."""
MAX_BYTES: Final = 4 << 20
"""Longest report that is read: 50,000 endpoints fit."""
MOST_ADDRESSES: Final = 1 << 16
"""Endpoints with anything in flight that are kept of one replica, however many reports name others."""
LONGEST_ADDRESS: Final = 300
"""Longest address (characters) that is kept: a name of 253, a colon and a port fit."""
MAX_ANSWER: Final = 1 << 18
"""Longest message (bytes) that is read where the other answers: one piece of what it has learned fits."""
GAP: Final = 1.0
"""Seconds within which a replica reports again, whatever has changed, unless it has said otherwise."""
BUSY: Final = 0.3
"""Seconds within which one does that has something in flight or to say: so soon it is missed."""
REST: Final = 3.0
"""Seconds within which one does that has nothing in flight and nothing to say, where all others understand it."""
LONGEST_GAP: Final = 60.0
MICROSECOND: Final = 1e-6
LARGEST: Final = (1 << 31) - 1
"""Largest count that is read."""
_SCAN: Final[Callable[[str, int], tuple[Any, int]]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode
_QUOTE: Final = json.encoder.encode_basestring_ascii


class BadReport(ValueError):
    """A message that is no report of this version; its text says why, and `replica` who sent it, where it says so."""

    replica = ""


Status = Mapping[str, object]
"""What a replica says of itself, for people: `version`, `started` (Unix time), `strategy`, `endpoints`, `eligible`,
`second` (its last second, as the admin port shows it) and `latency_counts` (by the index of a histogram's bucket)."""


@dataclass(init=False)
class Report:
    """One message.

    With an `__init__` of its own, which is compiled: a dataclass's takes 3 µs, more than all else of reading a report.
    """

    replica: str
    """Name of the replica that speaks: its pod's."""
    in_flight: Mapping[str, int]
    """Requests in flight by endpoint address; where the report is not `whole`, of those that changed."""
    ejected: frozenset[str] | None
    """Addresses of the endpoints that the replica has ejected; None: as before."""
    delay: float | None
    """How old (s) what it says counts as, while the sender reports on as it does; None: as before."""
    intent: Intent | None
    """None: as before."""
    status: Status | None
    """What it says of itself, once a second; None: as before."""
    whole: bool
    """Whether an endpoint that `in_flight` does not name has none."""
    answer: bool
    """Whether the sender waits for an empty message in return, to measure how long a report takes."""
    next_within: float | None
    """Seconds within which the next report comes, whatever changes; None: as the last that said so, `GAP` at most."""
    learned: Learned | None
    """A piece of what the sender has learned of requests and endpoints."""
    lasting: Mapping[str, int]
    """How many of those in flight do not wait for their response: it has begun and lasts, as a WebSocket's does. As
    `in_flight`; whatever the sender's strategy, since that of another may follow work."""
    work: Mapping[str, int]
    """Expected work (microseconds at a typical endpoint) of those that do wait, where requests differ in what they
    cost. As `lasting`; 0: not told."""
    bound: Bound | None
    """What has shown the sender how much endpoints work on at once; None: as before."""

    def __init__(
        self,
        replica: str,
        in_flight: Mapping[str, int] | None = None,
        ejected: frozenset[str] | None = None,
        delay: float | None = None,
        intent: Intent | None = None,
        status: Status | None = None,
        whole: bool = False,
        answer: bool = False,
        next_within: float | None = None,
        learned: Learned | None = None,
        lasting: Mapping[str, int] | None = None,
        work: Mapping[str, int] | None = None,
        bound: Bound | None = None,
    ) -> None:
        self.replica = replica
        self.in_flight = {} if in_flight is None else in_flight
        self.ejected = ejected
        self.delay = delay
        self.intent = intent
        self.status = status
        self.whole = whole
        self.answer = answer
        self.next_within = next_within
        self.learned = learned
        self.lasting = {} if lasting is None else lasting
        self.work = {} if work is None else work
        self.bound = bound

    def encode(self) -> bytes:
        """The message's text."""
        message: dict[str, object] = {"v": VERSION, "replica": self.replica}
        if self.whole:
            message["whole"] = True
        if self.answer:
            message["answer"] = True
        if self.next_within is not None:
            message["next"] = self.next_within
        if self.in_flight:
            message["in_flight"] = dict(self.in_flight)
        if self.lasting:
            message["lasting"] = dict(self.lasting)
        if self.work:
            message["work"] = dict(self.work)
        if self.bound is not None:
            message["bound"] = [round(self.bound.workers, 3), self.bound.answers]
        if self.ejected is not None:
            message["ejected"] = sorted(self.ejected)
        if self.delay is not None:
            message["delay"] = round(self.delay, 6)
        if self.status is not None:
            message["status"] = self.status
        if self.intent is not None:
            message["intent"] = intents.as_json(self.intent)
        if self.learned is not None:
            message["learned"] = handed_over.as_json(self.learned)
        return _ENCODE(message).encode()


def changes(replica: str, in_flight: Mapping[str, int], lasting: Mapping[str, int], work: Mapping[str, int]) -> bytes:
    """The text of a report that says nothing else, as `encode` writes it: by far the most do."""
    counts = _written("in_flight", in_flight) + _written("lasting", lasting) + _written("work", work)
    return f'{{"v":{VERSION},"replica":{_QUOTE(replica)}{counts}}}'.encode()


def _written(name: str, counts: Mapping[str, int]) -> str:
    if not counts:
        return ""
    written = ",".join([f"{_QUOTE(address)}:{count}" for address, count in counts.items()])
    return f',"{name}":{{{written}}}'


def microseconds(seconds: float) -> int:
    """Expected work as a report has it: half an hour and more is all the same."""
    return min(int(seconds / MICROSECOND), LARGEST)


def delayed(text: bytes, delay: float) -> bytes:
    """A report's text with its delay (s): the rest of it is written once for all who hear it."""
    return text[:-1] + f',"delay":{delay:.6f}}}'.encode()


def decode(data: bytes) -> Report:
    """Read a message. Raises BadReport."""
    message = _parse(data)
    replica = message.get("replica")
    named = isinstance(replica, str) and 0 < len(replica) <= 253 and (replica.isascii() or _has_utf8(replica))
    if message.get("v") != VERSION:
        bad = BadReport(f"format version {message.get('v')!r:.20}, this replica reads {VERSION}")
        bad.replica = str(replica) if named else ""
        raise bad
    if not isinstance(replica, str) or not named:
        raise BadReport("no replica's name")
    work = _counts(message.get("work", {}), "work")
    if len(message) == (4 if work else 3) and "in_flight" in message:  # By far the most say nothing else.
        return Report(replica, _counts(message["in_flight"]), work=work)
    ejected = message.get("ejected")
    delay = message.get("delay")
    if delay is not None and not is_number(delay):
        raise BadReport("delay is no number of seconds")
    gap = message.get("next")
    if gap is not None and not (is_number(gap) and 0 < gap <= LONGEST_GAP):
        raise BadReport(f"next is no number of seconds up to {LONGEST_GAP:g}")
    learned = message.get("learned")  # What cannot be read is none: it must not cost the news beside it.
    return Report(
        replica,
        _counts(message.get("in_flight", {})),
        None if ejected is None else _names(ejected, "ejected"),
        None if delay is None else float(delay),
        _intent(message.get("intent")),
        _status(message.get("status")),
        message.get("whole") is True,
        message.get("answer") is True,
        None if gap is None else float(gap),
        None if learned is None else handed_over.read(learned),
        _counts(message.get("lasting", {}), "lasting"),
        work,
        _bound(message.get("bound")),
    )


def _parse(data: bytes) -> dict[str, Any]:
    try:  # Twice as fast as json.loads, of which most is not the parser.
        text = data.decode()
        message, end = _SCAN(text, 0)
    except (StopIteration, ValueError, RecursionError) as error:
        raise BadReport("not JSON") from error
    if not isinstance(message, dict) or end != len(text):
        raise BadReport("not an object")
    return message


def _has_utf8(name: str) -> bool:
    """Whether it can be written anywhere: JSON may have half of a surrogate pair, metrics may not."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def answer(replica: str) -> bytes:
    """What the hearer sends back where a report asks for it."""
    return _ENCODE({"replica": replica}).encode()


def is_report(text: bytes) -> bool:
    """Whether it is a report and no answer, as far as its beginning shows."""
    return text.startswith(b'{"v":')


def answered_by(text: bytes) -> str:
    """The name in an answer; empty: an older replica's, which says none, or no answer at all."""
    try:
        name = json.loads(text).get("replica")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return name if isinstance(name, str) else ""


def _counts(value: object, name: str = "in_flight") -> dict[str, int]:
    if not isinstance(value, dict):
        raise BadReport(f"{name} is no object")
    for count in value.values():
        if type(count) is not int or not 0 <= count <= LARGEST:
            raise BadReport(f"{name} has a value that is no count")
    return value


def _names(value: object, name: str) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadReport(f"{name} is no list of names")
    return frozenset(value)


def _intent(value: object) -> Intent | None:
    try:
        return None if value is None else intents.read(value)
    except ValueError as error:
        raise BadReport(str(error)) from error


def _bound(value: object) -> Bound | None:
    """One that cannot be read is none: it only helps to learn."""
    if not isinstance(value, list) or len(value) != 2 or not all(map(is_number, value)):
        return None
    return Bound(min(max(float(value[0]), 1.0), MOST_WORKERS), int(value[1]))


def _status(value: object) -> Status | None:
    """A status that cannot be read is none: what is only shown must not cost the news that comes with it."""
    if not isinstance(value, dict) or not all(isinstance(value.get(name), str) for name in ("version", "strategy")):
        return None
    second, counts = value.get("second"), value.get("latency_counts", {})
    if not all(is_number(value.get(name)) for name in ("started", "endpoints", "eligible")):
        return None
    if second is not None and not (isinstance(second, dict) and all(_is_figure(each) for each in second.values())):
        return None
    if not isinstance(counts, dict) or not all(_is_index(key) and is_number(n) for key, n in counts.items()):
        return None
    known = ("version", "started", "strategy", "endpoints", "eligible")
    return {**{name: value[name] for name in known}, "second": second, "latency_counts": counts}


def _is_index(key: str) -> bool:
    return len(key) <= 9 and key.isdecimal()


def _is_figure(value: object) -> bool:
    """Whether it is a number or a word, or a list or an object of numbers."""
    if isinstance(value, list | dict):
        return all(each is None or is_number(each) for each in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) or is_number(value)
