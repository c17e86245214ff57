"""Who is in the fleet, as people are told: nobody who should be there goes unmentioned."""

from __future__ import annotations

from dataclasses import dataclass

from balancer.peers.roster import LEFT, LIVE, REFUSED, REMEMBERED, SILENT, UNREACHABLE, Roster


@dataclass
class Link:
    address: str
    peer: str = ""
    problem: str = ""


def told(roster: Roster, now: float, *links: Link) -> list[tuple[str, str, str]]:
    return [(member.name or member.address, member.state, member.problem) for member in roster.members(links, now)]


def test_one_that_reports_is_live_and_one_that_hangs_is_silent_and_says_why() -> None:
    roster = Roster()
    roster.heard("b", None, 0.0)
    assert told(roster, 1.0, Link("10.0.0.2:8081", "b")) == [("b", LIVE, "")]
    assert told(roster, 3.0, Link("10.0.0.2:8081", "b"))[0][1] == SILENT
    roster.left("b", 3.0)
    hangs = Link("10.0.0.2:8081", "b", "no answer within 5 s")
    assert told(roster, 500.0, hangs) == [("b", SILENT, "no answer within 5 s")]
    roster.heard("b", None, 501.0)
    assert told(roster, 501.0, Link("10.0.0.2:8081", "b")) == [("b", LIVE, "")]


def test_one_that_left_is_told_of_for_a_while() -> None:
    roster = Roster()
    roster.heard("b", None, 0.0)
    roster.left("b", 1.0)
    assert told(roster, 2.0) == [("b", LEFT, "")]
    assert told(roster, 2.0 + REMEMBERED) == []


def test_one_that_was_never_heard_is_told_of_by_its_address_or_name() -> None:
    roster = Roster()
    links = [Link("10.0.0.2:8081", problem="refused"), Link("10.0.0.3:8081", "c"), Link("10.0.0.4:8081")]
    assert told(roster, 0.0, *links) == [
        ("c", UNREACHABLE, "it is reached, but has not reported here"),
        ("10.0.0.2:8081", UNREACHABLE, "refused"),
    ]


def test_one_whose_reports_cannot_be_read_is_refused_until_they_can() -> None:
    roster = Roster()
    roster.refused("b", "format version 2", 0.0)
    assert told(roster, 1.0) == [("b", REFUSED, "format version 2")]
    roster.heard("b", None, 2.0)
    assert told(roster, 2.0) == [("b", LIVE, "")]
