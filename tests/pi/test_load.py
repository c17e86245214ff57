"""The load that the service reports with each response."""

from __future__ import annotations

import re

from pi.load import Load


def numbers(report: str) -> dict[str, float]:
    form, _, rest = report.partition(" ")
    assert form == "TEXT"
    return {key: float(value) for key, value in (pair.split("=") for pair in rest.split(","))}


def test_nothing_asked_is_no_load() -> None:
    assert numbers(Load(2, 0.0).report(100.0)) == {"application_utilization": 0.0, "rps_fractional": 0.0}


def test_one_of_two_workers_always_busy_is_half() -> None:
    load, now = Load(2, 0.0), 0.0
    for _ in range(200):
        load.began(now)
        now += 0.1
        load.ended(now, failed=False)
    said = numbers(load.report(now))
    assert abs(said["application_utilization"] - 0.5) < 0.02
    assert abs(said["rps_fractional"] - 10) < 1
    assert "eps" not in said


def test_failures_are_told_and_forgotten() -> None:
    load, now = Load(1, 0.0), 0.0
    for number in range(100):
        load.began(now)
        now += 0.1
        load.ended(now, failed=number % 2 == 0)
    assert abs(numbers(load.report(now))["eps"] - 5) < 1
    assert re.fullmatch(r"TEXT application_utilization=0.000,rps_fractional=0.000", load.report(now + 60))
