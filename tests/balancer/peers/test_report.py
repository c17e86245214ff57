"""What one replica says to another survives the way, and what is no report is refused with the reason."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.balancing.costs import Bound, CostsLearned
from balancer.balancing.hand_over import EndpointLearned, KindLearned, Learned
from balancer.peers.intent import Intent, Wish
from balancer.peers.report import (
    LARGEST,
    BadReport,
    Report,
    answer,
    answered_by,
    changes,
    decode,
    delayed,
    is_report,
    microseconds,
)

COUNTS = st.integers(0, 10**6)
SECONDS = st.floats(1e-9, 1e6)
LOGARITHMS = st.floats(-50.0, 50.0)
WORKERS = st.just(0.0) | st.floats(1.0, 1024.0)
KINDS = st.builds(KindLearned, st.text(max_size=60), st.text(max_size=60), SECONDS, SECONDS, COUNTS, st.booleans())
LEARNED = st.builds(
    Learned,
    st.text(max_size=30),
    LOGARITHMS,
    st.none() | st.builds(CostsLearned, WORKERS, LOGARITHMS, SECONDS, SECONDS, COUNTS, st.booleans()),
    st.lists(st.builds(EndpointLearned, st.text(max_size=60), LOGARITHMS, COUNTS, WORKERS, SECONDS)).map(tuple),
    st.lists(KINDS).map(tuple),
    st.none() | KINDS,
    st.booleans(),
)
NAMES = st.frozensets(st.text(max_size=30))
NUMBERS = st.integers(0, 10**9)
STATUSES = st.fixed_dictionaries(
    {"version": st.text(max_size=9), "started": NUMBERS, "strategy": st.text(max_size=9)}
    | {"endpoints": NUMBERS, "eligible": NUMBERS}
    | {"second": st.none() | st.fixed_dictionaries({"requests": NUMBERS, "latency": st.lists(st.none() | NUMBERS)})}
    | {"latency_counts": st.dictionaries(st.integers(0, 50).map(str), NUMBERS)}
)
IN_FLIGHT = st.dictionaries(st.text(max_size=30), st.integers(0, 2**31 - 1))
SOME_INTENTS = [
    Intent(),
    Intent(1.0, "round-robin"),
    Intent(1.0, "a", {"a:80": Wish(2.0, True, "uid"), "b:80": Wish(3.0, False), "c:80": Wish(0.5, True)}),
]
REPORTS = st.builds(
    Report,
    replica=st.text(min_size=1, max_size=60),
    in_flight=IN_FLIGHT,
    ejected=st.none() | NAMES,
    delay=st.none() | st.integers(0, 10**9).map(lambda micros: round(micros / 1e6, 6)),
    intent=st.none() | st.sampled_from(SOME_INTENTS),
    status=st.none() | STATUSES,
    whole=st.booleans(),
    answer=st.booleans(),
    next_within=st.none() | st.sampled_from([0.5, 1.0, 3.0]),
    learned=st.none() | LEARNED,
    lasting=IN_FLIGHT,
    work=IN_FLIGHT,
    bound=st.none() | st.builds(Bound, st.sampled_from([1.0, 3.75, 1024.0]), st.integers(0, 10**6)),
)


@given(REPORTS)
def test_a_report_is_read_as_it_was_said(report: Report) -> None:
    assert decode(report.encode()) == report


def test_a_delay_is_added_to_what_is_written_once_for_all() -> None:
    report = Report("a", {"b": 1}, next_within=3.0)
    assert decode(delayed(report.encode(), 0.0125)) == replace(report, delay=0.0125)


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(BadReport):
        decode(text.encode())


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ({"v": 2, "replica": "a"}, "version 2"),
        ({"v": "x" * 10_000, "replica": "a"}, "version 'x{19}, this"),
        ({"v": 1}, "no replica's name"),
        ({"v": 1, "replica": "\ud800"}, "no replica's name"),  # No metric could name it.
        ({"v": 1, "replica": "a", "in_flight": {"b": -1}}, "no count"),
        ({"v": 1, "replica": "a", "in_flight": {"b": True}}, "no count"),
        ({"v": 1, "replica": "a", "in_flight": []}, "no object"),
        ({"v": 1, "replica": "a", "ejected": [1]}, "no list of names"),
        ({"v": 1, "replica": "a", "delay": "soon"}, "delay"),
        ({"v": 1, "replica": "a", "next": 1000}, "next"),
        ({"v": 1, "replica": "a", "intent": {"at": 1}}, "intent"),
    ],
)
def test_a_refusal_names_the_fault(message: object, fault: str) -> None:
    with pytest.raises(BadReport, match=fault):
        decode(json.dumps(message).encode())


def test_a_newer_replica_may_say_more() -> None:
    message = json.loads(Report("a", {"b": 1}).encode()) | {"pace": {"b": 2.0}}
    assert decode(json.dumps(message).encode()) == Report("a", {"b": 1})


@pytest.mark.parametrize(
    "status",
    [1, {}, {"version": "1"}]
    + [
        {"version": "1", "strategy": "", "started": 0, "endpoints": 0, "eligible": 0} | bad
        for bad in (
            {"second": {"requests": {"a": "b"}}},
            {"latency_counts": {"a": 1}},
            {"latency_counts": {"9" * 5000: 1}},
            {"started": -1},
        )
    ],
)
def test_a_status_that_cannot_be_read_costs_no_news(status: object) -> None:
    message = json.loads(Report("a", {"b": 1}).encode()) | {"status": status}
    assert decode(json.dumps(message).encode()) == Report("a", {"b": 1})


@pytest.mark.parametrize(
    "bad",
    [
        {"typical": "0"},
        {"typical": float("nan")},
        {"typical": 51},
        {"key": None},
        {"key": "k" * 5000},
        {"costs": [1.0, 0.0, 1.0, 1.0, 40]},
        {"costs": [0.5, 0.0, 1.0, 1.0, 40, True]},
        {"costs": [5000.0, 0.0, 1.0, 1.0, 40, True]},
        {"costs": [1.0, 0.0, -1.0, 1.0, 40, True]},
        {"costs": [1.0, 0.0, 1.0, 1.0, 40, "yes"]},
        {"endpoints": {"a:80": 1.0}},
        {"endpoints": [["a:80", float("inf"), 5, 0.0, 1.0]]},
        {"endpoints": [["a:80", 0.0, -5, 0.0, 1.0]]},
        {"endpoints": [["a:80", 0.0, 5.5, 0.0, 1.0]]},
        {"endpoints": [["a:80", 0.0, True, 0.0, 1.0]]},
        {"endpoints": [[80, 0.0, 5, 0.0, 1.0]]},
        {"endpoints": [["a:80", 0.0, 5, 0.0, 1.0]] * 500},
        {"kinds": [["GET /", "", 0.0, 1.0, 5, False]]},
        {"kinds": [["GET /", "", 1e-200, 1.0, 5, False]]},  # Its square is 0, by which the spread is divided.
        {"kinds": [["GET /", "", 1.0, 1e-200, 5, False]]},
        {"kinds": [["GET /", "", 1.0, float("nan"), 5, False]]},
        {"kinds": [["GET /", None, 1.0, 1.0, 5, False]]},
        {"kinds": [["G" * 300, "", 1.0, 1.0, 5, False]]},
        {"kinds": [["GET /", "", 1.0, 1.0, 10**30, False]]},
        {"all": []},
        {"all": 5},
    ],
)
def test_what_was_learned_and_cannot_be_read_costs_no_news(bad: dict[str, object]) -> None:
    good = {"key": "", "typical": 0.0}
    message = json.loads(Report("a", {"b": 1}).encode())
    assert decode(json.dumps(message | {"learned": good}).encode()).learned == Learned("", 0.0)
    assert decode(json.dumps(message | {"learned": good | bad}).encode()) == Report("a", {"b": 1})
    assert decode(json.dumps(message | {"learned": [bad]}).encode()) == Report("a", {"b": 1})


def test_a_report_and_an_answer_are_told_apart() -> None:
    assert is_report(Report("a").encode())
    assert not is_report(answer("a"))


def test_an_answer_says_who_answers_and_an_older_one_does_not() -> None:
    assert answered_by(answer("lb-1")) == "lb-1"
    assert [answered_by(text) for text in (b"{}", b"[]", b"", b'{"replica": 1}', b"\xff")] == [""] * 5


@given(st.text(min_size=1, max_size=60), IN_FLIGHT, IN_FLIGHT, IN_FLIGHT)
def test_what_changes_alone_is_written_as_any_report(
    replica: str, in_flight: dict[str, int], lasting: dict[str, int], work: dict[str, int]
) -> None:
    assert changes(replica, in_flight, lasting, work) == Report(replica, in_flight, lasting=lasting, work=work).encode()


def test_no_bound_is_beyond_what_endpoints_are_believed_to_work_on() -> None:
    report = decode(b'{"v":1,"replica":"a","bound":[1e11,900000000000]}')
    assert report.bound is not None
    assert report.bound.workers == 1024.0


def test_more_work_than_is_counted_costs_no_news() -> None:
    assert (microseconds(0.004), microseconds(1e9)) == (4000, LARGEST)
    report = Report("a", {"b": 100}, work={"b": microseconds(1e9)})
    assert decode(report.encode()) == report


@pytest.mark.parametrize("bound", [7, [], [1], [1, "2"], [1, 2, 3], {"workers": 1}, [-1, 2]])
def test_a_bound_that_cannot_be_read_costs_no_news(bound: object) -> None:
    message = {"v": 1, "replica": "a", "in_flight": {"b": 1}, "bound": bound}
    assert decode(json.dumps(message).encode()) == Report("a", {"b": 1})
