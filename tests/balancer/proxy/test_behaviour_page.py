"""docs/behaviour.md names tests and metrics: each must exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from balancer.admin.metrics import METRICS

PAGE = Path(__file__).parents[3] / "docs" / "behaviour.md"
ROWS = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| When")]


def shown_by(row: str) -> Iterator[tuple[str, str]]:
    """File and beginning of the name of each test in a row's last column."""
    cell = re.sub(r"\(.*?\)", "", row.strip(" |").rpartition("|")[2])
    for part in cell.split(";"):
        file, colon, names = part.partition(":")
        assert colon, f"no test is named: {row}"
        for name in names.split(","):
            yield file.strip(), name.strip()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:40])
def test_every_behaviour_names_tests_and_metrics_that_exist(row: str) -> None:
    for file, name in shown_by(row):
        source = (Path(__file__).parent / re.sub(r"([^/]+)$", r"test_\1.py", file)).read_text()
        assert f"def test_{name}" in source, f"{file}: no test begins with {name!r}"
    known = {metric.name for metric in METRICS}
    named = set(re.findall(r"`(lb_\w+)", row))
    assert named <= known, named - known


def test_the_page_has_a_row_for_each_file_of_the_wire() -> None:
    files = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    told = {file for row in ROWS for file, _ in shown_by(row)}
    assert files - told <= {"behaviour_page", "harness", "timers"}
